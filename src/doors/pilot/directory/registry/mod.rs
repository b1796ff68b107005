//! Keys and beacons from the registry, remembered for when it does not answer.
//!
//! [`Registry`] is what callers ask; [`Connections`] carry the questions, as fast as a registry
//! lets them. A key that was confirmed within 24 hours never waits for the registry.

mod backoff;
mod cache;
mod claims;
mod connection;
mod dial;
mod families;
mod health;
mod in_flight;
mod pace;
mod queue;
mod settings;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use self::cache::{Cache, Cached, Confirmation};
use self::claims::{Claims, Withdrawal};
pub(super) use self::connection::Connections;
use self::dial::Target;
use self::health::Health;
use self::in_flight::{Answer, Ask, InFlight, Joined};
use self::queue::{Lane, Queue};
pub use self::settings::RegistrySettings;
use self::store::Store;
use super::changes::Changes;
use super::{Lookup, OpenError, Outcome, Recheck};
use crate::ids::{BeaconId, NodeId, PublicKey};
use crate::metrics::Labelled;
use crate::wire::registry::BeaconEntry;

/// How often it is looked whether keys are to be saved.
const SAVE_POLL: Duration = Duration::from_secs(5);

/// After so many looks keys are saved whatever has changed: once in 5 minutes.
const SAVE_LOOKS: u32 = 60;

/// Why the registry did not do what it was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The directory has no registry.
    #[error("there is no registry")]
    NoRegistry,
    /// The registry is down, or did not answer in time.
    #[error("the registry does not answer")]
    Unavailable,
    /// Too many requests wait already.
    #[error("too many requests wait for the registry")]
    Busy,
    /// The registry refused.
    #[error("the registry refused: {0}")]
    Refused(String),
}

crate::words! {
    /// Why a request was not answered, or a connection ended.
    enum Failure {
        Connect => "connect",
        Tls => "tls",
        Timeout => "timeout",
        Closed => "closed",
        TooLong => "message_too_long",
        Malformed => "malformed",
        WrongKey => "wrong_key_length",
        WrongNode => "wrong_node",
        Refused => "refused",
        Busy => "busy",
        Postponed => "postponed",
    }
}

/// A failure with what is to be said about it.
#[derive(Debug)]
struct Problem {
    failure: Failure,
    error: String,
    /// The registry refused or closed before it has said anything that we understand.
    refused_mode: bool,
}

impl Problem {
    fn new(failure: Failure, error: impl fmt::Display) -> Self {
        Self { failure, error: error.to_string(), refused_mode: false }
    }

    fn refused_mode(failure: Failure, error: impl fmt::Display) -> Self {
        Self { refused_mode: true, ..Self::new(failure, error) }
    }
}

/// Something to ask of the registry.
#[derive(Debug)]
struct Request {
    asked: Instant,
    lane: Lane,
    call: Call,
}

impl Request {
    /// Whether nobody waits for its answer any more.
    fn is_over(&self, now: Instant, wait: Duration) -> bool {
        let is_wanted = match (&self.call, self.lane) {
            (Call::Lookup(ask), Lane::Urgent) => ask.is_wanted(),
            (Call::Lookup(_), Lane::Later) => true,
            (Call::RegisterBeacon { done, .. }, _) => !done.is_closed(),
            (Call::ListBeacons { done }, _) => !done.is_closed(),
        };
        now >= self.asked + wait || !is_wanted
    }
}

#[derive(Debug)]
enum Call {
    Lookup(Ask),
    RegisterBeacon { id: BeaconId, address: String, done: Done<()> },
    ListBeacons { done: Done<Vec<BeaconEntry>> },
}

impl Call {
    /// Tells who asked that the registry refused; a lookup just gets no answer.
    fn refuse(self, registry: &Registry, text: &str) {
        let refused = RegistryError::Refused(text.to_owned());
        // Who asked may have given up already.
        match self {
            Self::Lookup(_) => registry.health.set_refuses(true),
            Self::RegisterBeacon { done, .. } => drop(done.send(Err(refused))),
            Self::ListBeacons { done } => drop(done.send(Err(refused))),
        }
    }
}

type Done<T> = oneshot::Sender<Result<T, RegistryError>>;

#[derive(Debug)]
pub(super) struct Registry {
    cache: Cache,
    in_flight: Arc<InFlight>,
    queue: Queue,
    health: Health,
    claims: Claims,
    changes: Arc<Changes>,
    store: Option<Store>,
    // A key was confirmed, or withdrawn, since the last time that they were saved.
    is_unsaved: AtomicBool,
    is_withdrawal_unsaved: AtomicBool,
    // One writes at a time.
    saving: Mutex<()>,
    saves: Labelled<Saved>,
}

crate::words! {
    /// What became of an attempt to save the remembered keys.
    enum Saved {
        Ok => "ok",
        Failed => "failed",
    }
}

