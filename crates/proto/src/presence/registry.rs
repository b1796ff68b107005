//! What a home knows: who has each node, and who had it a moment ago.
//!
//! Ranks order what homes know: what was proved goes before what was not, then the newer
//! epoch, then the higher relay id. Where a claim wins though its epoch is not the newest
//! that was seen, it is granted a newer one: of two places of a node the one of the newer
//! epoch is right, and nobody else has to know why.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use beacon_wire::cluster::{Claim, Name, Standing, Takeover};
use beacon_wire::ids::RelayId;

use super::changes::MAX_STEP;
use super::members::Slot;
use super::shards::{SHARDS, Shards};
use super::{Denied, Now};

/// How long an endpoint stays where it is before a claim that proves nothing may move it.
const ENDPOINT_STAY: Duration = Duration::from_secs(30);

/// How long after a session only another session may follow it elsewhere.
const SESSION_SHADOW: Duration = Duration::from_secs(90);

/// How long a home remembers what is over, so that a late word does not bring it back.
const MEMORY: Duration = Duration::from_secs(30);

/// Tombstones of what proved nothing have this part of the room.
const UNPROVED_SHARE: usize = 8;

/// The serial of a tombstone whose owner did not leave: its relay did.
const LOST: u64 = u64::MAX;

/// Tenths of a second since the start: 4 bytes last for 13 years.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Tick(u32);

impl Tick {
    const LENGTH: Duration = Duration::from_millis(100);

    pub(super) fn at(start: Instant, now: Instant) -> Self {
        let since = now.saturating_duration_since(start).as_millis();
        Self(u32::try_from(since / Self::LENGTH.as_millis()).unwrap_or(u32::MAX))
    }

    /// The time since an earlier one, to a tenth of a second.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Self::LENGTH * self.0.saturating_sub(earlier.0)
    }
}

/// What a home knows of a node. There may be millions: 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) epoch: u64,
    pub(super) serial: u64,
    credential: u64,
    /// When it was granted, or when it ended.
    since: Tick,
    pub(super) owner: Slot,
    pub(super) standing: Standing,
    life: Life,
}

/// Whether the owner of a record still has the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    Live,
    /// Live, but a grave of before is still in its queue.
    Revived,
    /// The record is a tombstone, and has a grave.
    Over,
}

impl Record {
    fn live(&self) -> bool {
        self.life != Life::Over
    }

    /// How long a tombstone of it stays.
    const fn memory(&self) -> Duration {
        match self.standing {
            Standing::Session => SESSION_SHADOW,
            Standing::Endpoint | Standing::Gateway => MEMORY,
        }
    }

    /// Which of the graves are for it.
    const fn sort(&self) -> Sort {
        match self.standing {
            Standing::Session => Sort::Proved,
            Standing::Endpoint | Standing::Gateway => Sort::Unproved,
        }
    }
}

/// Tombstones of what proved nothing are kept apart: there is not as much room for them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sort {
    Unproved,
    Proved,
}

/// The last serial that is over at a relay, and since when that is known.
#[derive(Clone, Copy, Debug)]
struct Ended {
    serial: u64,
    since: Tick,
    /// The serial after it was granted here, and another relay took the node over.
    next_is_replaced: bool,
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It holds under this epoch; the owner that it replaced and its serial.
    Granted { epoch: u64, replaced: Option<(Slot, u64)> },
    /// Another relay has the node under a newer epoch.
    Outranked,
    /// Another relay has the node, and keeps it.
    Held,
    /// It would take over a node, and its relay has taken over too many.
    HeldBack,
    /// See [`Denied`].
    Denied(Denied),
    /// The claim is of a serial that is over; the last that is.
    Over(u64),
    /// The claim is of a serial before the owner's own.
    Stale,
}

/// The nodes that this relay is a home of.
#[derive(Debug)]
pub(super) struct Registry<I> {
    records: Shards<I, Record>,
    live: usize,
    room: usize,
    /// The nodes of live records that proved nothing: they make room for sessions.
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

/// Who claims, as far as the order of ranks needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant {
    pub(super) slot: Slot,
    pub(super) relay: RelayId,
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

    /// How many nodes have an owner.
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

    /// What is known of a node, though it may be over.
    pub(super) fn known(&self, id: I) -> Option<Record> {
        let mut record = *self.records.get(&id)?;
        if let Some(since) = self.lost_since(&record) {
            record = Record { serial: LOST, since, life: Life::Over, ..record };
        }
        Some(record)
    }

    /// The record of a node that has an owner.
    pub(super) fn find(&self, id: I) -> Option<Record> {
        self.known(id).filter(Record::live)
    }

    /// Since when a record is over because its relay left, if nothing has ended it yet.
    fn lost_since(&self, record: &Record) -> Option<Tick> {
        let lost = self.lost.iter().find(|(slot, _)| record.live() && record.owner == *slot);
        lost.map(|(_, since)| *since)
    }

