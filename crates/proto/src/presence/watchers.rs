//! This relay as a home: which relays watch which peers, and what they are told.
//!
//! A watcher is told what the home knows at once, and whenever that changes, until it has heard
//! it. Of changes that follow each other before that only the last is told.

use std::collections::BTreeMap;

use beacon_wire::cluster::{Frame, Name, Sight};

use super::members::Slot;
use super::shards::Shards;
use super::statements::Kind;
use super::watches::MAX_WATCHED;
use super::{Denied, Now, Presence};

/// How many watches a home takes of all relays: four that watch as much as one may.
const MAX_WATCHES: usize = 4 * MAX_WATCHED;

/// The watches of all relays.
#[derive(Debug)]
pub(super) struct Watchers<I> {
    of: Shards<I, Watched>,
    /// How many each relay has.
    counts: BTreeMap<Slot, usize>,
    len: usize,
    /// The last version that was told.
    version: u64,
}

/// A peer that relays watch.
#[derive(Debug, Default)]
struct Watched {
    by: Vec<Watcher>,
    /// What was told last: who has the peer, or had it, under which epoch and serial.
    told: Option<(Slot, u64, u64, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Watcher {
    slot: Slot,
    nonce: u32,
}

/// What became of a relay's wish to watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Begun {
    /// It is to be told.
    Now,
    /// It was heard before.
    Before,
    /// It has said something else since.
    Stale,
    Full,
}

/// Whether a nonce of a relay is later than another of it; they begin anew after the last.
const fn is_later(nonce: u32, than: u32) -> bool {
    let ahead = nonce.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 31
}

impl<I: Name> Watchers<I> {
    pub(super) fn new() -> Self {
        Self { of: Shards::new(), counts: BTreeMap::new(), len: 0, version: 0 }
    }

    /// How many watches there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The peers that are watched, for a walk through them.
    const fn watched(&self) -> &Shards<I, Watched> {
        &self.of
    }

    const fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// What a relay that watches a peer has said last.
    pub(super) fn nonce(&self, slot: Slot, id: I) -> Option<u32> {
        let by = &self.of.get(&id)?.by;
        Some(by.iter().find(|watcher| watcher.slot == slot)?.nonce)
    }

    fn begin(&mut self, slot: Slot, id: I, nonce: u32) -> Begun {
        let mut by = self.of.get_mut(&id).into_iter().flat_map(|watched| &mut watched.by);
        if let Some(watcher) = by.find(|watcher| watcher.slot == slot) {
            return if watcher.nonce == nonce {
                Begun::Before
            } else if is_later(nonce, watcher.nonce) {
                watcher.nonce = nonce;
                Begun::Now
            } else {
                Begun::Stale
            };
        }
        let count = self.counts.entry(slot).or_default();
        if *count >= MAX_WATCHED || self.len >= MAX_WATCHES {
            return Begun::Full;
        }
        *count += 1;
        self.len += 1;
        let watcher = Watcher { slot, nonce };
        match self.of.get_mut(&id) {
            Some(watched) => watched.by.push(watcher),
            None => {
                self.of.insert(id, Watched { by: vec![watcher], told: None });
            }
        }
        Begun::Now
    }

    /// Ends a watch; false where the relay has begun it anew since.
    fn end(&mut self, slot: Slot, id: I, nonce: u32) -> bool {
        if self.nonce(slot, id).is_some_and(|last| !is_later(nonce, last)) {
            return false;
        }
        self.retain(id, |watcher| watcher.slot != slot);
        true
    }

    fn retain(&mut self, id: I, stays: impl Fn(&Watcher) -> bool) {
        let Some(watched) = self.of.get_mut(&id) else { return };
        for watcher in watched.by.extract_if(.., |watcher| !stays(watcher)) {
            self.len -= 1;
            if let Some(count) = self.counts.get_mut(&watcher.slot) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&watcher.slot);
                }
            }
        }
        if watched.by.is_empty() {
            self.of.remove(&id);
        }
    }
}

impl<I: Name> Presence<I> {
    pub(super) fn on_watch(&mut self, from: Slot, id: I, nonce: u32, is_on: bool, now: Now) {
        let sight = if is_on {
            match self.watchers.begin(from, id, nonce) {
                Begun::Stale => return,
                // What it is told is repeated.
                Begun::Before if self.statements.tells(from, id) => return,
                Begun::Before | Begun::Now => {
                    let version = self.watchers.next_version();
                    self.repeat(from, id, Kind::Locate(version), now);
                    return;
                }
                Begun::Full => {
                    self.deny(Denied::WatchesFull);
                    Sight::Full
                }
            }
        } else if self.watchers.end(from, id, nonce) {
            self.statements.end_locate(from, id, u64::MAX);
            Sight::Ended
        } else {
            return;
        };
        self.send(from, Frame::Locate { id, nonce, version: 0, serial: 0, sight });
    }

    /// Tells who watches a peer what this home knows, if that is something else than before.
    pub(super) fn tell_watchers(&mut self, id: I, now: Now) {
        if self.watchers.len == 0 {
            return;
        }
        let known = self.registry.known(id);
        let known = known.map(|record| (record.owner, record.epoch, record.serial, record.live()));
        let Some(watched) = self.watchers.of.get_mut(&id).filter(|watched| watched.told != known)
        else {
            return;
        };
        watched.told = known;
        let slots: Vec<_> = watched.by.iter().map(|watcher| watcher.slot).collect();
        for slot in slots {
            let version = self.watchers.next_version();
            self.repeat(slot, id, Kind::Locate(version), now);
        }
    }

    /// What this home knows of a peer, with the owner's serial.
    pub(super) fn sight(&self, id: I) -> (u64, Sight) {
        match self.registry.known(id).zip(self.location(id)) {
            Some((record, location)) if record.live() => (record.serial, Sight::At(location)),
            // That of an owner that was lost says nothing of those that it has when it is back.
            Some((record, location)) => (record.left().unwrap_or(0), Sight::Over(location)),
            None => (0, Sight::Unknown),
        }
    }

    /// Forgets watches of relays that left.
    pub(super) fn forget_watchers(&mut self, now: Now) {
        let bounds = (super::changes::MAX_STEP, super::changes::MAX_STEP);
        for id in self.unwatched.step(self.watchers.watched(), bounds, now.at) {
            let members = &self.members;
            self.watchers.retain(id, |watcher| members.relay(watcher.slot).is_some());
        }
    }
}
