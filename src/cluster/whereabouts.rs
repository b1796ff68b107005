//! Where one peer is in the cluster, for an operator who asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::locations::{Remote, Way};
use super::{Cluster, TICK};
use crate::ids::RelayId;
use crate::wire::cluster::Ownership;
use crate::wire::name::Name;

/// Longest wait for the homes of a peer to answer: several times what packets wait.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Where a peer is that another relay has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Elsewhere {
    /// The relay.
    pub relay: RelayId,
    /// Where the link to it leads.
    pub address: String,
    /// How the peer is there: over a `session`, an `endpoint` or a `gateway`.
    pub ownership: &'static str,
    /// The epoch of its claim.
    pub epoch: u64,
    /// Whether the location was known, so that packets went there at once.
    pub was_known: bool,
    /// For how long nothing was heard of the relay, where a sign of life is overdue.
    pub silence: Option<Duration>,
}

impl Cluster {
    /// The relays that are home to a peer.
    #[must_use]
    pub fn homes(&self, peer: Name) -> Vec<RelayId> {
        self.presence.lock().homes(peer)
    }

    /// The epoch under which this relay has a peer; `None` where no home has granted one.
    #[must_use]
    pub fn epoch(&self, peer: Name) -> Option<u64> {
        self.presence.lock().epoch(peer)
    }

    /// Whether another relay has a peer that a door watches, as the door was told.
    #[must_use]
    pub fn watched(&self, peer: Name) -> Option<bool> {
        self.presence.lock().watched(peer)
    }

    /// The other relay that has a peer; its homes are asked where that is not known, which
    /// takes 1 s at most.
    pub async fn find(self: &Arc<Self>, peer: Name) -> Option<Elsewhere> {
        let until = Instant::now() + ANSWER_TIME;
        let mut was_known = true;
        loop {
            // As a packet would, but without one.
            let now = Instant::now();
            match self.locations.find_or_park(peer, peer, std::iter::empty(), now) {
                Way::To { remote, asks } => {
                    if asks {
                        self.ask_for(peer, now);
                    }
                    return Some(self.elsewhere(&remote, was_known, now));
                }
                Way::Nowhere => return None,
                Way::Parked { asks, .. } => {
                    if asks {
                        self.ask_for(peer, now);
                    }
                }
            }
            if now >= until {
                return None;
            }
            was_known = false;
            tokio::time::sleep(TICK).await;
        }
    }
    fn elsewhere(&self, remote: &Remote, was_known: bool, now: Instant) -> Elsewhere {
        let member = &remote.member;
        Elsewhere {
            relay: member.relay,
            address: member.address.clone(),
            ownership: match remote.ownership {
                Ownership::Session => "session",
                Ownership::Endpoint => "endpoint",
                Ownership::Gateway => "gateway",
            },
            epoch: remote.epoch,
            was_known,
            silence: Some(member.silence(now)).filter(|silence| self.is_overdue(*silence)),
        }
    }
}
