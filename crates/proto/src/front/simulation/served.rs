//! Which session of each name is served: one in an epoch, the youngest that the leader knows.

use std::collections::BTreeMap;

use beacon_wire::front::Message;

/// What leaders have said about who is served.
#[derive(Default)]
pub(super) struct Served {
    /// The epoch in which the youngest session of a peer was served last, and that session.
    youngest: BTreeMap<usize, (u64, u64)>,
    /// Sessions whose peers have younger ones and have forgotten them, as after a timeout: whose
    /// each is, and at which relay.
    pub(super) older: BTreeMap<u64, (usize, usize)>,
}

impl Served {
    /// A relay says something in the epoch in which it believes to lead; `youngest_of` is whose
    /// youngest session it is, and which sessions end by what waits for a link. What did so is late:
    /// it is as if it were on its way.
    pub(super) fn hear(
        &mut self,
        message: &Message<'_>,
        epoch: u64,
        newest_epoch: u64,
        is_late: bool,
        youngest_of: impl Fn(u64) -> Option<usize>,
        is_leaving: impl Fn(u64) -> bool,
    ) {
        if let Message::Deliver { session, .. } = message {
            if is_late {
                return;
            }
            assert_eq!(epoch, newest_epoch, "a relay delivers whose successor leads");
            if let Some(peer) = youngest_of(*session) {
                self.youngest.insert(peer, (epoch, *session));
            } else if let Some((peer, _)) = self.older.get(session) {
                let served = self.youngest.get(peer).filter(|(_, of)| !is_leaving(*of));
                let served = served.map(|(epoch, _)| *epoch);
                assert_ne!(served, Some(epoch), "two sessions of peer {peer} are served");
            }
        } else if let Message::Replace { session } | Message::Reopen { session } = message {
            self.youngest.retain(|_, (_, of)| of != session);
        }
    }

    /// The leader does not know the youngest session of a peer, or not any more.
    pub(super) fn forget(&mut self, peer: usize) {
        self.youngest.remove(&peer);
    }
}
