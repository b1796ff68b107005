//! What a connected recipient has and has not acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::limits::Limits;
use super::types::{Digest, Found, Message, Millis, Seq};

/// Deliveries of a message without an acknowledgement after which it makes room for others, where
/// its recipient has acknowledged what came behind it.
const PASSED_OVER: u16 = 2;

/// The same where its recipient acknowledges nothing, or ends whenever it gets the message: an hour.
pub(super) const STUCK: u16 = 6;

/// A connected recipient.
///
/// What stayed without an acknowledgement is late, and does not count towards the window up to as
/// much again: who never acknowledges some messages gets the others all the same.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) generation: u64,
    /// What it has and has not acknowledged.
    pub(super) sent: BTreeMap<Seq, Sent>,
    keys: HashMap<Digest, Seq, foldhash::fast::RandomState>,
    /// What it counts as.
    pub(super) all: Weight,
    /// What of it is late.
    late: Weight,
    /// The position of what it gets next.
    pub(super) cursor: Seq,
    /// A reading is under way.
    pub(super) is_loading: bool,
    /// A reading of late messages is under way.
    pub(super) is_repeating: bool,
    /// It has got nothing so far.
    pub(super) is_new: bool,
    /// Deliveries so far.
    deliveries: u64,
    /// The last of those that it has acknowledged, and when it has acknowledged anything.
    acknowledged: u64,
    acknowledged_at: Millis,
    /// How many acknowledgements of what it has not got were looked for since the last tick.
    looked_for: usize,
}

/// Messages, and what they count as.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Weight {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// A message that was handed to a recipient.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) key: Arc<str>,
    pub(super) digest: Digest,
    pub(super) cost: usize,
    origin: Digest,
    pub(super) at: Millis,
    pub(super) attempts: u16,
    /// Which delivery it was.
    delivery: u64,
    /// It is to be delivered again.
    pub(super) is_due: bool,
    /// Its recipient had acknowledged what came behind it when it was late.
    is_passed_over: bool,
}

impl Weight {
    const fn add(&mut self, cost: usize) {
        self.messages += 1;
        self.bytes += cost;
    }

    const fn take(&mut self, cost: usize) {
        self.messages -= 1;
        self.bytes -= cost;
    }
}

impl Live {
    pub(super) fn new(generation: u64, cursor: Seq) -> Self {
        Self {
            generation,
            sent: BTreeMap::new(),
            keys: HashMap::default(),
            all: Weight::default(),
            late: Weight::default(),
            cursor,
            is_loading: false,
            is_repeating: false,
            is_new: true,
            deliveries: 0,
            acknowledged: 0,
            acknowledged_at: Millis(0),
            looked_for: 0,
        }
    }

    /// Whether the store is asked for what this session acknowledges and has not got: for as much
    /// as an earlier session can have had. One that goes on inventing keys costs others nothing,
    /// and one that meant it gets the message again.
    pub(super) const fn may_look(&mut self, limits: &Limits) -> bool {
        self.looked_for += 1;
        self.looked_for <= limits.window
    }

    /// As much may be looked for again.
    pub(super) const fn look_again(&mut self) {
        self.looked_for = 0;
    }

    /// What counts towards the window.
    pub(super) fn counted(&self, limits: &Limits) -> Weight {
        let messages = self.all.messages - self.late.messages.min(limits.window);
        Weight { messages, bytes: self.all.bytes - self.late.bytes }
    }

    /// Whether the window has room for a message of this cost.
    pub(super) fn has_room(&self, cost: usize, limits: &Limits) -> bool {
        let Weight { messages, bytes } = self.counted(limits);
        messages == 0 || messages < limits.window && bytes + cost <= limits.window_bytes
    }

    /// Whether it has room enough to read for it: one message at a time would be a reading for each.
    pub(super) fn is_roomy(&self, limits: &Limits) -> bool {
        let Weight { messages, bytes } = self.counted(limits);
        messages == 0 || messages <= limits.window / 2 && bytes <= limits.window_bytes / 2
    }

