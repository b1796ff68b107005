//! `beacon-relay bench`: a load in a process of its own, against this relay and against the
//! floor, side by side in one run.
//!
//! The servers are measured from outside, by what proc(5) says of them. Absolute figures
//! depend on the machine; what is to be quoted is the ratio to the floor.

mod floor;
mod peer;
mod process;
mod subject;
mod throughput;

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;

use self::subject::Kind;
use self::throughput::{Figures, Load};

/// What `bench` is told.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    /// Cells to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "wss-wss,udp-udp,wss-udp,udp-wss"
    )]
    cell: Vec<Cell>,
    /// Sizes of the payload, in bytes
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "1200,64")]
    size: Vec<usize>,
    /// Pairs of a sender and a receiver
    #[arg(long, value_name = "N", default_value_t = 8)]
    pairs: u32,
    /// Packets of each pair in flight
    #[arg(long, value_name = "N", default_value_t = 256)]
    window: u64,
    /// Length of each measurement, in seconds
    #[arg(long, value_name = "S", default_value_t = 3)]
    seconds: u64,
    /// Measurements of each; the median is shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Servers to measure, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "relay,floor")]
    server: Vec<Kind>,
    /// Print one JSON object for each row
    #[arg(long)]
    json: bool,
    /// Be the floor (the benchmark starts it itself)
    #[arg(long, hide = true)]
    serve_floor: bool,
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

/// Measures, and prints a row as soon as it is known.
///
/// # Errors
/// A server that does not start, a peer that is not let in, an output that is closed.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.serve_floor {
        return floor::run().context("the floor has ended");
    }
    let mut out = io::stdout().lock();
    if !args.json {
        writeln!(
            out,
            "{:<8} {:>7} {:>6}  {:<6} {:>11} {:>10} {:>9} {:>9} {:>7}",
            "cell",
            "bytes",
            "pairs",
            "server",
            "packets/s",
            "µs/packet",
            "× floor",
            "switches",
            "loss %"
        )?;
    }
    for cell in &args.cell {
        for size in &args.size {
            let load = Load {
                cell: *cell,
                pairs: args.pairs,
                size: *size,
                window: args.window,
                time: Duration::from_secs(args.seconds),
            };
            // In turn, so that a slow moment of the machine meets all of them.
            let mut figures = vec![Vec::new(); args.server.len()];
            for _ in 0..args.runs {
                for (kind, figures) in args.server.iter().zip(&mut figures) {
                    figures.push(throughput::run(*kind, &load)?);
                }
            }
            let medians: Vec<_> = figures.into_iter().map(median).collect();
            let floor = args.server.iter().position(|kind| *kind == Kind::Floor);
            let floor = floor.and_then(|index| medians.get(index)).copied();
            for (kind, figures) in args.server.iter().zip(&medians) {
                print(&mut out, args, &load, *kind, figures, floor.as_ref())?;
            }
        }
    }
    Ok(())
}

/// The run whose cost is in the middle.
fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.cpu_us_per_packet.total_cmp(&b.cpu_us_per_packet));
    *runs.get(runs.len() / 2).expect("each server is measured at least once")
}

fn print(
    out: &mut impl io::Write,
    args: &Args,
    load: &Load,
    kind: Kind,
    figures: &Figures,
    floor: Option<&Figures>,
) -> io::Result<()> {
    let ratio = floor.map(|floor| figures.cpu_us_per_packet / floor.cpu_us_per_packet);
    if args.json {
        #[derive(serde::Serialize)]
        struct Row<'a> {
            cell: &'a str,
            payload_bytes: usize,
            pairs: u32,
            window: u64,
            server: &'a str,
            times_floor: Option<f64>,
            #[serde(flatten)]
            figures: &'a Figures,
        }
        let row = Row {
            cell: load.cell.word(),
            payload_bytes: load.size,
            pairs: load.pairs,
            window: load.window,
            server: kind.word(),
            times_floor: ratio,
            figures,
        };
        serde_json::to_writer(&mut *out, &row)?;
        return writeln!(out);
    }
    writeln!(
        out,
        "{:<8} {:>7} {:>6}  {:<6} {:>11.0} {:>10.3} {:>9} {:>9.4} {:>7.2}",
        load.cell.word(),
        load.size,
        load.pairs,
        kind.word(),
        figures.packets_per_second,
        figures.cpu_us_per_packet,
        ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        figures.switches_per_packet,
        figures.loss_percent,
    )?;
    out.flush()
}
