//! One peer's position in a channel.

use super::super::types::{Cursor, MailboxId, Millis, Seq};
use super::types::ChannelLimits;

/// Times that a record is tried alone before it is given up.
const ALONE: u16 = 6;

/// Most records of a batch.
pub(super) const BATCH_RECORDS: usize = 1_024;

/// A peer in a channel: one that comes back to its cursor, or one whose session is all it has.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct ReaderId {
    pub(super) peer: MailboxId,
    pub(super) is_ephemeral: bool,
}

/// Where a peer is in a channel.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) cursor: Cursor,
    /// The first record that its session has not been handed; the cursor, where there is no batch.
    pub(super) sent: Seq,
    /// Since when what is behind the cursor is tried, without an attempt that counted since.
    tried: Option<Millis>,
    /// Records before this one are delivered one at a time: one of them may be what its peer never
    /// acknowledges.
    alone_until: Seq,
    /// When the last record that it has acknowledged was accepted.
    pub(super) passed: Millis,
    /// Its session is subscribed.
    pub(super) is_live: bool,
    /// It is among the channels that its session waits for records of.
    pub(super) is_waiting: bool,
}

impl Reader {
    pub(super) fn new(cursor: Cursor, limits: &ChannelLimits) -> Self {
        let is_suspect = cursor.attempts >= limits.attempts;
        let alone = if is_suspect { BATCH_RECORDS as u64 } else { 0 };
        Self {
            cursor,
            sent: cursor.seq,
            tried: None,
            alone_until: Seq(cursor.seq.0 + alone),
            passed: Millis(0),
            is_live: false,
            is_waiting: false,
        }
    }

    /// Whether its records are delivered one at a time.
    pub(super) fn is_alone(&self) -> bool {
        self.cursor.seq < self.alone_until
    }

    /// What is behind the cursor is handed over, or again: true where that is an attempt more. Two
    /// that are closer to each other than the time for an acknowledgement count as one.
    pub(super) fn note_try(&mut self, limits: &ChannelLimits, now: Millis) -> bool {
        let Some(since) = self.tried else {
            self.tried = Some(now);
            return false;
        };
        if now.since(since) < limits.ack_timeout {
            return false;
        }
        self.tried = Some(now);
        self.cursor.attempts = self.cursor.attempts.saturating_add(1);
        true
    }

    /// Whether the batch up to here was tried often enough, so that it is taken apart.
    pub(super) fn take_apart(&mut self, before: Seq, limits: &ChannelLimits) -> bool {
        let is_enough = !self.is_alone() && self.cursor.attempts >= limits.attempts;
        if is_enough {
            self.alone_until = before;
            self.tried = None;
        }
        is_enough
    }

    /// Whether the record behind the cursor, which was tried alone, is given up.
    pub(super) fn gives_up(&self, limits: &ChannelLimits) -> bool {
        self.is_alone() && self.cursor.attempts >= limits.attempts.saturating_add(ALONE)
    }

    /// The cursor goes to a position, which no record before is tried for any more.
    pub(super) fn go_to(&mut self, seq: Seq, offset: u64, limits: &ChannelLimits) {
        self.cursor.seq = seq;
        self.cursor.offset = offset;
        self.sent = self.sent.max(seq);
        self.tried = None;
        self.cursor.attempts = if self.is_alone() { limits.attempts } else { 0 };
    }
}
