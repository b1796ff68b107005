//! This relay as a home: it hears claims and leaves, and answers who has a peer.

use beacon_wire::cluster::{Claim, Frame, Location, Ownership, Refusal};

use super::members::Slot;
use super::registry::{Claimant, Record, Verdict};
use super::statements::Kind;
use super::takeovers::Taking;
use super::{Denied, Event, Name, Now, Presence};

impl<I: Name> Presence<I> {
    pub(super) fn on_claim(&mut self, from: Slot, claim: &Claim<I>, now: Now) {
        let Some(relay) = self.members.relay(from) else { return };
        let Claim { id, serial, nonce, ownership, .. } = *claim;
        let by = Claimant { slot: from, relay };
        let mut verdict = self.decide(by, claim, now);
        if verdict == Verdict::Denied(Denied::Full)
            && ownership == Ownership::Session
            && let Some(other) = self.registry.unproved()
        {
            // What proved nothing makes room.
            self.hand_over(other, now);
            verdict = self.decide(by, claim, now);
        }
        let refusal = match verdict {
            Verdict::Granted { epoch, replaced } => {
                // First, since an owner that loses the peer may watch it.
                self.tell_watchers(id, now);
                if let Some((owner, ends)) = replaced {
                    self.replace(id, from, owner, ends, now);
                }
                self.send(from, Frame::Granted { id, epoch, serial, nonce });
                return;
            }
            Verdict::Outranked => {
                if let Some(location) = self.location(id) {
                    self.send(from, Frame::Moved { id, location, ends: serial });
                }
                return;
            }
            Verdict::Over(serial) => {
                self.send(from, Frame::Left { id, serial });
                return;
            }
            Verdict::Stale => return,
            Verdict::HeldBack => {
                // The claim is repeated.
                self.deny(Denied::TakeoverLimited);
                return;
            }
            Verdict::Held => {
                self.deny(Denied::Held);
                let Some(location) = self.location(id) else { return };
                Refusal::Held(location)
            }
            Verdict::Denied(reason) => {
                self.deny(reason);
                match reason {
                    Denied::EpochAhead => Refusal::EpochAhead,
                    Denied::Full => Refusal::Full,
                    Denied::TooSoon
                    | Denied::Held
                    | Denied::Stranger
                    | Denied::LookupsFull
                    | Denied::TakeoverLimited
                    | Denied::NoSay
                    | Denied::WatchesFull => Refusal::TooSoon,
                }
            }
        };
        let rests = claim.epoch == 0 && ownership == Ownership::Gateway;
        if rests || refusal == Refusal::Full {
            // It knows that it has lost what it had. The request of a session may be a late
            // repeat, from before it had what it does not know to be lost.
            self.statements.end_moved(from, id, serial);
        }
        self.send(from, Frame::Refused { id, nonce, refusal });
    }

    fn decide(&mut self, by: Claimant, claim: &Claim<I>, now: Now) -> Verdict {
        let tick = self.tick(now);
        let members = &self.members;
        let takeovers = &mut self.takeovers;
        let relay_of = |slot| members.relay(slot);
        // Our own peers have come to us.
        let may_take_over = |from| {
            let what = Taking { by: claim.ownership, from };
            by.slot == Slot::ME || takeovers.take(by.relay, what, now.at)
        };
        self.registry.claim(by, claim, relay_of, may_take_over, now, tick)
    }

    /// Tells the owner that was replaced until it answers, and all others once.
    fn replace(&mut self, id: I, by: Slot, owner: Slot, ends: u64, now: Now) {
        self.repeat(owner, id, Kind::Moved(ends), now);
        let Some(location) = self.location(id) else { return };
        for to in self.members.slots().filter(|to| *to != by && *to != owner) {
            self.send(to, Frame::Moved { id, location, ends: 0 });
        }
    }

    /// Forgets a peer that this relay is no home of, or has no room for. An owner that sees
    /// other members may count on this one: it is told that the peer is its own to claim.
    pub(super) fn hand_over(&mut self, id: I, now: Now) {
        let live = self.registry.find(id).map(|record| (record.owner, record.serial));
        self.registry.forget(id);
        self.tell_watchers(id, now);
        if let Some((owner, serial)) = live {
            self.repeat(owner, id, Kind::Moved(serial), now);
        }
    }

    pub(super) fn on_leave(&mut self, from: Slot, id: I, serial: u64, now: Now) {
        self.registry.leave(from, id, serial, now.at, self.tick(now));
        self.tell_watchers(id, now);
        self.statements.end_moved(from, id, serial);
        self.send(from, Frame::Left { id, serial });
    }

    /// The word is for caches: homes are told by a leave, which names the serial. An epoch
    /// does not: of two serials the later may have the older one, by another home's clock.
    pub(super) fn on_gone(&mut self, from: Slot, id: I, epoch: u64) {
        if let Some(owner) = self.members.relay(from) {
            self.events.push_back(Event::Gone { id, owner, epoch });
        }
    }

    pub(super) fn on_find(&mut self, from: Slot, id: I) {
        let found = self.registry.find(id).map(|record| record.serial);
        let answer = match found.zip(self.location(id)) {
            Some((serial, location)) => Frame::Found { id, location, serial },
            None => Frame::Missing { id },
        };
        self.send(from, answer);
    }

    /// Where a peer is, or was last, by what this home knows.
    pub(super) fn location(&self, id: I) -> Option<Location> {
        let Record { owner, epoch, ownership, .. } = self.registry.known(id)?;
        Some(Location { owner: self.members.relay(owner)?, epoch, ownership })
    }
}
