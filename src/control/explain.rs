//! Where a node is, by which way it is reached, and what became of its last packets.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::timeout;

use super::Parts;
use super::answers::{Foreign, Peer, seconds};
use super::recorder::Recorded;
use crate::cluster::Elsewhere;
use crate::metrics::{Dropped, Transport, Word as _};
use crate::net::local::Locality;
use crate::session::Known;
use crate::wire::name::Name;

/// Time for a door to say whether it knows a node: as long as a login may look for it, and some.
const DOOR_TIME: Duration = Duration::from_secs(5);

/// Drops that are told, the latest first.
const DROPS: usize = 50;

/// Events that are told, the latest first.
const EVENTS: usize = 20;

/// All that there is to say of a node.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    /// What packets for it go over: `wss`, `udp`, `cluster`, the kind of foreign server, or
    /// `nowhere`.
    place: &'static str,
    /// The same as a sentence.
    path: String,
    /// Whether its door has a key for it: `known`, `unknown` or `unavailable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Known>,
    #[serde(flatten)]
    here: Peer,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<InCluster>,
    drops: Vec<Lost>,
    events: Vec<Recorded>,
}

/// What the cluster knows of a node.
#[derive(Debug, Serialize)]
struct InCluster {
    /// The relays that remember where it is.
    homes: Vec<String>,
    /// The epoch under which this relay has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch_here: Option<u64>,
    /// The other relay that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    elsewhere: Option<Remote>,
    /// Whether another relay has it, as peers here were told that want to know; nothing where
    /// none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    watched_elsewhere: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Remote {
    relay: String,
    address: String,
    /// How it is there: `session`, `endpoint` or `gateway`.
    ownership: &'static str,
    epoch: u64,
    /// Whether this relay knew, or had to ask.
    was_known: bool,
    /// For how many seconds nothing was heard of the relay, where a sign of life is overdue.
    #[serde(skip_serializing_if = "Option::is_none")]
    silence: Option<f64>,
}

/// Packets that were dropped for one reason between two nodes.
#[derive(Debug, Serialize)]
struct Lost {
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest: Option<Name>,
    reason: &'static str,
    /// What that means.
    why: &'static str,
    packets: u64,
    /// Whether that is an estimate, since only some were noted.
    is_estimate: bool,
    /// How long ago the first and the last of them came, in seconds.
    first: f64,
    last: f64,
}

impl Explanation {
    /// Asks the directory and the cluster, which takes some seconds where they are slow.
    pub(super) async fn of(node: Name, parts: &Parts) -> Self {
        let door = parts.door_of(node);
        let key = match door {
            // Or a door that does not answer would keep the place of an action for good.
            Some(door) => {
                let known = timeout(DOOR_TIME, door.knows(node)).await;
                known.unwrap_or(Some(Known::Unavailable))
            }
            None => None,
        };
        let foreign_server = door.and_then(|door| door.foreign_server());
        let here = Peer::of(node, parts, Instant::now());
        let cluster = match &parts.cluster {
            Some(cluster) => {
                let is_here = matches!(here.over, Some("wss" | "quic" | "udp"));
                let elsewhere = if is_here { None } else { cluster.find(node).await };
                Some(InCluster {
                    homes: cluster.homes(node).iter().map(ToString::to_string).collect(),
                    epoch_here: cluster.epoch(node),
                    elsewhere: elsewhere.map(Remote::from),
                    watched_elsewhere: cluster.watched(node),
                })
            }
            None => None,
        };
        let elsewhere = cluster.as_ref().and_then(|cluster| cluster.elsewhere.as_ref());
        let (place, mut path) = path(&here, elsewhere, key, foreign_server);
        if place == "udp"
            && let Some(gone) = here.endpoint.as_ref().and_then(|endpoint| endpoint.local)
            && parts.local.look(gone, Instant::now()) == Locality::Foreign
        {
            write!(
                path,
                "; it talks to our address {gone}, which is gone: packets leave from another"
            )
            .expect("a string takes all");
        }
        let now = Instant::now();
        let drops = parts.traffic.drops_of(node, now).into_iter().take(DROPS).map(Lost::from);
        let events = parts.traffic.events.of(node, EVENTS).into_iter().map(Recorded::from);
        let (drops, events) = (drops.collect(), events.collect());
        Self { place, path, key, here, cluster, drops, events }
    }
}

