//! `beacon-relay bench`: a load in a process of its own, against this relay and against the
//! floor, side by side in one run.
//!
//! The servers are measured from outside, by what proc(5) says of them. Absolute figures
//! depend on the machine; what is to be quoted is the ratio to the floor.

mod connections;
mod crowd;
mod floor;
mod growth;
mod latency;
mod peer;
mod process;
mod report;
mod stuck;
mod subject;
mod throughput;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use rustix::process::{Resource, getrlimit};

use self::latency::{Latency, Rate};
use self::report::{Report, Value, progress};
use self::subject::Kind;
use self::throughput::{Figures, Load};

/// What `bench` is told.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "throughput,latency,cluster,login,idle,stuck,growth,pairs,crowd,fan-in"
    )]
    scenario: Vec<Scenario>,
    /// Cells of throughput and latency
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "CELL",
        default_value = "wss-wss,wss-udp,udp-wss,udp-udp"
    )]
    cell: Vec<Cell>,
    /// Sizes of the payload for throughput, in bytes
    #[arg(long, value_delimiter = ',', value_name = "BYTES", default_value = "64,256,1200,16384")]
    size: Vec<usize>,
    /// Pairs of a sender and a receiver
    #[arg(long, value_name = "N", default_value_t = 8)]
    pairs: u32,
    /// Packets of each pair in flight
    #[arg(long, value_name = "N", default_value_t = 256)]
    window: u64,
    /// Length of each measurement, in seconds
    #[arg(long, value_name = "S", default_value_t = 2)]
    seconds: u64,
    /// Measurements of each, servers in turn; the median is shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Most WebSocket peers [default: what the descriptor limit allows, at most 19000]
    #[arg(long, value_name = "N")]
    peers: Option<u32>,
    /// Most UDP nodes of `growth`
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    nodes: u32,
    /// Print one JSON object for each row
    #[arg(long)]
    json: bool,
    /// Write the JSON rows to this file as well
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Be the floor (the benchmark starts it itself)
    #[arg(long, hide = true)]
    serve_floor: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Scenario {
    /// Packets in a closed loop: CPU time for each, beside the floor
    Throughput,
    /// Packets in an open loop: time under way, beside the floor
    Latency,
    /// Time under way through a second relay of a cluster, beside one relay alone
    Cluster,
    /// A connection with its login, beside the floor
    Login,
    /// Memory of connections that do nothing
    Idle,
    /// Healthy pairs beside readers that never read
    Stuck,
    /// Active pairs among many peers and nodes that do nothing
    Growth,
    /// More and more pairs, all active, beside the floor
    Pairs,
    /// Senders whose packets go to many peers, chosen by Zipf's law
    Crowd,
    /// Senders whose packets all go to one peer
    FanIn,
}

/// Where packets come in and go out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Cell {
    WssWss,
    WssUdp,
    UdpWss,
    UdpUdp,
}

/// One side of a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Wss,
    Udp,
}

impl Cell {
    const fn ways(self) -> (Way, Way) {
        match self {
            Self::WssWss => (Way::Wss, Way::Wss),
            Self::WssUdp => (Way::Wss, Way::Udp),
            Self::UdpWss => (Way::Udp, Way::Wss),
            Self::UdpUdp => (Way::Udp, Way::Udp),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::WssWss => "WSS→WSS",
            Self::WssUdp => "WSS→UDP",
            Self::UdpWss => "UDP→WSS",
            Self::UdpUdp => "UDP→UDP",
        }
    }
}

/// Measures, and prints each row as soon as it is known.
///
/// # Errors
/// A server that does not start, a peer that is not let in, an output that is closed.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.serve_floor {
        return floor::run().context("the floor has ended");
    }
    let rows = args.rows.as_ref().map(|path| {
        File::create(path).with_context(|| format!("cannot write --rows {}", path.display()))
    });
    let mut report = Report::new(io::stdout().lock(), args.json, rows.transpose()?);
    for scenario in &args.scenario {
        match scenario {
            Scenario::Throughput => args.throughput(&mut report)?,
            Scenario::Latency => args.latency(&mut report)?,
            Scenario::Cluster => args.cluster(&mut report)?,
            Scenario::Login => args.login(&mut report)?,
            Scenario::Idle => args.idle(&mut report)?,
            Scenario::Stuck => args.stuck(&mut report)?,
            Scenario::Growth => args.growth(&mut report)?,
            Scenario::Pairs => args.pairs(&mut report)?,
            Scenario::Crowd => args.crowd(&mut report, &[10, 100, 1_000, args.peers()])?,
            Scenario::FanIn => args.crowd(&mut report, &[1])?,
        }
    }
    Ok(())
}

type Rows<'a> = Report<io::StdoutLock<'a>>;

impl Args {
    fn load(&self, cell: Cell, size: usize) -> Load {
        let time = Duration::from_secs(self.seconds);
        Load { cell, pairs: self.pairs, size, window: self.window, time }
    }

