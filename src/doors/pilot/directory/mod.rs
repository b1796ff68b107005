//! The directory of public keys: which key a node must prove to have.
//!
//! Keys come from a file, from the registry, or from both, the file first; without either
//! from the embedded directory, a file in the state directory that [`enroll`] writes.
//! What a key is good for is not decided here.

mod changes;
mod embedded;
mod file;
mod keys;
mod list;
mod registry;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::changes::Changes;
pub use self::embedded::{EnrollError, Enrolled, enroll, enrolled, unenroll};
use self::file::{Absent, KeyFile};
pub use self::file::{Reload, ReloadError};
pub use self::keys::{Keys, Listed};
pub use self::list::FileError;
use self::registry::{Connections, Registry};
pub use self::registry::{RegistryError, RegistrySettings};
use crate::ids::{BeaconId, NodeId, PublicKey};
use crate::metrics::{Labelled, family};
use crate::net::tls::TlsError;
use crate::proto::watch::POLL;
pub use crate::wire::registry::BeaconEntry;

/// Where keys come from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A key file: a JSON object of node id to base64 key.
    pub keys: Option<PathBuf>,
    /// A registry to ask for the nodes that the key file does not have.
    pub registry: Option<RegistrySettings>,
    /// Where the embedded directory is, which is used when there is neither of the others.
    pub state_dir: PathBuf,
}

/// What the directory says of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lookup {
    /// The node has this key.
    Key(PublicKey),
    /// There is no such node.
    Unknown,
    /// The registry does not answer, or not sensibly, and its last answer is too old.
    Unavailable,
}

/// What the registry says of a connected node when it is asked once more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recheck {
    /// The key is the remembered one.
    Confirmed,
    /// The node has no key, or another one; nothing is changed by that yet.
    Contradicted,
    /// The registry does not answer, or not sensibly.
    Unavailable,
    /// The registry is not asked about this node: there is none, or the key file has the node.
    NotAsked,
}

/// Whose key may have changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// This node's, which may have none any more.
    Node(NodeId),
    /// Any node's: there were too many changes to name them.
    Any,
}

/// Why the directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The key file, or the embedded directory, cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry's address is not `host:port`.
    #[error("`{0}` is not the address of a registry: expected host:port")]
    RegistryAddress(String),
    /// There is no TLS for the registry.
    #[error("no TLS for the registry: {0}")]
    Tls(#[from] TlsError),
}

crate::words! {
    /// Where the answer to a lookup came from, or why there was no key.
    enum Outcome {
        File => "file",
        Cached => "cached",
        Stale => "stale",
        Asked => "asked",
        Unknown => "unknown",
        Unavailable => "unavailable",
    }
}

