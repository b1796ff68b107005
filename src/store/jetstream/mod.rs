//! The store on NATS JetStream: one log that all relays share, and a replica of it at each.
//!
//! A commit is a record of the log. The relay that leads appends it, and takes it for done when
//! JetStream has acknowledged it and the replica has it; every other relay follows the log. Reads
//! are the replica's, which is an embedded store that can be made again.
//!
//! An append names the position before it, so that it is there once or never: whoever led and was
//! replaced appends nothing more, whatever its clock says. A snapshot of the replica bounds the log.

mod connection;
mod election;
mod follower;
mod log;
mod meters;
mod moving;
mod probe;
mod record;
mod replica;
mod snapshot;
mod tenure;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::connection::{Connection, Refusal};
use self::election::Lease;
use self::log::Streams;
use self::meters::Meters;
pub use self::moving::{MoveError, Moved};
pub use self::probe::{Probe, ProbedAccount, ProbedLog};
use self::record::PART_HEADER;
use self::replica::Replica;
use self::tenure::Tenure;
use self::writer::Writer;
use super::{Store, StoreError};
use crate::ids::RelayId;
use crate::net::nats::{self, SettingsError};

/// How long who opens the store waits for the first connection, which shows whether the server
/// takes messages that are long enough. The store goes on without.
const OPEN: Duration = Duration::from_secs(2);

/// What a message of the log has room for beside the longest record of a door, in bytes.
const MARGIN: usize = 64 * 1024;

/// Where the replica of a relay is.
#[must_use]
pub fn replica_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("bus-replica")
}

/// What a store on JetStream is told. It has no `Debug`, since a URL may hold a password.
pub struct Settings {
    /// The servers.
    pub nats: nats::Settings,
    /// What tells the log from that of another cluster: letters, digits, `-` and `_`.
    pub name: String,
    /// Servers that have a copy of each stream, 1 to 5.
    pub replicas: usize,
    /// Most bytes of the log, and of its snapshots; as the server says where there is none.
    pub max_bytes: Option<u64>,
    /// The longest record of the doors, in bytes.
    pub longest: usize,
}

/// Who leads the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leadership {
    /// Nobody that this relay knows of.
    Nobody,
    /// This relay.
    Here {
        /// The number of its epoch.
        epoch: u64,
    },
    /// Another one.
    There {
        /// The number of its epoch.
        epoch: u64,
        /// Which.
        relay: RelayId,
    },
}

/// That NATS cannot be used by a relay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outage {
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Instant,
}

/// Why a store on JetStream does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An address or a credentials file that is none.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The server takes no message that is as long as those of the doors.
    #[error(
        "{server} takes messages of {offered} bytes at most, and the doors have records of up to \
         {needed}: set max_payload of nats-server to {needed} or more"
    )]
    Payload {
        /// The server.
        server: String,
        /// What it takes.
        offered: usize,
        /// What is needed.
        needed: usize,
    },
    /// The account of this relay has no streams.
    #[error("the account of this relay has no JetStream: {0}")]
    NoJetStream(String),
    /// No server takes this relay in.
    #[error("{0}")]
    Unreachable(String),
    /// The replica or the log cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room for a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<Refusal> for OpenError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Payload { server, offered, needed } => {
                Self::Payload { server, offered, needed }
            }
            Refusal::Unreachable(reason) => Self::Unreachable(reason),
        }
    }
}

/// The store on JetStream.
pub struct JetStream {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads of the store share.
struct Shared {
    relay: RelayId,
    /// Drawn once for each process.
    process: u64,
    streams: Streams,
    replicas: usize,
    max_bytes: Option<u64>,
    /// The longest message that is appended, in bytes. It stays as it is, so that a commit that is
    /// repeated is split as it was.
    longest: usize,
    handle: Handle,
    connection: Connection,
    replica: Replica,
    /// Held by who appends.
    writer: tokio::sync::Mutex<Writer>,
    leadership: watch::Sender<Leadership>,
    /// None where this relay does not lead.
    lease: Mutex<Option<Lease>>,
    /// Why the log is not followed, where it is not although there is a connection.
    stumble: Mutex<Option<Outage>>,
    meters: Meters,
    closing: CancellationToken,
}

impl std::fmt::Debug for JetStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let leadership = *self.shared.leadership.borrow();
        f.debug_struct("JetStream").field("leadership", &leadership).finish_non_exhaustive()
    }
}

