//! What the program is told.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use beacon_wire::beacon::{MAX_UDP_PACKET, RELAY_HEADER};
use clap::error::ErrorKind;
use rustix::process::{Resource, getrlimit};

use crate::floor;

/// EX_USAGE of sysexits(3).
const USAGE: i32 = 64;

/// Largest payload that each cell carries, in bytes.
const MAX_SIZE: usize = MAX_UDP_PACKET - RELAY_HEADER;

/// Descriptors that load and server need for themselves.
const OWN_DESCRIPTORS: u64 = 1_000;

/// Parses the command line; a wrong one ends the program with exit code 64.
#[must_use]
pub fn parse<A: clap::Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| {
        // An output that is closed hears nothing.
        let _closed = error.print();
        let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        std::process::exit(if is_answer { 0 } else { USAGE })
    })
}

/// A number of what there is at least one of, up to `most`.
fn at_least_one<N: Copy + Display + From<u8> + FromStr + PartialOrd>(
    text: &str,
    most: N,
) -> Result<N, String> {
    let way_out = format!("give a whole number from 1 to {most}");
    match text.parse::<N>() {
        Ok(number) if number < N::from(1) => Err(format!("nothing would be measured; {way_out}")),
        Ok(number) if number > most => Err(format!("more than can be measured; {way_out}")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("not such a number; {way_out}")),
    }
}

fn pairs(text: &str) -> Result<u32, String> {
    at_least_one(text, 1_000)
}

fn window(text: &str) -> Result<u64, String> {
    at_least_one(text, 1_000_000)
}

/// Parses a time in seconds.
///
/// # Errors
/// None at all, or more than a day.
pub fn seconds(text: &str) -> Result<u64, String> {
    at_least_one(text, 86_400)
}

fn runs(text: &str) -> Result<usize, String> {
    at_least_one::<u32>(text, 1_000).map(|runs| runs as usize)
}

/// A cluster of fewer relays is none; NATS carries 256 at most.
fn relays(text: &str) -> Result<u32, String> {
    match at_least_one(text, 256)? {
        1 => Err("one relay is no cluster; give a whole number from 2 to 256".to_owned()),
        relays => Ok(relays),
    }
}

fn cluster_nodes(text: &str) -> Result<u32, String> {
    at_least_one(text, 100_000_000)
}

fn count(text: &str) -> Result<u32, String> {
    at_least_one(text, 1_000_000)
}

/// As many as the descriptor limit has room for.
fn peers(text: &str) -> Result<u32, String> {
    let count = at_least_one(text, 1_000_000)?;
    let allowed = descriptors();
    if count > allowed {
        return Err(format!(
            "the descriptor limit has room for {allowed}; give no more, or raise it by `ulimit -n`"
        ));
    }
    Ok(count)
}

/// Parses the size of a payload, in bytes.
///
/// # Errors
/// No packet has such a payload.
pub fn size(text: &str) -> Result<usize, String> {
    at_least_one::<u32>(text, u32::try_from(MAX_SIZE).unwrap_or(u32::MAX)).map(|size| size as usize)
}

/// Peers for whom this process and a server each have a descriptor.
fn descriptors() -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(limit.saturating_sub(OWN_DESCRIPTORS)).unwrap_or(u32::MAX)
}

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
        default_value = "throughput,tls,latency,cluster,cluster-throughput,login,tls-login,idle,\
            tls-idle,stuck,growth,pairs,crowd,fan-in,netbird,netbird-login,netbird-idle,\
            netbird-cluster,bus,bus-idle,bus-pending,middleman,keyop,keyop-idle,keyop-order"
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
    #[arg(
        long,
        value_parser = size,
        value_delimiter = ',',
        value_name = "BYTES",
        default_value = "64,256,1200,16384"
    )]
    pub(crate) size: Vec<usize>,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Packets of each pair in flight, for `tls` [default: --window, and 1]
    #[arg(long, value_parser = window, value_delimiter = ',', value_name = "N")]
    pub(crate) tls_window: Vec<u64>,
    /// Most WebSocket peers [default: what the descriptor limit allows, at most 18000]
    #[arg(long, value_parser = peers, value_name = "N")]
    peers: Option<u32>,
    /// Most UDP nodes of `growth`
    #[arg(long, value_parser = count, value_name = "N", default_value_t = 500_000)]
    pub(crate) nodes: u32,
    /// Relays of the cluster of `scale`
    #[arg(long, value_parser = relays, value_name = "N", default_value_t = 64)]
    pub(crate) relays: u32,
    /// Nodes of the cluster of `scale`
    #[arg(long, value_parser = cluster_nodes, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) cluster_nodes: u32,
    /// Logins of each measurement
    #[arg(long, value_parser = count, value_name = "N", default_value_t = 1_000)]
    pub(crate) logins: u32,
    /// Messages that wait, for `bus-pending`; records of `keyop-order`
    #[arg(long, value_parser = count, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) messages: u32,
    /// Write the JSON rows to this file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) rows: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) floor: floor::Options,
}

