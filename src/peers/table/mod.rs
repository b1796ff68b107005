//! The sharded table: for each id its session, its endpoint and the foreign server that
//! serves it: one of its door's own network, which is no relay of this cluster.

use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use foldhash::fast::SeedableRandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::endpoints::{Endpoint, EndpointView};
use super::{End, Session};
use crate::proto::crowd::{Ages, Ticket};
use crate::proto::endpoint::{
    FORGET_AFTER, HOLD_AFTER_SESSION, Hold, Known, LastSession, MOVE_INTERVAL,
};
use crate::proto::limit::Source;
use crate::proto::translators::Translators;
use crate::wire::name::Name;

mod changes;
mod claims;
mod delays;
mod kicks;
mod look;
mod route;

pub use changes::{Here, Kind};
pub use claims::Claimed;
pub use delays::{Delay, NotDelayed, TakeoverLook};
pub use kicks::{MOST_KEPT_OUT, TooManyKicks};
pub use look::{EndpointLook, Look};
pub use route::{Destination, Neighbour};

/// More than any machine has cores, so that two of them rarely want the same lock. As many as
/// leave the 500,000 endpoints of the default room in maps of 4,096: with 128, each would need
/// twice that.
const SHARDS: usize = 160;

type Shard = RwLock<HashMap<Name, Entry, SeedableRandomState>>;

#[derive(Debug, Default)]
struct Entry {
    session: Option<Arc<Session>>,
    past: Option<Box<Past>>,
    endpoint: Option<Box<Endpoint>>,
    /// The foreign server; boxed, since few ids have one, and all pay for the room.
    foreign: Option<Box<SocketAddr>>,
    /// Number of the last change of how the id is reached here; later ones are higher.
    serial: u64,
}

/// What is kept of what was here.
#[derive(Debug, Default)]
struct Past {
    /// The session that ended, and what the peer may still send in that second: coming back
    /// is no new allowance.
    session: Option<(LastSession, Source)>,
    /// When the endpoint was given up to another relay.
    left: Option<Instant>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.session.is_none()
            && self.past.is_none()
            && self.endpoint.is_none()
            && self.foreign.is_none()
    }

    fn last_session(&self) -> Option<LastSession> {
        self.past.as_ref().and_then(|past| past.session).map(|(last, _)| last)
    }

    fn known(&self) -> Known {
        Known {
            endpoint: self.endpoint.as_ref().map(|endpoint| (endpoint.address, endpoint.moved)),
            has_session: self.session.is_some(),
            last_session: self.last_session(),
            left: self.past.as_ref().and_then(|past| past.left),
        }
    }
}

/// What is known of the id that a packet over UDP names as its sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SenderView {
    /// It has a session here, so the packet is a forgery.
    pub has_session: bool,
    /// The packet came from the id's own endpoint.
    pub is_endpoint: bool,
}

/// Why a session was not taken into the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// There are as many sessions as there may be.
    #[error("the table is full")]
    Full,
    /// The id has a session that may not be taken over.
    #[error("the id has a session already")]
    Taken,
}

/// All that are reachable here, by id.
#[derive(Debug)]
pub struct Table {
    shards: Box<[Shard]>,
    hasher: SeedableRandomState,
    began: Instant,
    max_sessions: AtomicUsize,
    max_endpoints: AtomicUsize,
    sessions: AtomicUsize,
    endpoints: AtomicUsize,
    learnt: AtomicUsize,
    generations: AtomicU64,
    evictions: AtomicUsize,
    /// Endpoints that never came back: a full table drops these first.
    /// Locked after a shard, never before.
    newcomers: Mutex<Ages<Name>>,
    /// Those that newcomers may come through.
    translators: Translators,
    /// Who took over from whom. Locked after a shard, never before.
    delays: Mutex<delays::Delays>,
    kicks: kicks::Kicks,
    /// Who came and went, where somebody wants to know.
    changes: OnceLock<changes::Changes>,
}

