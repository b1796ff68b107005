//! What a home knows: who has each peer, and who had it a moment ago.

use std::collections::VecDeque;
use std::time::Instant;

use beacon_wire::cluster::{Name, Ownership};

use super::members::Slot;
use super::shards::{SHARDS, Shards};

mod claims;
mod record;
mod tombstones;

pub(super) use claims::{Claimant, Verdict};
use record::{LOST, Life, Sort};
pub(super) use record::{Record, Tick};
use tombstones::Ended;

/// The peers that this relay is a home of.
#[derive(Debug)]
pub(super) struct Registry<I> {
    records: Shards<I, Record>,
    live: usize,
    room: usize,
    /// The peers of live records that proved nothing: they make room for sessions.
    unproved: Shards<I, ()>,
    /// In which part to look for one next.
    next_unproved: usize,
    /// Relays that left, and when; their records count as over, until a walk has ended all.
    lost: Vec<(Slot, Tick)>,
    /// Serials that are over at relays other than the one that the record names.
    ended: Shards<(I, Slot), Ended>,
    /// When to look whether a tombstone may go: one for each record at most.
    graves: [VecDeque<(Instant, I)>; 2],
    /// When to look whether to forget what has ended: one for each.
    forget: VecDeque<(Instant, (I, Slot))>,
}

impl<I: Name> Registry<I> {
    pub(super) fn new(room: usize) -> Self {
        Self {
            records: Shards::new(),
            live: 0,
            room,
            unproved: Shards::new(),
            next_unproved: 0,
            lost: Vec::new(),
            ended: Shards::new(),
            graves: [VecDeque::new(), VecDeque::new()],
            forget: VecDeque::new(),
        }
    }

    /// How many peers have an owner.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// How many are remembered though they are over.
    pub(super) const fn tombstones(&self) -> usize {
        self.records.len() - self.live
    }

    /// All records, for a walk through them.
    pub(super) const fn records(&self) -> &Shards<I, Record> {
        &self.records
    }

    /// How many graves there are, and serials to be forgotten.
    #[cfg(test)]
    pub(super) fn queued(&self) -> (usize, usize) {
        (self.graves.iter().map(VecDeque::len).sum(), self.forget.len())
    }

    /// What is known of a peer, though it may be over.
    pub(super) fn known(&self, id: I) -> Option<Record> {
        let mut record = *self.records.get(&id)?;
        if let Some(since) = self.lost_since(&record) {
            record = Record { serial: LOST, since, life: Life::Over, ..record };
        }
        Some(record)
    }

    /// The record of a peer that has an owner.
    pub(super) fn find(&self, id: I) -> Option<Record> {
        self.known(id).filter(Record::live)
    }

    /// Since when a record is over because its relay left, if nothing has ended it yet.
    fn lost_since(&self, record: &Record) -> Option<Tick> {
        let lost = self.lost.iter().find(|(slot, _)| record.live() && record.owner == *slot);
        lost.map(|(_, since)| *since)
    }

    /// An owner says that its sessions up to `serial` are over.
    pub(super) fn leave(&mut self, by: Slot, id: I, serial: u64, now: Instant, tick: Tick) {
        self.end_if_lost(id, now);
        match self.records.get(&id).copied() {
            Some(record) if record.owner == by && record.serial <= serial => {
                self.end(id, serial, now, tick);
            }
            Some(record) if record.owner == by => {}
            Some(_) => self.remember(id, by, serial, now, tick),
            // The claim may still be on its way.
            None if self.records.len() < self.room => {
                let (epoch, credential, ownership) = (0, 0, Ownership::Gateway);
                let (since, owner, life) = (tick, by, Life::Over);
                let record = Record { epoch, serial, credential, since, owner, ownership, life };
                self.records.insert(id, record);
                self.dig(id, Sort::Unproved, now, tick);
            }
            None => {}
        }
    }

    /// A peer that has an owner, and proved nothing.
    pub(super) fn unproved(&mut self) -> Option<I> {
        if self.unproved.len() == 0 {
            return None;
        }
        // One part after the other, so that none is emptied from its beginning again and again.
        let mut parts = (0..SHARDS).map(|part| (self.next_unproved + part) % SHARDS);
        let (part, id) = parts.find_map(|part| Some((part, self.unproved.keys(part).next()?)))?;
        self.next_unproved = (part + 1) % SHARDS;
        Some(id)
    }

    /// A relay left: its peers are over. [`Self::end_if_lost`] is due for all ids, and then
    /// [`Self::lost_are_ended`].
    pub(super) fn relay_left(&mut self, owner: Slot, tick: Tick) {
        self.lost.push((owner, tick));
    }

    /// Ends a record whose relay left.
    pub(super) fn end_if_lost(&mut self, id: I, now: Instant) {
        let since = self.records.get(&id).and_then(|record| self.lost_since(record));
        if let Some(since) = since {
            self.end(id, LOST, now, since);
        }
    }

    /// No record names a relay that left as the owner of a peer any more.
    pub(super) fn lost_are_ended(&mut self) {
        self.lost.clear();
    }

    /// Forgets a peer that this relay is no home of any more.
    pub(super) fn forget(&mut self, id: I) {
        if let Some(record) = self.records.remove(&id) {
            self.live -= usize::from(record.live());
            self.unproved.remove(&id);
        }
    }
}