impl Args {
    /// Most WebSocket peers.
    pub(crate) fn peers(&self) -> u32 {
        self.peers.unwrap_or_else(|| descriptors().min(18_000))
    }
}

/// What both benchmarks are told.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// Pairs of a sender and a receiver
    #[arg(long, value_parser = pairs, value_name = "N", default_value_t = 8)]
    pub pairs: u32,
    /// Packets of each pair in flight
    #[arg(long, value_parser = window, value_name = "N", default_value_t = 256)]
    pub window: u64,
    /// Length of each measurement, in seconds
    #[arg(long, value_parser = seconds, value_name = "S", default_value_t = 2)]
    pub seconds: u64,
    /// Measurements of each, servers in turn; the median is shown
    #[arg(long, value_parser = runs, value_name = "N", default_value_t = 3)]
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
    /// Packets in a closed loop over TLS: CPU time for each, compared with the floor with TLS and
    /// with Caddy in front of the relay
    Tls,
    /// Packets in an open loop: time under way, compared with the floor
    Latency,
    /// Time under way through a second relay of a cluster, compared with one relay alone
    Cluster,
    /// Packets in a closed loop through two relays of a cluster: CPU time of both for each,
    /// compared with one relay and with two floors
    ClusterThroughput,
    /// A connection with its login, compared with the floor
    Login,
    /// A TLS connection with its login, compared with the floor with TLS
    TlsLogin,
    /// Memory of connections that do nothing
    Idle,
    /// Memory of TLS connections that do nothing
    TlsIdle,
    /// Healthy pairs next to readers that never read
    Stuck,
    /// Active pairs among many peers and nodes that do nothing
    Growth,
    /// More and more pairs, all active, compared with the floor
    Pairs,
    /// Senders whose packets go to many peers, chosen by Zipf's law
    Crowd,
    /// Senders whose packets all go to one peer
    FanIn,
    /// Packets of NetBird's clients in a closed loop: CPU time for each, compared with their floor
    Netbird,
    /// A login of a NetBird client, compared with their floor
    NetbirdLogin,
    /// Memory of NetBird clients that do nothing
    NetbirdIdle,
    /// Packets of NetBird's clients through two relays: CPU time of both for each, compared with one
    NetbirdCluster,
    /// Durable messages in a closed loop: rate and CPU time for each, compared with a floor,
    /// JetStream and Redis
    Bus,
    /// Memory of peers of the message bus that do nothing
    BusIdle,
    /// Messages that wait for peers who are not there: memory, start, and their return
    BusPending,
    /// Publications and requests in a closed loop: CPU time for each, compared with NATS
    Middleman,
    /// Records of channels in a closed loop, over gRPC and TLS: rate and CPU time for each, compared
    /// with JetStream
    Keyop,
    /// Memory of federated peers that do nothing
    KeyopIdle,
    /// Many records through one publisher and one subscriber, all in their order
    KeyopOrder,
    /// More and more relays without peers, joined by the mesh and by NATS: memory and CPU time of
    /// their links; only where it is named
    Links,
    /// A simulated cluster of --relays and --cluster-nodes: control messages, memory, time to find
    /// a node; only where it is named
    Scale,
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