impl JetStream {
    /// Opens the replica in this folder, and follows the log as soon as NATS is there. Blocks for 2 s
    /// at most where it is not, in a thread of the runtime that may.
    ///
    /// # Errors
    /// The server takes no messages that are long enough, where it is there; the replica is another
    /// process's.
    pub fn open(settings: &Settings, folder: &Path, relay: RelayId) -> Result<Self, OpenError> {
        let handle = Handle::current();
        let servers = nats::servers(&settings.nats)?;
        let longest = settings.longest + MARGIN;
        let connection = {
            let _runtime = handle.enter();
            Connection::keep(servers, format!("beacon-relay {relay} messages"), longest)
        };
        if let Err(refusal @ Refusal::Payload { .. }) = handle.block_on(connection.first(OPEN)) {
            return Err(refusal.into());
        }
        let mut process = [0; 8];
        getrandom::fill(&mut process).map_err(log::unavailable)?;
        let shared = Arc::new(Shared {
            relay,
            process: u64::from_be_bytes(process),
            streams: Streams::of(&settings.name),
            replicas: settings.replicas,
            max_bytes: settings.max_bytes,
            longest: longest.max(PART_HEADER + 1),
            handle,
            connection,
            replica: Replica::open(folder, relay)?,
            writer: tokio::sync::Mutex::default(),
            leadership: watch::Sender::new(Leadership::Nobody),
            lease: Mutex::default(),
            stumble: Mutex::default(),
            meters: Meters::new(),
            closing: CancellationToken::new(),
        });
        let following = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("bus-log".to_owned());
        let thread = thread.spawn(move || follower::run(&following))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Who leads.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// Whether what was appended last lets this relay serve.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.shared.lease.lock().is_some_and(|lease| lease.holds(Instant::now()))
    }

    /// The store of an epoch of this relay: it takes commits as long as that lasts.
    #[must_use]
    pub fn tenure(self: &Arc<Self>, epoch: u64) -> Arc<dyn Store> {
        Arc::new(Tenure::of(Arc::clone(self), epoch))
    }

    /// The store of a relay that does not lead: it takes nothing.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Arc<dyn Store> {
        self.tenure(0)
    }

    /// Why this relay cannot use NATS; nothing where it can, as far as it knows.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        let Shared { connection, stumble, lease, .. } = &*self.shared;
        if let Some(since) = connection.down_since() {
            return Some(Outage { reason: connection.refusal().to_string(), since });
        }
        if let Some(stumble) = &*stumble.lock() {
            return Some(stumble.clone());
        }
        let since = lease.lock().and_then(|lease| lease.lapsed(Instant::now()))?;
        Some(Outage { reason: "NATS acknowledges nothing".to_owned(), since })
    }

    /// Lets another relay lead, follows no more, and closes the replica. Blocks, for 3 s at most
    /// where NATS does not answer.
    pub fn resign(&self) {
        self.shared.closing.cancel();
        if let Some(thread) = self.thread.lock().take() {
            // Its panic was told when it came.
            let _ = thread.join();
        }
        self.shared.replica.embedded.close();
    }

    /// Appends the families of a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        self.shared.families(families);
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.resign();
    }
}

impl Shared {
    fn families(&self, families: &mut Vec<MetricFamily>) {
        let leadership = *self.leadership.borrow();
        self.meters.families(leadership, self.connection.is_up(), families);
    }
}
