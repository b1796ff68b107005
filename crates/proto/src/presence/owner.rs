//! This relay as an owner: it claims its peers at their homes, and gives way.
//!
//! A claim without an epoch asks for one: of the home at once, of the spare if that does not
//! answer soon. The newest epoch that is granted counts, and whichever of the two has not
//! granted it is told.
//!
//! An owner gives the peer up when all of its homes name a location of a higher rank. If one keeps to
//! that which the other does not know of, it counts after a second: until then the owner
//! that the one names may hear of the rank that the other has granted here, and give way.
//! Else both might, each to the other.

use std::time::{Duration, Instant};

use beacon_wire::cluster::{Claim, Frame, Location, Ownership, Refusal, Takeover};

use super::members::{Homes, Slot};
use super::statements::{Due, Kind, LAST_REPEAT};
use super::takeovers::Taking;
use super::{Denied, Event, Here, Name, Now, Presence};

/// How long the home has for its answer before the spare is asked.
const SPARE_AFTER: Duration = Duration::from_millis(100);

/// How long the word of one home about a better owner waits for that of the other.
const CONTEST: Duration = Duration::from_secs(1);

/// How long a claim rests that was refused and stays.
const REST: Duration = Duration::from_secs(30);

/// A peer that is here. There may be millions: 36 bytes, which alignment would make 40.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(super) struct Local {
    /// 0 until a home has granted one.
    pub(super) epoch: u64,
    pub(super) serial: u64,
    credential: u64,
    came: Came,
    /// The homes that have granted this epoch.
    told: Homes,
    ownership: Ownership,
    takeover: Takeover,
}

const UNTOLD: Homes = [Slot::NONE; 2];

/// When a peer came, in hundredths of a second since the start, rounded up: a peer is never said
/// to be older than it is, or it would lose against one that came before it. 4 bytes last for
/// 497 days.
#[derive(Clone, Copy, Debug)]
struct Came(u32);

impl Came {
    const STEP_MS: u128 = 10;

    fn at(start: Instant, at: Instant) -> Self {
        let steps = at.saturating_duration_since(start).as_millis().div_ceil(Self::STEP_MS);
        Self(u32::try_from(steps).unwrap_or(u32::MAX))
    }

    /// How long ago that was, in milliseconds, rounded down.
    fn age_ms(self, start: Instant, now: Instant) -> u32 {
        let since_start = now.saturating_duration_since(start).as_millis();
        let age = since_start.saturating_sub(u128::from(self.0) * Self::STEP_MS);
        u32::try_from(age).unwrap_or(u32::MAX)
    }
}

impl<I: Name> Presence<I> {
    /// A peer is here; the same serial with another ownership kind is news of the same one.
    pub fn arrived(&mut self, id: I, here: Here, now: Now) {
        let Here { serial, ownership, takeover, credential, since } = here;
        let local = match self.locals.get(&id).copied() {
            Some(local) if local.serial > serial => return,
            Some(local) if local.serial == serial => {
                Local { ownership, takeover, credential, told: UNTOLD, ..local }
            }
            _ => Local {
                epoch: 0,
                serial,
                credential,
                came: Came::at(self.start, since.unwrap_or(now.at)),
                told: UNTOLD,
                ownership,
                takeover,
            },
        };
        self.locals.insert(id, local);
        self.void_claims(id);
        self.claim(id, now);
        self.settle(now);
    }

    /// A peer left: `serial` and all before it are over.
    pub fn departed(&mut self, id: I, serial: u64, now: Now) {
        if self.locals.get(&id).is_none_or(|local| local.serial > serial) {
            return;
        }
        self.drop_local(id, serial, now);
        self.settle(now);
    }

    /// As [`Self::departed`], for a peer that has ended its session itself: that casts no
    /// shadow, so it can come back elsewhere as an endpoint at once.
    ///
    /// It is claimed as an endpoint before it leaves, and once: if that is lost, an endpoint
    /// has to wait.
    pub fn released(&mut self, id: I, serial: u64, now: Now) {
        let local = self.locals.get_mut(&id).filter(|local| local.serial <= serial);
        if let Some(local) = local.filter(|local| local.ownership == Ownership::Session) {
            local.ownership = Ownership::Endpoint;
            let told = local.told;
            let homes = self.members.homes(&id);
            let others = told.into_iter().filter(|slot| !homes.contains(slot));
            for home in homes.into_iter().chain(others) {
                if self.members.relay(home).is_some() {
                    self.claim_by_the_way(home, id, now);
                }
            }
        }
        self.departed(id, serial, now);
    }

