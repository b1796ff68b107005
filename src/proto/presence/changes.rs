//! Members come, go and drain; what has another home then is claimed there.

use std::time::{Duration, Instant};

use super::members::Slot;
use super::{Event, Name, Now, Presence};
use crate::ids::RelayId;
use crate::wire::cluster::Frame;

/// How long a relay answers for what it is no home of any more.
const HAND_OVER: Duration = Duration::from_secs(60);

/// A walk takes a second, in steps of this length.
const STEP: Duration = Duration::from_millis(10);

/// In how many steps.
const STEPS: usize = 100;

/// Ids to go through, a part at a time.
#[derive(Debug)]
pub(super) struct Walk<I> {
    /// When the next step is due, if the walk is on or will be.
    due: Option<Instant>,
    /// What is left of it, last first.
    ids: Option<Vec<I>>,
    step: usize,
}

impl<I> Walk<I> {
    pub(super) const fn new() -> Self {
        Self { due: None, ids: None, step: 0 }
    }

    pub(super) const fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Starts again at this moment; which ids there are is asked then.
    fn start(&mut self, at: Instant) {
        (self.due, self.ids) = (Some(at), None);
    }

    /// The ids of the step that is due; `all` tells those of the whole walk.
    fn step(&mut self, now: Instant, all: impl FnOnce() -> Vec<I>) -> Vec<I> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let ids = self.ids.get_or_insert_with(|| {
            let ids = all();
            self.step = ids.len().div_ceil(STEPS);
            ids
        });
        let step = ids.split_off(ids.len().saturating_sub(self.step));
        if ids.is_empty() {
            (self.due, self.ids) = (None, None);
        } else {
            self.due = Some(now + STEP);
        }
        step
    }
}

impl<I: Name> Presence<I> {
    /// The link to a relay stands: it is a member.
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
        self.statements.forget(slot);
        self.registry.relay_left(slot, now.at, self.tick(now));
        self.answer_is_missing_from(slot, now);
        self.events.push_back(Event::RelayGone { relay });
        self.homes_changed(now);
    }

    /// A relay, or this one, takes no new nodes and is nobody's home any more. The members
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
        self.walk(now);
        self.settle(now);
    }

    /// Takes the steps that are due.
    pub(super) fn walk(&mut self, now: Now) {
        let locals = &self.locals;
        let step = self.claims.step(now.at, || {
            let mut ids: Vec<_> = locals.keys().copied().collect();
            ids.sort_unstable();
            ids
        });
        for id in step {
            self.claim(id, now);
        }
        let registry = &self.registry;
        for id in self.leftovers.step(now.at, || registry.ids()) {
            if !self.members.homes(&id).contains(&Slot::ME) {
                self.hand_over(id, now);
            }
        }
    }
}