impl Table {
    /// An empty table with room for so many sessions and UDP endpoints.
    #[must_use]
    pub fn new(max_sessions: usize, max_endpoints: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: SeedableRandomState::random(),
            began: Instant::now(),
            max_sessions: AtomicUsize::new(max_sessions),
            max_endpoints: AtomicUsize::new(max_endpoints),
            sessions: AtomicUsize::new(0),
            endpoints: AtomicUsize::new(0),
            learnt: AtomicUsize::new(0),
            generations: AtomicU64::new(0),
            evictions: AtomicUsize::new(0),
            newcomers: Mutex::default(),
            translators: Translators::default(),
            delays: Mutex::default(),
            kicks: kicks::Kicks::default(),
            changes: OnceLock::new(),
        }
    }

    /// The same table, whose peers may come through these translators.
    #[must_use]
    pub fn with_translators(self, translators: Translators) -> Self {
        Self { translators, ..self }
    }

    /// The same empty table, which hashes alike in each run, so that counts of instructions
    /// can be compared. For benchmarks alone: who knows how a relay hashes can choose ids that
    /// collide.
    #[doc(hidden)]
    #[must_use]
    pub fn with_fixed_hashes(self) -> Self {
        let hasher = SeedableRandomState::fixed();
        let shard = || RwLock::new(HashMap::with_hasher(hasher.clone()));
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher, ..self }
    }

    #[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // scaled to the length
    fn shard(&self, id: Name) -> &Shard {
        // The map takes its bits from the top and the bottom of the hash, the shard from between.
        let between = u64::from((self.hasher.hash_one(id) >> 16) as u32);
        &self.shards[((between * SHARDS as u64) >> u32::BITS) as usize]
    }

    fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// A number for a new session, drawn when its connection is accepted; later ones are higher.
    pub fn generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many ids have a session.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many ids have a UDP endpoint.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.load(Ordering::Relaxed)
    }

    /// How many ids are known from foreign servers.
    #[must_use]
    pub fn learnt_count(&self) -> usize {
        self.learnt.load(Ordering::Relaxed)
    }

    /// Whether no further session fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.session_count() >= self.max_sessions.load(Ordering::Relaxed)
    }

    /// Makes room for so many sessions; those beyond stay.
    pub fn allow_sessions(&self, max: usize) {
        self.max_sessions.store(max, Ordering::Relaxed);
    }

    /// Makes room for so many UDP endpoints; of those beyond, each gives way to a new one.
    pub fn allow_endpoints(&self, max: usize) {
        self.max_endpoints.store(max, Ordering::Relaxed);
    }

    /// Publishes a session: from here on packets reach it. The acceptance must be in its
    /// outbox by now, so that nothing precedes it. What happens to an older session of the id
    /// is this one's rule.
    ///
    /// # Errors
    /// The table is full, or the id's session may not be taken over.
    pub fn register(self: &Arc<Self>, session: Arc<Session>) -> Result<Registration, Refused> {
        let id = session.id();
        let mut shard = self.shard(id).write();
        let existing = shard.get(&id).and_then(|entry| entry.session.as_ref());
        let Session { principal, takeover, .. } = &*session;
        match existing {
            // One that is hidden is not counted, and what takes its place would not be either.
            Some(existing)
                if existing.is_hidden != session.is_hidden
                    || !existing.gives_way_to(principal, *takeover, session.generation()) =>
            {
                return Err(Refused::Taken);
            }
            Some(_) => {}
            None if session.is_hidden => {}
            None => {
                let max = self.max_sessions.load(Ordering::Relaxed);
                let room = |count| (count < max).then_some(count + 1);
                self.sessions
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
                    .map_err(|_| Refused::Full)?;
            }
        }
        let entry = shard.entry(id).or_default();
        let replaced = entry.session.replace(Arc::clone(&session));
        let before = match (&replaced, entry.past.take()) {
            (Some(replaced), _) => Some(*replaced.inbound.lock()),
            (None, past) => past.and_then(|past| past.session).map(|(_, inbound)| inbound),
        };
        if let Some(before) = before {
            *session.inbound.lock() = before;
        }
        if !session.is_hidden {
            self.note(id, entry);
        }
        // Within the lock: nobody sees both, and the old one's reader stops relaying.
        let mut is_contested = false;
        if let Some(replaced) = &replaced {
            is_contested = !session.is_hidden
                && replaced.is_open()
                && self.delays.lock().note(id, session.since);
            replaced.end(End::Replaced);
        }
        drop(shard);
        let replaced = replaced.is_some();
        Ok(Registration { table: Arc::clone(self), session, replaced, is_contested })
    }

    fn unregister(&self, session: &Session, now: Instant) {
        let id = session.id();
        let mut shard = self.shard(id).write();
        let Some(entry) = shard.get_mut(&id) else { return };
        let is_this = |current: &Arc<Session>| current.generation() == session.generation();
        if entry.session.as_ref().is_some_and(is_this) {
            self.end_session(id, entry, now);
            if entry.is_empty() {
                shard.remove(&id);
            }
        }
    }

    /// Takes the session of an id out of its entry.
    fn end_session(&self, id: Name, entry: &mut Entry, now: Instant) -> Option<Arc<Session>> {
        let session = entry.session.take()?;
        if session.is_hidden {
            return Some(session);
        }
        let last = LastSession {
            ended: now,
            client: session.observed.ip(),
            hold: match session.ending() {
                Some(End::PeerLeft) => Hold::First,
                Some(_) | None => Hold::ClientOnly,
            },
        };
        entry.past.get_or_insert_default().session = Some((last, *session.inbound.lock()));
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        self.note(id, entry);
        Some(session)
    }

    /// The session of an id.
    #[must_use]
    pub fn session(&self, id: Name) -> Option<Arc<Session>> {
        self.shard(id).read().get(&id).and_then(|entry| entry.session.clone())
    }

    /// Whether an id has a session.
    #[must_use]
    pub fn has_session(&self, id: Name) -> bool {
        self.shard(id).read().get(&id).is_some_and(|entry| entry.session.is_some())
    }

    /// The UDP endpoint of an id that is reached there; a session goes before it.
    #[must_use]
    pub fn endpoint(&self, id: Name, now: Instant) -> Option<EndpointView> {
        let shard = self.shard(id).read();
        let entry = shard.get(&id).filter(|entry| entry.session.is_none())?;
        entry.endpoint.as_ref().map(|endpoint| endpoint.view(self.uptime(now)))
    }

    /// What is known of the sender that a packet over UDP names. A packet from the sender's
    /// own endpoint is a sign of life.
    #[must_use]
    pub fn sender(&self, id: Name, from: SocketAddr, now: Instant) -> SenderView {
        let shard = self.shard(id).read();
        let Some(entry) = shard.get(&id) else {
            return SenderView { has_session: false, is_endpoint: false };
        };
        let own = entry.endpoint.as_ref().filter(|endpoint| endpoint.address == from);
        if let Some(endpoint) = own {
            endpoint.heard(self.uptime(now));
        }
        SenderView { has_session: entry.session.is_some(), is_endpoint: own.is_some() }
    }

    /// Notes that a foreign server serves these ids.
    pub fn learn(&self, ids: impl IntoIterator<Item = Name>, server: SocketAddr) {
        for id in ids {
            let mut shard = self.shard(id).write();
            let entry = shard.entry(id).or_default();
            match &mut entry.foreign {
                Some(known) => **known = server,
                none => {
                    *none = Some(Box::new(server));
                    self.learnt.fetch_add(1, Ordering::Relaxed);
                    if entry.session.is_none() && entry.endpoint.is_none() {
                        self.note(id, entry);
                    }
                }
            }
        }
    }

    /// Forgets that a foreign server serves these ids, unless another has said so since.
    pub fn unlearn(&self, ids: impl IntoIterator<Item = Name>, server: SocketAddr) {
        for id in ids {
            let mut shard = self.shard(id).write();
            let Some(entry) = shard.get_mut(&id) else { continue };
            if entry.foreign.as_deref() == Some(&server) {
                entry.foreign = None;
                self.learnt.fetch_sub(1, Ordering::Relaxed);
                if entry.session.is_none() && entry.endpoint.is_none() {
                    self.note(id, entry);
                }
                if entry.is_empty() {
                    shard.remove(&id);
                }
            }
        }
    }

    /// Forgets endpoints that were silent for too long, and sessions that ended long ago;
    /// returns how many endpoints went.
    pub fn sweep(&self, now: Instant) -> u64 {
        let uptime = self.uptime(now);
        self.delays.lock().sweep(now);
        let mut expired = Vec::new();
        for shard in &self.shards {
            shard.write().retain(|id, entry| {
                let silent = |endpoint: &Endpoint| endpoint.silence(uptime) > FORGET_AFTER;
                if let Some(endpoint) = entry.endpoint.take_if(|endpoint| silent(endpoint)) {
                    expired.push(endpoint.newcomer);
                    if entry.session.is_none() {
                        self.note(*id, entry);
                    }
                }
                let held = |past: &Past| {
                    past.session.is_some_and(|(last, _)| now < last.ended + HOLD_AFTER_SESSION)
                        || past.left.is_some_and(|at| now < at + MOVE_INTERVAL)
                };
                if !entry.past.as_deref().is_some_and(held) {
                    entry.past = None;
                }
                !entry.is_empty()
            });
        }
        self.endpoints.fetch_sub(expired.len(), Ordering::Relaxed);
        // One by one: 500,000 at once would keep the receiving threads waiting.
        expired.iter().for_each(|ticket| self.withdraw(*ticket));
        expired.len() as u64
    }

    /// Makes an endpoint no newcomer any more, if it is one.
    fn withdraw(&self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.newcomers.lock().withdraw(ticket);
        }
    }

    /// All ids that are served here: those with a session first, then those over UDP.
    #[must_use]
    pub fn served(&self) -> Vec<Name> {
        let (mut sessions, mut endpoints) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            for (id, entry) in &*shard.read() {
                if let Some(session) = &entry.session {
                    if session.is_hidden {
                        continue;
                    }
                    sessions.push(*id);
                } else if entry.endpoint.is_some() {
                    endpoints.push(*id);
                }
            }
        }
        sessions.append(&mut endpoints);
        sessions
    }

    /// The sessions but hidden ones, some at a time; no lock is held while the caller looks at them.
    pub fn sessions(&self) -> impl Iterator<Item = Arc<Session>> + '_ {
        let of = |shard: &Shard| -> Vec<_> {
            let sessions = shard.read();
            let sessions = sessions.values().filter_map(|entry| entry.session.as_ref());
            sessions.filter(|session| !session.is_hidden).cloned().collect()
        };
        self.shards.iter().flat_map(of)
    }

    /// All sessions at this moment.
    #[must_use]
    pub fn all_sessions(&self) -> Vec<Arc<Session>> {
        self.sessions().collect()
    }
}

/// Keeps a session in the table; dropping it takes out that session and no other.
#[derive(Debug)]
pub struct Registration {
    table: Arc<Table>,
    session: Arc<Session>,
    /// Whether an older session of the same id had to go.
    pub replaced: bool,
    /// That happens so often that the next login has to wait, from here on.
    pub is_contested: bool,
}

impl Registration {
    /// Takes the session out of the table: nobody finds it from here on, while it may still
    /// say goodbye.
    pub fn withdraw(&self) {
        self.table.unregister(&self.session, Instant::now());
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.withdraw();
        self.session.close_outbox();
    }
}

#[cfg(test)]
mod tests;
