//! Questions who has a peer: to its home, then to its spare, each once.

use std::time::{Duration, Instant};

use beacon_wire::cluster::{Frame, Location};
use hashbrown::HashMap;

use super::members::{Homes, Slot};
use super::shards::Hasher;
use super::timers::Timers;
use super::{Denied, Event, Name, Now, Presence};

/// How many look-ups may be in flight.
const MAX_LOOKUPS: usize = 65_536;

/// How long the home has for its answer before the spare is asked.
const SPARE_AFTER: Duration = Duration::from_millis(60);

/// How long a look-up takes at most.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Lookup {
    asked: Instant,
    /// When the spare is asked, or the look-up ends.
    due: Instant,
    /// Who has been asked and has not answered.
    waits_for: Homes,
    /// Whom to ask next.
    spare: Slot,
}

/// The look-ups in flight.
#[derive(Debug)]
pub(super) struct Lookups<I> {
    open: HashMap<I, Lookup, Hasher>,
    timers: Timers<I>,
}

impl<I: Name> Lookups<I> {
    pub(super) fn new() -> Self {
        Self { open: HashMap::default(), timers: Timers::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn set(&mut self, id: I, lookup: Lookup) {
        self.end(id);
        self.timers.set(lookup.due, id);
        self.open.insert(id, lookup);
    }

    fn end(&mut self, id: I) -> Option<Lookup> {
        let lookup = self.open.remove(&id)?;
        self.timers.cancel(lookup.due, id);
        Some(lookup)
    }

    /// The look-ups that wait for a relay.
    fn waiting_for(&self, slot: Slot) -> Vec<I> {
        let waiting = self
            .open
            .iter()
            .filter(|(_, lookup)| lookup.waits_for.contains(&slot) || lookup.spare == slot);
        waiting.map(|(id, _)| *id).collect()
    }
}

impl<I: Name> Presence<I> {
    /// Asks who has a peer; one question at a time for each.
    pub fn look_up(&mut self, id: I, now: Now) {
        if self.lookups.open.contains_key(&id) {
            return;
        }
        let asked = now.at;
        if self.lookups.len() >= MAX_LOOKUPS {
            self.deny(Denied::LookupsFull);
            self.events.push_back(Event::Missing { id, asked });
            return;
        }
        let [home, mut spare] = self.members.homes(&id);
        // Its own entries a relay need not ask for.
        let mut first = home;
        if spare == Slot::ME && self.registry.find(id).is_some() {
            (first, spare) = (spare, first);
        }
        let due = asked + SPARE_AFTER;
        self.lookups.set(id, Lookup { asked, due, waits_for: [first, Slot::NONE], spare });
        self.send(first, Frame::Find { id });
        self.settle(now);
    }

    pub(super) fn on_found(
        &mut self,
        from: Slot,
        id: I,
        location: Location,
        serial: u64,
        now: Now,
    ) {
        let open = self.lookups.open.get(&id);
        let was_asked = open.is_some_and(|lookup| lookup.waits_for.contains(&from));
        if open.is_some() && !was_asked {
            // An answer of before is too late, and a lie must not come before the answer.
            self.deny(Denied::NoSay);
        }
        if location.owner == self.me && !self.locals.contains_key(&id) {
            self.send(from, Frame::Leave { id, serial });
            self.on_missing(from, id, now);
        } else if self.members.slot(location.owner).is_none() {
            self.on_missing(from, id, now);
        } else if was_asked && let Some(lookup) = self.lookups.end(id) {
            self.events.push_back(Event::Located { id, location, asked: Some(lookup.asked) });
        }
    }

    pub(super) fn on_missing(&mut self, from: Slot, id: I, now: Now) {
        let Some(mut lookup) = self.lookups.open.get(&id).copied() else { return };
        let waits = lookup.waits_for;
        lookup.waits_for = waits.map(|slot| if slot == from { Slot::NONE } else { slot });
        if lookup.spare == from {
            lookup.spare = Slot::NONE;
        }
        self.go_on(id, lookup, lookup.waits_for == [Slot::NONE; 2], now);
    }

    /// A relay left, and answers nothing any more.
    pub(super) fn answer_is_missing_from(&mut self, slot: Slot, now: Now) {
        for id in self.lookups.waiting_for(slot) {
            self.on_missing(slot, id, now);
        }
    }

    /// Goes on with the look-ups whose time is up.
    pub(super) fn look_further(&mut self, now: Now) {
        while let Some(id) = self.lookups.timers.pop(now.at) {
            if let Some(lookup) = self.lookups.open.get(&id).copied() {
                self.go_on(id, lookup, true, now);
            }
        }
    }

    /// Asks the spare if it is its `turn`; ends a look-up that has nobody left to wait for.
    fn go_on(&mut self, id: I, mut lookup: Lookup, turn: bool, now: Now) {
        if turn && lookup.spare != Slot::NONE {
            let spare = std::mem::replace(&mut lookup.spare, Slot::NONE);
            let [first, _] = lookup.waits_for;
            lookup.waits_for = [first, spare];
            lookup.due = lookup.asked + PATIENCE;
            self.send(spare, Frame::Find { id });
        } else if lookup.waits_for == [Slot::NONE; 2] || lookup.asked + PATIENCE <= now.at {
            self.lookups.end(id);
            self.events.push_back(Event::Missing { id, asked: lookup.asked });
            return;
        } else if turn {
            lookup.due = lookup.asked + PATIENCE;
        }
        self.lookups.set(id, lookup);
    }
}
