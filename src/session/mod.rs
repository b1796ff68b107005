//! WebSocket sessions: listeners that upgrade connections, have a door log them in, and hand
//! their messages to it, a read at a time.
//!
//! Nothing here knows what a message holds: that is the [`Door`]'s.

mod attempt;
mod call;
mod client;
mod client_address;
mod connection;
mod conversation;
mod counters;
mod datagram;
mod delay;
mod dialect;
mod door;
mod driver;
mod farewell;
mod gate;
mod held;
pub mod http2;
mod keepalive;
mod message;
mod settings;
mod snapshot;
mod topic;
mod turn;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::metrics::{Gauge, Traffic};
use crate::net::entrance::{self, Dialling, Entrance};
use crate::net::listener::Listener;
use crate::net::quic::Port;
use crate::net::tls::Acceptor;
use crate::peers::{Arrival, End, Record, Table};
use crate::wire::name::Name;
use counters::OfDoors;

pub use call::{CallEnd, CallId, Status};
pub use client::Client;
pub use conversation::Conversation;
pub use counters::{Counters, Outcome};
pub use dialect::Dialect;
pub use door::{
    Answer, Calls, Door, Enrolment, Heartbeat, Known, NotNotified, Notified, Quic, Task,
    VisitError, Welcome,
};
pub use farewell::{Close, Refusal, farewell, refusal};
pub use gate::Gate;
pub use message::{Kind, Messages};
pub use settings::{Origins, Settings, Timing};
pub use snapshot::Snapshot;
pub use topic::{Topic, TopicOrder, Topics, one_line};

/// What a door keeps with a session.
pub type DoorData = crate::peers::DoorData;

/// A peer's session.
pub type Session = crate::peers::Session;

/// Longest message after a login that any door may take, in bytes. One that comes in a frame
/// beyond what a thread's read buffer holds is copied once.
pub const MAX_MESSAGE: usize = 16_777_216;

/// Time for the last peers to go at the end: the process has 1 s after its drain time, of
/// which the receiving UDP threads take up to 0.1 s, and a busy machine some.
const CLOSE_TIME: Duration = Duration::from_millis(800);

/// How often a drain that waits for the turn of a peer looks whether it has left by itself.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// What all listeners share.
struct Shared {
    table: Arc<Table>,
    traffic: Arc<Traffic>,
    /// The other relays, where there are some.
    cluster: Option<Arc<Cluster>>,
    counters: Arc<Counters>,
    gate: Arc<Gate>,
    sessions: Gauge,
    of_doors: OfDoors,
    /// Whether a listener is reached by QUIC.
    has_quic: bool,
    /// Where packets of probes are accounted for, which nobody looks at.
    probed: Arc<Traffic>,
}

/// A listener that is served.
struct Site {
    shared: Arc<Shared>,
    settings: ArcSwap<Settings>,
    doors: Vec<Arc<dyn Door>>,
    tls: Option<Acceptor>,
    address: Option<SocketAddr>,
    /// Where it is reached by QUIC.
    quic: Option<SocketAddr>,
    entrance: std::io::Result<Entrance>,
    /// Where the connection of a probe comes from, while one is expected.
    expected: Mutex<Option<entrance::Origin>>,
}

/// A listener, what it is told, and what it speaks: a door for each that its paths name.
pub struct Spec {
    /// The listener.
    pub listener: Listener,
    /// What it is told.
    pub settings: Settings,
    /// What it speaks.
    pub doors: Vec<Arc<dyn Door>>,
    /// The TLS below that, where it speaks TLS itself.
    pub tls: Option<Acceptor>,
    /// The UDP port for the doors among them that speak QUIC as well.
    pub quic: Option<Port>,
    /// What serves its streams; nothing where that is the runtime of the caller.
    pub runtime: Option<Handle>,
}

