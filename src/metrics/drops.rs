//! What was dropped last, whose it was and why: what an operator asks for afterwards.
//!
//! Nothing is written for a packet that passes. Drops of one sender, destination and reason
//! share a slot, so that a flood of one pair takes one slot and not all. Where drops come
//! faster than a thousand a second, a random part of them is written.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{Drop, sampling};
use crate::wire::name::Name;

/// Slots of one shard, 492 KB of them; there are none before the first drop.
const SLOTS: usize = 4_096;

/// Notes after which fewer drops are noted, until the second is over.
const NOTES: u32 = 1_000;

/// Of so many drops at least one is noted.
const MOST_WEIGHT: u32 = 4_096;

/// Whose a packet is, as far as that is known.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Whose {
    /// Who sent it, or says so.
    pub sender: Option<Name>,
    /// Whom it is for.
    pub dest: Option<Name>,
}

impl Whose {
    /// A packet of which nothing is known, or nothing is to be remembered.
    pub const NOBODY: Self = Self { sender: None, dest: None };

    /// A packet of a sender for a destination.
    #[must_use]
    pub fn packet(sender: impl Into<Name>, dest: impl Into<Name>) -> Self {
        Self { sender: Some(sender.into()), dest: Some(dest.into()) }
    }

    /// What a peer said that was for the relay, or could not be read.
    #[must_use]
    pub fn sender(sender: impl Into<Name>) -> Self {
        Self { sender: Some(sender.into()), dest: None }
    }
}

/// Drops of one sender, destination and reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dropped {
    /// Why.
    pub reason: Drop,
    /// Whose they were.
    pub whose: Whose,
    /// How many packets.
    pub packets: u64,
    /// Whether that is an estimate, since only a part was noted.
    pub is_estimate: bool,
    /// How long ago the first of them was dropped.
    pub first: Duration,
    /// How long ago the last of them was dropped.
    pub last: Duration,
}

impl Dropped {
    /// Adds what another thread noted of the same pair and reason.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.packets += other.packets;
        self.is_estimate |= other.is_estimate;
        self.first = self.first.max(other.first);
        self.last = self.last.min(other.last);
    }
}

/// The drops that one thread noted.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// Drops to leave out before the next is noted.
    skip: AtomicU32,
    memory: Mutex<Option<Box<Memory>>>,
}

