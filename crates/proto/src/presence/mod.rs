//! Presence: which relay of a cluster has a peer.
//!
//! Each id has a home and a spare among the members (`members`). A relay that has a peer
//! claims it there (`owner`); a home grants, refuses and tells who was replaced (`home`,
//! `registry`); a relay that wants to reach a peer asks its home (`lookups`). What needs
//! an answer is said again until it comes (`statements`); a change of the members makes
//! every relay claim anew what has another home now (`changes`). A relay that watches a peer
//! has its homes tell who has it (`watches`), which they do until it no longer does
//! (`watchers`).
//!
//! Sans-IO: after every input the caller drains [`Presence::poll_transmit`] and
//! [`Presence::poll_event`], and calls [`Presence::timeout`] at [`Presence::poll_timeout`].
//! Frames may be lost, late and out of order; only [`Frame::Draining`] is said once, so the
//! caller loses nothing of a link that is up, and hears nothing of one before `joined`.

use std::collections::VecDeque;
use std::time::Instant;

use beacon_wire::cluster::{Frame, Location, Name, Ownership, Refusal, Sight, Takeover};
use beacon_wire::ids::RelayId;

mod accounts;
mod changes;
mod home;
mod lookups;
mod members;
mod owner;
mod registry;
mod shards;
#[cfg(test)]
mod simulation;
mod statements;
mod takeovers;
#[cfg(test)]
mod tests;
mod timers;
mod watchers;
mod watches;

pub use accounts::{Denied, Stats};
use changes::{MAX_CLAIMS, Walk};
use lookups::Lookups;
use members::{Members, Slot};
use owner::Local;
use registry::{Registry, Tick};
use shards::Shards;
use statements::{Kind, Statements};
pub use takeovers::Taken;
use takeovers::Takeovers;
use watchers::Watchers;
pub use watches::MAX_WATCHED;
use watches::{Told, Watches};

/// How many peers a relay is the home of at most.
pub const MAX_ENTRIES: usize = 4_000_000;

/// How far ahead of this relay's clock an epoch may be, in milliseconds.
const MAX_AHEAD_MS: u64 = 60_000;

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For all that lasts.
    pub at: Instant,
    /// For epochs: milliseconds since 1970 by this relay's clock.
    pub unix_ms: u64,
}

impl Now {
    /// Whether an epoch is of no clock that is to be believed.
    const fn is_ahead(self, epoch: u64) -> bool {
        epoch > self.unix_ms.saturating_add(MAX_AHEAD_MS)
    }
}

/// How a peer is here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Here {
    /// Which of this relay's connections it is: later ones have higher numbers, from 1 on.
    pub serial: u64,
    /// How well that is known.
    pub ownership: Ownership,
    /// What happens to an owner elsewhere.
    pub takeover: Takeover,
    /// Hash of what the peer proved to have; 0 where it proved nothing.
    pub credential: u64,
    /// When its connection was accepted, by which it is older or newer than one elsewhere;
    /// `None` for now.
    pub since: Option<Instant>,
}

/// What the caller has to act on; exhaustive, since nothing of it may be left undone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event<I> {
    /// A peer is there: remember it, unless a newer (epoch, owner) is known. It may be here,
    /// if it came while it was looked up.
    Located {
        /// The peer.
        id: I,
        /// Where it is.
        location: Location,
        /// When it was asked for; `None` for news.
        asked: Option<Instant>,
    },
    /// A look-up ended: no home knows an owner.
    Missing {
        /// The peer.
        id: I,
        /// When it was asked for.
        asked: Instant,
    },
    /// A peer is no longer there: forget a location of this owner of this epoch or older.
    Gone {
        /// The peer.
        id: I,
        /// Who had it.
        owner: RelayId,
        /// The epoch that ended.
        epoch: u64,
    },
    /// A relay left: forget every location that is there.
    RelayGone {
        /// The relay.
        relay: RelayId,
    },
    /// A peer that is watched has come to another relay, or is at none any more; at first it is
    /// at none.
    Watched {
        /// The peer.
        id: I,
        /// The number of the watch.
        number: u64,
        /// Whether another relay has it.
        is_elsewhere: bool,
    },
    /// The local session of this serial, or an older one, has to go.
    Superseded {
        /// The peer.
        id: I,
        /// The newest serial that has to go.
        serial: u64,
        /// Where the peer is instead; `None` if the claim came too soon, or a home keeps to
        /// it that this serial is over.
        location: Option<Location>,
        /// Whether a home had granted it: else nothing was taken over.
        was_granted: bool,
    },
}

