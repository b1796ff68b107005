//! The WebSocket door: a listener that logs peers in and hands their packets over.
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
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::directory::Keys;
use crate::ids::NodeId;
use crate::metrics::{Gauge, Traffic, Transport, family};
use crate::net::listener::Listener;
use crate::peers::{Arrival, End, Realm, Record, Table};

pub use canary::CanaryError;
pub use counters::{Counters, EndReason, Outcome, RefusalReason};
pub use gate::Gate;
pub use settings::{Settings, Timing};
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
    sessions: Gauge,
}

/// A running listener with its sessions. Dropping it ends them all at once.
pub struct Server<S> {
    door: Arc<Door<S>>,
    canary: Arc<Canary<S>>,
    address: Option<SocketAddr>,
    accepting: CancellationToken,
    ending: CancellationToken,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl<S> std::fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What a listener has counted; see [`Server::metrics`].
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
        Ok(Self::serve(listener, settings, Arc::new(keys), sink, table, Arc::default()))
    }

    /// Serves a listener over a table and accounts that others share.
    #[must_use]
    pub fn serve(
        listener: Listener,
        settings: Settings,
        keys: Arc<dyn Keys>,
        sink: S,
        table: Arc<Table<NodeId>>,
        traffic: Arc<Traffic>,
    ) -> Self {
        let counters = Arc::<Counters>::default();
        let gate = Arc::new(Gate::new(Arc::clone(&table), Arc::clone(&counters)));
        let settings = ArcSwap::from_pointee(settings);
        let sessions = Gauge::default();
        let (realm, sink) = (Realm::Node, Arc::new(sink));
        let door = Door { realm, settings, keys, sink, table, traffic, counters, gate, sessions };
        let (address, entrance) = (listener.address(), listener.entrance());
        let (canary, door) = (Arc::new(Canary::new(&door, entrance)), Arc::new(door));
        let (accepting, ending) = (CancellationToken::new(), CancellationToken::new());
        let doors = Doors { peers: Arc::clone(&door), canary: Arc::clone(&canary) };
        let accept = connection::accept(listener, doors, accepting.clone(), ending.clone());
        let task = parking_lot::Mutex::new(Some(tokio::spawn(accept)));
        Self { door, canary, address, accepting, ending, task }
    }

    /// The address that was bound, with its real port; `None` for a Unix socket.
    #[must_use]
    pub const fn addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Goes on by these settings, but for the address: logins that begin from here on, and
    /// sessions with their next ping. Nobody is disconnected; sessions keep the outbox that
    /// they began with.
    pub fn update(&self, settings: Settings) {
        self.door.table.allow_sessions(settings.max_peers);
        self.canary.update(&settings);
        self.door.settings.store(Arc::new(settings));
    }

    /// Has a canary do at this listener what a peer does: connect, log in, and send itself a
    /// Relay packet, which the sink has to hand back. Returns the time that took; for one
    /// caller at a time. It counts nowhere.
    ///
    /// # Errors
    /// What went wrong, or that it was not done within `limit`.
    pub async fn fly_canary(&self, limit: Duration) -> Result<Duration, CanaryError> {
        self.canary.fly(limit).await
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

    /// Waits until the listener has ended without being told to: a failure of ours.
    pub async fn failed(&self) {
        let ended = async {
            while !self.task.lock().as_ref().is_some_and(JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        ended.await;
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

    /// Closes the listener, ends every session with 1001, and waits for them, 0.8 s at most.
    /// A second call finds nothing to do.
    pub async fn close(&self) {
        self.door.gate.drain(Duration::ZERO);
        self.accepting.cancel();
        for session in self.door.table.all_sessions() {
            session.end(End::ShuttingDown);
        }
        let Some(task) = self.task.lock().take() else { return };
        let aborting = task.abort_handle();
        if tokio::time::timeout(CLOSE_TIME, task).await.is_err() {
            aborting.abort();
        }
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