/// A handle on the directory; clones share it.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    file: Option<KeyFile>,
    registry: Option<Arc<Registry>>,
    // Taken by the first `run`.
    connections: Mutex<Option<Connections>>,
    changes: Arc<Changes>,
    lookups: Labelled<Outcome>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("file", &self.0.file.is_some())
            .field("registry", &self.0.registry.is_some())
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Reads the files; blocks, and neither starts a task nor uses the network.
    ///
    /// # Errors
    /// A file that cannot be used, with its place; a registry that cannot be dialled as
    /// its settings say.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let Settings { keys, registry, state_dir } = settings;
        let file = match (keys, &registry) {
            (Some(path), _) => Some(KeyFile::open(path, Absent::Error)?),
            (None, Some(_)) => None,
            (None, None) => Some(KeyFile::open(embedded::path(&state_dir), Absent::Empty)?),
        };
        let changes = Arc::<Changes>::default();
        let (registry, connections) = match registry {
            Some(settings) => {
                let (registry, connections) = Registry::open(settings, changes.clone())?;
                (Some(registry), Some(connections))
            }
            None => (None, None),
        };
        let (connections, lookups) = (Mutex::new(connections), Labelled::default());
        Ok(Self(Arc::new(Inner { file, registry, connections, changes, lookups })))
    }

    /// Watches the key file, and keeps the connections to the registry and what is remembered of
    /// it, until `shutdown`.
    ///
    /// To be spawned once; lookups that need the registry wait for it.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = self.0.connections.lock().take();
        let connected = async {
            if let Some(connections) = connections {
                connections.run().await;
            }
        };
        let saving = async {
            if let Some(registry) = &self.0.registry {
                Arc::clone(registry).keep_saving().await;
            }
        };
        let all = async { tokio::join!(self.watch(), connected, saving) };
        let _ended = shutdown.run_until_cancelled(all).await;
    }

    /// Saves what is remembered of the registry for the next start.
    pub async fn save(&self) {
        if let Some(registry) = &self.0.registry {
            Arc::clone(registry).save().await;
        }
    }

    /// Sets how long a login may take: the registry is awaited for nine tenths of that.
    pub fn set_patience(&self, login: Duration) {
        if let Some(registry) = &self.0.registry {
            registry.set_patience(login);
        }
    }

    async fn watch(&self) {
        if self.0.file.is_none() {
            return;
        }
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let inner = self.0.clone();
            let polled = spawn_blocking(move || {
                if let Some(file) = &inner.file {
                    file.poll(Instant::now(), &inner.changes);
                }
            });
            // A panic in there has been printed, and the next tick looks again.
            let _panicked = polled.await;
        }
    }

    /// Asks for a node's key: the file, then what is remembered of the registry, then the
    /// registry itself. Takes nine tenths of a login's time at most, 9 s by default.
    pub async fn lookup(&self, node: NodeId) -> Lookup {
        let in_file = self.0.file.as_ref().and_then(|file| file.find(node));
        let (lookup, outcome) = match (in_file, &self.0.registry) {
            (Some(key), _) => (Lookup::Key(key), Outcome::File),
            (None, Some(registry)) => registry.lookup(node).await,
            (None, None) => (Lookup::Unknown, Outcome::Unknown),
        };
        self.0.lookups.of(outcome).increment();
        lookup
    }

    /// The node's key where it is at hand: never waits, never asks the registry.
    #[must_use]
    pub fn known(&self, node: NodeId) -> Option<PublicKey> {
        let in_file = self.0.file.as_ref().and_then(|file| file.find(node));
        in_file.or_else(|| self.0.registry.as_ref()?.known(node))
    }

    /// Asks the registry about a connected node, whatever is remembered of it. `key` is what the
    /// node has proved to have. An answer against that changes nothing by itself: see
    /// [`Self::contradicted`].
    pub async fn recheck(&self, node: NodeId, key: PublicKey) -> Recheck {
        let in_file = self.0.file.as_ref().and_then(|file| file.find(node));
        match (in_file, &self.0.registry) {
            (None, Some(registry)) => registry.recheck(node, key).await,
            (Some(_), _) | (None, None) => Recheck::NotAsked,
        }
    }

    /// Waits until the registry contradicts a remembered key; for ever without a registry.
    ///
    /// Until somebody decides by [`Self::believe`], [`Self::hold`] or [`Self::force`], the remembered key stays in use.
    pub async fn contradicted(&self) {
        match &self.0.registry {
            Some(registry) => registry.claims().raised().await,
            None => std::future::pending().await,
        }
    }

    /// The nodes whose remembered keys the registry contradicts.
    #[must_use]
    pub fn contradictions(&self) -> Vec<NodeId> {
        self.0.registry.as_ref().map(|registry| registry.claims().nodes()).unwrap_or_default()
    }

    /// Believes what the registry has said against remembered keys within the last 30 s; each
    /// is a change. What it said before is forgotten.
    pub fn believe(&self) {
        if let Some(registry) = &self.0.registry {
            registry.believe();
        }
    }

    /// Holds back what the registry says against remembered keys, but for what it has repeated
    /// for an hour; whether it was not held back before.
    pub fn hold(&self) -> bool {
        let Some(registry) = &self.0.registry else { return false };
        let is_news = registry.claims().hold();
        registry.believe_persistent();
        is_news
    }

    /// How many nodes' keys are withdrawn or changed by what is held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.registry.as_ref().map_or(0, |registry| registry.claims().held())
    }

    /// Takes what the registry says against remembered keys, held back or not decided upon yet,
    /// and then what it answers within the next 6 minutes. Where it says nothing against them,
    /// nothing changes.
    #[must_use]
    pub fn force(&self) -> Reload {
        let Some(registry) = &self.0.registry else { return Reload::default() };
        let (removed, changed) = registry.force();
        Reload { added: 0, removed, changed }
    }

    /// Reads the key file now; blocks. `force` takes it whatever it has lost. Without a key file
    /// nothing changes.
    ///
    /// # Errors
    /// A broken file, or, without `force`, one that lost or changed more than half of at least
    /// 16 keys:
    /// the keys stay.
    pub fn reload(&self, force: bool) -> Result<Reload, ReloadError> {
        match &self.0.file {
            Some(file) => file.reload(&self.0.changes, force),
            None => Ok(Reload::default()),
        }
    }

    /// Where the keys are from, for people; and whether that is the embedded directory.
    fn source(&self) -> (String, bool) {
        let of_file = self.0.file.as_ref().map(KeyFile::path).map(Path::display);
        match (of_file, &self.0.registry) {
            (Some(path), None) => {
                let is_embedded = self.0.file.as_ref().is_some_and(KeyFile::is_embedded);
                (path.to_string(), is_embedded)
            }
            (None, Some(registry)) => (format!("the registry at {}", registry.address()), false),
            (Some(path), Some(registry)) => {
                (format!("{path}, and the registry at {}", registry.address()), false)
            }
            (None, None) => ("nowhere".to_owned(), false),
        }
    }

    /// Why the keys in use are older than the key file, where they are.
    #[must_use]
    pub fn file_trouble(&self) -> Option<String> {
        self.0.file.as_ref().and_then(KeyFile::trouble)
    }

    /// Waits for the next change of a key; for one caller at a time. At most 4,096 nodes
    /// are remembered, beyond that they become one [`Change::Any`]; a change is never lost.
    pub async fn next_change(&self) -> Change {
        self.0.changes.next().await
    }

    /// Has the node's key looked up once more, as a change, unless the cached one is `key`; never
    /// waits, never asks the registry.
    ///
    /// To be called once a session that began by `key` can be found. A change that came before
    /// is in the list and the cache that this reads; one that comes later finds the session.
    fn look_again_unless_known(&self, node: NodeId, key: PublicKey) {
        if self.known(node) != Some(key) {
            self.0.changes.push(node);
        }
    }

    /// Tells the registry that a beacon is reachable at `address`, a `host:port`.
    ///
    /// # Errors
    /// No registry, no answer in time, or a refusal.
    pub async fn register_beacon(&self, id: BeaconId, address: &str) -> Result<(), RegistryError> {
        self.registry()?.register_beacon(id, address).await
    }

    /// The beacons that are registered.
    ///
    /// # Errors
    /// No registry, no answer in time, or a refusal.
    pub async fn beacons(&self) -> Result<Vec<BeaconEntry>, RegistryError> {
        self.registry()?.beacons().await
    }

    /// Whether the last attempt to reach the registry went well, and it answers in time; `None`
    /// without one.
    #[must_use]
    pub fn registry_is_up(&self) -> Option<bool> {
        self.0.registry.as_ref().map(|registry| registry.is_up())
    }

    /// Whether the registry answered the last look-up with an error; `None` without one.
    #[must_use]
    pub fn registry_refuses(&self) -> Option<bool> {
        self.0.registry.as_ref().map(|registry| registry.refuses())
    }

    fn registry(&self) -> Result<&Registry, RegistryError> {
        self.0.registry.as_deref().ok_or(RegistryError::NoRegistry)
    }

    /// Appends the directory's families to a scrape.
    pub fn metrics(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::labelled(
            "pilot_beacon_directory_lookups_total",
            "Lookups of a node's key, by where the answer came from or why there is none.",
            "outcome",
            &self.0.lookups,
        ));
        if let Some(file) = &self.0.file {
            file.metrics(families);
        }
        if let Some(registry) = &self.0.registry {
            registry.metrics(families);
        }
    }
}

#[cfg(test)]
mod tests;
