//! What the door keeps with a session: who the peer is, what it published that is not acknowledged,
//! and what it was sent and has not acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::BytesMut;
use parking_lot::Mutex;

use super::ingest::Batches;
use super::meters::Speaks;
use crate::bus::{Address, Batch, Party};
use crate::session::{CallId, DoorData};
use crate::wire::keyop::grpc::Method;

/// Batches that are remembered; a peer that acknowledges none of so many has each of them again.
const MOST_DELIVERIES: usize = 64;

/// A peer that has logged in.
pub(super) struct Connected {
    pub(super) name: Arc<str>,
    pub(super) address: Address,
    pub(super) speaks: Speaks,
    /// The peer as the bus sees it, once the session can be found.
    pub(super) party: OnceLock<Arc<dyn Party>>,
    /// Locked briefly, and nothing of the bus or of the session is called meanwhile.
    pub(super) state: Mutex<State>,
}

/// What changes.
#[derive(Default)]
pub(super) struct State {
    /// What it wants, as soon as it has said that.
    pub(super) wanted: Option<Wanted>,
    /// It is counted among those that are subscribed to something.
    pub(super) is_subscriber: bool,
    /// What it is subscribed to.
    pub(super) channels: Vec<Arc<str>>,
    /// The call in which it has subscribed.
    pub(super) subscriber: Option<CallId>,
    pub(super) calls: Vec<Call>,
    /// The audit file says that it has come.
    pub(super) is_noted: bool,
    pub(super) batches: Batches,
    /// The batches that it was sent and has not acknowledged, in order: one, unless it came again.
    pub(super) deliveries: VecDeque<Delivery>,
    /// The last batch of the bus, until it is acknowledged: a new call of a peer gets it at once. The
    /// bus has its records as well.
    pub(super) in_flight: Option<Batch>,
}

/// What a peer wants to have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Wanted {
    pub(super) channels: BTreeSet<String>,
    pub(super) is_ephemeral: bool,
}

/// A call of a method.
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) method: Method,
    /// The beginning of a message that is not whole.
    pub(super) received: BytesMut,
    /// Its first frame has come.
    pub(super) has_subscribed: bool,
    /// The peer says nothing more in it.
    pub(super) is_finished: bool,
}

/// A batch on its way to the peer.
pub(super) struct Delivery {
    pub(super) number: u64,
    /// Of each record that was sent its id, and its channel.
    pub(super) records: Vec<(Arc<str>, Arc<str>)>,
    pub(super) sent: Instant,
}

impl Connected {
    pub(super) const fn new(
        name: Arc<str>,
        address: Address,
        speaks: Speaks,
        state: State,
    ) -> Self {
        Self { name, address, speaks, party: OnceLock::new(), state: Mutex::new(state) }
    }

    /// The peer as the bus sees it.
    pub(super) fn party(&self) -> &Arc<dyn Party> {
        self.party.get().expect("messages come once the session is open")
    }
}

impl State {
    /// A call that has not ended.
    pub(super) fn call(&mut self, id: CallId) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.id == id)
    }

    /// Forgets a call.
    pub(super) fn remove_call(&mut self, id: CallId) {
        self.calls.retain(|call| call.id != id);
        if self.subscriber == Some(id) {
            self.subscriber = None;
            // No acknowledgement of what it delivered can come any more.
            self.deliveries.clear();
        }
    }

    /// A batch was sent.
    pub(super) fn sent(&mut self, delivery: Delivery) {
        if self.deliveries.len() >= MOST_DELIVERIES {
            self.deliveries.pop_front();
        }
        self.deliveries.push_back(delivery);
    }

    /// The batch that an acknowledgement is for. They come in the order of the batches: that of one
    /// that came twice must not be taken for that of the next, which may have some of its records.
    pub(super) fn acknowledged(&mut self, last_id: &str) -> Option<Delivery> {
        let is_of = |delivery: &Delivery| {
            last_id.is_empty() || delivery.records.iter().any(|(id, _)| &**id == last_id)
        };
        let at = self.deliveries.iter().position(is_of)?;
        let mut delivery = self.deliveries.drain(..=at).next_back()?;
        // After a leader was lost, a batch may differ from one before only in records that the peer is
        // not sent. It has got the same twice then, and some peers acknowledge that once.
        let newest = self.deliveries.iter().rfind(|copy| copy.records == delivery.records);
        delivery.number = newest.map_or(delivery.number, |newest| newest.number);
        self.in_flight.take_if(|batch| batch.number == delivery.number);
        Some(delivery)
    }
}

/// What the login of a session has left.
pub(super) fn connected(data: &DoorData) -> &Connected {
    let connected = data.as_ref().and_then(|data| data.downcast_ref());
    connected.expect("a session of the door has what its login left")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(state: &mut State, number: u64, ids: &[&str]) {
        let records = ids.iter().map(|id| ((*id).into(), "orders".into())).collect();
        state.sent(Delivery { number, records, sent: Instant::now() });
    }

    fn acknowledged(state: &mut State, last_id: &str) -> Option<u64> {
        state.acknowledged(last_id).map(|delivery| delivery.number)
    }

    #[test]
    fn acknowledgement_is_that_of_the_oldest_batch_which_has_the_record() {
        let mut state = State::default();
        sent(&mut state, 1, &["a", "b"]);
        sent(&mut state, 1, &["a", "b"]);
        sent(&mut state, 2, &["b", "c"]);
        assert_eq!(acknowledged(&mut state, "x"), None, "nobody has sent it");
        assert_eq!(acknowledged(&mut state, "b"), Some(1));
        assert_eq!(acknowledged(&mut state, "b"), Some(1), "the copy, not the next batch");
        assert_eq!(acknowledged(&mut state, ""), Some(2), "it had all of them before");
        assert_eq!(acknowledged(&mut state, ""), None);
    }

    #[test]
    fn batch_of_the_next_leader_that_looked_like_the_last_one_was_not_acknowledged_for_long() {
        let mut state = State::default();
        sent(&mut state, 1, &["a"]);
        sent(&mut state, 2, &["a"]);
        assert_eq!(acknowledged(&mut state, "a"), Some(2), "by who knows it again");
        sent(&mut state, 3, &["a", "b"]);
        assert_eq!(acknowledged(&mut state, "a"), Some(2), "by who does not");
        assert_eq!(acknowledged(&mut state, "b"), Some(3));
    }

    #[test]
    fn acknowledgement_of_a_later_batch_passes_over_those_before() {
        let mut state = State::default();
        sent(&mut state, 1, &["a"]);
        sent(&mut state, 2, &["b"]);
        assert_eq!(acknowledged(&mut state, "b"), Some(2));
        assert_eq!(acknowledged(&mut state, "a"), None);
    }
}
