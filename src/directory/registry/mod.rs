//! Keys and beacons from the registry, remembered for when it does not answer.
//!
//! [`Registry`] is what callers ask; [`Connection`] carries the questions. A key that was
//! confirmed within 24 hours never waits for the registry.

mod backoff;
mod cache;
mod claims;
mod connection;
mod dial;
mod in_flight;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::proto::MetricFamily;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::info;

use self::cache::{Cache, Cached, Confirmation};
use self::claims::{Claims, Withdrawal};
pub(super) use self::connection::Connection;
use self::dial::Target;
use self::in_flight::{Answer, Ask, InFlight, Joined, MAX_LOOKUPS};
use super::changes::Changes;
use super::{Lookup, OpenError, Outcome, Recheck};
use crate::ids::{BeaconId, NodeId, PublicKey};
use crate::metrics::{Labelled, family};
use crate::net::tls::Trust;
use crate::wire::registry::BeaconEntry;

/// How long an answer is awaited.
const DEADLINE: Duration = Duration::from_secs(3);

/// Most requests that wait for an answer: the lookups, and room for registrations and lists.
const MAX_REQUESTS: usize = MAX_LOOKUPS + 16;

/// Where the registry is and how we show who we are.
#[derive(Clone)]
pub struct RegistrySettings {
    /// `host:port`.
    pub address: String,
    /// Which certificate the registry must have; `None` is plain TCP.
    pub tls: Option<Trust>,
    /// What the registry may demand of beacons that register.
    pub admin_token: Option<String>,
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("address", &self.address)
            .field("tls", &self.tls)
            .field("admin_token", &self.admin_token.as_ref().map(|_| "redacted"))
            .finish()
    }
}

/// Why the registry did not do what it was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The directory has no registry.
    #[error("there is no registry")]
    NoRegistry,
    /// The registry is down, or did not answer within 3 s.
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
    }
}

/// A failure with what is to be said about it.
#[derive(Debug)]
struct Problem {
    failure: Failure,
    error: String,
    /// The registry has not said anything that we understand.
    silent: bool,
}

impl Problem {
    fn new(failure: Failure, error: impl fmt::Display) -> Self {
        Self { failure, error: error.to_string(), silent: false }
    }

    fn silent(failure: Failure, error: impl fmt::Display) -> Self {
        Self { silent: true, ..Self::new(failure, error) }
    }
}

/// Something to ask of the registry.
#[derive(Debug)]
struct Request {
    asked: Instant,
    call: Call,
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
            Self::Lookup(_) => registry.refuse(),
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
    requests: mpsc::Sender<Request>,
    // The last attempt to reach the registry failed: questions are not worth a wait.
    down: AtomicBool,
    // The last look-up that was answered was answered with an error.
    refuses: AtomicBool,
    failures: Labelled<Failure>,
    claims: Claims,
    changes: Arc<Changes>,
}

