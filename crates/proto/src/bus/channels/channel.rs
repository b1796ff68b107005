//! One channel: its records, the newest of them in memory, and where its readers are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::turn::Turn;
use super::super::types::{
    Change, ChannelState, Cursor, Event, EventKind, MailboxId, Message, Millis, Seq,
};
use super::reader::{Reader, ReaderId};
use super::types::{ChannelLimits, DEAD_LETTERS};

/// What the newest records of a channel take in memory, in bytes, at most.
const TAIL_BYTES: usize = 2 << 20;

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) state: ChannelState,
    pub(super) readers: BTreeMap<ReaderId, Reader>,
    /// How many readers are at which position.
    positions: BTreeMap<Seq, usize>,
    /// Readers whose session has all that there is.
    pub(super) idle: BTreeSet<ReaderId>,
    /// Readers whose session is here.
    pub(super) live: usize,
    /// The newest records, up to the last.
    tail: VecDeque<Arc<Message>>,
    pub(super) tail_bytes: usize,
    /// What of that was counted in the sum of all channels.
    pub(super) counted_bytes: usize,
    /// Records before this one are removed, also for peers that have not got them.
    pub(super) purge_before: Seq,
    /// Its oldest records are being read, to remove those that are too many.
    pub(super) is_retaining: bool,
    pub(super) has_dead_letters: bool,
}

/// What was removed of a channel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Trimmed {
    pub(super) consumed: u64,
    pub(super) purged: u64,
}

impl Channel {
    pub(super) fn new(state: ChannelState) -> Self {
        let has_dead_letters = state.name.ends_with(DEAD_LETTERS);
        Self {
            state,
            readers: BTreeMap::new(),
            positions: BTreeMap::new(),
            idle: BTreeSet::new(),
            live: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            counted_bytes: 0,
            purge_before: Seq(0),
            is_retaining: false,
            has_dead_letters,
        }
    }

    pub(super) const fn id(&self) -> MailboxId {
        self.state.channel
    }

    /// Whether a record is of use to anybody.
    pub(super) fn is_read(&self) -> bool {
        self.has_dead_letters || !self.readers.is_empty()
    }

    /// A cursor at its end.
    pub(super) const fn end(&self, now: Millis) -> Cursor {
        Cursor { seq: self.state.next, offset: self.state.end, seen: now, attempts: 0 }
    }

    /// Adds a reader.
    pub(super) fn insert(&mut self, id: ReaderId, reader: Reader) {
        *self.positions.entry(reader.cursor.seq).or_insert(0) += 1;
        let before = self.readers.insert(id, reader);
        debug_assert!(before.is_none(), "a reader is added once");
    }

    /// Removes a reader.
    pub(super) fn remove(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.remove(&id) else { return };
        self.live -= usize::from(reader.is_live);
        self.idle.remove(&id);
        self.leave(reader.cursor.seq);
        if self.live == 0 {
            self.drop_tail();
        }
    }

    fn leave(&mut self, seq: Seq) {
        let count = self.positions.get_mut(&seq).expect("a reader is at its position");
        *count -= 1;
        if *count == 0 {
            self.positions.remove(&seq);
        }
    }

    /// Moves a reader on: it has all before this position, or never will.
    pub(super) fn move_on(
        &mut self,
        id: ReaderId,
        (seq, offset): (Seq, u64),
        limits: &ChannelLimits,
        turn: &mut Turn,
    ) {
        let is_end = seq == self.state.next;
        let offset = if is_end { self.state.end } else { offset.min(self.state.end) };
        let reader = self.readers.get_mut(&id).expect("who is moved on reads");
        let before = reader.cursor.seq;
        reader.go_to(seq, offset, limits);
        write_cursor(self.state.channel, id, &reader.cursor, turn);
        *self.positions.entry(seq).or_insert(0) += 1;
        self.leave(before);
    }

    /// Appends a record; returns its position.
    pub(super) fn append(&mut self, message: &Arc<Message>, turn: &mut Turn) -> Seq {
        let seq = self.state.next;
        let cost = message.cost();
        if self.state.records() == 0 {
            self.state.oldest = message.accepted;
        }
        self.state.next = seq.next();
        self.state.bytes += cost as u64;
        self.state.end += cost as u64;
        turn.appended_bytes += cost;
        let channel = self.id();
        turn.changes.push(Change::Record { channel, seq, record: Arc::clone(message) });
        if self.live > 0 {
            self.tail.push_back(Arc::clone(message));
            self.tail_bytes += cost;
            while self.tail_bytes > TAIL_BYTES && self.tail.len() > 1 {
                self.drop_oldest();
            }
        }
        seq
    }