    /// Packets came for a peer that is not here, and was never after `last_serial`: its
    /// homes are told, once; if that is lost, packets come again.
    pub fn not_here(&mut self, id: I, last_serial: u64, now: Now) {
        if self.locals.contains_key(&id) {
            return;
        }
        for home in self.members.homes(&id).into_iter().filter(|home| *home != Slot::NONE) {
            self.send(home, Frame::Leave { id, serial: last_serial });
        }
        self.settle(now);
    }

    /// Claims a local at those of its homes that have not granted its epoch.
    pub(super) fn claim(&mut self, id: I, now: Now) {
        let homes = self.members.homes(&id);
        let Some(local) = self.locals.get_mut(&id) else { return };
        let told = local.told.map(|slot| if homes.contains(&slot) { slot } else { Slot::NONE });
        local.told = told;
        let wait = if local.epoch == 0 { SPARE_AFTER } else { Duration::ZERO };
        for (home, wait) in homes.into_iter().zip([Duration::ZERO, wait]) {
            let done = home == Slot::NONE || told.contains(&home);
            if !done && !self.statements.has_claim(home, id) {
                self.statements.claim(home, id, now.at + wait);
            }
        }
    }

    /// Says a statement that is due, unless it has become void.
    pub(super) fn say(&mut self, statement: Due<I>, now: Now) {
        let Due { to, id, kind, afresh, nonce } = statement;
        if self.members.relay(to).is_none() {
            self.statements.end(to, id, kind);
            return;
        }
        let frame = match kind {
            Kind::Leave(serial) => Frame::Leave { id, serial },
            Kind::Claim => {
                let home = self.members.homes(&id).contains(&to);
                let Some(claim) = self.claim_frame(id, nonce, afresh, now).filter(|_| home) else {
                    self.statements.end_claim(to, id);
                    return;
                };
                claim
            }
            Kind::Watch => Frame::Watch { id, nonce, is_on: true },
            Kind::Unwatch => Frame::Watch { id, nonce, is_on: false },
            Kind::Locate(version) => {
                let Some(nonce) = self.watchers.nonce(to, id) else {
                    self.statements.end(to, id, kind);
                    return;
                };
                let (serial, sight) = self.sight(id);
                Frame::Locate { id, nonce, version, serial, sight }
            }
            Kind::Moved(ends) => {
                let known = self.registry.known(id);
                if known.is_some_and(|record| record.owner == to) {
                    self.statements.end_moved(to, id, ends);
                    return;
                }
                // Whoever took over may be lost: then the location says that it is the
                // receiver who should claim the peer again.
                let again = self.members.relay(to).map(|owner| {
                    let ownership = Ownership::Gateway;
                    Location { owner, epoch: 0, ownership }
                });
                let Some(location) = self.location(id).or(again) else { return };
                Frame::Moved { id, location, ends }
            }
        };
        self.send(to, frame);
    }

