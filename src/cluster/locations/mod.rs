//! Where peers are that are not here: what look-ups and news have told, and the packets that
//! wait for an answer.
//!
//! Both are one entry under one lock, which keeps the order of a flow: what waits enters the
//! outbox of the peer's relay before the location is shown to anybody. Bounded in locations,
//! in peers that are looked up, in packets for each and in bytes.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::{Mutex, RwLock};

use super::Member;
use crate::ids::RelayId;
use crate::metrics::{Drop, Traffic, Whose};
use crate::wire::cluster::{Location, Ownership, Run};
use crate::wire::name::Name;

/// Longest time that a packet waits for the answer of a look-up.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// For how long nobody is asked again after nobody had the peer: shorter than the 50 ms in
/// which a peer that has just come has to be found.
const NOWHERE_TIME: Duration = Duration::from_millis(40);

/// A location that is used is looked up again after this time: news of it may have been lost.
const REFRESH_AFTER: Duration = Duration::from_secs(45);

/// How long a question is thought to be on its way: twice what a look-up takes at most. After
/// that it is asked again by the next packet, or forgotten with its peer.
const QUESTION_TIME: Duration = Duration::from_secs(2);

/// How long a location that nobody has confirmed is held against others: twice the time after
/// which one that is used is asked for again.
const BELIEVED_FOR: Duration = Duration::from_secs(90);

/// Packets that wait for one peer at most.
const MAX_PARKED: usize = 32;

/// Peers that are looked up at a time, at most.
const MAX_WAITING: usize = 16_384;

/// Bytes of packets that wait at most.
const MAX_PARKED_BYTES: usize = 16 << 20;

/// Most locations that are cached.
const MAX_LOCATIONS: usize = 1 << 20;

/// More than any machine has cores, so that two of them rarely want the same lock.
const SHARDS: usize = 64;

/// A peer's location, and the member with the outbox that leads there.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) member: Arc<Member>,
    pub(super) epoch: u64,
    pub(super) ownership: Ownership,
    /// When a home, or the owner, last said so.
    confirmed: Instant,
    /// When it is to be asked for again.
    refresh: Instant,
    /// Whether it was asked for again since.
    in_question: bool,
}

impl Remote {
    /// Whether it is recent enough to be held against somebody else.
    pub(super) fn is_believed(&self, now: Instant) -> bool {
        now < self.confirmed + BELIEVED_FOR
    }

    /// Whether this location replaces the known one. `asked` is when this one was asked
    /// for: what a home answers goes before what was last confirmed before that, or a lie of a
    /// high epoch would last. It was asked for after a time in which any honest word arrives.
    fn is_replaced_by(&self, location: &Location, asked: Option<Instant>) -> bool {
        let is_answer = self.in_question && asked.is_some_and(|asked| self.confirmed < asked);
        is_answer || (self.epoch, self.member.relay) <= (location.epoch, location.owner)
    }
}

/// What is known of a peer that is not here.
#[derive(Debug)]
enum State {
    At(Remote),
    /// Nobody had it, a moment ago.
    Nowhere {
        until: Instant,
    },
    /// A look-up is on its way.
    Waiting(Waiting),
}

/// What waits for a look-up.
#[derive(Debug)]
struct Waiting {
    parked: VecDeque<Parked>,
    /// When no answer is expected any more.
    ask_again: Instant,
}

#[derive(Debug)]
struct Parked {
    sender: Name,
    payload: Box<[u8]>,
    arrived: Instant,
}

/// What became of packets for a peer.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// There is a way: the packets are still the caller's. `asks` says that it is time to ask
    /// whether it still holds.
    To { remote: Remote, asks: bool },
    /// Nobody has the peer: the packets are still the caller's.
    Nowhere,
    /// So many packets wait, with payloads of so many bytes; the others found no room. `asks`
    /// says that nobody has asked yet, or that no answer has come.
    Parked { packets: u64, bytes: u64, refused: u64, asks: bool },
}

type Shard = RwLock<HashMap<Name, State, RandomState>>;

/// All cached locations, and look-ups.
#[derive(Debug)]
pub(super) struct Locations {
    shards: Box<[Shard]>,
    hasher: RandomState,
    traffic: Arc<Traffic>,
    /// When the packets that wait for a peer are looked at again; in order.
    due: Mutex<VecDeque<(Instant, Name)>>,
    waiting: AtomicUsize,
    parked_bytes: AtomicUsize,
    count: AtomicUsize,
}