    /// The position of the first record in memory: the end, where there is none.
    pub(super) fn tail_from(&self) -> Seq {
        Seq(self.state.next.0 - self.tail.len() as u64)
    }

    /// A record that is in memory.
    pub(super) fn in_tail(&self, seq: Seq) -> Option<&Arc<Message>> {
        let index = seq.0.checked_sub(self.tail_from().0)?;
        self.tail.get(usize::try_from(index).ok()?)
    }

    /// Forgets the oldest record in memory, which the store has; what that took.
    pub(super) fn drop_oldest(&mut self) -> usize {
        let Some(oldest) = self.tail.pop_front() else { return 0 };
        self.tail_bytes -= oldest.cost();
        oldest.cost()
    }

    /// Nobody is here who could need what is in memory.
    pub(super) fn drop_tail(&mut self) {
        self.tail = VecDeque::new();
        self.tail_bytes = 0;
    }

    /// The first record that has to be kept.
    fn floor(&self) -> Seq {
        let of_readers = self.positions.first_key_value().map(|(seq, _)| *seq);
        let floor = match of_readers {
            _ if self.has_dead_letters => self.state.head,
            Some(seq) => seq,
            None => self.state.next,
        };
        floor.max(self.purge_before).max(self.state.head)
    }

    /// Whether records are to be removed.
    pub(super) fn is_trimmable(&self) -> bool {
        self.floor() > self.state.head
    }

    /// Removes records that all readers have passed, or that were purged: so many at most.
    pub(super) fn trim(&mut self, most: u64, turn: &mut Turn) -> Trimmed {
        let from = self.state.head;
        let before = self.floor().min(Seq(from.0 + most));
        if before == from {
            return Trimmed::default();
        }
        let count = before.0 - from.0;
        let purged = self.purge_before.min(before).0.saturating_sub(from.0);
        let bytes = if before == self.state.next { Some(0) } else { self.bytes_from(before) };
        self.cut(before, bytes, turn);
        Trimmed { consumed: count - purged, purged }
    }

    /// What the records from a position on count as, where a reader is there.
    fn bytes_from(&self, seq: Seq) -> Option<u64> {
        self.positions.get(&seq)?;
        let reader = self.readers.values().find(|reader| reader.cursor.seq == seq)?;
        Some(self.state.end - reader.cursor.offset.min(self.state.end))
    }

    /// Removes the records before a position; what is left counts as so much, or as before where
    /// nobody knows.
    pub(super) fn cut(&mut self, before: Seq, bytes: Option<u64>, turn: &mut Turn) {
        let (channel, from) = (self.id(), self.state.head);
        turn.changes.push(Change::Trim { channel, from, before });
        self.state.head = before;
        if let Some(bytes) = bytes {
            self.state.bytes = bytes.min(self.state.bytes);
        }
        while self.tail_from() < before && self.drop_oldest() > 0 {}
        if let Some(oldest) = self.in_tail(before) {
            self.state.oldest = oldest.accepted;
        }
    }

    /// Moves readers to a position that are before it, since what they have not got is gone or
    /// goes; returns how many records that were.
    pub(super) fn undercut(
        &mut self,
        (seq, offset): (Seq, u64),
        names: impl Fn(MailboxId) -> Arc<str>,
        limits: &ChannelLimits,
        turn: &mut Turn,
    ) -> u64 {
        let behind = self.readers.iter().filter(|(_, reader)| reader.cursor.seq < seq);
        let behind: Vec<_> = behind.map(|(id, reader)| (*id, reader.cursor.seq)).collect();
        let mut skipped = 0;
        for (id, at) in behind {
            let records = seq.0 - at.0;
            skipped += records;
            self.move_on(id, (seq, offset), limits, turn);
            turn.events.push(Event {
                kind: EventKind::ReplayGap,
                key: format!("{records} records from {} on", at.0).into(),
                from: Arc::clone(&self.state.name),
                to: names(id.peer),
            });
        }
        skipped
    }

    /// The age of the first record behind a reader, in milliseconds, at most.
    pub(super) fn age_behind(&self, reader: &Reader, now: Millis) -> u64 {
        let seq = reader.cursor.seq;
        if seq == self.state.next {
            return 0;
        }
        let accepted = self.in_tail(seq).map(|record| record.accepted);
        now.since(accepted.unwrap_or_else(|| reader.passed.max(self.state.oldest)))
    }
}

/// Writes a cursor down, unless it goes with its session.
pub(super) fn write_cursor(channel: MailboxId, id: ReaderId, cursor: &Cursor, turn: &mut Turn) {
    if !id.is_ephemeral {
        turn.changes.push(Change::Cursor { channel, peer: id.peer, cursor: Some(*cursor) });
    }
}
