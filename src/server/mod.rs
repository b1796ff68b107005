//! Binds, wires, runs and drains: everything that a relay is made of, in one value.

mod acme;
mod activation;
mod audited;
mod background;
mod bind;
mod bus;
mod certificates;
mod cluster;
mod core;
mod doors;
mod exporters;
mod last_reload;
mod messages;
mod operators;
mod readiness;
mod reload;
mod service;
mod settings;
mod slow_readers;
mod sockets;
mod state_lock;
mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::Phase;
use crate::cluster::{IdentityError, nats};
use crate::config::{self, Config, Layers, LogFilter, Source, UnusablePair};
use crate::control::{Order, Recorder};
use crate::doors::Plan;
use crate::doors::pilot::directory::{Directory, OpenError};
use crate::log_writer::LogWriter;
use crate::metrics::{Event, Traffic, What};
use crate::net::notify::ServiceManager;

pub use activation::{Sockets, SocketsError};
pub use bind::BindError;
pub(crate) use bus::jetstream_settings;
use cluster::Part;
use core::Core;
use doors::Doors;
use messages::MessageThread;
use operators::Operators;
pub use reload::{Changes, ReloadError, Reloader};
pub(crate) use settings::directory as directory_settings;
use sockets::Bound;
pub use state_lock::InUse;
use state_lock::StateLock;
use tasks::Tasks;