impl Locations {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::default(),
            traffic,
            due: Mutex::default(),
            waiting: AtomicUsize::new(0),
            parked_bytes: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
        }
    }

    #[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // taken modulo the length
    fn shard(&self, id: Name) -> &Shard {
        &self.shards[(self.hasher.hash_one(id) >> 32) as usize % SHARDS]
    }

    /// How many locations are cached.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many peers are looked up.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The location of a peer, if it is known.
    pub(super) fn known(&self, id: Name) -> Option<Remote> {
        match self.shard(id).read().get(&id) {
            Some(State::At(remote)) => Some(remote.clone()),
            Some(State::Nowhere { .. } | State::Waiting(_)) | None => None,
        }
    }

    /// Finds the way to a peer, or has its packets wait until it is found.
    pub(super) fn find_or_park<'a>(
        &self,
        id: Name,
        sender: Name,
        packets: impl Iterator<Item = &'a [u8]>,
        now: Instant,
    ) -> Way {
        if let Some(remote) = self.known(id).filter(|remote| now < remote.refresh) {
            return Way::To { remote, asks: false };
        }
        let mut shard = self.shard(id).write();
        let (parked, asks) = match shard.get_mut(&id) {
            Some(State::At(remote)) => {
                let asks = now >= remote.refresh;
                if asks {
                    remote.refresh = now + REFRESH_AFTER;
                    remote.in_question = true;
                }
                return Way::To { remote: remote.clone(), asks };
            }
            Some(State::Nowhere { until }) if now < *until => return Way::Nowhere,
            Some(State::Waiting(waiting)) => {
                let asks = now >= waiting.ask_again;
                if asks {
                    waiting.ask_again = now + QUESTION_TIME;
                }
                (&mut waiting.parked, asks)
            }
            Some(State::Nowhere { .. }) | None => {
                let room = |count| (count < MAX_WAITING).then_some(count + 1);
                if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
                    return Way::Parked {
                        packets: 0,
                        bytes: 0,
                        refused: packets.count() as u64,
                        asks: false,
                    };
                }
                let waiting = Waiting { parked: VecDeque::new(), ask_again: now + QUESTION_TIME };
                let entry = shard.entry(id).insert(State::Waiting(waiting));
                self.due.lock().push_back((now + PATIENCE, id));
                let State::Waiting(waiting) = entry.into_mut() else {
                    return Way::Nowhere;
                };
                (&mut waiting.parked, true)
            }
        };
        let (mut taken, mut taken_bytes, mut refused) = (0, 0, 0);
        for payload in packets {
            let bytes = self.parked_bytes.load(Ordering::Relaxed) + payload.len();
            if parked.len() >= MAX_PARKED || bytes > MAX_PARKED_BYTES {
                refused += 1;
                continue;
            }
            self.parked_bytes.fetch_add(payload.len(), Ordering::Relaxed);
            parked.push_back(Parked { sender, payload: payload.into(), arrived: now });
            taken += 1;
            taken_bytes += payload.len() as u64;
        }
        self.traffic.shard().queued(taken);
        Way::Parked { packets: taken, bytes: taken_bytes, refused, asks }
    }

    /// Takes in where a peer is, unless something newer is known, and sends what waits there.
    /// `asked` is when it was asked for; `None` for news.
    pub(super) fn located(
        &self,
        id: Name,
        member: &Arc<Member>,
        location: &Location,
        asked: Option<Instant>,
        now: Instant,
    ) {
        let mut shard = self.shard(id).write();
        let remote = Remote {
            member: Arc::clone(member),
            epoch: location.epoch,
            ownership: location.ownership,
            confirmed: now,
            refresh: now + REFRESH_AFTER,
            in_question: false,
        };
        match shard.get_mut(&id) {
            Some(State::At(known)) => {
                if known.is_replaced_by(location, asked) {
                    *known = remote;
                }
                return;
            }
            Some(State::Waiting(waiting)) => {
                let parked = std::mem::take(&mut waiting.parked);
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                self.send(id, parked, &remote, now);
            }
            Some(State::Nowhere { .. }) | None => {}
        }
        if self.count() >= MAX_LOCATIONS
            && let Some(any) = shard.extract_if(|_, s| matches!(s, State::At(_))).next()
        {
            // Any location is evicted: a peer that is asked for is looked up again.
            self.count.fetch_sub(1, Ordering::Relaxed);
            drop(any);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        shard.insert(id, State::At(remote));
    }

    fn send(&self, id: Name, parked: VecDeque<Parked>, remote: &Remote, now: Instant) {
        let traffic = self.traffic.shard();
        for Parked { sender, payload, arrived } in parked {
            self.parked_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
            traffic.unqueued(1);
            if now.saturating_duration_since(arrived) > PATIENCE {
                let whose = Whose::packet(sender, id);
                traffic.dropped_of(whose, Drop::LOOKUP_EXPIRED, 1, now);
                continue;
            }
            let run = Run { dest: id, sender, epoch: remote.epoch };
            remote.member.outbox.push(&run, std::iter::once(&*payload), now);
        }
        remote.member.outbox.wake();
    }

    /// Notes that nobody has a peer; returns how many packets were dropped for it.
    pub(super) fn missing(&self, id: Name, now: Instant) -> u64 {
        let mut shard = self.shard(id).write();
        let Some(State::Waiting(waiting)) = shard.get_mut(&id) else { return 0 };
        let parked = std::mem::take(&mut waiting.parked);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        shard.insert(id, State::Nowhere { until: now + NOWHERE_TIME });
        drop(shard);
        // For this entry to be taken away in the end.
        self.due.lock().push_back((now + PATIENCE, id));
        self.give_up(id, parked, Drop::UNKNOWN_DESTINATION, now)
    }

    fn give_up(
        &self,
        id: Name,
        parked: impl IntoIterator<Item = Parked>,
        reason: Drop,
        now: Instant,
    ) -> u64 {
        let traffic = self.traffic.shard();
        let mut count = 0;
        for packet in parked {
            self.parked_bytes.fetch_sub(packet.payload.len(), Ordering::Relaxed);
            traffic.dropped_of(Whose::packet(packet.sender, id), reason, 1, now);
            count += 1;
        }
        traffic.unqueued(count);
        count
    }

    /// Forgets a location: the owner no longer has the peer under this epoch, or an older one.
    pub(super) fn gone(&self, id: Name, owner: RelayId, epoch: u64) {
        if let Entry::Occupied(entry) = self.shard(id).write().entry(id)
            && let State::At(remote) = entry.get()
            && remote.member.relay == owner
            && remote.epoch <= epoch
        {
            entry.remove();
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes that there was no room for a question that [`Self::find_or_park`] gave: the next
    /// packet asks it.
    pub(super) fn not_asked(&self, id: Name, now: Instant) {
        match self.shard(id).write().get_mut(&id) {
            Some(State::At(remote)) => remote.refresh = now,
            Some(State::Waiting(waiting)) => waiting.ask_again = now,
            Some(State::Nowhere { .. }) | None => {}
        }
    }

    /// Forgets where a peer was: it is here. Packets that waited for it are dropped, since
    /// what is sent from here on reaches it at once and would arrive before them; returns how
    /// many.
    pub(super) fn arrived(&self, id: Name, now: Instant) -> u64 {
        match self.shard(id).write().remove(&id) {
            Some(State::At(_)) => {
                self.count.fetch_sub(1, Ordering::Relaxed);
                0
            }
            Some(State::Waiting(waiting)) => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                self.give_up(id, waiting.parked, Drop::OVERTAKEN, now)
            }
            Some(State::Nowhere { .. }) | None => 0,
        }
    }

    /// Forgets all locations at a relay.
    pub(super) fn relay_gone(&self, relay: RelayId) {
        for shard in &self.shards {
            let at_relay =
                |s: &State| matches!(s, State::At(remote) if remote.member.relay == relay);
            let before = shard.read().values().filter(|state| at_relay(state)).count();
            if before > 0 {
                let mut removed = 0;
                shard.write().retain(|_, state| {
                    let goes = at_relay(state);
                    removed += usize::from(goes);
                    !goes
                });
                self.count.fetch_sub(removed, Ordering::Relaxed);
            }
        }
    }

    /// Drops packets that have waited too long, and forgets peers for which none wait and no
    /// answer is expected; returns how many packets were dropped.
    pub(super) fn expire(&self, now: Instant) -> u64 {
        let mut expired = 0;
        loop {
            let mut due = self.due.lock();
            let Some((_, id)) = due.pop_front_if(|(at, _)| *at <= now) else { return expired };
            drop(due);
            let mut shard = self.shard(id).write();
            match shard.get_mut(&id) {
                Some(State::Waiting(Waiting { parked, ask_again })) => {
                    let old = |packet: &Parked| now >= packet.arrived + PATIENCE;
                    let count = parked.iter().take_while(|packet| old(packet)).count();
                    let old: Vec<_> = parked.drain(..count).collect();
                    let next = parked.front().map_or(now + PATIENCE, |p| p.arrived + PATIENCE);
                    if parked.is_empty() && now >= *ask_again {
                        shard.remove(&id);
                        self.waiting.fetch_sub(1, Ordering::Relaxed);
                        drop(shard);
                        expired += self.give_up(id, old, Drop::LOOKUP_EXPIRED, now);
                        continue;
                    }
                    drop(shard);
                    expired += self.give_up(id, old, Drop::LOOKUP_EXPIRED, now);
                    let mut due = self.due.lock();
                    // In order: those behind it in time are behind it in the queue.
                    let at = due.partition_point(|(at, _)| *at <= next);
                    due.insert(at, (next, id));
                }
                Some(State::Nowhere { until }) if *until <= now => {
                    shard.remove(&id);
                }
                Some(State::Nowhere { .. } | State::At(_)) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