    /// Measures relay and floor in turn, so that a slow moment of the machine meets both.
    fn in_turn<T>(
        &self,
        measure: impl Fn(Kind) -> anyhow::Result<T>,
        key: impl Fn(&T) -> f64,
    ) -> anyhow::Result<[(Kind, T); 2]> {
        let (mut relay, mut floor) = (Vec::new(), Vec::new());
        for run in 1..=self.runs.max(1) {
            progress(&format!("measuring: run {run} of {}", self.runs));
            relay.push(measure(Kind::Relay)?);
            floor.push(measure(Kind::Floor)?);
        }
        Ok([(Kind::Relay, median(relay, &key)), (Kind::Floor, median(floor, &key))])
    }

    fn throughput(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        for cell in &self.cell {
            for size in &self.size {
                self.beside_floor("throughput", &self.load(*cell, *size), report)?;
            }
        }
        Ok(())
    }

    fn pairs(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        for pairs in [8, 32, 64, 128, 256] {
            let load = Load { pairs, ..self.load(Cell::WssWss, 1_200) };
            self.beside_floor("all pairs active", &load, report)?;
        }
        Ok(())
    }

    fn beside_floor(
        &self,
        table: &'static str,
        load: &Load,
        report: &mut Rows<'_>,
    ) -> anyhow::Result<()> {
        let measure = |kind| throughput::run(kind, load);
        let figures = self.in_turn(measure, |figures| figures.cpu_us_per_packet)?;
        let [_, (_, floor)] = figures;
        for (kind, figures) in figures {
            let ratio = figures.cpu_us_per_packet / floor.cpu_us_per_packet;
            let mut columns = load_columns(load, kind);
            columns.extend(figure_columns(&figures));
            columns.push(("× floor", Value::Number(ratio, 2)));
            report.row(table, &columns)?;
        }
        Ok(())
    }

    const fn rate(&self, cell: Cell) -> Rate {
        let time = Duration::from_secs(self.seconds);
        Rate { cell, pairs: self.pairs, size: 200, per_second: 200, time }
    }

    fn cluster(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        for cell in &self.cell {
            let (mut alone, mut across) = (Vec::new(), Vec::new());
            for run in 1..=self.runs.max(1) {
                progress(&format!("measuring: run {run} of {}", self.runs));
                alone.push(latency::run(Kind::Relay, &self.rate(*cell))?);
                across.push(latency::across(&self.rate(*cell))?);
            }
            let [alone, across] = [alone, across].map(|runs| median(runs, |l| l.p50_us));
            report.row(
                "through a second relay of a cluster, on one machine",
                &[
                    ("cell", Value::Text(cell.word())),
                    ("p50 µs alone", Value::Number(alone.p50_us, 1)),
                    ("p50 µs across", Value::Number(across.p50_us, 1)),
                    ("p99 µs across", Value::Number(across.p99_us, 1)),
                    ("added p50 µs", Value::Number(across.p50_us - alone.p50_us, 1)),
                    ("loss %", Value::Number(across.loss_percent, 2)),
                ],
            )?;
        }
        Ok(())
    }