#[derive(Debug)]
struct Memory {
    slots: Box<[Option<Slot>]>,
    hasher: RandomState,
    began: Instant,
    /// Of so many drops one is noted, since `second`.
    weight: u32,
    second: u64,
    noted: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    reason: Drop,
    whose: Whose,
    is_estimate: bool,
    packets: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Drops {
    pub(super) fn note(&self, whose: Whose, reason: Drop, packets: u64, now: Instant) {
        if packets == 0 {
            return;
        }
        // Threads that share a shard may take a step of each other, which does no harm.
        let skip = self.skip.load(Ordering::Relaxed);
        if skip > 0 {
            return self.skip.store(skip - 1, Ordering::Relaxed);
        }
        // Somebody reads: better a note less than a thread that waits.
        let Some(mut memory) = self.memory.try_lock() else { return };
        let memory = memory.get_or_insert_with(|| Box::new(Memory::new(now)));
        memory.note(whose, reason, packets, now);
        self.skip.store(sampling::gap(memory.weight), Ordering::Relaxed);
    }

    /// Appends what was dropped of packets from or to a peer.
    pub(super) fn of(&self, peer: Name, now: Instant, found: &mut Vec<Dropped>) {
        let memory = self.memory.lock();
        let Some(memory) = &*memory else { return };
        let age = |ms| memory.age(now).saturating_sub(Duration::from_millis(ms));
        for slot in memory.slots.iter().flatten() {
            let Slot { reason, whose, is_estimate, packets, first_ms, last_ms } = *slot;
            if whose.sender == Some(peer) || whose.dest == Some(peer) {
                let (first, last) = (age(first_ms), age(last_ms));
                found.push(Dropped { reason, whose, packets, is_estimate, first, last });
            }
        }
    }
}

impl Memory {
    fn new(now: Instant) -> Self {
        Self {
            slots: vec![None; SLOTS].into(),
            hasher: RandomState::default(),
            began: now,
            weight: 1,
            second: 0,
            noted: 0,
        }
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    #[allow(clippy::cast_possible_truncation)] // taken modulo the number of slots
    fn note(&mut self, whose: Whose, reason: Drop, packets: u64, now: Instant) {
        let age = self.age(now);
        if age.as_secs() != self.second {
            self.second = age.as_secs();
            self.noted = 0;
            self.weight = (self.weight / 2).max(1);
        }
        let at = self.hasher.hash_one((whose, reason)) as usize % SLOTS;
        let Some(slot) = self.slots.get_mut(at) else { return };
        let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let slot = match slot {
            Some(slot) if slot.whose == whose && slot.reason == reason => slot,
            other => other.insert(Slot {
                reason,
                whose,
                is_estimate: false,
                packets: 0,
                first_ms: ms,
                last_ms: ms,
            }),
        };
        slot.packets += packets * u64::from(self.weight);
        slot.is_estimate |= self.weight > 1;
        slot.last_ms = ms;
        self.noted += 1;
        if self.noted.is_multiple_of(NOTES) {
            self.weight = (self.weight * 2).min(MOST_WEIGHT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::name;

    fn of(drops: &Drops, number: u32, now: Instant) -> Vec<Dropped> {
        let mut found = Vec::new();
        drops.of(name(number), now, &mut found);
        found
    }

    #[test]
    fn drops_of_one_pair_and_reason_are_one_line() {
        let (drops, start) = (Drops::default(), Instant::now());
        let second = Duration::from_secs(1);
        let pair = Whose::packet(name(1), name(2));
        drops.note(pair, Drop::OUTBOX_FULL, 3, start);
        drops.note(pair, Drop::OUTBOX_FULL, 4, start + second);
        drops.note(pair, Drop::OUTBOX_AGED, 0, start + second);
        drops.note(Whose::sender(name(1)), Drop::SENDER_MISMATCH, 1, start + 2 * second);

        let to = of(&drops, 2, start + 3 * second);
        let expected = Dropped {
            reason: Drop::OUTBOX_FULL,
            whose: pair,
            packets: 7,
            is_estimate: false,
            first: 3 * second,
            last: 2 * second,
        };
        assert_eq!(to, [expected]);
        assert_eq!(of(&drops, 1, start + 3 * second).len(), 2);
        assert_eq!(of(&drops, 3, start), []);
    }

    #[test]
    fn flood_is_written_in_part_and_counted_about_right() {
        let (drops, start) = (Drops::default(), Instant::now());
        let flood = Whose::packet(name(1), name(2));
        for _ in 0..1_000_000 {
            drops.note(flood, Drop::RATE_LIMITED, 1, start);
        }
        let found = of(&drops, 2, start);
        assert!(found[0].is_estimate);
        assert!((800_000..1_200_000).contains(&found[0].packets), "{found:?}");
        let noted = drops.memory.lock().as_ref().unwrap().noted;
        assert!(noted < 20_000, "{noted} notes");
    }

    #[test]
    fn flood_of_many_pairs_stays_within_its_slots() {
        let (drops, start) = (Drops::default(), Instant::now());
        for number in 1..=1_000_000 {
            drops.note(Whose::packet(name(number), name(7)), Drop::UNKNOWN_DESTINATION, 1, start);
        }
        assert!(of(&drops, 7, start).len() <= SLOTS);
    }

    #[test]
    fn one_drop_is_noted_again_soon_after_a_flood() {
        let (drops, start) = (Drops::default(), Instant::now());
        for _ in 0..100_000 {
            drops.note(Whose::packet(name(1), name(2)), Drop::RATE_LIMITED, 1, start);
        }
        let noted = |at| {
            // What the flood still had to leave out is used up first.
            while drops.skip.load(Ordering::Relaxed) > 0 {
                drops.note(Whose::sender(name(9)), Drop::SENDER_MISMATCH, 1, start);
            }
            drops.note(Whose::packet(name(3), name(4)), Drop::OUTBOX_AGED, 1, at);
            drops.memory.lock().as_ref().unwrap().weight
        };
        let weights: Vec<_> = (1..20).map(|s| noted(start + Duration::from_secs(s))).collect();
        assert_eq!(weights.last(), Some(&1));
        assert!(!of(&drops, 4, start).is_empty());
    }
}