/// Time to save what is remembered of the registry.
const SAVE_TIME: Duration = Duration::from_millis(500);

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An inherited socket is of no use.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// An address cannot be bound to.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate cannot be used, although it could when the configuration was read.
    #[error(transparent)]
    Certificate(#[from] UnusablePair),
    /// The provider of cryptography lacks something.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The key file, or the trust in the registry, cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// Another relay runs with the state folder.
    #[error(transparent)]
    InUse(#[from] InUse),
    /// The state folder cannot be made.
    #[error(transparent)]
    StateDir(#[from] config::Error),
    /// This relay's identity in its cluster cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The message bus cannot begin with what is stored.
    #[error("the message bus: {0}")]
    Bus(crate::bus::StartError),
    /// The NATS system that has the messages cannot be used.
    #[error("bus-nats: {0}")]
    BusNats(crate::store::OpenError),
    /// What the cluster's engine is to be reached with cannot be used.
    #[error("cluster-nats: {0}")]
    Nats(#[from] nats::SettingsError),
    /// A listener names a door that the configuration knows and nobody brings.
    #[error("there is no door `{0}` in this program")]
    NoDoor(&'static str),
    /// Two doors of the program cannot be told apart.
    #[error("the doors `{0}` and `{1}` have one name or one realm")]
    TwoDoors(&'static str, &'static str),
    /// The system has no room for a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A running relay.
#[derive(Debug)]
pub struct Server {
    core: Arc<Core>,
    doors: Arc<Doors>,
    operators: Operators,
    admin_address: SocketAddr,
    cluster: Option<Part>,
    phase: watch::Sender<Phase>,
    stopping: CancellationToken,
    tasks: Tasks,
    orders: Option<mpsc::Receiver<Order>>,
    /// Keeps other relays out until everything has ended.
    _lock: StateLock,
}

/// Sets what is logged from here on.
pub type SetLogFilter = Box<dyn Fn(&LogFilter) + Send + Sync>;

/// What a relay gets from the program that it runs in; by default nothing.
#[derive(Default)]
pub struct Host {
    /// Where the settings come from, to be read again, and what was read there; without it a
    /// reload reads the keys only.
    pub settings: Option<(Source, Layers)>,
    /// Changes what is logged.
    pub set_log_filter: Option<SetLogFilter>,
    /// Sockets that are open already.
    pub sockets: Sockets,
    /// Who waits to hear how the relay fares.
    pub manager: Option<ServiceManager>,
    /// Where the lines of the log go, to be counted where they are lost.
    pub log: Option<LogWriter>,
    /// Doors beyond the relay's own, which [`DoorKind::register`](config::DoorKind::register) has
    /// told the configuration of.
    pub doors: Vec<Plan>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the files, binds the addresses and starts everything.
    ///
    /// # Errors
    /// What is in the way; nothing runs then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_in(Host::default(), config).await
    }

    /// The same, with what the program around the relay gives it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(mut host: Host, config: Config) -> Result<Self, StartError> {
        let since = Instant::now();
        let phase = watch::Sender::new(Phase::Starting);
        let traffic = Arc::<Traffic>::default();
        let mut tasks = Tasks::default();
        let stopping = CancellationToken::new();

        let plans = doors::plans(&config, std::mem::take(&mut host.doors))?;

        // Files and sockets first: what is wrong with them shows before anything runs.
        let (lock, directory) = open_files(&config).await?;
        let bus = bus::open(&config).await?;
        let inherited = std::mem::take(&mut host.sockets);
        let bound = Bound::all(&config, inherited, host.manager.as_ref(), &traffic).await?;
        let Bound { public, operators: sockets, joining } = bound;
        let (_, admin_address) = sockets.admin;

        // The core knows everybody, the doors let them in, and operators watch.
        let cluster = joining.as_ref().map(|joining| Arc::clone(&joining.cluster));
        let (core, grants) =
            Core::new(&config, directory, traffic, cluster, &public.udp, bus.clone());
        if let Some(bus) = &bus {
            bus::follow(bus, &mut tasks, core.cluster.as_ref());
        }
        let doors = Doors::open(&config, &core, public, plans).map_err(StartError::Thread)?;
        let operators = Operators::new(config, &core, &doors, &mut host, phase.subscribe(), since);
        let operators = operators.map_err(StartError::Thread)?;
        let log = host.log.take();
        let orders = operators.serve(&mut tasks, &stopping, sockets, &core, &doors, log);
        let orders = Some(orders.map_err(StartError::Thread)?);

        let config = operators.reloader.config();
        background::start(&mut tasks, &stopping, config.clone(), &core, &doors, grants);
        let cluster = joining.map(|joining| cluster::start(&mut tasks, &core, joining));
        let messages = doors.messages.as_ref();
        operators.vitals.start(&mut tasks, doors.canaries(), config, messages).await;
        tasks.spawn("service manager", Arc::clone(&operators.service).keep_telling());
        phase.send_replace(Phase::Running);
        let server = Self {
            core,
            doors,
            operators,
            admin_address,
            cluster,
            phase,
            stopping,
            tasks,
            orders,
            _lock: lock,
        };
        server.announce();
        server.operators.service.ready();
        Ok(server)
    }

    fn announce(&self) {
        let Doors { sessions, listeners, .. } = &*self.doors;
        let addresses = listeners.iter().zip(sessions.addrs()).map(|(listener, address)| {
            address.map_or_else(|| listener.bind.to_string(), |address| address.to_string())
        });
        let mut listening = listeners.iter().zip(addresses).zip(sessions.quic_addrs());
        let ((_, wss), _) = listening.next().expect("the configuration has a listener");
        let (udp, admin) = (self.udp_addr(), self.admin_address);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            %wss,
            %udp,
            %admin,
            max_peers = self.operators.config().max_peers,
            "listening"
        );
        for ((listener, bind), quic) in listening {
            let doors: Vec<_> = listener.doors.iter().map(|door| door.name).collect();
            info!(
                listener = listener.label(),
                %bind,
                quic = quic.map(tracing::field::display),
                doors = doors.join(","),
                "also listening"
            );
        }
        for stun in self.doors.stun.addresses() {
            info!(%stun, "answering STUN");
        }
    }

    /// The address of the listener of `netbird_bind`; `None` where there is none, or a Unix socket.
    #[must_use]
    pub fn netbird_addr(&self) -> Option<SocketAddr> {
        self.address_of("netbird-bind")
    }

    /// The address of the listener of `peerbus_bind`; `None` where there is none, or a Unix socket.
    #[must_use]
    pub fn peerbus_addr(&self) -> Option<SocketAddr> {
        self.address_of("peerbus-bind")
    }

    /// The address of the listener of `middleman_bind`; `None` where there is none, or a Unix socket.
    #[must_use]
    pub fn middleman_addr(&self) -> Option<SocketAddr> {
        self.address_of("middleman-bind")
    }

    /// The address of the listener of `keyop_bind`; `None` where there is none, or a Unix socket.
    #[must_use]
    pub fn keyop_addr(&self) -> Option<SocketAddr> {
        self.address_of("keyop-bind")
    }

    /// The address of the listener of a setting.
    fn address_of(&self, setting: &str) -> Option<SocketAddr> {
        let Doors { sessions, listeners, .. } = &*self.doors;
        let mut addresses = listeners.iter().zip(sessions.addrs());
        addresses.find(|(listener, _)| listener.setting == setting).and_then(|(_, address)| address)
    }

    /// The address of the first WebSocket listener; `None` where that is a Unix socket.
    #[must_use]
    pub fn wss_addr(&self) -> Option<SocketAddr> {
        self.doors.sessions.addr()
    }

    /// The address of the UDP sockets.
    #[must_use]
    pub fn udp_addr(&self) -> SocketAddr {
        self.doors.udp_address()
    }

    /// The address of the operators' listener.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_address
    }

    /// Reads settings and keys again: [`Reloader::reload`].
    ///
    /// # Errors
    /// Something that cannot be used; everything stays as it was.
    pub async fn reload(&self, force: bool) -> Result<Changes, ReloadError> {
        self.operators.reloader.reload(force).await
    }

    /// What reloads this relay, for who outlives a borrow of it.
    #[must_use]
    pub const fn reloader(&self) -> &Arc<Reloader> {
        &self.operators.reloader
    }

    /// Waits until a part of the relay has ended without being told to: a failure of ours,
    /// after which the relay should end and be started again.
    pub async fn failed(&mut self) {
        let cluster = async {
            match &mut self.cluster {
                Some(part) => part.failed().await,
                None => std::future::pending().await,
            }
        };
        let bus = async {
            match &self.core.bus {
                Some(bus) => bus.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.tasks.failed() => {}
            () = self.doors.failed() => {}
            () = cluster => {}
            () = bus => {}
        }
    }

    /// What operators want done that only the owner of this server can do: whoever runs it
    /// takes this once, and carries the orders out. Until then they wait.
    pub const fn take_orders(&mut self) -> Option<mpsc::Receiver<Order>> {
        self.orders.take()
    }

    /// What writes the last events to a file.
    #[must_use]
    pub const fn recorder(&self) -> &Recorder {
        &self.operators.recorder
    }

    /// Sends the peers away over the drain time and ends everything, at most 1 s later.
    pub async fn shutdown(mut self) {
        let time = self.operators.config().drain_time;
        self.operators.vitals.drain(time);
        self.operators.service.stopping(time);
        self.phase.send_replace(Phase::Draining);
        let sessions = &self.doors.sessions;
        // Before anybody is told: who hears of the drain finds the door closed.
        sessions.refuse_upgrades(time);
        self.core.traffic.events.note(Event::new(What::Draining));
        info!(peers = sessions.peer_count(), "draining");
        if let Some(part) = &self.cluster {
            part.drain();
        }
        sessions.drain(time).await;
        let doors = Arc::clone(&self.doors);
        let stop = move || {
            doors.threads.stop();
            doors.stun.stop();
            doors.messages.iter().for_each(MessageThread::stop);
        };
        let stopped = spawn_blocking(stop).await;
        debug_assert!(stopped.is_ok(), "joining threads does not panic");
        if let Some(bus) = &self.core.bus {
            bus::stop(bus).await;
        }
        if let Some(part) = self.cluster.take() {
            part.leave(&self.core.table).await;
        }
        // What is not written by then is not needed: the file before stays whole.
        let _saved = timeout(SAVE_TIME, self.core.directory.save()).await;
        self.phase.send_replace(Phase::Stopped);
        self.stopping.cancel();
        self.tasks.shutdown().await;
        info!("stopped");
    }
}

/// Makes the state folder, keeps other relays out of it, and reads the keys.
async fn open_files(config: &Config) -> Result<(StateLock, Directory), StartError> {
    config::create_state_dir(&config.state_dir)?;
    let folder = config.state_dir.clone();
    let files = settings::directory(config);
    let opened = spawn_blocking(move || {
        let lock = StateLock::take(&folder)?;
        Ok((lock, Directory::open(files)?))
    });
    opened.await.expect("opening does not panic")
}
