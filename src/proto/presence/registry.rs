//! What a home knows: who has each node, and who had it a moment ago.
//!
//! Ranks order what homes know: what was proved goes before what was not, then the newer
//! epoch, then the higher relay id. Where a claim wins though its epoch is not the newest
//! that was seen, it is granted a newer one: of two places of a node the one of the newer
//! epoch is right, and nobody else has to know why.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::members::Slot;
use super::{Now, Reject};
use crate::ids::RelayId;
use crate::wire::cluster::{Claim, Name, Standing, Takeover};

/// How far ahead of the home's clock an epoch may be, in milliseconds.
const MAX_AHEAD_MS: u64 = 60_000;

/// How long an endpoint stays where it is before a claim that proves nothing may move it.
const ENDPOINT_STAY: Duration = Duration::from_secs(30);

/// How long after a session only another session may follow it elsewhere.
const SESSION_SHADOW: Duration = Duration::from_secs(90);

/// How long a home remembers what is over, so that a late word does not bring it back.
const MEMORY: Duration = Duration::from_secs(30);

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
    /// Whether the owner still has the node; if not, this is a tombstone.
    live: bool,
}

impl Record {
    /// How long a tombstone of it stays.
    const fn memory(&self) -> Duration {
        match self.standing {
            Standing::Session => SESSION_SHADOW,
            Standing::Endpoint | Standing::Gateway => MEMORY,
        }
    }
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
    /// See [`Reject`].
    Rejected(Reject),
    /// The claim is of a serial that is over; the last that is.
    Over(u64),
    /// The claim is of a serial before the owner's own.
    Stale,
}