/// The presence of all peers, as one relay sees it.
#[derive(Debug)]
pub struct Presence<I> {
    me: RelayId,
    start: Instant,
    members: Members,
    locals: Shards<I, Local>,
    registry: Registry<I>,
    lookups: Lookups<I>,
    statements: Statements<I>,
    takeovers: Takeovers,
    watches: Watches<I>,
    watchers: Watchers<I>,
    /// Locals that may have other homes now.
    claims: Walk<I>,
    /// Entries whose owner may have left.
    losses: Walk<I>,
    /// Entries that this relay may be no home of any more.
    leftovers: Walk<I>,
    /// Peers that are watched, which may have other homes now.
    rewatches: Walk<I>,
    /// Peers that are watched, of which new homes may know enough by then.
    doubts: Walk<I>,
    /// Peers that relays watch which may have left.
    unwatched: Walk<I>,
    denied: [u64; Denied::ALL.len()],
    /// What this relay tells itself, being a home as any other.
    inbox: VecDeque<Frame<'static, I>>,
    outbox: VecDeque<(Slot, Frame<'static, I>)>,
    events: VecDeque<Event<I>>,
}

impl<I: Name> Presence<I> {
    /// A relay on its own, which is home for at most `room` peers ([`MAX_ENTRIES`]).
    #[must_use]
    pub fn new(me: RelayId, room: usize, start: Instant) -> Self {
        Self {
            me,
            start,
            members: Members::new(me),
            locals: Shards::new(),
            registry: Registry::new(room),
            lookups: Lookups::new(),
            statements: Statements::new(room),
            takeovers: Takeovers::new(),
            watches: Watches::new(start),
            watchers: Watchers::new(),
            claims: Walk::new(),
            losses: Walk::new(),
            leftovers: Walk::new(),
            rewatches: Walk::new(),
            doubts: Walk::new(),
            unwatched: Walk::new(),
            denied: [0; Denied::ALL.len()],
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A member says something; packets, NACKs and signs of life are not for this.
    pub fn receive(&mut self, from: RelayId, frame: &Frame<'_, I>, now: Now) {
        let Some(slot) = self.members.slot(from).filter(|slot| *slot != Slot::ME) else {
            self.deny(Denied::Stranger);
            return;
        };
        self.handle(slot, frame, now);
        self.settle(now);
    }

    fn handle(&mut self, from: Slot, frame: &Frame<'_, I>, now: Now) {
        if epoch_told(frame).is_some_and(|epoch| now.is_ahead(epoch)) {
            self.deny(Denied::EpochAhead);
            if let Frame::Found { id, .. } = *frame {
                self.on_missing(from, id, now);
            } else if let Frame::Locate { id, nonce, version, .. } = *frame {
                let told = Told { nonce, version, serial: 0, sight: Sight::Unknown };
                self.on_locate(from, id, told, now);
            }
            return;
        }
        match *frame {
            Frame::Claim(ref claim) => self.on_claim(from, claim, now),
            Frame::Leave { id, serial } => self.on_leave(from, id, serial, now),
            Frame::Find { id } => self.on_find(from, id),
            Frame::Gone { id, epoch } => self.on_gone(from, id, epoch),
            Frame::Granted { id, epoch, serial, nonce } => {
                self.on_granted(from, id, epoch, serial, nonce, now);
            }
            Frame::Refused { id, nonce, refusal } => {
                self.on_refused(from, id, nonce, refusal, now);
            }
            Frame::Moved { id, location, ends } => self.on_moved(from, id, location, ends, now),
            Frame::Left { id, serial } => self.on_left(from, id, serial, now),
            Frame::Noted { id, serial } => self.statements.end_moved(from, id, serial),
            Frame::Found { id, location, serial } => self.on_found(from, id, location, serial, now),
            Frame::Missing { id } => self.on_missing(from, id, now),
            Frame::Watch { id, nonce, is_on } => self.on_watch(from, id, nonce, is_on, now),
            Frame::Locate { id, nonce, version, serial, sight } => {
                self.on_locate(from, id, Told { nonce, version, serial, sight }, now);
            }
            Frame::Heard { id, version } => self.statements.end_locate(from, id, version),
            Frame::Draining => {
                if let Some(relay) = self.members.relay(from) {
                    self.drain(relay, now);
                }
            }
            Frame::Packets(_)
            | Frame::Nack { .. }
            | Frame::Alive
            | Frame::Clock(_)
            | Frame::TakesTcp
            | Frame::About(_)
            | Frame::Channel(_)
            | Frame::Unknown => {}
        }
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now) {
        self.walk(now);
        self.registry.sweep(now.at, self.tick(now));
        self.look_further(now);
        self.settle(now);
    }

    /// When [`Self::timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let parts = [
            self.statements.next(),
            self.lookups.next(),
            self.registry.next(),
            self.claims.next(),
            self.losses.next(),
            self.leftovers.next(),
            self.rewatches.next(),
            self.doubts.next(),
            self.unwatched.next(),
        ];
        parts.into_iter().flatten().min()
    }