    /// It gets a message.
    pub(super) fn put(&mut self, seq: Seq, message: &Message, attempts: u16, now: Millis) {
        let cost = message.cost();
        let digest = Digest::of_key(&message.key);
        self.keys.insert(digest, seq);
        self.all.add(cost);
        if attempts > 0 {
            self.late.add(cost);
        }
        self.deliveries += 1;
        let sent = Sent {
            key: Arc::clone(&message.key),
            digest,
            cost,
            origin: message.origin,
            at: now,
            attempts,
            delivery: self.deliveries,
            is_due: false,
            is_passed_over: false,
        };
        self.sent.insert(seq, sent);
        self.cursor = self.cursor.max(seq.next());
        self.is_new = false;
    }

    /// A message waits no more.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Sent> {
        let sent = self.sent.remove(&seq)?;
        self.keys.remove(&sent.digest);
        self.all.take(sent.cost);
        if sent.attempts > 0 {
            self.late.take(sent.cost);
        }
        Some(sent)
    }

    /// A message that it has.
    pub(super) fn find(&self, key: Digest) -> Option<Found> {
        let seq = *self.keys.get(&key)?;
        let Sent { origin, cost, .. } = self.sent.get(&seq)?;
        Some(Found { seq, origin: *origin, cost: *cost })
    }

    /// It has acknowledged a message that it has.
    pub(super) fn note_ack(&mut self, seq: Seq, now: Millis) {
        if let Some(sent) = self.sent.get(&seq) {
            self.acknowledged = self.acknowledged.max(sent.delivery);
            self.acknowledged_at = now;
        }
    }

    /// Whether it has acknowledged what came behind a message, and not that.
    const fn has_passed_over(&self, sent: &Sent) -> bool {
        sent.is_passed_over || sent.delivery < self.acknowledged
    }

    /// Whether a message has stayed without an acknowledgement for too long. One behind all that it
    /// has acknowledged may wait its turn as long as it goes on.
    pub(super) fn is_late(&self, sent: &Sent, limits: &Limits, now: Millis) -> bool {
        let waits_since =
            if self.has_passed_over(sent) { sent.at } else { sent.at.max(self.acknowledged_at) };
        !sent.is_due && now.since(waits_since) >= limits.patience(sent.attempts)
    }

    /// A message is late once more, and is to be delivered again.
    pub(super) fn set_late(&mut self, seq: Seq, attempts: u16) {
        let Some(sent) = self.sent.get_mut(&seq) else { return };
        if sent.attempts == 0 {
            self.late.add(sent.cost);
        }
        sent.is_passed_over |= sent.delivery < self.acknowledged;
        sent.attempts = attempts;
        sent.is_due = true;
    }

    /// A message that is to be delivered again is: true where it is one.
    pub(super) fn repeat(&mut self, seq: Seq, now: Millis) -> bool {
        let Some(sent) = self.sent.get_mut(&seq).filter(|sent| sent.is_due) else { return false };
        self.deliveries += 1;
        sent.delivery = self.deliveries;
        sent.at = now;
        sent.is_due = false;
        true
    }

    /// What is due up to here was not found: it is looked at again when its time has come.
    pub(super) fn forgo(&mut self, last: Option<Seq>, now: Millis) {
        let until = last.map_or(Seq(u64::MAX), |last| last);
        for (_, sent) in self.sent.range_mut(..=until).filter(|(_, sent)| sent.is_due) {
            sent.is_due = false;
            sent.at = now;
        }
    }

    /// Of what it has not acknowledged, what it got first.
    pub(super) fn first_unanswered(&self) -> Option<(Seq, &Sent)> {
        let first = self.sent.iter().min_by_key(|(_, sent)| sent.delivery);
        first.map(|(seq, sent)| (*seq, sent))
    }

    /// The first message that is to be delivered again.
    pub(super) fn first_due(&self) -> Option<Seq> {
        self.sent.iter().find(|(_, sent)| sent.is_due).map(|(seq, _)| *seq)
    }

    /// Late messages that are to make room for others, the oldest first: where late ones are as many
    /// as a window, and the window is full besides.
    pub(super) fn crowding(&self, limits: &Limits) -> Vec<Seq> {
        if self.late.messages < limits.window || self.is_roomy(limits) {
            return Vec::new();
        }
        let is_enough = |sent: &Sent| {
            let enough = if self.has_passed_over(sent) { PASSED_OVER } else { STUCK };
            sent.attempts >= enough
        };
        let late = self.sent.iter().filter(|(_, sent)| is_enough(sent));
        late.map(|(seq, _)| *seq).take(limits.window.div_ceil(2)).collect()
    }
}
