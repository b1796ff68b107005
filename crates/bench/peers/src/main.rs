//! Public relays compared with beacon-relay: the same machine, the same sizes, in turn.
//!
//! The costs are those of `beacon-bench`: what proc(5) says of the server's process, for each
//! packet that arrived.

mod closed_loop;
mod coturn;
mod iroh;
mod ours;
mod server;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use beacon_bench::Common;
use beacon_bench::closed_loop::{Figures, median};
use beacon_bench::report::{Report, Value};
use beacon_bench::tls::CIPHER;
use clap::Parser;

use crate::closed_loop::Load;
use crate::ours::{FLOORS, RELAY_TLS};
use crate::server::Channel;

const IROH: &str = "iroh-relay 1.4.1";
const IROH_BATCHES: &str = "iroh-relay 1.4.1, 10 a frame";
const IROH_TLS: &str = "iroh-relay 1.4.1, TLS";
const IROH_TLS_BATCHES: &str = "iroh-relay 1.4.1, TLS, 10 a frame";

/// The size that limits speak of, in bytes.
const LIMITED: usize = 1_200;

/// Datagrams that iroh's QUIC hands over together, and its clients put into one frame.
const IROH_BATCH: u64 = 10;

/// Connections of the two tables about connections.
const LOGINS: u32 = 1_000;
const IDLE: u32 = 2_000;

/// Measures public relays on this machine, and beacon-relay in turn with them.
#[derive(Debug, Parser)]
struct Args {
    /// The beacon-bench that measures beacon-relay and the floor in turn with the others
    #[arg(long, value_name = "PROGRAM")]
    beacon_bench: Option<String>,
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "wss,wss-tls,udp,login,tls-login,idle,tls-idle"
    )]
    scenario: Vec<Scenario>,
    /// Sizes of the payload, in bytes
    #[arg(
        long,
        value_parser = beacon_bench::size,
        value_delimiter = ',',
        value_name = "BYTES",
        default_value = "1200,64"
    )]
    size: Vec<usize>,
    #[command(flatten)]
    common: Common,
    /// Give up after so many seconds
    #[arg(long, value_parser = beacon_bench::seconds, value_name = "S", default_value_t = 3_600)]
    limit: u64,
    /// Be iroh-relay's server (the benchmark starts it itself)
    #[arg(long, hide = true)]
    serve_iroh: bool,
    /// The folder with the certificate of that server
    #[arg(long, hide = true)]
    certificate: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Scenario {
    /// Packets over WebSocket: iroh-relay
    Wss,
    /// Packets over WebSocket with TLS: iroh-relay, and Caddy in front of the relay
    WssTls,
    /// Packets over UDP: coturn
    Udp,
    /// A connection with its login: iroh-relay
    Login,
    /// A TLS connection with its login: iroh-relay
    TlsLogin,
    /// Memory of connections that do nothing: iroh-relay
    Idle,
    /// Memory of TLS connections that do nothing: iroh-relay
    TlsIdle,
}

fn main() -> ExitCode {
    let args: Args = beacon_bench::parse();
    let limit = args.limit;
    let done = if args.serve_iroh {
        iroh::serve(args.certificate.as_deref())
    } else {
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(limit));
            eprintln!("bench-peers: not done after {limit} s");
            // The servers end with this process.
            std::process::exit(1);
        });
        run(&args)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and prints each row as soon as it is known.
///
/// # Errors
/// A server that does not start or does not carry the load, an output that is closed.
fn run(args: &Args) -> anyhow::Result<()> {
    let mut report = Report::new(io::stdout().lock(), args.common.json, 34);
    for scenario in &args.scenario {
        match scenario {
            Scenario::Wss => args.wss(Channel::Plain, &mut report)?,
            Scenario::WssTls => args.wss(Channel::Tls, &mut report)?,
            Scenario::Udp => args.udp(&mut report)?,
            Scenario::Login => args.login(Channel::Plain, &mut report)?,
            Scenario::TlsLogin => args.login(Channel::Tls, &mut report)?,
            Scenario::Idle => args.idle(Channel::Plain, &mut report)?,
            Scenario::TlsIdle => args.idle(Channel::Tls, &mut report)?,
        }
    }
    Ok(())
}

