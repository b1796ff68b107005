//! Which messages wait for the host, which results hold them, and which are known to have arrived.
//!
//! Sans-IO. A message that was handed out in a result counts as received once the host makes a
//! call *after* that result was written: a host that crashes before gets it again from the bus.
//! A result that the host no longer wants (it cancelled the call) gives its messages back.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// How much a result may hold. Hosts cut long results, or hand them to a model whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    /// Most messages.
    pub(crate) messages: usize,
    /// Most bytes, where it is more than one message.
    pub(crate) bytes: usize,
}

/// A message, and how much it takes.
#[derive(Debug)]
struct Entry<M> {
    message: M,
    bytes: usize,
}

/// Messages that a result holds.
#[derive(Debug)]
struct Offer<C, M> {
    call: C,
    /// Whether the result has left.
    is_written: bool,
    entries: Vec<Entry<M>>,
}

/// The messages of a session with a host, whose calls are known by a `C`.
#[derive(Debug)]
pub(crate) struct Ledger<C, M> {
    waiting: VecDeque<Entry<M>>,
    /// Calls without a result.
    open: HashSet<C>,
    /// The oldest first.
    offers: VecDeque<Offer<C, M>>,
    /// What the host has received.
    proven: Vec<M>,
    /// Of what waits and what results hold.
    count: usize,
    bytes: usize,
}

impl<C, M> Default for Ledger<C, M> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            open: HashSet::new(),
            offers: VecDeque::new(),
            proven: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }
}

impl<C: Clone + Eq + Hash, M> Ledger<C, M> {
    /// Takes a message that the bus has delivered.
    pub(crate) fn arrived(&mut self, message: M, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
        self.waiting.push_back(Entry { message, bytes });
    }

    /// Whether there is room for another message.
    pub(crate) const fn has_room(&self, limits: Limits) -> bool {
        self.count < limits.messages && self.bytes < limits.bytes
    }

    /// How many messages no result holds.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The host makes a call: it has received all results that were written before.
    pub(crate) fn called(&mut self, call: C) {
        for offer in std::mem::take(&mut self.offers) {
            if !offer.is_written {
                self.offers.push_back(offer);
                continue;
            }
            self.prove(offer.entries);
        }
        self.open.insert(call);
    }

    /// The host has received the result of a call, which it has shown otherwise.
    pub(crate) fn received(&mut self, call: &C) {
        self.open.remove(call);
        for offer in std::mem::take(&mut self.offers) {
            if offer.call == *call {
                self.prove(offer.entries);
            } else {
                self.offers.push_back(offer);
            }
        }
    }

    fn prove(&mut self, entries: Vec<Entry<M>>) {
        for Entry { message, bytes } in entries {
            self.count -= 1;
            self.bytes -= bytes;
            self.proven.push(message);
        }
    }

