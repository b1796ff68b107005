//! The end of what is too old, and of what an operator purges.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::limits::Limits;
use super::mailbox::{Lost, Mailbox};
use super::turn::{Effect, Load, Purpose, Turn};
use super::types::{Damaged, Digest, Event, EventKind, Millis, Reading, Stored};

impl Mailbox {
    /// Whether something in it may be too old, or purged.
    pub(super) fn wants_sweep(&self, limits: &Limits, now: Millis) -> bool {
        self.level.messages > 0
            && (now.since(self.level.oldest) >= limits.retention
                || self.level.head < self.purge_before)
    }

    /// Asks for its oldest messages, to remove those that are to go.
    pub(super) fn sweep(&mut self, turn: &mut Turn) {
        if self.sweeping.is_some() {
            return;
        }
        self.sweeping = Some(BTreeSet::new());
        turn.effects.push(Effect::Load(Load {
            mailbox: self.named.mailbox,
            from: self.level.head,
            messages: SWEPT,
            bytes: SWEPT_BYTES,
            purpose: Purpose::Sweep,
            next: self.level.next,
            removals: self.removals,
        }));
    }

    /// Removes of its oldest messages those that are to go.
    pub(super) fn swept(
        &mut self,
        load: &Load,
        reading: &Reading,
        limits: &Limits,
        now: Millis,
        turn: &mut Turn,
    ) -> Swept {
        let removed = self.sweeping.take().unwrap_or_default();
        let mut swept = Swept::default();
        if reading.is_empty() && removed.is_empty() && load.next == self.level.next {
            // The books say that something waits, and the store has nothing: the store is right.
            swept.lost.missing = std::mem::take(&mut self.level.messages);
            self.level.bytes = 0;
            turn.touched.insert(self.id());
        }
        let is_there = |damaged: &&Damaged| !removed.contains(&damaged.seq);
        let damaged: Vec<_> = reading.damaged.iter().filter(is_there).copied().collect();
        self.remove_damaged(&damaged, turn);
        swept.lost.damaged = damaged.len() as u64;
        for Stored { seq, message, .. } in &reading.stored {
            if removed.contains(seq) {
                continue;
            }
            let is_purged = *seq < self.purge_before;
            let is_aged = now.since(message.accepted) >= limits.retention;
            if !(is_purged || is_aged) {
                self.level.head = *seq;
                self.level.oldest = message.accepted;
                turn.touched.insert(self.id());
                break;
            }
            let kind = if is_purged { EventKind::Purge } else { EventKind::Expire };
            let count = if is_purged { &mut swept.purged } else { &mut swept.expired };
            *count += 1;
            self.remove(*seq, Digest::of_key(&message.key), message.cost(), turn);
            turn.events.push(Event {
                kind,
                key: Arc::clone(&message.key),
                from: Arc::clone(&self.named.name),
                to: "".into(),
            });
        }
        if self.wants_sweep(limits, now) {
            self.sweep(turn);
        }
        self.load_more(limits, turn);
        swept
    }
}

/// What a sweep has removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Swept {
    pub(super) expired: u64,
    pub(super) purged: u64,
    pub(super) lost: Lost,
}

/// Messages that one sweep looks at.
const SWEPT: usize = 256;

/// What they count as, in bytes.
const SWEPT_BYTES: usize = 4 << 20;
