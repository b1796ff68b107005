//! What was accepted lately, to tell a message that comes again.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::types::{Change, Digest, MailboxId, Millis};

/// How often it is written down what time it is, in milliseconds: a clock that is wrong after a
/// restart is found by it.
const BEAT: u64 = 600_000;

/// Where there is too much, this part of it goes at once.
const PIECE: usize = 64;

/// The sender of what was accepted before a restart: all that has one sender goes before what
/// others have.
const UNKNOWN: MailboxId = MailboxId(u64::MAX);

/// What was accepted lately, bounded in number and by age. An entry is what one commit accepted.
///
/// Where it is too much, those who have most of it forget first: one that sends very much costs
/// nobody else that a repetition is found.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    origins: HashMap<Digest, Held, foldhash::fast::RandomState>,
    /// Of each sender what it has, the oldest first, and maybe some that is forgotten.
    senders: HashMap<MailboxId, Sender, foldhash::fast::RandomState>,
    entries: VecDeque<Entry>,
    /// What the entries have, also what is forgotten.
    written: usize,
    next: u64,
    /// When it began: the time without a bus is none in which somebody could have sent it again.
    began: Option<Millis>,
    /// When it was last written down what time it is, and whether it is to be.
    beaten: Option<Millis>,
    is_beat: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    sender: MailboxId,
    /// The entry that has it.
    number: u64,
}

#[derive(Debug, Default)]
struct Sender {
    held: usize,
    queue: VecDeque<Digest>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    at: Millis,
    origins: Vec<Digest>,
}

impl Remembered {
    /// What a store has of it.
    pub(super) fn recover(entries: Vec<(u64, Millis, Vec<Digest>)>) -> Self {
        let mut remembered = Self::default();
        for (number, at, origins) in entries {
            remembered.next = number;
            for origin in &origins {
                remembered.add(*origin, UNKNOWN);
            }
            remembered.written += origins.len();
            remembered.entries.push_back(Entry { number, at, origins });
            remembered.next = number + 1;
        }
        remembered
    }

    pub(super) fn has(&self, origin: Digest) -> bool {
        self.origins.contains_key(&origin)
    }

    /// Adds what a sender has sent, to what is written next.
    pub(super) fn add(&mut self, origin: Digest, sender: MailboxId) {
        self.remove(origin);
        self.origins.insert(origin, Held { sender, number: self.next });
        let sender = self.senders.entry(sender).or_default();
        sender.held += 1;
        sender.queue.push_back(origin);
    }

    fn remove(&mut self, origin: Digest) {
        let Some(Held { sender: id, .. }) = self.origins.remove(&origin) else { return };
        let Some(sender) = self.senders.get_mut(&id) else { return };
        sender.held -= 1;
        if sender.held == 0 {
            self.senders.remove(&id);
            return;
        }
        // What goes out of turn stays in the queue until it is at its front.
        while let Some(front) = sender.queue.front() {
            if self.origins.get(front).is_some_and(|held| held.sender == id) {
                break;
            }
            sender.queue.pop_front();
        }
    }

    /// Has it be written down what time it is, if that is due: as an entry that nothing was
    /// accepted with.
    pub(super) fn beat(&mut self, now: Millis) {
        if now.since(*self.beaten.get_or_insert(now)) >= BEAT {
            self.beaten = Some(now);
            self.is_beat = true;
        }
    }