impl Registry {
    /// Makes the registry and the connection that must run for it; reads certificates.
    pub(super) fn open(
        settings: RegistrySettings,
        changes: Arc<Changes>,
    ) -> Result<(Arc<Self>, Connection), OpenError> {
        let target = Target::new(settings.address, settings.tls.as_ref())?;
        let (sender, receiver) = mpsc::channel(MAX_REQUESTS);
        let registry = Arc::new(Self {
            cache: Cache::new(cache::MAX_KEYS),
            in_flight: Arc::default(),
            requests: sender,
            down: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            failures: Labelled::default(),
            claims: Claims::default(),
            changes,
        });
        let connection = Connection::new(registry.clone(), target, settings.admin_token, receiver);
        Ok((registry, connection))
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
                let _nobody_waits = self.ask(node);
                (Lookup::Key(key), Outcome::Stale)
            }
            Cached::Unknown => (Lookup::Unknown, Outcome::Unknown),
            Cached::Nothing => match self.ask_and_wait(node).await {
                Lookup::Key(key) => (Lookup::Key(key), Outcome::Asked),
                Lookup::Unknown => (Lookup::Unknown, Outcome::Unknown),
                Lookup::Unavailable => (Lookup::Unavailable, Outcome::Unavailable),
            },
        }
    }

    /// Asks about a connected node whatever is remembered; `key` is what it has proved to have.
    pub(super) async fn recheck(&self, node: NodeId, key: PublicKey) -> Recheck {
        self.cache.seed(node, key, now());
        match self.ask_and_wait(node).await {
            Lookup::Unavailable => Recheck::Unavailable,
            Lookup::Key(_) | Lookup::Unknown if self.claims.has(node) => Recheck::Contradicted,
            Lookup::Key(_) | Lookup::Unknown => Recheck::Confirmed,
        }
    }

    async fn ask_and_wait(&self, node: NodeId) -> Lookup {
        let Some(mut answer) = self.ask(node) else { return Lookup::Unavailable };
        let answer = timeout(DEADLINE, answer.wait_for(Option::is_some)).await;
        let lookup = answer.ok().and_then(Result::ok).and_then(|lookup| *lookup);
        lookup.unwrap_or(Lookup::Unavailable)
    }

    /// Puts the question about `node`, unless somebody did already.
    fn ask(&self, node: NodeId) -> Option<Answer> {
        if self.is_down() {
            return None;
        }
        match self.in_flight.join(node) {
            Joined::First(ask, answer) => self.send(Call::Lookup(ask)).ok().map(|()| answer),
            Joined::Other(answer) => Some(answer),
            Joined::Full => {
                self.failures.of(Failure::Busy).increment();
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
        self.send(call(done))?;
        match timeout(DEADLINE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(RegistryError::Unavailable),
        }
    }

    fn send(&self, call: Call) -> Result<(), RegistryError> {
        self.requests.try_send(Request { asked: Instant::now(), call }).map_err(|error| {
            if matches!(error, mpsc::error::TrySendError::Full(_)) {
                self.failures.of(Failure::Busy).increment();
                RegistryError::Busy
            } else {
                RegistryError::Unavailable
            }
        })
    }

    /// Takes what the registry said of a node. What contradicts a remembered key changes nothing
    /// until it is believed.
    fn settle(&self, ask: Ask, key: Option<PublicKey>) {
        let (node, now) = (ask.node(), now());
        self.refuses.store(false, Ordering::Relaxed);
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

    /// Notes that a look-up was answered with an error, which says nothing of the node.
    fn refuse(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// Believes what the registry says against remembered keys; the claims are locked.
    fn withdraw(&self, withdrawals: impl IntoIterator<Item = Withdrawal>) {
        for Withdrawal { node, key, at } in withdrawals {
            self.cache.replace(node, key, at);
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

    /// Believes what is held back; how many nodes have no key any more, and how many another.
    pub(super) fn force(&self) -> (usize, usize) {
        let mut claims = self.claims.lock();
        let withdrawals = self.claims.force(&mut claims, now());
        let removed = withdrawals.iter().filter(|withdrawal| withdrawal.key.is_none()).count();
        let changed = withdrawals.len() - removed;
        self.withdraw(withdrawals);
        (removed, changed)
    }

    /// Whether the last answer to a look-up was an error.
    pub(super) fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub(super) fn metrics(&self, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        let (entries, in_flight) = (self.cache.len() as f64, self.in_flight.len() as f64);
        #[allow(clippy::cast_precision_loss)] // at most 65,536
        let held = self.claims.held() as f64;
        families.extend([
            family::gauge_value(
                "pilot_beacon_registry_up",
                "1 unless the last attempt to reach the registry failed.",
                f64::from(u8::from(!self.is_down())),
            ),
            family::labelled(
                "pilot_beacon_registry_failures_total",
                "Connections to the registry that failed and requests that it did not answer.",
                "reason",
                &self.failures,
            ),
            family::gauge_value(
                "pilot_beacon_registry_lookups_in_flight",
                "Nodes that the registry is being asked about.",
                in_flight,
            ),
            family::gauge_value(
                "pilot_beacon_registry_held_nodes",
                "Nodes of which the registry says that their key is gone or another, held back \
                 since it says so of too many.",
                held,
            ),
            family::labelled(
                "pilot_beacon_registry_contradictions_total",
                "Answers of the registry against a remembered key, by what became of them.",
                "result",
                &self.claims.fates,
            ),
            family::gauge_value(
                "pilot_beacon_directory_cache_entries",
                "Keys of the registry that are remembered.",
                entries,
            ),
            family::counts(
                "pilot_beacon_directory_cache_evictions_total",
                "Keys of the registry that were forgotten to make room.",
                &[],
                [(&[] as &[&str], self.cache.evictions())],
            ),
        ]);
    }
}

/// The time as the cache takes it; tests pause it.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
