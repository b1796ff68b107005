//! The WebSocket door: listeners that log peers in and hand their packets over.
//!
//! It knows nothing of what a frame holds, so it can be embedded: give it keys and
//! something that takes frames.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use beacon_relay::ids::{NodeId, PublicKey};
//! use beacon_relay::wss::{Server, Settings, per_frame};
//!
//! let keys = |node: NodeId| (node.number() == 7).then_some(PublicKey([7; 32]));
//! let sink = per_frame(|node, frame: &[u8]| eprintln!("{node} sent {} bytes", frame.len()));
//! let server = Server::start(Settings::new("127.0.0.1:0".parse().unwrap()), keys, sink)?;
//! println!("listening on {:?}", server.addr());
//! server.close().await;
//! # Ok(())
//! # }
//! ```

mod canary;
mod client_address;
mod connection;
mod counters;
mod delay;
mod gate;
mod held;
mod login;
mod session;
mod settings;
mod sink;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::directory::Keys;
use crate::ids::NodeId;
use crate::metrics::{Gauge, Traffic, Transport, family};
use crate::net::listener::Listener;
use crate::peers::{Arrival, End, Realm, Record, Table};

pub use canary::CanaryError;
pub use counters::{Counters, EndReason, Outcome, RefusalReason};
pub use gate::Gate;
pub use settings::{Origins, Settings, Timing};
pub use sink::{FrameSink, PerFrame, per_frame};

use canary::Canary;
use connection::Doors;

/// A node's session.
pub type Session = crate::peers::Session<NodeId>;

/// Longest message after the login, in bytes (SPEC §3.6).
pub const MAX_MESSAGE: usize = crate::wire::beacon::MAX_WSS_PACKET;

/// Time for the last peers to go at the end: the process has 1 s after its drain time, of
/// which the receiving UDP threads take up to 0.1 s, and a busy machine some.
const CLOSE_TIME: Duration = Duration::from_millis(800);

/// How often a drain that waits for the turn of a peer looks whether it has left by itself.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// What all connections of a listener share.
pub(crate) struct Door<S> {
    /// Whose it is: the peers', or the canary's.
    realm: Realm,
    settings: ArcSwap<Settings>,
    keys: Arc<dyn Keys>,
    sink: Arc<S>,
    table: Arc<Table<NodeId>>,
    traffic: Arc<Traffic>,
    counters: Arc<Counters>,
    gate: Arc<Gate>,
    sessions: Arc<Gauge>,
}

/// Running listeners, one at least, with their sessions. Dropping it ends them all at once.
pub struct Server<S> {
    /// What all listeners share is in the door of each: this is the first one's.
    door: Arc<Door<S>>,
    listeners: Vec<Served<S>>,
    accepting: CancellationToken,
    ending: CancellationToken,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

/// One of them.
struct Served<S> {
    /// Its own settings, and what it shares with the others.
    door: Arc<Door<S>>,
    canary: Arc<Canary<S>>,
    address: Option<SocketAddr>,
}

impl<S> std::fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<_> = self.addrs().collect();
        f.debug_struct("Server").field("addresses", &addresses).finish_non_exhaustive()
    }
}

/// What the listeners have counted; see [`Server::metrics`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Requests that became a WebSocket.
    pub upgrades_ok: u64,
    /// Requests that did not, health checks apart.
    pub upgrades_failed: u64,
    /// Logins that succeeded.
    pub authentications_ok: u64,
    /// Logins that did not, for whatever reason.
    pub authentications_failed: u64,
    /// Binary frames received after the login.
    pub frames_in: u64,
    /// Binary frames sent.
    pub frames_out: u64,
    /// Sessions that ended because nothing was heard of the peer.
    pub idle_disconnects: u64,
    /// Nodes that are connected.
    pub active_peers: usize,
}

impl<S: FrameSink> Server<S> {
    /// Binds the address of the settings and serves it, with a table of its own. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    /// What the system says of the address.
    pub fn start(settings: Settings, keys: impl Keys, sink: S) -> io::Result<Self> {
        let listener = Listener::tcp(settings.bind)?;
        let table = Arc::new(Table::new(settings.max_peers, 0));
        let listeners = vec![(listener, settings)];
        Ok(Self::serve(listeners, Arc::new(keys), sink, table, Arc::default()))
    }