    /// Writes down what a turn has added, and forgets what is too old or too much.
    pub(super) fn write(
        &mut self,
        origins: Vec<Digest>,
        most: usize,
        age: u64,
        now: Millis,
        changes: &mut Vec<Change>,
    ) {
        if std::mem::take(&mut self.is_beat) || !origins.is_empty() {
            self.push(origins, now, changes);
        }
        if self.origins.len() > most {
            self.forget_most(most - most / PIECE);
        }
        let began = *self.began.get_or_insert(now);
        let mut before = None;
        let mut kept = Vec::new();
        let mut kept_at = Millis(0);
        while let Some(oldest) = self.entries.front() {
            let is_old = now.since(oldest.at.max(began)) >= age;
            // The youngest entry stays: a sender that repeats what one commit had is told so.
            let is_too_much = self.written > 2 * most && self.entries.len() > 1;
            if !is_old && !is_too_much {
                break;
            }
            let Entry { number, at, origins } = self.entries.pop_front().expect("it is the front");
            self.written -= origins.len();
            before = Some(number + 1);
            for origin in origins {
                if self.origins.get(&origin).is_none_or(|held| held.number != number) {
                    continue;
                }
                if is_old {
                    self.remove(origin);
                } else {
                    // What is remembered of an entry that is mostly forgotten gets another.
                    kept.push(origin);
                    kept_at = kept_at.max(at);
                }
            }
        }
        if !kept.is_empty() {
            for origin in &kept {
                if let Some(held) = self.origins.get_mut(origin) {
                    held.number = self.next;
                }
            }
            self.push(kept, kept_at, changes);
        }
        if let Some(before) = before {
            changes.push(Change::ForgetAccepted { before });
        }
    }

    fn push(&mut self, origins: Vec<Digest>, at: Millis, changes: &mut Vec<Change>) {
        let number = self.next;
        self.next += 1;
        self.written += origins.len();
        changes.push(Change::Accepted { number, at, origins: origins.clone() });
        self.entries.push_back(Entry { number, at, origins });
    }

    /// Forgets the oldest of those who have most, until so much is left; nothing of the youngest
    /// entry.
    fn forget_most(&mut self, most: usize) {
        while self.origins.len() > most {
            let share = most / self.senders.len();
            let largest = self.senders.iter().max_by_key(|(_, sender)| sender.held);
            let Some((id, held)) = largest.map(|(id, sender)| (*id, sender.held)) else { return };
            let too_many = self.origins.len() - most;
            if !self.forget_of(id, too_many.min(held - share.min(held)).max(1)) {
                return;
            }
        }
    }

    /// Forgets the oldest of a sender; false where it has none that may go.
    fn forget_of(&mut self, id: MailboxId, count: usize) -> bool {
        let youngest = self.next - 1;
        for forgotten in 0..count {
            let oldest = self.senders.get(&id).and_then(|sender| sender.queue.front().copied());
            let number = oldest.and_then(|oldest| Some(self.origins.get(&oldest)?.number));
            let (Some(oldest), Some(number)) = (oldest, number) else { return forgotten > 0 };
            if number >= youngest {
                return forgotten > 0;
            }
            self.remove(oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> Digest {
        Digest::of_key(&number.to_string())
    }

    #[test]
    fn nothing_grows_while_one_sends_all_the_time_and_another_floods() {
        const MOST: usize = 100;
        const STEADY: MailboxId = MailboxId(1);
        const FLOOD: MailboxId = MailboxId(2);
        let mut remembered = Remembered::default();
        let mut changes = Vec::new();
        for second in 0..3_000 {
            let mut origins = vec![digest(second)];
            remembered.add(digest(second), STEADY);
            // A flood now and then.
            for flooded in 0..if second % 500 < 100 { 20 } else { 0 } {
                let origin = digest(1_000_000 + 100 * second + flooded);
                remembered.add(origin, FLOOD);
                origins.push(origin);
            }
            changes.clear();
            remembered.write(origins, MOST, 40_000, Millis(second * 1_000), &mut changes);

            let queued: usize = remembered.senders.values().map(|of| of.queue.len()).sum();
            let held: usize = remembered.senders.values().map(|of| of.held).sum();
            assert_eq!(held, remembered.origins.len());
            assert!(held <= MOST + 21, "{held} are remembered");
            assert!(queued <= 4 * MOST, "{queued} are queued");
            assert!(remembered.written <= 2 * MOST + 50, "{} are written", remembered.written);
            let lately = second.saturating_sub(30)..=second;
            for lately in lately {
                assert!(remembered.has(digest(lately)), "{lately} in {second}");
            }
        }
    }
}