    fn latency(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        for cell in &self.cell {
            let rate = self.rate(*cell);
            let figures = self.in_turn(|kind| latency::run(kind, &rate), |l| l.p50_us)?;
            let [_, (_, floor)] = figures;
            for (kind, Latency { p50_us, p99_us, max_us, late_percent, loss_percent }) in figures {
                report.row(
                    "latency: 8 pairs, 200 packets a second each, 200 bytes",
                    &[
                        ("cell", Value::Text(cell.word())),
                        ("server", Value::Text(kind.word())),
                        ("p50 µs", Value::Number(p50_us, 1)),
                        ("p99 µs", Value::Number(p99_us, 1)),
                        ("max µs", Value::Number(max_us, 1)),
                        ("late %", Value::Number(late_percent, 2)),
                        ("loss %", Value::Number(loss_percent, 2)),
                        ("× floor", Value::Number(p50_us / floor.p50_us, 2)),
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn login(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        const LOGINS: u32 = 1_000;
        let figures = self.in_turn(|kind| connections::logins(kind, LOGINS), |l| l.cpu_us_each)?;
        let verification = connections::verification_us();
        let [_, (_, floor)] = figures;
        for (kind, login) in figures {
            let allowed = floor.cpu_us_each + verification + 20.0;
            report.row(
                "login",
                &[
                    ("server", Value::Text(kind.word())),
                    ("logins", Value::Count(login.logins.into())),
                    ("µs each", Value::Number(login.cpu_us_each, 1)),
                    ("one verification µs", Value::Number(verification, 1)),
                    ("floor + verification + 20 µs", Value::Number(allowed, 1)),
                ],
            )?;
        }
        Ok(())
    }

    fn idle(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        for count in [2_000, self.peers().min(10_000)] {
            let idle = connections::idle(Kind::Relay, count)?;
            report.row(
                "idle connections",
                &[
                    ("server", Value::Text(Kind::Relay.word())),
                    ("connections", Value::Count(idle.connections.into())),
                    ("bytes each", Value::Number(idle.bytes_each, 0)),
                ],
            )?;
        }
        Ok(())
    }

    fn stuck(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        let load = self.load(Cell::WssWss, 1_200);
        let mut runs = Vec::new();
        for run in 1..=self.runs.max(1) {
            progress(&format!("measuring: run {run} of {}", self.runs));
            runs.push(stuck::run(&load)?);
        }
        let stuck = median(runs, |stuck| stuck.left_percent);
        report.row(
            "healthy pairs beside 8 readers that never read",
            &[
                ("pairs", Value::Count(load.pairs.into())),
                ("packets/s beside absent", Value::Number(stuck.beside_absent, 0)),
                ("packets/s beside stuck", Value::Number(stuck.beside_stuck, 0)),
                ("left %", Value::Number(stuck.left_percent, 1)),
                ("memory MB", Value::Number(megabytes(stuck.anonymous_bytes), 1)),
                ("kernel TCP MB", Value::Number(megabytes(stuck.kernel_bytes), 1)),
            ],
        )?;
        Ok(())
    }

    /// Most WebSocket peers: the load and the server each need a descriptor for every one,
    /// and some for themselves.
    fn peers(&self) -> u32 {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let allowed = u32::try_from(limit.saturating_sub(1_000)).unwrap_or(u32::MAX);
        self.peers.unwrap_or_else(|| allowed.min(19_000))
    }

    fn crowd(&self, report: &mut Rows<'_>, receivers: &[u32]) -> anyhow::Result<()> {
        for receivers in receivers {
            let load = self.load(Cell::WssWss, 1_200);
            let mut runs = Vec::new();
            for run in 1..=self.runs.max(1) {
                progress(&format!("measuring: run {run} of {}", self.runs));
                runs.push(crowd::run(Kind::Relay, &load, *receivers)?);
            }
            let figures = median(runs, |figures| figures.cpu_us_per_packet);
            let mut columns = vec![
                ("senders", Value::Count(load.pairs.into())),
                ("receivers", Value::Count((*receivers).into())),
                ("bytes", Value::Count(load.size as u64)),
            ];
            columns.extend(figure_columns(&figures));
            report.row("senders to many receivers, chosen by Zipf's law", &columns)?;
        }
        Ok(())
    }

    fn growth(&self, report: &mut Rows<'_>) -> anyhow::Result<()> {
        let counts = |most: u32| {
            let steps = [10, 100, 1_000, 10_000, 100_000];
            steps.into_iter().filter(move |step| *step < most).chain([most])
        };
        let load = self.load(Cell::WssWss, 1_200);
        self.among("among idle WSS peers", counts(self.peers()), report, |count| {
            growth::among_wss(&load, count)
        })?;
        let load = self.load(Cell::UdpUdp, 1_200);
        self.among("among idle UDP nodes", counts(self.nodes), report, |count| {
            growth::among_udp(&load, count)
        })
    }

    fn among(
        &self,
        table: &'static str,
        counts: impl Iterator<Item = u32>,
        report: &mut Rows<'_>,
        measure: impl Fn(u32) -> anyhow::Result<Figures>,
    ) -> anyhow::Result<()> {
        let mut first = None;
        for count in counts {
            let mut runs = Vec::new();
            for run in 1..=self.runs.max(1) {
                progress(&format!("measuring: run {run} of {}", self.runs));
                runs.push(measure(count)?);
            }
            let figures = median(runs, |figures| figures.cpu_us_per_packet);
            let first = *first.get_or_insert(figures.cpu_us_per_packet);
            let mut columns = vec![("idle", Value::Count(count.into()))];
            columns.extend(figure_columns(&figures));
            columns.push(("× fewest", Value::Number(figures.cpu_us_per_packet / first, 2)));
            report.row(table, &columns)?;
        }
        Ok(())
    }
}

fn load_columns(load: &Load, kind: Kind) -> Vec<(&'static str, Value)> {
    vec![
        ("cell", Value::Text(load.cell.word())),
        ("bytes", Value::Count(load.size as u64)),
        ("pairs", Value::Count(load.pairs.into())),
        ("server", Value::Text(kind.word())),
    ]
}

fn figure_columns(figures: &Figures) -> Vec<(&'static str, Value)> {
    vec![
        ("packets/s", Value::Number(figures.packets_per_second, 0)),
        ("µs/packet", Value::Number(figures.cpu_us_per_packet, 3)),
        ("switches", Value::Number(figures.switches_per_packet, 4)),
        ("loss %", Value::Number(figures.loss_percent, 2)),
        ("memory MB", Value::Number(megabytes(figures.anonymous_bytes), 1)),
    ]
}

fn megabytes(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // far below 2^53
    let bytes = bytes as f64;
    bytes / 1e6
}

/// The run whose key is in the middle.
fn median<T>(mut runs: Vec<T>, key: impl Fn(&T) -> f64) -> T {
    runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}
