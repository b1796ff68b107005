//! Decides about claims.
//!
//! Ranks order what homes know: what was proved goes before what was not, then the newer
//! epoch, then the higher relay id. Where a claim wins though its epoch is not the newest
//! that was seen, it is granted a newer one: of two locations of a peer the one of the newer
//! epoch is right, and nobody else has to know why.

use std::time::Duration;

use beacon_wire::cluster::{Claim, Name, Ownership, Takeover};
use beacon_wire::ids::RelayId;

use super::Registry;
use super::record::{LOST, Life, Record, SESSION_SHADOW, Sort, Tick};
use crate::presence::members::Slot;
use crate::presence::{Denied, Now};

/// How long an endpoint stays where it is before a claim that proves nothing may move it.
const ENDPOINT_STAY: Duration = Duration::from_secs(30);

/// What a claim came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::presence) enum Verdict {
    /// It holds under this epoch; the owner that it replaced and its serial.
    Granted { epoch: u64, replaced: Option<(Slot, u64)> },
    /// Another relay has the peer under a newer epoch.
    Outranked,
    /// Another relay has the peer, and keeps it.
    Held,
    /// It would take over a peer, and its relay has taken over too many.
    HeldBack,
    /// See [`Denied`].
    Denied(Denied),
    /// The claim is of a serial that is over; the last that is.
    Over(u64),
    /// The claim is of a serial before the owner's own.
    Stale,
}

/// Who claims, as far as the order of ranks needs it.
#[derive(Clone, Copy, Debug)]
pub(in crate::presence) struct Claimant {
    pub(in crate::presence) slot: Slot,
    pub(in crate::presence) relay: RelayId,
}

impl<I: Name> Registry<I> {
    /// Decides about a claim, and notes it if it holds; `relay_of` names the relays of slots,
    /// and `may_take_over` is asked, with the ownership kind there, before a peer is taken away from
    /// another relay that has it.
    pub(in crate::presence) fn claim(
        &mut self,
        by: Claimant,
        claim: &Claim<I>,
        relay_of: impl Fn(Slot) -> Option<RelayId>,
        may_take_over: impl FnOnce(Ownership) -> bool,
        now: Now,
        tick: Tick,
    ) -> Verdict {
        if now.is_ahead(claim.epoch) {
            return Verdict::Denied(Denied::EpochAhead);
        }
        self.end_if_lost(claim.id, now.at);
        let known = self.records.get(&claim.id).copied();
        let over = match known {
            Some(record) if record.owner == by.slot && !record.live() => Some(record.serial),
            Some(record) if record.owner == by.slot => None,
            _ => self.ended.get(&(claim.id, by.slot)).map(|ended| ended.serial),
        };
        if let Some(serial) = over.filter(|serial| claim.serial <= *serial) {
            return Verdict::Over(serial);
        }
        let born = now.unix_ms.saturating_sub(u64::from(claim.age_ms)).max(1);
        let Some(record) = known else {
            if self.records.len() >= self.room && !self.make_room(now.at, tick) {
                return Verdict::Denied(Denied::Full);
            }
            let epoch = if claim.epoch == 0 { born } else { claim.epoch };
            return self.grant(by, claim, epoch, None, tick);
        };
        let next = born.max(record.epoch.saturating_add(1));
        if record.owner == by.slot {
            if claim.serial < record.serial {
                return Verdict::Stale;
            }
            let again = record.live() && claim.serial == record.serial;
            let epoch = match claim.epoch {
                0 if again => record.epoch,
                0 => next,
                epoch => epoch.max(record.epoch),
            };
            return self.grant(by, claim, epoch, None, tick);
        }
        let age = tick.since(record.since);
        if !record.live() {
            let newer = claim.epoch > record.epoch;
            let shadowed = record.ownership == Ownership::Session && age < SESSION_SHADOW;
            // Under an epoch another home has granted it, and knows as much as this one.
            if claim.epoch == 0 && claim.ownership == Ownership::Endpoint && shadowed {
                return Verdict::Denied(Denied::TooSoon);
            }
            self.remember(claim.id, record.owner, record.serial, now.at, tick);
            // An owner that was lost with its relay may come back, and be the newer one.
            let lost = record.serial == LOST;
            let epoch = match claim.epoch {
                0 if lost && claim.age_ms > 0 => born,
                epoch if epoch > 0 && (newer || lost) => epoch,
                _ => next,
            };
            return self.grant(by, claim, epoch, None, tick);
        }
        let rank = (claim.ownership, claim.epoch, Some(by.relay));
        let newest = rank > (record.ownership, record.epoch, relay_of(record.owner));
        if claim.epoch > 0 && !newest {
            return Verdict::Outranked;
        }
        if claim.epoch == 0 {
            // What was granted here and then taken over comes again when it was late on its
            // way, and its age does not say how late.
            if self.was_replaced(claim.id, by.slot, claim.serial) {
                return Verdict::Held;
            }
            if let Err(refused) = may_replace(&record, claim, born, age) {
                return refused;
            }
        }
        if !may_take_over(record.ownership) {
            return Verdict::HeldBack;
        }
        self.remember_replaced(claim.id, record.owner, record.serial, now.at, tick);
        let newer = (claim.epoch, Some(by.relay)) > (record.epoch, relay_of(record.owner));
        let epoch = if newer { claim.epoch } else { next };
        self.grant(by, claim, epoch, Some((record.owner, record.serial)), tick)
    }

    fn grant(
        &mut self,
        by: Claimant,
        claim: &Claim<I>,
        epoch: u64,
        replaced: Option<(Slot, u64)>,
        tick: Tick,
    ) -> Verdict {
        let Claim { id, serial, credential, ownership, .. } = *claim;
        let known = self.records.get(&id).copied();
        let live = known.filter(Record::live);
        let stays = live.filter(|record| record.owner == by.slot && record.serial == serial);
        let since = stays.map_or(tick, |record| record.since);
        let life = match known.map(|record| record.life) {
            None | Some(Life::Live) => Life::Live,
            Some(Life::Revived | Life::Over) => Life::Revived,
        };
        let owner = by.slot;
        let record = Record { epoch, serial, credential, since, owner, ownership, life };
        self.live += usize::from(live.is_none());
        match record.sort() {
            Sort::Unproved => self.unproved.insert(id, ()),
            Sort::Proved => self.unproved.remove(&id),
        };
        self.records.insert(id, record);
        Verdict::Granted { epoch, replaced }
    }
}

/// Whether a request may take a peer away from a live owner elsewhere.
fn may_replace<I>(
    record: &Record,
    claim: &Claim<I>,
    born: u64,
    age: Duration,
) -> Result<(), Verdict> {
    if claim.ownership < record.ownership || claim.ownership == Ownership::Gateway {
        return Err(Verdict::Held);
    }
    if claim.ownership > record.ownership {
        return Ok(());
    }
    // What came after the owner was granted is newer, whatever two clocks say of their epochs.
    let claim_age = Duration::from_millis(claim.age_ms.into());
    let came_before = claim.age_ms > 0 && claim_age + Tick::LENGTH > age;
    if came_before && record.epoch > born {
        return Err(Verdict::Held);
    }
    if claim.ownership == Ownership::Endpoint {
        let stays = age < ENDPOINT_STAY;
        return if stays { Err(Verdict::Denied(Denied::TooSoon)) } else { Ok(()) };
    }
    match claim.takeover {
        Takeover::Always => Ok(()),
        Takeover::SameCredential if claim.credential == record.credential => Ok(()),
        Takeover::SameCredential | Takeover::Refuse => Err(Verdict::Held),
    }
}
