//! Messages for which there is no room, of peers that cannot be told so: they wait, and their
//! sender with them, for a while.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Party;
use super::inbox::Submitted;
use crate::proto::bus::Submission;

/// The peers whose messages wait for room, by their generation.
#[derive(Default)]
pub(super) struct Parked {
    peers: BTreeMap<u64, Peer>,
}

struct Peer {
    party: Arc<dyn Party>,
    waiting: VecDeque<Submission>,
    /// When the first of them is given up.
    until: Instant,
}

/// A message that is given up: its sender, and its id.
pub(super) type GivenUp = (Arc<dyn Party>, Arc<str>);

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether messages of this peer wait: what it sends now has to wait behind them.
    pub(super) fn has(&self, generation: u64) -> bool {
        self.peers.contains_key(&generation)
    }

    /// Has a message wait.
    pub(super) fn park(&mut self, submitted: Submitted, now: Instant, patience: Duration) {
        let Submitted { party, submission, .. } = submitted;
        let peer = self.peers.entry(party.generation()).or_insert_with(|| {
            party.hold(true);
            Peer { party, waiting: VecDeque::new(), until: now + patience }
        });
        peer.waiting.push_back(submission);
    }

    /// Judges the messages that wait; `judge` says whether one waits no more. Returns those that were
    /// given up, and the peers of whom none waits any more.
    pub(super) fn retry(
        &mut self,
        now: Instant,
        patience: Duration,
        mut judge: impl FnMut(&Arc<dyn Party>, &Submission) -> bool,
    ) -> (Vec<GivenUp>, Vec<Arc<dyn Party>>) {
        let mut given_up = Vec::new();
        let mut released = Vec::new();
        self.peers.retain(|_, peer| {
            while let Some(first) = peer.waiting.front() {
                if judge(&peer.party, first) {
                    peer.until = now + patience;
                } else if now < peer.until {
                    return true;
                } else {
                    // With all behind it for which there is no room: its sender has waited enough.
                    given_up.push((Arc::clone(&peer.party), Arc::clone(&first.id)));
                }
                peer.waiting.pop_front();
            }
            released.push(Arc::clone(&peer.party));
            false
        });
        (given_up, released)
    }

    /// A peer is gone; returns the messages that are lost with it.
    pub(super) fn close(&mut self, generation: u64) -> Vec<GivenUp> {
        let Some(Peer { party, waiting, .. }) = self.peers.remove(&generation) else {
            return Vec::new();
        };
        waiting.into_iter().map(|lost| (Arc::clone(&party), lost.id)).collect()
    }
}