/// Running listeners, one at least, with their sessions. Dropping it ends them all at once.
pub struct Server {
    shared: Arc<Shared>,
    sites: Vec<Arc<Site>>,
    accepting: CancellationToken,
    ending: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Makes a listener expect a probe for as long as this lives.
#[derive(Debug)]
pub struct Expected(Arc<Site>);

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("address", &self.address).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("sites", &self.sites).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spec").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        *self.0.expected.lock() = None;
    }
}

impl Server {
    /// Serves listeners, each by its own settings, over a table and accounts that others share,
    /// as a part of a cluster where there is one. Limits and counters are those of all listeners
    /// together. Must be called within a Tokio runtime.
    #[must_use]
    pub fn serve(
        specs: Vec<Spec>,
        table: Arc<Table>,
        traffic: Arc<Traffic>,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let counters = Arc::<Counters>::default();
        let doors = specs.iter().flat_map(|spec| &spec.doors).map(|door| door.name());
        let of_doors = OfDoors::new(doors);
        let shared = Arc::new(Shared {
            of_doors,
            has_quic: specs.iter().any(|spec| spec.quic.is_some()),
            gate: Arc::new(Gate::new(Arc::clone(&table), Arc::clone(&counters))),
            counters,
            table,
            traffic,
            cluster,
            sessions: Gauge::default(),
            probed: Arc::default(),
        });
        let accepting = CancellationToken::new();
        let ending = CancellationToken::new();
        let mut sites = Vec::new();
        let mut tasks = Vec::new();
        for Spec { listener, settings, doors, tls, quic, runtime } in specs {
            debug_assert!(!doors.is_empty(), "a listener without a door serves nobody");
            let site = Arc::new(Site {
                shared: Arc::clone(&shared),
                settings: ArcSwap::from_pointee(settings),
                doors,
                tls,
                address: listener.address(),
                quic: quic.as_ref().map(Port::address),
                entrance: listener.entrance(),
                expected: Mutex::default(),
            });
            let accept =
                connection::accept(listener, Arc::clone(&site), accepting.clone(), ending.clone());
            tasks.push(runtime.unwrap_or_else(Handle::current).spawn(accept));
            if let Some(port) = quic {
                let site = Arc::clone(&site);
                let accept = datagram::accept(port, site, accepting.clone(), ending.clone());
                tasks.push(tokio::spawn(accept));
            }
            sites.push(site);
        }
        Self { shared, sites, accepting, ending, tasks: Mutex::new(tasks) }
    }

