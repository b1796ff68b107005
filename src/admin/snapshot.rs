//! What the relay looks like at one moment: the status page, `/status` and the command line
//! show this, and nothing else.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Phase, Reason, Verdict};
use crate::build::Build;
use crate::bus::{Lag, front};
use crate::cluster;
use crate::session::Topic;
use crate::wire::name::Name;

/// Rows of a table at most.
pub const MOST_ROWS: usize = 10;

/// Events of one area at most.
pub const MOST_EVENTS: usize = 20;

/// The relay at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The version that runs.
    pub version: &'static str,
    /// What it was built from.
    #[serde(flatten)]
    pub build: Build,
    /// How far the relay has come.
    pub phase: Phase,
    /// Whether peers should be sent here, as `/readyz` says.
    pub ready: bool,
    /// What the parts of `/readyz` come to.
    pub verdict: Verdict,
    /// The parts that are not as they should be, the failed ones first.
    pub reasons: Vec<Reason>,
    /// The parts that have failed, and why.
    pub failed: BTreeMap<&'static str, String>,
    /// Age of the relay, to the millisecond: what rates are computed over.
    pub uptime_seconds: f64,
    /// The main numbers.
    #[serde(flatten)]
    pub status: Status,
    /// Who is busy, who is slow, and what has happened.
    #[serde(flatten)]
    pub tables: Tables,
    /// The samples of `/metrics`, by the names that they have there.
    pub metrics: BTreeMap<String, f64>,
}

/// The main numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Peers that are connected over WebSocket.
    pub wss_peers: usize,
    /// Peers with a UDP endpoint.
    pub udp_nodes: usize,
    /// Peers that foreign servers have.
    pub learnt_nodes: usize,
    /// The numbers of doors.
    #[serde(flatten)]
    pub of_doors: BTreeMap<&'static str, usize>,
    /// Relayed packets that wait in outboxes.
    pub packets_queued: u64,
    /// Packets that were dropped, but for the reasons of `expected_drops`.
    pub packets_dropped: u64,
    /// What came of the last reading of settings and keys, the start included.
    pub last_reload: ReloadStatus,
    /// Settings that were changed in the file and wait for a restart, by their keys.
    pub needs_restart: Vec<String>,
    /// What operators can switch off: `on` or `off`.
    pub switches: BTreeMap<&'static str, &'static str>,
    /// Reasons for which packets are dropped all the time and nothing is wrong.
    pub expected_drops: Vec<&'static str>,
    /// The cluster, where the relay is part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<cluster::Status>,
    /// The message bus, where the relays of a cluster serve one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<front::Status>,
    /// Certificates that the relay gets itself, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<Vec<AcmeCertificate>>,
}

/// What came of the last reading of settings and keys.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ReloadStatus {
    /// When it ended, as RFC 3339 has it.
    pub at: String,
    /// Why everything stayed as it was, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A certificate that the relay gets and renews itself.
#[derive(Clone, Debug, Serialize)]
pub struct AcmeCertificate {
    /// The names that it is for.
    pub names: Vec<String>,
    /// When the one in force ends, where there is one.
    pub expires_at: Option<String>,
    /// When the next is ordered.
    pub next_order_at: String,
    /// Why the last order brought none, where it did not.
    pub error: Option<String>,
}

/// The tables of the page, at most [`MOST_ROWS`] rows each; [`MOST_EVENTS`] events of each area.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tables {
    /// Who sends or receives most, the busiest first.
    pub top_talkers: Vec<Talker>,
    /// Whose outboxes hold most, the fullest first.
    pub slow_readers: Vec<SlowReader>,
    /// What has happened, the latest first.
    pub events: Vec<Event>,
    /// The topics with the most requests that wait, then the most subscribers, where a door has
    /// topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topics: Option<Vec<Topic>>,
    /// Who is furthest behind in channels, where this relay has the message bus and there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<Vec<Lag>>,
}

/// One who sends or receives much, estimated from a sample.
#[derive(Clone, Debug, Serialize)]
pub struct Talker {
    /// The node.
    pub node: Name,
    /// What it does: `sends` or `receives`.
    pub does: &'static str,
    /// Packets a second.
    pub packets_per_second: u64,
    /// Bytes of their payloads a second.
    pub bytes_per_second: u64,
}

/// One for whom packets wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlowReader {
    /// The node.
    pub node: Name,
    /// What its outbox holds, in bytes with their bookkeeping.
    pub waiting_bytes: usize,
    /// How long the oldest packet has waited.
    pub waiting_seconds: f64,
    /// Age of its session.
    pub connected_seconds: u64,
}

/// Something that has happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// What, in a word.
    pub what: &'static str,
    /// What it is about, in a word.
    pub area: &'static str,
    /// At which door, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<&'static str>,
    /// To which node, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// To which relay of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Why, as a word of a metric; empty where there is nothing to say.
    pub reason: &'static str,
}