/// The way that the router takes, and a sentence about it.
fn path(
    here: &Peer,
    elsewhere: Option<&Remote>,
    key: Option<Known>,
    foreign_server: Option<&str>,
) -> (&'static str, String) {
    if let Some(session) = &here.session {
        let over = here.over.unwrap_or_else(|| Transport::Wss.word());
        let kind = if over == Transport::Quic.word() { "QUIC" } else { "WebSocket" };
        let Some(stuck) = session.stuck else {
            return (over, format!("over its {kind} session, from {}", session.address));
        };
        let text = format!(
            "over its {kind} session, from {}, which has taken nothing for {stuck:.1} s",
            session.address
        );
        return (over, text);
    }
    if let Some(endpoint) = &here.endpoint {
        let quiet = if endpoint.is_quiet {
            ", which has been silent for two minutes and gets little until its next heartbeat"
        } else {
            ""
        };
        return ("udp", format!("over UDP, to {}{quiet}", endpoint.address));
    }
    // A gateway elsewhere is a foreign server as well: our own goes before it.
    let is_peer = |remote: &&Remote| here.foreign.is_none() || remote.ownership != "gateway";
    if let Some(remote) = elsewhere.filter(is_peer) {
        let silence = remote.silence.map_or(String::new(), |silence| {
            format!(", of which nothing was heard for {silence:.1} s")
        });
        let text = format!("through relay {} at {}{silence}", remote.relay, remote.address);
        return ("cluster", text);
    }
    if let Some(Foreign { kind, address }) = &here.foreign {
        return (kind, format!("through the {kind} at {address}"));
    }
    let last = here.session_ended.map_or(String::new(), |seconds| {
        format!("; its last session here ended {seconds:.0} s ago")
    });
    let key = match key {
        Some(Known::Unknown) => "; the directory has no key for it, so that it cannot log in",
        Some(Known::Known | Known::Unavailable) | None => "",
    };
    let nobody = match foreign_server {
        Some(kind) => format!("no relay and no {kind}"),
        None => "no relay".to_owned(),
    };
    ("nowhere", format!("{nobody} that we know of has it{last}{key}"))
}

impl From<Elsewhere> for Remote {
    fn from(elsewhere: Elsewhere) -> Self {
        let Elsewhere { relay, address, ownership, epoch, was_known, silence } = elsewhere;
        let silence = silence.map(seconds);
        Self { relay: relay.to_string(), address, ownership, epoch, was_known, silence }
    }
}

impl From<Dropped> for Lost {
    fn from(dropped: Dropped) -> Self {
        let Dropped { reason, whose, packets, is_estimate, first, last } = dropped;
        Self {
            sender: whose.sender,
            dest: whose.dest,
            reason: reason.label,
            why: reason.cause,
            packets,
            is_estimate,
            first: seconds(first),
            last: seconds(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::testing;
    use crate::session::{Answer, Conversation, Door, Messages, Refusal, Session, Welcome};
    use crate::wire::name::{Realm, Spelling};

    /// A door that is asked in vain.
    struct Mute;

    impl Door for Mute {
        fn name(&self) -> &'static str {
            "mute"
        }
        fn max_greeting(&self) -> usize {
            1
        }
        fn max_message(&self) -> usize {
            1
        }
        fn greet<'a>(
            &'a self,
            _: &'a mut Conversation<'_>,
        ) -> Answer<'a, Result<Welcome, Refusal>> {
            Box::pin(std::future::pending())
        }
        fn accept(&self, _: &Session) {}
        fn messages(&self, _: &Arc<Session>, _: Messages<'_>, _: Instant) {}
        fn knows(&self, _: Name) -> Answer<'_, Option<Known>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn door_that_did_not_answer_kept_the_place_of_an_action_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let (mut parts, _ordered) = testing::parts(folder.path());
        parts.doors.push(Arc::new(Mute));
        let realm = Realm(224);
        let spelling = Spelling { door: "mute", show: |_, _| Ok(()), parse: |_| None };
        realm.register(spelling).unwrap();

        let explanation = Explanation::of(Name::new(realm, b"a"), &parts).await;

        assert_eq!((explanation.key, explanation.place), (Some(Known::Unavailable), "nowhere"));
    }
}