    /// Serves listeners, each by its own settings, over a table and accounts that others share.
    /// Limits and counters are those of all listeners together.
    ///
    /// # Panics
    /// There is no listener.
    #[must_use]
    pub fn serve(
        listeners: Vec<(Listener, Settings)>,
        keys: Arc<dyn Keys>,
        sink: S,
        table: Arc<Table<NodeId>>,
        traffic: Arc<Traffic>,
    ) -> Self {
        let counters = Arc::<Counters>::default();
        let gate = Arc::new(Gate::new(Arc::clone(&table), Arc::clone(&counters)));
        let sessions = Arc::<Gauge>::default();
        let sink = Arc::new(sink);
        let accepting = CancellationToken::new();
        let ending = CancellationToken::new();
        let mut served = Vec::new();
        let mut tasks = Vec::new();
        for (listener, settings) in listeners {
            let door = Door {
                realm: Realm::Node,
                settings: ArcSwap::from_pointee(settings),
                keys: Arc::clone(&keys),
                sink: Arc::clone(&sink),
                table: Arc::clone(&table),
                traffic: Arc::clone(&traffic),
                counters: Arc::clone(&counters),
                gate: Arc::clone(&gate),
                sessions: Arc::clone(&sessions),
            };
            let address = listener.address();
            let canary = Arc::new(Canary::new(&door, listener.entrance()));
            let door = Arc::new(door);
            let doors = Doors { peers: Arc::clone(&door), canary: Arc::clone(&canary) };
            let accept = connection::accept(listener, doors, accepting.clone(), ending.clone());
            tasks.push(tokio::spawn(accept));
            served.push(Served { door, canary, address });
        }
        let first = served.first().expect("whoever serves has a listener");
        let door = Arc::clone(&first.door);
        let tasks = parking_lot::Mutex::new(tasks);
        Self { door, listeners: served, accepting, ending, tasks }
    }