    /// Moves the first messages into the result of a call, and shows each; none for a call that
    /// was withdrawn or answered.
    pub(crate) fn take<T>(
        &mut self,
        call: &C,
        limits: Limits,
        mut show: impl FnMut(&M) -> T,
    ) -> Vec<T> {
        if !self.open.contains(call) {
            return Vec::new();
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < limits.messages
            && let Some(next) = self.waiting.front()
            && (entries.is_empty() || bytes + next.bytes <= limits.bytes)
            && let Some(entry) = self.waiting.pop_front()
        {
            bytes += entry.bytes;
            entries.push(entry);
        }
        let shown = entries.iter().map(|entry| show(&entry.message)).collect();
        if !entries.is_empty() {
            self.offers.push_back(Offer { call: call.clone(), is_written: false, entries });
        }
        shown
    }

    /// The result of a call has left.
    pub(crate) fn written(&mut self, call: &C) {
        self.open.remove(call);
        for offer in self.offers.iter_mut().filter(|offer| offer.call == *call) {
            offer.is_written = true;
        }
    }

    /// The host wants no result of a call: whatever it holds is handed out again, in its order.
    pub(crate) fn withdrawn(&mut self, call: &C) {
        self.open.remove(call);
        // From the newest, so that the oldest ends up in front.
        for at in (0..self.offers.len()).rev() {
            if self.offers[at].call == *call
                && let Some(offer) = self.offers.remove(at)
            {
                for entry in offer.entries.into_iter().rev() {
                    self.waiting.push_front(entry);
                }
            }
        }
    }

    /// What the host has received since this was asked last, in order.
    pub(crate) fn take_proven(&mut self) -> Vec<M> {
        std::mem::take(&mut self.proven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limits = Limits { messages: 100, bytes: 1_000 };

    /// A ledger with the messages 1, 2 and 3, of ten bytes each.
    fn ledger() -> Ledger<u32, u32> {
        let mut ledger = Ledger::default();
        for message in 1..=3 {
            ledger.arrived(message, 10);
        }
        ledger
    }

    fn take(ledger: &mut Ledger<u32, u32>, call: u32, limits: Limits) -> Vec<u32> {
        ledger.take(&call, limits, |message| *message)
    }

    #[test]
    fn message_is_received_once_a_call_follows_its_result() {
        let mut ledger = ledger();
        ledger.called(1);
        assert_eq!(take(&mut ledger, 1, ALL), [1, 2, 3]);
        ledger.written(&1);
        assert!(ledger.take_proven().is_empty());
        ledger.called(2);
        assert_eq!(ledger.take_proven(), [1, 2, 3]);
        assert_eq!((ledger.count, ledger.bytes), (0, 0));
        ledger.called(3);
        assert!(ledger.take_proven().is_empty());
    }

    #[test]
    fn call_that_came_before_the_result_was_written_shows_nothing() {
        let mut ledger = ledger();
        ledger.called(1);
        assert_eq!(take(&mut ledger, 1, ALL).len(), 3);
        ledger.called(2);
        ledger.written(&1);
        assert!(ledger.take_proven().is_empty());
        ledger.written(&2);
        ledger.called(3);
        assert_eq!(ledger.take_proven(), [1, 2, 3]);
    }

    #[test]
    fn result_that_was_received_shows_nothing_of_others() {
        let mut ledger = ledger();
        for call in [1, 2] {
            ledger.called(call);
            assert_eq!(take(&mut ledger, call, Limits { messages: 1, ..ALL }), [call]);
        }
        ledger.received(&2);
        assert_eq!(ledger.take_proven(), [2]);
        ledger.written(&1);
        ledger.called(3);
        assert_eq!(ledger.take_proven(), [1]);
    }

    #[test]
    fn withdrawn_result_gives_its_messages_back_in_order() {
        for is_written in [false, true] {
            let mut ledger = ledger();
            ledger.called(1);
            assert_eq!(take(&mut ledger, 1, Limits { messages: 2, ..ALL }), [1, 2]);
            if is_written {
                ledger.written(&1);
            }
            ledger.withdrawn(&1);
            ledger.called(2);
            assert!(ledger.take_proven().is_empty());
            assert_eq!(take(&mut ledger, 2, ALL), [1, 2, 3]);
        }
    }

    #[test]
    fn call_that_was_withdrawn_or_answered_takes_nothing() {
        let mut ledger = ledger();
        ledger.called(1);
        ledger.withdrawn(&1);
        ledger.called(2);
        ledger.written(&2);
        for call in [1, 2, 3] {
            assert!(take(&mut ledger, call, ALL).is_empty());
        }
        assert_eq!(ledger.waiting(), 3);
    }

    #[test]
    fn result_is_bounded_and_holds_one_message_at_least() {
        let mut ledger = ledger();
        ledger.arrived(4, 5_000);
        ledger.called(1);
        assert_eq!(take(&mut ledger, 1, Limits { messages: 9, bytes: 20 }), [1, 2]);
        assert_eq!(take(&mut ledger, 1, Limits { messages: 1, bytes: 20 }), [3]);
        assert_eq!(take(&mut ledger, 1, Limits { messages: 9, bytes: 20 }), [4]);
    }

    #[test]
    fn room_counts_what_results_hold() {
        let mut ledger = ledger();
        let limits = Limits { messages: 4, bytes: 31 };
        assert!(ledger.has_room(limits));
        assert!(!ledger.has_room(Limits { messages: 3, ..limits }));
        assert!(!ledger.has_room(Limits { bytes: 30, ..limits }));
        ledger.called(1);
        assert_eq!(take(&mut ledger, 1, ALL).len(), 3);
        assert!(!ledger.has_room(Limits { bytes: 30, ..limits }));
    }
}