type Rows<'a> = Report<io::StdoutLock<'a>>;

/// One measurement of one server or more, each by its name.
type Measure<'a, T> = Box<dyn Fn() -> anyhow::Result<Vec<(String, T)>> + 'a>;

impl Args {
    fn wss(&self, channel: Channel, report: &mut Rows<'_>) -> anyhow::Result<()> {
        let [one, ten] = match channel {
            Channel::Plain => [IROH, IROH_BATCHES],
            Channel::Tls => [IROH_TLS, IROH_TLS_BATCHES],
        };
        for load in self.loads() {
            let iroh: Measure<'_, Figures> =
                Box::new(|| Ok(vec![(one.to_owned(), iroh::throughput(&load, 1, channel)?)]));
            let batches: Measure<'_, Figures> = Box::new(|| {
                Ok(vec![(ten.to_owned(), iroh::throughput(&load, IROH_BATCH, channel)?)])
            });
            let cell = ("WSS→WSS", "wss-wss", channel);
            self.throughput(cell, &load, vec![iroh, batches], report)?;
        }
        Ok(())
    }

    fn udp(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        let name = format!("coturn {}", coturn::version()?);
        for load in self.loads() {
            let coturn: Measure<'_, Figures> =
                Box::new(|| Ok(vec![(name.clone(), coturn::throughput(&load)?)]));
            let cell = ("UDP→UDP", "udp-udp", Channel::Plain);
            self.throughput(cell, &load, vec![coturn], report)?;
        }
        Ok(())
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        let Common { pairs, window, .. } = self.common;
        let time = self.common.time();
        self.size.iter().map(move |size| Load { pairs, size: *size, window, time })
    }

    fn throughput<'a>(
        &'a self,
        (cell, word, channel): (&'static str, &'static str, Channel),
        load: &'a Load,
        mut measures: Vec<Measure<'a, Figures>>,
        report: &mut Rows<'_>,
    ) -> anyhow::Result<()> {
        if let Some(program) = &self.beacon_bench {
            measures.insert(0, Box::new(move || ours::throughput(program, word, channel, load)));
        }
        let figures = self.in_turn(&measures)?;
        let cost = |figures: &Figures| figures.cpu_us_per_packet;
        let floor = figures.iter().find(|(server, _)| FLOORS.contains(&server.as_str()));
        let floor = floor.map(|(_, runs)| cost(median(runs, cost)));
        for (server, runs) in &figures {
            let figures = median(runs, cost);
            let (least, most) = range(runs, cost);
            let mut columns = vec![
                ("cell", Value::Text(cell.to_owned())),
                ("bytes", Value::Count(load.size as u64)),
                ("pairs", Value::Count(load.pairs.into())),
                ("server", Value::Text(server.clone())),
                ("packets/s", Value::Number(figures.packets_per_second, 0)),
                ("µs/packet", Value::Number(figures.cpu_us_per_packet, 3)),
                ("least", Value::Number(least, 3)),
                ("most", Value::Number(most, 3)),
                ("switches", Value::Number(figures.switches_per_packet, 4)),
                ("loss %", Value::Number(figures.loss_percent, 2)),
                ("memory MB", Value::Number(figures.memory_mb, 1)),
            ];
            if let Some(floor) = floor {
                columns.push(("× floor", Value::Number(figures.cpu_us_per_packet / floor, 2)));
            }
            match channel {
                Channel::Plain => report.row("throughput", &columns)?,
                Channel::Tls => {
                    columns.insert(3, ("window", Value::Count(load.window)));
                    report.row(&format!("throughput with TLS 1.3, {CIPHER}"), &columns)?;
                }
            }
        }
        let relay = figures.iter().find(|(server, _)| server == RELAY_TLS);
        if let Some((_, runs)) = relay.filter(|_| load.size == LIMITED) {
            let relay = cost(median(runs, cost));
            for (server, runs) in figures.iter().filter(|(server, _)| server.starts_with(IROH)) {
                let ratio = relay / cost(median(runs, cost));
                let what = format!("WSS→WSS with TLS, 1,200 bytes, × {server}");
                report.row(
                    "limits",
                    &[
                        ("measured", Value::Number(ratio, 3)),
                        ("at most", Value::Number(1.0, 3)),
                        ("kept", Value::Text(if ratio < 1.0 { "yes" } else { "no" }.to_owned())),
                        ("what", Value::Text(what)),
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn login(&self, channel: Channel, report: &mut Rows<'_>) -> anyhow::Result<()> {
        let (table, iroh) = match channel {
            Channel::Plain => ("login", IROH),
            Channel::Tls => ("login with TLS 1.3, whole handshakes", IROH_TLS),
        };
        let mut measures: Vec<Measure<'_, f64>> =
            vec![Box::new(|| Ok(vec![(iroh.to_owned(), iroh::login_us(LOGINS, channel)?)]))];
        if let Some(program) = &self.beacon_bench {
            measures.insert(0, Box::new(|| ours::login_us(program, channel)));
        }
        self.each(table, ("logins", LOGINS), ("µs each", 1), &measures, report)
    }

    fn idle(&self, channel: Channel, report: &mut Rows<'_>) -> anyhow::Result<()> {
        let iroh = match channel {
            Channel::Plain => IROH,
            Channel::Tls => IROH_TLS,
        };
        let mut measures: Vec<Measure<'_, f64>> =
            vec![Box::new(|| Ok(vec![(iroh.to_owned(), iroh::idle_bytes(IDLE, channel)?)]))];
        if let Some(program) = &self.beacon_bench {
            measures.insert(0, Box::new(|| ours::idle_bytes(program, channel, IDLE)));
        }
        let connections = ("connections", IDLE);
        self.each("idle connections", connections, ("bytes each", 0), &measures, report)
    }

    /// One row for each server, of one figure for each of `count`.
    fn each(
        &self,
        table: &'static str,
        (counted, count): (&'static str, u32),
        (figure, decimals): (&'static str, usize),
        measures: &[Measure<'_, f64>],
        report: &mut Rows<'_>,
    ) -> anyhow::Result<()> {
        for (server, runs) in self.in_turn(measures)? {
            let (least, most) = range(&runs, |value| *value);
            report.row(
                table,
                &[
                    ("server", Value::Text(server)),
                    (counted, Value::Count(count.into())),
                    (figure, Value::Number(*median(&runs, |value| *value), decimals)),
                    ("least", Value::Number(least, decimals)),
                    ("most", Value::Number(most, decimals)),
                ],
            )?;
        }
        Ok(())
    }

    /// Measures all in turn, so that a slow moment of the machine meets every server.
    fn in_turn<T>(&self, measures: &[Measure<'_, T>]) -> anyhow::Result<Vec<(String, Vec<T>)>> {
        let mut figures: Vec<(String, Vec<T>)> = Vec::new();
        for _ in 0..self.common.runs {
            for measure in measures {
                for (server, figure) in measure()? {
                    match figures.iter_mut().find(|(known, _)| *known == server) {
                        Some((_, runs)) => runs.push(figure),
                        None => figures.push((server, vec![figure])),
                    }
                }
            }
        }
        Ok(figures)
    }
}

fn range<T>(runs: &[T], key: impl Fn(&T) -> f64) -> (f64, f64) {
    let least = runs.iter().map(&key).fold(f64::INFINITY, f64::min);
    (least, runs.iter().map(&key).fold(f64::NEG_INFINITY, f64::max))
}