    /// The address that the first listener is bound to, with its real port; `None` for a Unix
    /// socket.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addrs().next().flatten()
    }

    /// The address of each listener, in the order in which they are served, with its real port;
    /// `None` for a Unix socket.
    pub fn addrs(&self) -> impl Iterator<Item = Option<SocketAddr>> + '_ {
        self.sites.iter().map(|site| site.address)
    }

    /// The UDP address of each listener that is reached by QUIC as well, in the same order.
    pub fn quic_addrs(&self) -> impl Iterator<Item = Option<SocketAddr>> + '_ {
        self.sites.iter().map(|site| site.quic)
    }

    /// Goes on by these settings, one for each listener in the order in which they are served,
    /// but for the addresses: logins that begin from here on, and sessions with their next ping.
    /// Nobody is disconnected; sessions keep the outbox that they began with.
    pub fn update(&self, settings: impl IntoIterator<Item = Settings>) {
        for (site, settings) in self.sites.iter().zip(settings) {
            self.shared.table.allow_sessions(settings.max_peers);
            site.settings.store(Arc::new(settings));
        }
    }

    /// The numbers of the listeners that speak a door.
    pub fn listeners_of<'a>(&'a self, door: &'a str) -> impl Iterator<Item = usize> + 'a {
        let speaks = move |site: &Site| site.doors.iter().any(|spoken| spoken.name() == door);
        let sites = self.sites.iter().enumerate();
        sites.filter(move |(_, site)| speaks(site)).map(|(number, _)| number)
    }

    /// The way into a listener from this process.
    ///
    /// # Errors
    /// What the system said of its address.
    ///
    /// # Panics
    /// There is no such listener.
    pub fn entrance(&self, listener: usize) -> Result<&Entrance, std::io::ErrorKind> {
        let site = self.sites.get(listener).expect("the number is that of a listener");
        site.entrance.as_ref().map_err(std::io::Error::kind)
    }

    /// A connection to a listener from this process that is about to be made, over TLS where the
    /// listener speaks it.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// There is no such listener.
    pub fn dial(&self, listener: usize) -> std::io::Result<Dialling> {
        let dialling = self.entrance(listener)?.dial()?;
        let site = self.sites.get(listener).expect("the number is that of a listener");
        let tls = site.tls.as_ref().map(Acceptor::own_client).transpose();
        let tls = tls.map_err(std::io::Error::other)?;
        Ok(match tls {
            Some(tls) => dialling.over_tls(tls),
            None => dialling,
        })
    }

    /// Has a listener take the connection that comes from `origin`, which nobody else can have,
    /// for a probe of the relay's own, as long as the answer lives. A probe is served as a peer
    /// is, but hidden: it passes the limits before the login, is not counted, listed or
    /// announced, and takes no place of a peer. One at a time.
    ///
    /// # Panics
    /// There is no such listener.
    #[must_use]
    pub fn expect(&self, listener: usize, origin: entrance::Origin) -> Expected {
        let site = self.sites.get(listener).expect("the number is that of a listener");
        *site.expected.lock() = Some(origin);
        Expected(Arc::clone(site))
    }

    /// Sends a frame to a node; false where it is not connected here, so that the caller
    /// falls back to another way. A frame that does not fit its outbox is dropped and counted.
    pub fn write_frame(&self, peer: impl Into<Name>, frame: &[u8]) -> bool {
        self.write_record(peer.into(), Record { head: &[], body: frame })
    }

    /// As [`Self::write_frame`], of a frame in two parts.
    pub(crate) fn write_record(&self, peer: Name, record: Record<'_>) -> bool {
        let Some(session) = self.shared.table.session(peer) else { return false };
        let at = Instant::now();
        let arrival = Arrival::ours(at);
        session.push(std::iter::once(record), &arrival);
        session.flush(at);
        true
    }

    /// Whether a node is connected here.
    #[must_use]
    pub fn is_connected(&self, peer: impl Into<Name>) -> bool {
        self.shared.table.has_session(peer.into())
    }

    /// How many nodes are connected here.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.shared.table.session_count()
    }

    /// How many logins wait, since sessions of their peer replace each other.
    #[must_use]
    pub fn delayed(&self) -> usize {
        self.shared.table.delayed()
    }

    /// Waits until a listener has ended without being told to: a failure of ours.
    pub async fn failed(&self) {
        while !self.tasks.lock().iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Takes nobody new, as the first step of a drain that is to take `time`.
    pub fn refuse_upgrades(&self, time: Duration) {
        self.shared.gate.drain(time);
    }

    /// Takes nobody new, and closes the peers with 1001, spread evenly over `time`; upgrades are
    /// answered 503 until then. Returns when all are gone, at most 1 s after that time.
    pub async fn drain(&self, time: Duration) {
        self.refuse_upgrades(time);
        // Weak, since who keeps a session keeps its socket.
        let mut sessions = self.shared.table.all_sessions();
        sessions.sort_by_key(|session| session.is_patient);
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
        self.shared.gate.drain(Duration::ZERO);
        self.accepting.cancel();
        for session in self.shared.table.all_sessions() {
            session.end(End::ShuttingDown);
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let aborting: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(CLOSE_TIME, join_all(tasks)).await.is_err() {
            aborting.iter().for_each(AbortHandle::abort);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.cancel();
        self.ending.cancel();
    }
}