/// The nodes that this relay is a home of.
#[derive(Debug)]
pub(super) struct Registry<I> {
    records: HashMap<I, Record, RandomState>,
    live: usize,
    room: usize,
    /// Serials that are over at relays other than the one that the record names.
    over: HashMap<(I, Slot), u64, RandomState>,
    /// When to look whether a tombstone may go, for [`MEMORY`] and for [`SESSION_SHADOW`].
    graves: [VecDeque<(Instant, I)>; 2],
    /// When to forget what is in `over`.
    forget: VecDeque<(Instant, (I, Slot), u64)>,
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
            records: HashMap::default(),
            live: 0,
            room,
            over: HashMap::default(),
            graves: [VecDeque::new(), VecDeque::new()],
            forget: VecDeque::new(),
        }
    }

    /// How many nodes have an owner.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// How many are remembered though they are over.
    pub(super) fn tombstones(&self) -> usize {
        self.records.len() - self.live
    }

    /// The bytes of the table of records: 8 buckets for 7 entries, a byte of control each.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() / 7 * 8 * (size_of::<(I, Record)>() + 1)
    }

    /// All ids that anything is known of, in order.
    pub(super) fn ids(&self) -> Vec<I> {
        let mut ids: Vec<_> = self.records.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// What is known of a node, though it may be over.
    pub(super) fn known(&self, id: I) -> Option<&Record> {
        self.records.get(&id)
    }

    /// The record of a node that has an owner.
    pub(super) fn find(&self, id: I) -> Option<&Record> {
        self.known(id).filter(|record| record.live)
    }

    /// Decides about a claim, and notes it if it holds; `relay_of` names the relays of slots.
    pub(super) fn claim(
        &mut self,
        by: Claimant,
        claim: &Claim<I>,
        relay_of: impl Fn(Slot) -> Option<RelayId>,
        now: Now,
        tick: Tick,
    ) -> Verdict {
        if claim.epoch > now.unix_ms.saturating_add(MAX_AHEAD_MS) {
            return Verdict::Rejected(Reject::EpochAhead);
        }
        let known = self.records.get(&claim.id).copied();
        let over = match known {
            Some(record) if record.owner == by.slot && !record.live => Some(record.serial),
            Some(record) if record.owner == by.slot => None,
            _ => self.over.get(&(claim.id, by.slot)).copied(),
        };
        if let Some(serial) = over.filter(|serial| claim.serial <= *serial) {
            return Verdict::Over(serial);
        }
        let born = now.unix_ms.saturating_sub(u64::from(claim.age_ms)).max(1);
        let Some(record) = known else {
            if self.records.len() >= self.room {
                return Verdict::Rejected(Reject::Full);
            }
            let epoch = if claim.epoch == 0 { born } else { claim.epoch };
            return self.grant(by, claim, epoch, None, tick);
        };
        let next = born.max(record.epoch.saturating_add(1));
        if record.owner == by.slot {
            if claim.serial < record.serial {
                return Verdict::Stale;
            }
            let again = record.live && claim.serial == record.serial;
            let epoch = match claim.epoch {
                0 if again => record.epoch,
                0 => next,
                epoch => epoch.max(record.epoch),
            };
            return self.grant(by, claim, epoch, None, tick);
        }
        let age = tick.since(record.since);
        if !record.live {
            let newer = claim.epoch > record.epoch;
            let shadowed = record.standing == Standing::Session && age < SESSION_SHADOW;
            if claim.standing == Standing::Endpoint && shadowed && !newer {
                return Verdict::Rejected(Reject::TooSoon);
            }
            self.bury(claim.id, record.owner, record.serial, now.at);
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
        if claim.epoch == 0
            && let Err(refused) = may_replace(&record, claim, born, age)
        {
            return refused;
        }
        // The serials before the one that is replaced are over as well.
        self.bury(claim.id, record.owner, record.serial.saturating_sub(1), now.at);
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
        let Claim { serial, credential, standing, .. } = *claim;
        let known = self.records.get(&claim.id).filter(|record| record.live);
        let stays = known.filter(|record| record.owner == by.slot && record.serial == serial);
        let since = stays.map_or(tick, |record| record.since);
        self.live += usize::from(known.is_none());
        let owner = by.slot;
        let record = Record { epoch, serial, credential, since, owner, standing, live: true };
        self.records.insert(claim.id, record);
        self.over.remove(&(claim.id, by.slot));
        Verdict::Granted { epoch, replaced }
    }

    /// An owner says that its sessions up to `serial` are over.
    pub(super) fn leave(&mut self, by: Slot, id: I, serial: u64, now: Instant, tick: Tick) {
        match self.records.get(&id).copied() {
            Some(record) if record.owner == by && record.serial <= serial => {
                self.end(id, serial, now, tick);
            }
            Some(record) if record.owner == by => {}
            Some(_) => self.bury(id, by, serial, now),
            // The claim may still be on its way.
            None if self.records.len() < self.room => {
                let (epoch, credential, standing) = (0, 0, Standing::Gateway);
                let (since, owner, live) = (tick, by, false);
                let record = Record { epoch, serial, credential, since, owner, standing, live };
                self.records.insert(id, record);
                self.graves[0].push_back((now + MEMORY, id));
            }
            None => {}
        }
    }

    /// Makes a record a tombstone.
    fn end(&mut self, id: I, serial: u64, now: Instant, tick: Tick) {
        let Some(record) = self.records.get_mut(&id) else { return };
        record.serial = serial;
        if std::mem::replace(&mut record.live, false) {
            record.since = tick;
            self.live -= 1;
            let [short, long] = &mut self.graves;
            let graves = if record.memory() == MEMORY { short } else { long };
            graves.push_back((now + record.memory(), id));
        }
    }

    /// Remembers apart what is over at a relay that the record does not name.
    fn bury(&mut self, id: I, owner: Slot, serial: u64, now: Instant) {
        if self.over.len() >= self.room {
            return;
        }
        let over = self.over.entry((id, owner)).or_insert(serial);
        *over = serial.max(*over);
        self.forget.push_back((now + MEMORY, (id, owner), serial));
    }

    /// A relay left: its nodes are over, and the serials of the next one begin anew.
    pub(super) fn relay_left(&mut self, owner: Slot, now: Instant, tick: Tick) {
        let owned = self.records.iter().filter(|(_, record)| record.owner == owner);
        let mut owned: Vec<_> = owned.map(|(id, _)| *id).collect();
        owned.sort_unstable();
        for id in owned {
            self.end(id, LOST, now, tick);
        }
        self.over.retain(|(_, by), _| *by != owner);
    }

    /// Forgets a node that this relay is no home of any more.
    pub(super) fn forget(&mut self, id: I) {
        if let Some(record) = self.records.remove(&id) {
            self.live -= usize::from(record.live);
        }
    }

    /// When something may be forgotten.
    pub(super) fn next(&self) -> Option<Instant> {
        let graves = self.graves.iter().filter_map(|graves| Some(graves.front()?.0));
        graves.chain(self.forget.front().map(|(at, ..)| *at)).min()
    }

    /// Forgets what is over for long enough.
    pub(super) fn sweep(&mut self, now: Instant, tick: Tick) {
        for graves in &mut self.graves {
            while let Some((_, id)) = graves.pop_front_if(|(at, _)| *at <= now) {
                // One that was claimed and ended in the meantime has a later grave.
                let over = |record: &Record| {
                    !record.live && tick.since(record.since) + Tick::LENGTH >= record.memory()
                };
                if self.records.get(&id).is_some_and(over) {
                    self.records.remove(&id);
                }
            }
        }
        while let Some((_, key, serial)) = self.forget.pop_front_if(|(at, ..)| *at <= now) {
            if self.over.get(&key) == Some(&serial) {
                self.over.remove(&key);
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
    // A first request is as new as it gets; a repeated one may be older than the owner.
    if claim.age_ms > 0 && record.epoch > born {
        return Err(Verdict::Held);
    }
    if claim.standing == Standing::Endpoint {
        let stays = age < ENDPOINT_STAY;
        return if stays { Err(Verdict::Rejected(Reject::TooSoon)) } else { Ok(()) };
    }
    match claim.takeover {
        Takeover::Always => Ok(()),
        Takeover::SameCredential if claim.credential == record.credential => Ok(()),
        Takeover::SameCredential | Takeover::Refuse => Err(Verdict::Held),
    }
}
