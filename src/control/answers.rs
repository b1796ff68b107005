//! What is answered about peers: as it is now, from the table.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::{Parts, PeerOrder, Refused};
use crate::metrics::{Talker, Talkers, Traffic, Word as _};
use crate::net::Shown;
use crate::peers::{EndpointLook, Look, Session, TakeoverLook};
use crate::session::{self, TopicOrder, Topics};
use crate::wire::name::Name;

/// What is known of a node here.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Peer {
    pub(super) node: Name,
    /// Its door, where that is known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) door: Option<&'static str>,
    /// Over what packets reach it: `wss`, `quic`, `udp`, or the kind of foreign server; none where nothing
    /// does.
    pub(super) over: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<SessionView>,
    /// How long ago its last session ended, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_ended: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<EndpointView>,
    #[serde(flatten)]
    pub(super) foreign: Option<Foreign>,
    /// Where its sessions have replaced each other of late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) takeovers: Option<TakeoversView>,
    /// For how many seconds it is kept out yet, where an operator has kicked it for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept_out: Option<f64>,
}

/// The foreign server that serves a peer; shown as its address, under the name of its kind.
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    /// What its door calls such servers.
    pub(super) kind: &'static str,
    pub(super) address: SocketAddr,
}

impl Serialize for Foreign {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map([(self.kind, self.address.to_string())])
    }
}

/// A session over WebSocket or QUIC; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SessionView {
    pub(super) age: f64,
    /// The client's address, as the proxy names it.
    pub(super) address: String,
    /// Records in the outbox.
    pub(super) waiting: usize,
    /// Bytes in it, with their bookkeeping.
    pub(super) waiting_bytes: usize,
    /// How long the oldest of them has waited.
    pub(super) waiting_age: f64,
    /// For how long the kernel has taken nothing of what is being written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stuck: Option<f64>,
    pub(super) is_ending: bool,
}

/// How sessions of a node replace each other; times in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct TakeoversView {
    /// How many there were in the last 10 s, up to four.
    pub(super) recent: usize,
    /// There were four in 90 s.
    pub(super) is_contested: bool,
    /// How long the next login would wait.
    pub(super) wait: f64,
    /// For how long one waits already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login_waits: Option<f64>,
}

/// A UDP endpoint; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EndpointView {
    pub(super) address: String,
    /// How long it has been at this address.
    pub(super) age: f64,
    /// For how long nothing was heard of it.
    pub(super) silence: f64,
    /// Silent for two heartbeats: little is sent there.
    pub(super) is_quiet: bool,
    /// Our address that it talks to, where we have several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) local: Option<IpAddr>,
}

/// A list of peers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Peers {
    /// How many there are, listed or not.
    pub(super) total: usize,
    pub(super) peers: Vec<Peer>,
}

/// The first topics of the doors that have such, in the order of their names.
pub(super) fn topics(parts: &Parts, limit: usize) -> Result<Topics, Refused> {
    let of_doors = parts.doors.iter().filter_map(|door| door.topics(TopicOrder::Name, limit));
    let all = of_doors.reduce(|mut all, more| {
        all.total += more.total;
        all.topics.extend(more.topics);
        all
    });
    let refused = || {
        Refused::Failed(
            "this relay has no door with topics; give a listener a door that has topics".to_owned(),
        )
    };
    let mut all = all.ok_or_else(refused)?;
    all.topics.truncate(limit);
    Ok(all)
}

/// Who sends and receives most.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Top {
    pub(super) senders: Vec<Rate>,
    pub(super) receivers: Vec<Rate>,
}

/// What a node sends or receives in a second, by estimate.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Rate {
    pub(super) node: Name,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// What a kick has done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Kicked {
    pub(super) node: Name,
    /// Its session ends, with 1008 `kicked`.
    pub(super) session: bool,
    /// Its endpoint was forgotten.
    pub(super) endpoint: bool,
    /// For how long it is kept out, in seconds.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<u64>,
}

/// What became of a switch.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Thrown {
    pub(super) switch: &'static str,
    pub(super) on: bool,
    pub(super) was_on: bool,
}

/// How a node was notified.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Notified {
    node: Name,
    /// `wss` or `udp`.
    over: &'static str,
    /// Its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

impl Notified {
    pub(super) fn of(node: Name, notified: session::Notified) -> Self {
        let (over, address) = match notified {
            session::Notified::Session => ("wss", None),
            session::Notified::Endpoint(address) => ("udp", Some(address.to_string())),
        };
        Self { node, over, address }
    }
}

/// Seconds to the millisecond.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

