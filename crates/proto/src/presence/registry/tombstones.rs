//! What is over: remembered for a while, so that a late word does not bring it back.

use std::time::Instant;

use beacon_wire::cluster::Name;

use super::Registry;
use super::record::{Life, MEMORY, Sort, Tick};
use crate::presence::changes::MAX_STEP;
use crate::presence::members::Slot;

/// Tombstones of what proved nothing have this part of the room.
const UNPROVED_SHARE: usize = 8;

/// The last serial that is over at a relay, and since when that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) serial: u64,
    since: Tick,
    /// The serial after it was granted here, and another relay took the peer over.
    next_is_replaced: bool,
}

impl<I: Name> Registry<I> {
    /// Makes a record a tombstone.
    pub(super) fn end(&mut self, id: I, serial: u64, now: Instant, tick: Tick) {
        let Some(record) = self.records.get_mut(&id) else { return };
        record.serial = serial;
        let life = std::mem::replace(&mut record.life, Life::Over);
        if life == Life::Over {
            return;
        }
        record.since = tick;
        let sort = record.sort();
        self.live -= 1;
        self.unproved.remove(&id);
        if life == Life::Live {
            self.dig(id, sort, now, tick);
        }
    }

    /// A grave for a tombstone; where there are too many of its sort, the oldest goes.
    pub(super) fn dig(&mut self, id: I, sort: Sort, now: Instant, tick: Tick) {
        let graves = &mut self.graves[sort as usize];
        graves.push_back((now + MEMORY, id));
        if sort == Sort::Unproved && graves.len() > (self.room / UNPROVED_SHARE).max(1) {
            self.open_grave(sort, true, now, tick);
        }
    }

    /// Takes the oldest grave of a sort; forgets its tombstone if the time is up, or if it
    /// proved nothing and has to go. Returns whether it was forgotten.
    fn open_grave(&mut self, sort: Sort, must_go: bool, now: Instant, tick: Tick) -> bool {
        let Some((_, id)) = self.graves[sort as usize].pop_front() else { return false };
        let Some(record) = self.records.get_mut(&id) else { return false };
        if record.live() {
            record.life = Life::Live;
            return false;
        }
        let time_is_up = tick.since(record.since) + Tick::LENGTH >= record.memory();
        let goes = time_is_up || must_go && record.sort() == Sort::Unproved;
        if goes {
            self.records.remove(&id);
        } else {
            let sort = record.sort();
            self.graves[sort as usize].push_back((now + MEMORY, id));
        }
        goes
    }

    /// Forgets the oldest tombstone of what proved nothing.
    pub(super) fn make_room(&mut self, now: Instant, tick: Tick) -> bool {
        let graves = self.graves[Sort::Unproved as usize].len().min(MAX_STEP);
        (0..graves).any(|_| self.open_grave(Sort::Unproved, true, now, tick))
    }

    /// Remembers apart what is over at a relay that the record does not name.
    pub(super) fn remember(&mut self, id: I, owner: Slot, serial: u64, now: Instant, tick: Tick) {
        let key = (id, owner);
        if let Some(ended) = self.ended.get_mut(&key) {
            if ended.serial < serial {
                *ended = Ended { serial, since: tick, next_is_replaced: false };
            }
        } else if self.ended.len() < self.room {
            self.ended.insert(key, Ended { serial, since: tick, next_is_replaced: false });
            self.forget.push_back((now + MEMORY, key));
        }
    }

    /// Remembers that an owner's serial was taken over: the serials before it are over as well.
    pub(super) fn remember_replaced(
        &mut self,
        id: I,
        owner: Slot,
        serial: u64,
        now: Instant,
        tick: Tick,
    ) {
        let before = serial.saturating_sub(1);
        self.remember(id, owner, before, now, tick);
        if let Some(ended) = self.ended.get_mut(&(id, owner))
            && ended.serial == before
        {
            ended.since = tick;
            ended.next_is_replaced = true;
        }
    }

    pub(super) fn was_replaced(&self, id: I, owner: Slot, serial: u64) -> bool {
        self.ended
            .get(&(id, owner))
            .is_some_and(|ended| ended.next_is_replaced && ended.serial + 1 == serial)
    }

    /// When something may be forgotten.
    pub(in crate::presence) fn next(&self) -> Option<Instant> {
        let graves = self.graves.iter().filter_map(|graves| Some(graves.front()?.0));
        graves.chain(self.forget.front().map(|(at, ..)| *at)).min()
    }

    /// Forgets what is over for long enough, [`MAX_STEP`] of each sort at most.
    pub(in crate::presence) fn sweep(&mut self, now: Instant, tick: Tick) {
        for sort in [Sort::Unproved, Sort::Proved] {
            for _ in 0..MAX_STEP {
                if self.graves[sort as usize].front().is_none_or(|(at, _)| *at > now) {
                    break;
                }
                self.open_grave(sort, false, now, tick);
            }
        }
        for _ in 0..MAX_STEP {
            let Some((_, key)) = self.forget.pop_front_if(|(at, _)| *at <= now) else { break };
            let ended = self.ended.get(&key);
            if ended.is_some_and(|ended| tick.since(ended.since) + Tick::LENGTH < MEMORY) {
                self.forget.push_back((now + MEMORY, key));
            } else {
                self.ended.remove(&key);
            }
        }
    }
}