    /// What a local claims; without its epoch if that was refused.
    fn claim_frame(&self, id: I, nonce: u32, afresh: bool, now: Now) -> Option<Frame<'static, I>> {
        let Local { epoch, serial, credential, came, ownership, takeover, .. } =
            *self.locals.get(&id)?;
        let age_ms = came.age_ms(self.start, now.at);
        let epoch = if afresh { 0 } else { epoch };
        Some(Frame::Claim(Claim {
            id,
            epoch,
            serial,
            nonce,
            ownership,
            takeover,
            credential,
            age_ms,
        }))
    }

    /// The epoch counts, whatever has happened since. That the home keeps to it counts only
    /// in answer to the latest claim.
    pub(super) fn on_granted(
        &mut self,
        from: Slot,
        id: I,
        epoch: u64,
        serial: u64,
        nonce: u32,
        now: Now,
    ) {
        let homes = self.members.homes(&id);
        let local = self.locals.get_mut(&id).filter(|local| local.serial == serial);
        let Some(local) = local else {
            // Once: if that is lost, who looks the peer up here will say so again.
            self.send(from, Frame::Leave { id, serial });
            return;
        };
        let newer = epoch > local.epoch;
        let known = epoch >= local.epoch || self.statements.asked_afresh(from, id);
        let mut told = if newer { UNTOLD } else { local.told };
        if known && self.statements.nonce(from, id) == Some(nonce) {
            for (told, _) in told.iter_mut().zip(homes).filter(|(_, home)| *home == from) {
                *told = from;
            }
            self.statements.end_claim(from, id);
        }
        local.told = told;
        if newer {
            local.epoch = epoch;
            homes.iter().for_each(|home| self.statements.end_claim(*home, id));
        }
        self.claim(id, now);
    }

    pub(super) fn on_refused(&mut self, from: Slot, id: I, nonce: u32, refusal: Refusal, now: Now) {
        let asks = self.locals.get(&id).is_some_and(|local| local.epoch == 0);
        let latest = self.statements.nonce(from, id) == Some(nonce);
        // Moved renews the nonce, and says as much as a refusal.
        let before_moved = asks && self.statements.nonce_before(from, id) == Some(nonce);
        if !latest && !before_moved {
            // The latest claim, or whatever made this one void, has an answer of its own.
            return;
        }
        let location = match refusal {
            Refusal::Held(location) => Some(location),
            Refusal::TooSoon => None,
            Refusal::EpochAhead => {
                self.statements.ask_afresh(from, id);
                return;
            }
            Refusal::Full => {
                self.statements.park(from, id, now.at + REST);
                return;
            }
        };
        // The other home may have granted it, and replaced an owner that gives way by now.
        let asked = |home: &Slot| *home != from && self.statements.is_asked(*home, id);
        let open = self.members.homes(&id).iter().any(asked);
        if self.is_gateway(id) {
            self.statements.park(from, id, now.at + REST);
        } else if open || !self.may_end(from, id, now) {
            self.statements.park(from, id, now.at + LAST_REPEAT);
        } else {
            if let Some(location) = location {
                self.follow(from, id, location, now);
            }
            self.give_way(id, location, now);
        }
    }

    /// A home has noted that serials are over; or it says of a claim that its serial is.
    pub(super) fn on_left(&mut self, from: Slot, id: I, serial: u64, now: Now) {
        self.statements.end_leave(from, id, serial);
        let Some(local) = self.locals.get(&id).filter(|local| local.serial <= serial) else {
            return;
        };
        // It is mistaken, but another word of it may be on its way; if not, a new serial is
        // what it believes.
        if !self.statements.is_old_claim(from, id) {
            return;
        }
        if local.ownership == Ownership::Gateway {
            self.statements.park(from, id, now.at + REST);
        } else if self.may_end(from, id, now) {
            self.give_way(id, None, now);
        }
    }

    pub(super) fn on_moved(&mut self, from: Slot, id: I, location: Location, ends: u64, now: Now) {
        let Some(local) = self.locals.get_mut(&id) else {
            if ends > 0 {
                self.send(from, Frame::Leave { id, serial: ends });
            }
            if self.members.homes(&id).contains(&from) {
                self.tell_location(id, location);
            } else {
                // A home of before, or one that others see as a home, may be right: who asks
                // a home, or is answered by a NACK, learns the same.
                self.deny(Denied::NoSay);
            }
            return;
        };
        // Whatever the home has granted before, it has another owner now.
        local.told = local.told.map(|slot| if slot == from { Slot::NONE } else { slot });
        let local = *local;
        let contested = self.statements.is_contested(from, id);
        self.statements.renew(from, id);
        if local.serial > ends {
            // Of a serial before, or of none: if this one has lost, its claim is told.
            if ends > 0 {
                self.send(from, Frame::Leave { id, serial: ends });
            }
            self.claim(id, now);
            return;
        }
        let rank = (local.ownership, local.epoch, self.me);
        let lost = location.owner != self.me
            && (location.ownership, location.epoch, location.owner) > rank;
        let (homes, told) = (self.members.homes(&id), local.told);
        let is_home = homes.contains(&from);
        if local.epoch == 0 || !lost {
            self.claim(id, now);
            if self.statements.awaits_claim(from, id) {
                // The claim is the answer.
            } else if location.owner == self.me && !is_home {
                self.send(from, Frame::Noted { id, serial: ends });
            } else {
                self.claim_by_the_way(from, id, now);
            }
            return;
        }
        if !is_home {
            // The homes decide, and the other owner claims there as well.
            self.claim(id, now);
            self.send(from, Frame::Noted { id, serial: ends });
            return;
        }
        let keeps = |home: &Slot| *home != from && *home != Slot::NONE && told.contains(home);
        // A grant of the other home may be lost, and name this owner under the best epoch of all.
        let is_waited_for = |home: &Slot| {
            let asked = self.statements.awaits_claim(*home, id);
            *home != from && asked && !self.statements.is_contested(*home, id)
        };
        let waits = homes.iter().any(is_waited_for);
        if (waits || homes.iter().any(keeps)) && !contested {
            if !self.statements.is_parked(from, id) {
                self.statements.contest(from, id, now.at + CONTEST);
            }
        } else if waits {
            // Said again, by the home as well, once there is an answer.
            self.claim(id, now);
        } else if local.ownership == Ownership::Gateway {
            self.rest(id, from, now);
        } else if self.may_end(from, id, now) {
            self.repeat(from, id, Kind::Leave(local.serial), now);
            self.follow(from, id, location, now);
            self.give_way(id, Some(location), now);
        }
    }

    /// Claims without being owed an answer: who said Moved knows that it was heard.
    fn claim_by_the_way(&mut self, to: Slot, id: I, now: Now) {
        let nonce = self.statements.nonce(to, id).unwrap_or_default();
        if let Some(claim) = self.claim_frame(id, nonce, false, now) {
            self.send(to, claim);
        }
    }

    /// A gateway gives way, but stays; it is claimed again when the other may be gone.
    fn rest(&mut self, id: I, from: Slot, now: Now) {
        if let Some(local) = self.locals.get_mut(&id) {
            let epoch = local.epoch;
            (local.epoch, local.told) = (0, UNTOLD);
            self.tell_gone(id, epoch);
        }
        for home in self.members.homes(&id).into_iter().filter(|home| *home != Slot::NONE) {
            self.statements.park(home, id, now.at + REST);
        }
        self.claim_by_the_way(from, id, now);
    }

    /// Whether a local may be ended at the word of a home. What is held back is not answered,
    /// so that the home says it again.
    fn may_end(&mut self, home: Slot, id: I, now: Now) -> bool {
        let Some(Local { ownership, epoch, .. }) = self.locals.get(&id).copied() else {
            return true;
        };
        // What proved nothing, and was never granted, takes nothing along when it is refused.
        let counts = ownership == Ownership::Session || epoch > 0;
        let Some(relay) = self.members.relay(home).filter(|_| counts && home != Slot::ME) else {
            return true;
        };
        let what = Taking { by: ownership, from: ownership };
        let may = self.takeovers.take(relay, what, now.at);
        if !may {
            self.deny(Denied::TakeoverLimited);
        }
        may
    }

    /// A local is lost to another relay.
    fn give_way(&mut self, id: I, location: Option<Location>, now: Now) {
        let Some(&Local { serial, epoch, .. }) = self.locals.get(&id) else { return };
        self.drop_local(id, serial, now);
        let was_granted = epoch > 0;
        self.events.push_back(Event::Superseded { id, serial, location, was_granted });
        if let Some(location) = location {
            self.tell_location(id, location);
        }
    }

    /// Forgets a local, and tells all homes that know of it, and all caches.
    fn drop_local(&mut self, id: I, serial: u64, now: Now) {
        let Some(local) = self.locals.remove(&id) else { return };
        self.void_claims(id);
        self.tell_gone(id, local.epoch);
        let (homes, told) = (self.members.homes(&id), local.told);
        for home in homes.into_iter().chain(told) {
            if self.members.relay(home).is_some() {
                self.repeat(home, id, Kind::Leave(serial), now);
            }
        }
    }

    /// Has all others forget that a peer is here; 0 is no epoch.
    fn tell_gone(&mut self, id: I, epoch: u64) {
        for to in self.members.slots().filter(|slot| epoch > 0 && *slot != Slot::ME) {
            self.send(to, Frame::Gone { id, epoch });
        }
    }

    fn is_gateway(&self, id: I) -> bool {
        self.locals.get(&id).is_some_and(|local| local.ownership == Ownership::Gateway)
    }

    fn void_claims(&mut self, id: I) {
        for to in self.members.slots() {
            self.statements.end_claim(to, id);
        }
    }

    /// Tells the caller where a peer is, if that can be reached.
    fn tell_location(&mut self, id: I, location: Location) {
        if location.owner != self.me && self.members.slot(location.owner).is_some() {
            self.events.push_back(Event::Located { id, location, asked: None });
        }
    }
}