impl Registry {
    /// Makes the registry and the connections that must run for it; reads certificates and the
    /// keys that were kept.
    pub(super) fn open(
        settings: RegistrySettings,
        changes: Arc<Changes>,
    ) -> Result<(Arc<Self>, Connections), OpenError> {
        let target = Target::new(&settings.address, settings.tls.as_ref())?;
        Ok(Self::at(target, settings, changes))
    }

    fn at(
        target: Target,
        settings: RegistrySettings,
        changes: Arc<Changes>,
    ) -> (Arc<Self>, Connections) {
        let RegistrySettings { address, admin_token, connections, patience, kept_keys, .. } =
            settings;
        let registry = Arc::new(Self {
            cache: Cache::new(cache::MAX_KEYS),
            in_flight: Arc::default(),
            queue: Queue::default(),
            health: Health::new(address.clone(), connections.clamp(1, 64), patience),
            claims: Claims::default(),
            changes,
            store: kept_keys.map(|path| Store::new(path, address)),
            is_unsaved: AtomicBool::new(false),
            is_withdrawal_unsaved: AtomicBool::new(false),
            saving: Mutex::default(),
            saves: Labelled::default(),
        });
        if let Some(store) = &registry.store {
            store.load(&registry.cache, now());
        }
        let connections = Connections::new(&registry, target, admin_token.as_deref());
        (registry, connections)
    }

    /// Its address, as the settings have it.
    pub(super) fn address(&self) -> &str {
        self.health.address()
    }

    /// Sets how long a login may take.
    pub(super) fn set_patience(&self, login: Duration) {
        self.health.set_patience(login);
    }

    /// The remembered key, without a question.
    pub(super) fn known(&self, node: NodeId) -> Option<PublicKey> {
        match self.cache.find(node, now()) {
            Cached::Fresh(key) | Cached::Stale(key) => Some(key),
            Cached::Unknown | Cached::Nothing => None,
        }
    }

    pub(super) async fn lookup(&self, node: NodeId) -> (Lookup, Outcome) {
        match self.cache.find(node, now()) {
            Cached::Fresh(key) => (Lookup::Key(key), Outcome::Cached),
            Cached::Stale(key) => {
                // Asked in the background: the answer goes into the cache by itself.
                let _nobody_waits = self.ask(node, Lane::Later);
                (Lookup::Key(key), Outcome::Stale)
            }
            Cached::Unknown => (Lookup::Unknown, Outcome::Unknown),
            Cached::Nothing => match self.ask_and_wait(node, Lane::Urgent).await {
                Lookup::Key(key) => (Lookup::Key(key), Outcome::Asked),
                Lookup::Unknown => (Lookup::Unknown, Outcome::Unknown),
                Lookup::Unavailable => (Lookup::Unavailable, Outcome::Unavailable),
            },
        }
    }

    /// Asks about a connected node whatever is remembered; `key` is what it has proved to have.
    pub(super) async fn recheck(&self, node: NodeId, key: PublicKey) -> Recheck {
        self.cache.seed(node, key, now());
        match self.ask_and_wait(node, Lane::Later).await {
            Lookup::Unavailable => Recheck::Unavailable,
            Lookup::Key(_) | Lookup::Unknown if self.claims.has(node) => Recheck::Contradicted,
            Lookup::Key(_) | Lookup::Unknown => Recheck::Confirmed,
        }
    }

    async fn ask_and_wait(&self, node: NodeId, lane: Lane) -> Lookup {
        let Some(mut answer) = self.ask(node, lane) else { return Lookup::Unavailable };
        let answer = timeout(self.health.wait(), answer.wait_for(Option::is_some)).await;
        let lookup = answer.ok().and_then(Result::ok).and_then(|lookup| *lookup);
        lookup.unwrap_or(Lookup::Unavailable)
    }

    /// Puts the question about `node`, unless somebody did already.
    fn ask(&self, node: NodeId, lane: Lane) -> Option<Answer> {
        if self.is_down() {
            return None;
        }
        match self.in_flight.join(node) {
            Joined::First(ask, answer) => self.send(Call::Lookup(ask), lane).ok().map(|()| answer),
            Joined::Other(answer) => {
                if lane == Lane::Urgent {
                    self.queue.promote(node);
                }
                Some(answer)
            }
            Joined::Full => {
                self.refuse(lane);
                None
            }
        }
    }

    pub(super) async fn register_beacon(
        &self,
        id: BeaconId,
        address: &str,
    ) -> Result<(), RegistryError> {
        let address = address.to_owned();
        self.call(|done| Call::RegisterBeacon { id, address, done }).await
    }

    pub(super) async fn beacons(&self) -> Result<Vec<BeaconEntry>, RegistryError> {
        self.call(|done| Call::ListBeacons { done }).await
    }