impl Peer {
    /// What there is to say of a node; nothing but its id where it is not known.
    pub(super) fn of(node: Name, parts: &Parts, now: Instant) -> Self {
        let table = &parts.table;
        let door = parts.door_of(node);
        let kind = door.and_then(|door| door.foreign_server()).unwrap_or("foreign");
        let look = table.look(node, now);
        let over = look.as_ref().and_then(|look| match look {
            Look { session: Some(session), .. } => Some(session.transport().word()),
            Look { endpoint: Some(_), .. } => Some("udp"),
            Look { foreign: Some(_), .. } => Some(kind),
            Look { session: None, endpoint: None, foreign: None, .. } => None,
        });
        let Look { session, ended, endpoint, foreign } =
            look.unwrap_or(Look { session: None, ended: None, endpoint: None, foreign: None });
        Self {
            node,
            door: node.realm().door(),
            over,
            session: session.map(|session| SessionView::of(&session, now)),
            session_ended: ended.map(seconds),
            endpoint: endpoint.as_ref().map(EndpointView::of),
            foreign: foreign.map(|address| Foreign { kind, address }),
            takeovers: table.takeovers(node, now).map(TakeoversView::from),
            kept_out: table.kept_out(node, now).map(seconds),
        }
    }
}

impl From<TakeoverLook> for TakeoversView {
    fn from(look: TakeoverLook) -> Self {
        let TakeoverLook { pace, waits } = look;
        Self {
            recent: pace.recent,
            is_contested: pace.is_contested,
            wait: seconds(pace.wait),
            login_waits: waits.map(seconds),
        }
    }
}

impl SessionView {
    fn of(session: &Session, now: Instant) -> Self {
        let backlog = session.backlog(now);
        Self {
            age: seconds(now.saturating_duration_since(session.since)),
            address: Shown(session.observed).to_string(),
            waiting: backlog.records,
            waiting_bytes: backlog.bytes,
            waiting_age: seconds(backlog.age),
            stuck: backlog.stuck.map(seconds),
            is_ending: !session.is_open(),
        }
    }
}

impl EndpointView {
    fn of(endpoint: &EndpointLook) -> Self {
        Self {
            address: endpoint.view.address.to_string(),
            age: seconds(endpoint.age),
            silence: seconds(endpoint.silence),
            is_quiet: endpoint.view.quiet,
            local: endpoint.view.local,
        }
    }
}

impl Peers {
    /// The first `limit` that are served here, in this order.
    pub(super) fn of(
        parts: &Parts,
        limit: usize,
        sort: PeerOrder,
        after: Option<Name>,
        now: Instant,
    ) -> Self {
        let mut nodes = parts.table.served();
        nodes.sort_unstable();
        let total = nodes.len();
        nodes.retain(|node| after.is_none_or(|after| *node > after));
        if sort == PeerOrder::Node {
            let peers = nodes.into_iter().take(limit).map(|node| Peer::of(node, parts, now));
            return Self { total, peers: peers.collect() };
        }
        // Looked at once for the order, and once more for the answer: one that lists all holds
        // far more than the numbers do.
        let mut ranked: Vec<_> =
            nodes.into_iter().map(|node| (sort.rank(node, parts, now), node)).collect();
        // Stable: those that are alike stay in the order of their ids.
        ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        let peers = ranked.into_iter().take(limit).map(|(_, node)| Peer::of(node, parts, now));
        Self { total, peers: peers.collect() }
    }
}

impl PeerOrder {
    /// How far in front a peer stands; nothing of what it has not.
    fn rank(self, node: Name, parts: &Parts, now: Instant) -> Option<u128> {
        let look = parts.table.look(node, now)?;
        let session = look.session.as_ref();
        match self {
            Self::Node => None,
            Self::Waiting => session.map(|session| session.backlog(now).bytes as u128),
            Self::Age => {
                let age = session.map(|session| now.saturating_duration_since(session.since));
                let age = age.or_else(|| look.endpoint.as_ref().map(|endpoint| endpoint.age));
                age.map(|age| u128::MAX - age.as_nanos())
            }
            Self::Silence => look.endpoint.map(|endpoint| endpoint.silence.as_nanos()),
        }
    }
}

impl Top {
    pub(super) fn of(traffic: &Traffic, count: usize, now: Instant) -> Self {
        let Talkers { senders, receivers } = traffic.talkers(count, now);
        let rates = |talkers: Vec<Talker>| -> Vec<Rate> {
            let rate = |Talker { peer, packets, bytes }| Rate { node: peer, packets, bytes };
            talkers.into_iter().map(rate).collect()
        };
        Self { senders: rates(senders), receivers: rates(receivers) }
    }
}