    /// The address that the first listener is bound to, with its real port; `None` for a Unix
    /// socket.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addrs().next().flatten()
    }

    /// Goes on by these settings, one for each listener in the order in which they are served,
    /// but for the addresses: logins that begin from here on, and sessions with their next ping.
    /// Nobody is disconnected; sessions keep the outbox that they began with.
    pub fn update(&self, settings: impl IntoIterator<Item = Settings>) {
        for (listener, settings) in self.listeners.iter().zip(settings) {
            self.door.table.allow_sessions(settings.max_peers);
            listener.canary.update(&settings);
            listener.door.settings.store(Arc::new(settings));
        }
    }

    /// Has canaries do at each listener what a peer does: connect, log in, and send itself a
    /// Relay packet, which the sink has to hand back. Returns the time that the slowest took; for
    /// one caller at a time. It counts nowhere.
    ///
    /// # Errors
    /// What went wrong at one of them, or that it was not done within `limit`.
    pub async fn fly_canary(&self, limit: Duration) -> Result<Duration, CanaryError> {
        let is_alone = self.listeners.len() == 1;
        let flights = self.listeners.iter().map(|Served { canary, .. }| async move {
            let flight = canary.fly(limit).await;
            flight.map_err(|error| if is_alone { error } else { canary.at_listener(error) })
        });
        let mut slowest = Duration::ZERO;
        for took in join_all(flights).await {
            slowest = slowest.max(took?);
        }
        Ok(slowest)
    }

    /// Sends a frame to a node; false where it is not connected here, so that the caller
    /// falls back to another way. A frame that does not fit its outbox is dropped and counted.
    pub fn write_frame(&self, node: NodeId, frame: &[u8]) -> bool {
        let Some(session) = self.door.table.session(node) else { return false };
        let at = Instant::now();
        let record = Record { head: &[], body: frame };
        let arrival = Arrival::ours(at);
        session.push(std::iter::once(record), &arrival);
        session.flush(at);
        true
    }

    /// Whether a node is connected here.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.door.table.has_session(node)
    }

    /// How many nodes are connected here.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.door.table.session_count()
    }

    /// What was counted so far.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        let Counters { connections, ended, .. } = &*self.door.counters;
        let count = |outcome| connections.of(outcome).value();
        let failed_logins = [
            Outcome::AuthFail,
            Outcome::AuthTimeout,
            Outcome::Unavailable,
            Outcome::Gone,
            Outcome::Violation,
            Outcome::CrowdedOut,
            Outcome::Superseded,
        ];
        let refused_upgrades = [
            Outcome::RateLimited,
            Outcome::AtCapacity,
            Outcome::OriginRefused,
            Outcome::BadUpgrade,
            Outcome::NotFound,
            Outcome::BadRequest,
            Outcome::Draining,
        ];
        let authentications_ok = count(Outcome::AuthOk);
        let authentications_failed = failed_logins.into_iter().map(count).sum();
        let (relayed, ours) = self.door.traffic.packets_out(Transport::Wss);
        Snapshot {
            upgrades_ok: authentications_ok + authentications_failed,
            upgrades_failed: refused_upgrades.into_iter().map(count).sum(),
            authentications_ok,
            authentications_failed,
            frames_in: self.door.traffic.packets_in(Transport::Wss),
            frames_out: relayed + ours,
            idle_disconnects: ended.of(EndReason::Idle).value(),
            active_peers: self.peer_count(),
        }
    }

    /// A function that appends the door's families, for a registry that outlives this value.
    pub fn exporter(&self) -> impl Fn(&mut Vec<prometheus::proto::MetricFamily>) + use<S> {
        let door = Arc::clone(&self.door);
        move |families| door.families(families)
    }

    /// Waits until a listener has ended without being told to: a failure of ours.
    pub async fn failed(&self) {
        while !self.tasks.lock().iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Takes nobody new, as the first step of a drain that is to take `time`.
    pub fn refuse_upgrades(&self, time: Duration) {
        self.door.gate.drain(time);
    }

    /// Takes nobody new, and closes the peers with 1001, spread evenly over `time`; upgrades are
    /// answered 503 until then. Returns when all are gone, at most 1 s after that time.
    pub async fn drain(&self, time: Duration) {
        self.refuse_upgrades(time);
        // Weak, since who keeps a session keeps its socket.
        let sessions = self.door.table.all_sessions();
        let sessions: Vec<_> = sessions.iter().map(Arc::downgrade).collect();
        let began = tokio::time::Instant::now();
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        for (session, turn) in sessions.into_iter().zip(0u32..) {
            let due = began + time * turn / count;
            // Nobody has to wait for the turn of a peer that has left by itself.
            while let Some(session) = session.upgrade().filter(|session| session.is_open()) {
                if tokio::time::Instant::now() >= due {
                    session.end(End::ShuttingDown);
                    break;
                }
                drop(session);
                tokio::time::sleep_until(due.min(tokio::time::Instant::now() + DRAIN_LOOK)).await;
            }
        }
        self.close().await;
    }

    /// Closes the listeners, ends every session with 1001, and waits for them, 0.8 s at most.
    /// A second call finds nothing to do.
    pub async fn close(&self) {
        self.door.gate.drain(Duration::ZERO);
        self.accepting.cancel();
        for session in self.door.table.all_sessions() {
            session.end(End::ShuttingDown);
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let aborting: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(CLOSE_TIME, join_all(tasks)).await.is_err() {
            aborting.iter().for_each(AbortHandle::abort);
        }
    }
}

impl<S> Server<S> {
    /// The address of each listener, in the order in which they are served, with its real port;
    /// `None` for a Unix socket.
    pub fn addrs(&self) -> impl Iterator<Item = Option<SocketAddr>> + '_ {
        self.listeners.iter().map(|listener| listener.address)
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.accepting.cancel();
        self.ending.cancel();
    }
}

impl<S> Door<S> {
    fn families(&self, families: &mut Vec<prometheus::proto::MetricFamily>) {
        self.counters.families(families);
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let value = |number: usize| number as f64;
        families.push(family::gauge_value(
            "pilot_beacon_wss_active",
            "Nodes that are connected over WebSocket.",
            value(self.table.session_count()),
        ));
        families.push(family::gauge(
            "pilot_beacon_wss_sessions",
            "Sessions, those that are replaced or closing among them.",
            &self.sessions,
        ));
        families.push(family::gauge_value(
            "pilot_beacon_wss_waiting",
            "Connections that have not logged in.",
            value(self.gate.waiting()),
        ));
        families.push(family::gauge_value(
            "pilot_beacon_wss_delayed",
            "Logins that wait, since sessions of their node replace each other.",
            value(self.table.delayed()),
        ));
        families.push(family::gauge_value(
            "pilot_beacon_wss_contested_nodes",
            "Nodes whose sessions have replaced each other four times in 90 s.",
            value(self.table.contested(Instant::now())),
        ));
    }
}

#[cfg(test)]
mod tests;