    async fn call<T>(&self, call: impl FnOnce(Done<T>) -> Call) -> Result<T, RegistryError> {
        if self.is_down() {
            return Err(RegistryError::Unavailable);
        }
        let (done, answer) = oneshot::channel();
        self.send(call(done), Lane::Urgent)?;
        match timeout(self.health.wait(), answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(RegistryError::Unavailable),
        }
    }

    fn send(&self, call: Call, lane: Lane) -> Result<(), RegistryError> {
        self.queue.push(Request { asked: Instant::now(), lane, call }).map_err(|_request| {
            self.refuse(lane);
            RegistryError::Busy
        })
    }

    /// Counts a question that is not put.
    fn refuse(&self, lane: Lane) {
        let failure = match lane {
            Lane::Urgent => Failure::Busy,
            Lane::Later => Failure::Postponed,
        };
        self.health.failures.of(failure).increment();
    }

    /// Takes what the registry said of a node. What contradicts a remembered key changes nothing
    /// until it is believed.
    fn settle(&self, ask: Ask, key: Option<PublicKey>) {
        let (node, now) = (ask.node(), now());
        self.health.set_refuses(false);
        self.is_unsaved.store(true, Ordering::Relaxed);
        let mut claims = self.claims.lock();
        let key = match self.cache.confirm(node, key, now) {
            Confirmation::Taken => {
                self.claims.recant(&mut claims, node);
                key
            }
            Confirmation::Contradicts { usable } => {
                let believed = self.claims.raise(&mut claims, node, key, now);
                self.withdraw(believed);
                if believed.is_some() { key } else { usable.or(key) }
            }
        };
        drop(claims);
        ask.answer(key.map_or(Lookup::Unknown, Lookup::Key));
    }

    /// Believes what the registry says against remembered keys; the claims are locked.
    fn withdraw(&self, withdrawals: impl IntoIterator<Item = Withdrawal>) {
        for Withdrawal { node, key, at } in withdrawals {
            self.cache.replace(node, key, at);
            self.is_withdrawal_unsaved.store(true, Ordering::Relaxed);
            info!(%node, known = key.is_some(), "the registry changed the key of a node");
            self.changes.push(node);
        }
    }

    /// What the registry says against remembered keys.
    pub(super) const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Believes what the registry has said lately.
    pub(super) fn believe(&self) {
        let mut claims = self.claims.lock();
        self.withdraw(self.claims.believe(&mut claims, now()));
    }

    /// Believes what the registry has repeated for an hour.
    pub(super) fn believe_persistent(&self) {
        let mut claims = self.claims.lock();
        self.withdraw(self.claims.persistent(&mut claims, now()));
    }

    /// Believes all that it says against remembered keys; how many nodes have no key any more, and how many another.
    pub(super) fn force(&self) -> (usize, usize) {
        let mut claims = self.claims.lock();
        let withdrawals = self.claims.force(&mut claims, now());
        let removed = withdrawals.iter().filter(|withdrawal| withdrawal.key.is_none()).count();
        let changed = withdrawals.len() - removed;
        self.withdraw(withdrawals);
        (removed, changed)
    }

    /// Whether the registry was reached, and is not silent.
    pub(super) fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Whether the last answer to a look-up was an error.
    pub(super) fn refuses(&self) -> bool {
        self.health.refuses()
    }

    pub(super) fn is_down(&self) -> bool {
        self.health.is_down()
    }

    /// Saves the remembered keys by the clock, and soon after a withdrawal; for ever.
    pub(super) async fn keep_saving(self: Arc<Self>) {
        let mut ticks = interval(SAVE_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        loop {
            ticks.tick().await;
            looks += 1;
            if looks >= SAVE_LOOKS || self.is_withdrawal_unsaved.load(Ordering::Relaxed) {
                looks = 0;
                Arc::clone(&self).save().await;
            }
        }
    }

    /// Saves the remembered keys, where there is something new.
    pub(super) async fn save(self: Arc<Self>) {
        let saved = spawn_blocking(move || {
            let Some(store) = &self.store else { return };
            let _one = self.saving.lock();
            let is_withdrawal_unsaved = self.is_withdrawal_unsaved.swap(false, Ordering::Relaxed);
            if !self.is_unsaved.swap(false, Ordering::Relaxed) && !is_withdrawal_unsaved {
                return;
            }
            match store.save(&self.cache, now()) {
                Ok(()) => self.saves.of(Saved::Ok).increment(),
                Err(error) => {
                    self.is_unsaved.store(true, Ordering::Relaxed);
                    self.saves.of(Saved::Failed).increment();
                    warn!(%error, "cannot save the remembered keys of the registry");
                }
            }
        });
        // A panic in there has been printed, and the next save is in 5 minutes.
        let _panicked = saved.await;
    }
}

/// The time as the cache takes it; tests pause it.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
