//! What was accepted lately, to tell a message that comes again.

use std::collections::VecDeque;

use hashbrown::HashSet;

use super::types::{Change, Digest, Millis};

/// How often it is written down what time it is, in milliseconds: a clock that is wrong after a
/// restart is found by it.
const BEAT: u64 = 600_000;

/// What was accepted lately, bounded in number and by age. An entry is what one commit accepted.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    origins: HashSet<Digest, foldhash::fast::RandomState>,
    entries: VecDeque<Entry>,
    next: u64,
    /// When it began: the time without a bus is none in which somebody could have sent it again.
    began: Option<Millis>,
    /// When it was last written down what time it is.
    beaten: Option<Millis>,
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
            remembered.origins.extend(origins.iter().copied());
            remembered.entries.push_back(Entry { number, at, origins });
            remembered.next = number + 1;
        }
        remembered
    }

    pub(super) fn has(&self, origin: Digest) -> bool {
        self.origins.contains(&origin)
    }

    pub(super) fn add(&mut self, origin: Digest) {
        self.origins.insert(origin);
    }

    /// Writes down what time it is, if that is due: as an entry that nothing was accepted with.
    pub(super) fn beat(&mut self, now: Millis, changes: &mut Vec<Change>) {
        if now.since(*self.beaten.get_or_insert(now)) >= BEAT {
            self.beaten = Some(now);
            self.push(Vec::new(), now, changes);
        }
    }

    fn push(&mut self, origins: Vec<Digest>, at: Millis, changes: &mut Vec<Change>) {
        let number = self.next;
        self.next += 1;
        changes.push(Change::Accepted { number, at, origins: origins.clone() });
        self.entries.push_back(Entry { number, at, origins });
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
        if !origins.is_empty() {
            self.push(origins, now, changes);
        }
        let began = *self.began.get_or_insert(now);
        let mut before = None;
        while let Some(oldest) = self.entries.front() {
            // The youngest entry stays: a sender that repeats what one commit had is told so.
            let is_too_much = self.origins.len() > most && self.entries.len() > 1;
            if !is_too_much && now.since(oldest.at.max(began)) < age {
                break;
            }
            let Entry { number, origins, .. } = self.entries.pop_front().expect("it is the front");
            for origin in origins {
                self.origins.remove(&origin);
            }
            before = Some(number + 1);
        }
        if let Some(before) = before {
            changes.push(Change::ForgetAccepted { before });
        }
    }
}
