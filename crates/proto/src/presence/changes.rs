//! Members come, go and drain; what has another home then is claimed there.

use std::time::{Duration, Instant};

use beacon_wire::cluster::Frame;
use beacon_wire::ids::RelayId;

use super::members::Slot;
use super::shards::{SHARDS, Shards};
use super::{Event, Name, Now, Presence};

/// How long a relay answers for what it is no home of any more.
const HAND_OVER: Duration = Duration::from_secs(60);

/// A walk goes on after this time.
const STEP: Duration = Duration::from_millis(10);

/// In how many steps, if none of them is too large.
const STEPS: usize = 100;

/// How many records one call goes through at most, so that nobody waits long for it.
pub(super) const MAX_STEP: usize = 2_000;

/// How many claims one step makes at most, and how many statements one call makes: more, as
/// packets wait for those.
pub(super) const MAX_CLAIMS: usize = 10_000;

/// A walk through the ids of a table, a part at a time.
#[derive(Debug)]
pub(super) struct Walk<I> {
    /// When the next step is due, if the walk is on or will be.
    due: Option<Instant>,
    /// The next part of the table.
    shard: usize,
    /// What is left of the part before.
    ids: Vec<I>,
    /// How many ids a step has; 0 before the first.
    size: usize,
}

impl<I: Name> Walk<I> {
    pub(super) const fn new() -> Self {
        Self { due: None, shard: 0, ids: Vec::new(), size: 0 }
    }

    pub(super) const fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Starts at this moment, from the beginning.
    pub(super) fn start(&mut self, at: Instant) {
        (self.due, self.shard, self.size) = (Some(at), 0, 0);
        self.ids.clear();
    }

    /// The ids of the step that is due: as many as make a walk of a second, within `bounds`.
    pub(super) fn step<V>(
        &mut self,
        table: &Shards<I, V>,
        bounds: (usize, usize),
        now: Instant,
    ) -> Vec<I> {
        let mut step = Vec::new();
        if self.due.is_none_or(|due| due > now) {
            return step;
        }
        if self.size == 0 {
            self.size = table.len().div_ceil(STEPS).clamp(bounds.0, bounds.1);
        }
        loop {
            let rest = self.ids.len().saturating_sub(self.size - step.len());
            step.extend(self.ids.drain(rest..));
            let more = !self.ids.is_empty() || self.shard < SHARDS;
            if step.len() == self.size || !more {
                self.due = more.then(|| now + STEP);
                return step;
            }
            self.ids.extend(table.keys(self.shard));
            self.shard += 1;
        }
    }
}

impl<I: Name> Presence<I> {
    /// The link to a relay is up: it is a member.
    pub fn joined(&mut self, relay: RelayId, now: Now) {
        if !self.members.add(relay) {
            return;
        }
        if let Some(slot) = self.members.slot(relay)
            && self.members.drains(self.me)
        {
            self.send(slot, Frame::Draining);
        }
        self.homes_changed(now);
    }

    /// The link to a relay is down: it is no member any more.
    pub fn left(&mut self, relay: RelayId, now: Now) {
        let Some(slot) = self.members.remove(relay) else { return };
        self.registry.relay_left(slot, self.tick(now));
        self.losses.start(now.at);
        self.unwatched.start(now.at);
        self.answer_is_missing_from(slot, now);
        self.events.push_back(Event::RelayGone { relay });
        self.homes_changed(now);
    }

    /// A relay, or this one, takes no new peers and is nobody's home any more. The members
    /// are told if it is this one.
    pub fn draining(&mut self, relay: RelayId, now: Now) {
        self.drain(relay, now);
        self.settle(now);
    }

    pub(super) fn drain(&mut self, relay: RelayId, now: Now) {
        if !self.members.drain(relay) {
            return;
        }
        if relay == self.me {
            for to in self.members.slots().filter(|slot| *slot != Slot::ME) {
                self.send(to, Frame::Draining);
            }
        }
        self.homes_changed(now);
    }

    fn homes_changed(&mut self, now: Now) {
        self.claims.start(now.at);
        self.leftovers.start(now.at + HAND_OVER);
        self.watch_anew(now);
        self.walk(now);
        self.settle(now);
    }

    /// Takes the steps that are due.
    pub(super) fn walk(&mut self, now: Now) {
        for id in self.losses.step(self.registry.records(), (MAX_STEP, MAX_STEP), now.at) {
            self.registry.end_if_lost(id, now.at);
            self.tell_watchers(id, now);
        }
        if self.losses.next().is_none() {
            self.registry.lost_are_ended();
        }
        for id in self.claims.step(&self.locals, (1, MAX_CLAIMS), now.at) {
            self.claim(id, now);
        }
        for id in self.leftovers.step(self.registry.records(), (1, MAX_STEP), now.at) {
            if !self.members.homes(&id).contains(&Slot::ME) {
                self.hand_over(id, now);
            }
        }
        self.walk_watches(now);
    }
}