    /// The next frame to send, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(RelayId, Frame<'static, I>)> {
        loop {
            let (to, frame) = self.outbox.pop_front()?;
            if let Some(relay) = self.members.relay(to) {
                return Some((relay, frame));
            }
        }
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<Event<I>> {
        self.events.pop_front()
    }

    /// How much there is of what.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.registry.live(),
            tombstones: self.registry.tombstones(),
            locals: self.locals.len(),
            outstanding: self.statements.len(),
            lookups: self.lookups.len(),
            watched: self.watches.len(),
            watchers: self.watchers.len(),
            takeovers: self.takeovers.of_all().sessions,
            unproved_takeovers: self.takeovers.of_all().unproved,
            denied: self.denied,
        }
    }

    /// What a relay has taken over from others, by its claims or its word as a home.
    #[must_use]
    pub fn taken_by(&self, relay: RelayId) -> Taken {
        self.takeovers.of(relay)
    }

    /// Whether a peer is here.
    #[must_use]
    pub fn is_here(&self, id: I) -> bool {
        self.locals.contains_key(&id)
    }

    /// The home and the spare of an id, as far as there are members enough.
    #[must_use]
    pub fn homes(&self, id: I) -> Vec<RelayId> {
        self.members.homes(&id).into_iter().filter_map(|slot| self.members.relay(slot)).collect()
    }

    /// The epoch under which this relay has a peer; `None` before a home has granted one.
    #[must_use]
    pub fn epoch(&self, id: I) -> Option<u64> {
        Some(self.locals.get(&id)?.epoch).filter(|epoch| *epoch > 0)
    }

    /// Says what is due, [`MAX_CLAIMS`] statements at most, and hears what it told itself.
    fn settle(&mut self, now: Now) {
        let mut said = 0;
        loop {
            if let Some(frame) = self.inbox.pop_front() {
                self.handle(Slot::ME, &frame, now);
            } else if said < MAX_CLAIMS
                && let Some(statement) = self.statements.pop(now.at)
            {
                said += 1;
                self.say(statement, now);
            } else {
                break;
            }
        }
    }

    fn send(&mut self, to: Slot, frame: Frame<'static, I>) {
        if to == Slot::ME {
            self.inbox.push_back(frame);
        } else {
            self.outbox.push_back((to, frame));
        }
    }

    /// Says what is over until it is answered. Where there is no room for that, a home
    /// learns it from packets, and an owner from its next claim.
    fn repeat(&mut self, to: Slot, id: I, kind: Kind, now: Now) {
        if !self.statements.say(to, id, kind, now.at) {
            self.deny(Denied::Full);
        }
    }

    fn deny(&mut self, reason: Denied) {
        let at = Denied::ALL.iter().position(|other| *other == reason);
        if let Some(count) = at.and_then(|at| self.denied.get_mut(at)) {
            *count += 1;
        }
    }

    fn tick(&self, now: Now) -> Tick {
        Tick::at(self.start, now.at)
    }
}

/// The epoch that a home tells, if it tells one. Claims are judged by the home, and answered.
const fn epoch_told<I>(frame: &Frame<'_, I>) -> Option<u64> {
    match *frame {
        Frame::Granted { epoch, .. } => Some(epoch),
        Frame::Locate { sight: Sight::At(location) | Sight::Over(location), .. }
        | Frame::Moved { location, .. }
        | Frame::Found { location, .. }
        | Frame::Refused { refusal: Refusal::Held(location), .. } => Some(location.epoch),
        Frame::Refused {
            refusal: Refusal::TooSoon | Refusal::EpochAhead | Refusal::Full, ..
        }
        | Frame::Claim(_)
        | Frame::Leave { .. }
        | Frame::Left { .. }
        | Frame::Noted { .. }
        | Frame::Gone { .. }
        | Frame::Find { .. }
        | Frame::Missing { .. }
        | Frame::Watch { .. }
        | Frame::Locate { sight: Sight::Unknown | Sight::Full | Sight::Ended, .. }
        | Frame::Heard { .. }
        | Frame::Packets(_)
        | Frame::Nack { .. }
        | Frame::Alive
        | Frame::Clock(_)
        | Frame::Draining
        | Frame::TakesTcp
        | Frame::About(_)
        | Frame::Channel(_)
        | Frame::Unknown => None,
    }
}
