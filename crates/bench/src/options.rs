//! What the program is told.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Measures a relay and, to compare, the cheapest server that still relays.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "beacon-bench", version, term_width = 0)]
pub struct Args {
    /// The program to measure [default: the beacon-relay in the folder of this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) beacon_relay: Option<PathBuf>,
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "throughput,latency,cluster,login,idle,stuck,growth,pairs,crowd,fan-in"
    )]
    pub(crate) scenario: Vec<Scenario>,
    /// Cells of throughput and latency
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "CELL",
        default_value = "wss-wss,wss-udp,udp-wss,udp-udp"
    )]
    pub(crate) cell: Vec<Cell>,
    /// Sizes of the payload for throughput, in bytes
    #[arg(long, value_delimiter = ',', value_name = "BYTES", default_value = "64,256,1200,16384")]
    pub(crate) size: Vec<usize>,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Most WebSocket peers [default: what the descriptor limit allows, at most 18000]
    #[arg(long, value_name = "N")]
    peers: Option<u32>,
    /// Most UDP nodes of `growth`
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    pub(crate) nodes: u32,
    /// Write the JSON rows to this file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) rows: Option<PathBuf>,
    /// Be the floor (the benchmark starts it itself)
    #[arg(long, hide = true)]
    pub(crate) serve_floor: bool,
}

impl Args {
    /// Most WebSocket peers: the load and the server each need a descriptor for every one,
    /// and some for themselves.
    pub(crate) fn peers(&self) -> u32 {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let allowed = u32::try_from(limit.saturating_sub(1_000)).unwrap_or(u32::MAX);
        self.peers.unwrap_or_else(|| allowed.min(18_000))
    }
}

/// What both benchmarks are told.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// Pairs of a sender and a receiver
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub pairs: u32,
    /// Packets of each pair in flight
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub window: u64,
    /// Length of each measurement, in seconds
    #[arg(long, value_name = "S", default_value_t = 2)]
    pub seconds: u64,
    /// Measurements of each, servers in turn; the median is shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub runs: usize,
    /// Print one JSON object for each row
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// Length of each measurement.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Packets in a closed loop: CPU time for each, compared with the floor
    Throughput,
    /// Packets in an open loop: time under way, compared with the floor
    Latency,
    /// Time under way through a second relay of a cluster, compared with one relay alone
    Cluster,
    /// A connection with its login, compared with the floor
    Login,
    /// Memory of connections that do nothing
    Idle,
    /// Healthy pairs beside readers that never read
    Stuck,
    /// Active pairs among many peers and nodes that do nothing
    Growth,
    /// More and more pairs, all active, compared with the floor
    Pairs,
    /// Senders whose packets go to many peers, chosen by Zipf's law
    Crowd,
    /// Senders whose packets all go to one peer
    FanIn,
}

/// Where packets come in and go out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Cell {
    WssWss,
    WssUdp,
    UdpWss,
    UdpUdp,
}

/// One side of a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Wss,
    Udp,
}

impl Cell {
    pub(crate) const fn ways(self) -> (Way, Way) {
        match self {
            Self::WssWss => (Way::Wss, Way::Wss),
            Self::WssUdp => (Way::Wss, Way::Udp),
            Self::UdpWss => (Way::Udp, Way::Wss),
            Self::UdpUdp => (Way::Udp, Way::Udp),
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::WssWss => "WSS→WSS",
            Self::WssUdp => "WSS→UDP",
            Self::UdpWss => "UDP→WSS",
            Self::UdpUdp => "UDP→UDP",
        }
    }
}