    /// Decides about a claim, and notes it if it holds; `relay_of` names the relays of slots,
    /// and `may_take_over` is asked, with the standing there, before a node is taken away from
    /// another relay that has it.
    pub(super) fn claim(
        &mut self,
        by: Claimant,
        claim: &Claim<I>,
        relay_of: impl Fn(Slot) -> Option<RelayId>,
        may_take_over: impl FnOnce(Standing) -> bool,
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
            let shadowed = record.standing == Standing::Session && age < SESSION_SHADOW;
            // Under an epoch another home has granted it, and knows as much as this one.
            if claim.epoch == 0 && claim.standing == Standing::Endpoint && shadowed {
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
        let rank = (claim.standing, claim.epoch, Some(by.relay));
        let newest = rank > (record.standing, record.epoch, relay_of(record.owner));
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
        if !may_take_over(record.standing) {
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
        let Claim { id, serial, credential, standing, .. } = *claim;
        let known = self.records.get(&id).copied();
        let live = known.filter(Record::live);
        let stays = live.filter(|record| record.owner == by.slot && record.serial == serial);
        let since = stays.map_or(tick, |record| record.since);
        let life = match known.map(|record| record.life) {
            None | Some(Life::Live) => Life::Live,
            Some(Life::Revived | Life::Over) => Life::Revived,
        };
        let owner = by.slot;
        let record = Record { epoch, serial, credential, since, owner, standing, life };
        self.live += usize::from(live.is_none());
        match record.sort() {
            Sort::Unproved => self.unproved.insert(id, ()),
            Sort::Proved => self.unproved.remove(&id),
        };
        self.records.insert(id, record);
        Verdict::Granted { epoch, replaced }
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
                let (epoch, credential, standing) = (0, 0, Standing::Gateway);
                let (since, owner, life) = (tick, by, Life::Over);
                let record = Record { epoch, serial, credential, since, owner, standing, life };
                self.records.insert(id, record);
                self.dig(id, Sort::Unproved, now, tick);
            }
            None => {}
        }
    }

    /// Makes a record a tombstone.
    fn end(&mut self, id: I, serial: u64, now: Instant, tick: Tick) {
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
    fn dig(&mut self, id: I, sort: Sort, now: Instant, tick: Tick) {
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
    fn make_room(&mut self, now: Instant, tick: Tick) -> bool {
        let graves = self.graves[Sort::Unproved as usize].len().min(MAX_STEP);
        (0..graves).any(|_| self.open_grave(Sort::Unproved, true, now, tick))
    }

    /// A node that has an owner, and proved nothing.
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

    /// Remembers apart what is over at a relay that the record does not name.
    fn remember(&mut self, id: I, owner: Slot, serial: u64, now: Instant, tick: Tick) {
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
    fn remember_replaced(&mut self, id: I, owner: Slot, serial: u64, now: Instant, tick: Tick) {
        let before = serial.saturating_sub(1);
        self.remember(id, owner, before, now, tick);
        if let Some(ended) = self.ended.get_mut(&(id, owner))
            && ended.serial == before
        {
            ended.since = tick;
            ended.next_is_replaced = true;
        }
    }

    fn was_replaced(&self, id: I, owner: Slot, serial: u64) -> bool {
        self.ended
            .get(&(id, owner))
            .is_some_and(|ended| ended.next_is_replaced && ended.serial + 1 == serial)
    }

    /// A relay left: its nodes are over. [`Self::end_if_lost`] is due for all ids, and then
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

    /// No record names a relay that left as the owner of a node any more.
    pub(super) fn lost_are_ended(&mut self) {
        self.lost.clear();
    }

    /// Forgets a node that this relay is no home of any more.
    pub(super) fn forget(&mut self, id: I) {
        if let Some(record) = self.records.remove(&id) {
            self.live -= usize::from(record.live());
            self.unproved.remove(&id);
        }
    }

    /// When something may be forgotten.
    pub(super) fn next(&self) -> Option<Instant> {
        let graves = self.graves.iter().filter_map(|graves| Some(graves.front()?.0));
        graves.chain(self.forget.front().map(|(at, ..)| *at)).min()
    }

    /// Forgets what is over for long enough, [`MAX_STEP`] of each sort at most.
    pub(super) fn sweep(&mut self, now: Instant, tick: Tick) {
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

/// Whether a request may take a node away from a live owner elsewhere.
fn may_replace<I>(
    record: &Record,
    claim: &Claim<I>,
    born: u64,
    age: Duration,
) -> Result<(), Verdict> {
    if claim.standing < record.standing || claim.standing == Standing::Gateway {
        return Err(Verdict::Held);
    }
    if claim.standing > record.standing {
        return Ok(());
    }
    // What came after the owner was granted is newer, whatever two clocks say of their epochs.
    let claim_age = Duration::from_millis(claim.age_ms.into());
    let came_before = claim.age_ms > 0 && claim_age + Tick::LENGTH > age;
    if came_before && record.epoch > born {
        return Err(Verdict::Held);
    }
    if claim.standing == Standing::Endpoint {
        let stays = age < ENDPOINT_STAY;
        return if stays { Err(Verdict::Denied(Denied::TooSoon)) } else { Ok(()) };
    }
    match claim.takeover {
        Takeover::Always => Ok(()),
        Takeover::SameCredential if claim.credential == record.credential => Ok(()),
        Takeover::SameCredential | Takeover::Refuse => Err(Verdict::Held),
    }
}
