//! Binds, wires, runs and drains: everything that a relay is made of, in one value.

mod activation;
mod background;
mod beacons;
mod bind;
mod cluster;
mod exporters;
mod operators;
mod own_addresses;
mod readiness;
mod reload;
mod service;
mod settings;
mod slow_readers;
mod tasks;
mod withdrawals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::{self, Phase};
use crate::cluster::{IdentityError, nats};
use crate::config::{self, Config, Layers, LogFilter, Source};
use crate::control::{self, Health, Order, Orders, Recorder};
use crate::directory::{Directory, OpenError};
use crate::doors::pilot::{self, PacketSink, Pilot};
use crate::ids::NodeId;
use crate::log_writer::LogWriter;
use crate::metrics::{Event, Traffic, What};
use crate::net::notify::ServiceManager;
use crate::peers::Table;
use crate::relay::{self, Beacons, Relay};
use crate::session::{self, Door, Session, Spec};
use crate::udp;
use crate::wire::Frames;

pub use activation::{Sockets, SocketsError};
pub use bind::BindError;
use cluster::{Joining, Part};
use readiness::Vitals;
pub use reload::{Changes, ReloadError, Reloader};
use service::Service;
pub(crate) use settings::directory as directory_settings;
use tasks::Tasks;

/// Time to save what is remembered of the registry.
const SAVE_TIME: Duration = Duration::from_millis(500);

/// Gives the packets of sessions to the router.
struct ToRelay(Arc<Relay>);

impl PacketSink for ToRelay {
    fn packets(&self, session: &Arc<Session>, packets: Frames<'_>, now: Instant) {
        self.0.route_frames(session, packets, now);
    }

    fn has_session_elsewhere(&self, node: NodeId, now: Instant) -> bool {
        self.0.has_session_elsewhere(node, now)
    }
}

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
    /// The key file, or the trust in the registry, cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The state folder cannot be made.
    #[error(transparent)]
    StateDir(#[from] config::Error),
    /// This relay's identity in its cluster cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the cluster's engine is to be reached with cannot be used.
    #[error("cluster-nats: {0}")]
    Nats(#[from] nats::SettingsError),
    /// The system has no room for a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A running relay.
#[derive(Debug)]
pub struct Server {
    sessions: Arc<session::Server>,
    /// As they were at the start.
    listeners: Vec<config::Listener>,
    udp_address: SocketAddr,
    admin_address: SocketAddr,
    threads: Option<udp::Threads>,
    table: Arc<Table>,
    directory: Directory,
    cluster: Option<Part>,
    phase: watch::Sender<Phase>,
    stopping: CancellationToken,
    tasks: Tasks,
    reloader: Arc<Reloader>,
    vitals: Arc<Vitals>,
    service: Arc<Service>,
    traffic: Arc<Traffic>,
    orders: Option<mpsc::Receiver<Order>>,
    recorder: Recorder,
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
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ToRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ToRelay").finish_non_exhaustive()
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
        let (phase, watched) = watch::channel(Phase::Starting);
        config::create_state_dir(&config.state_dir)?;
        let files = settings::directory(&config);
        let directory =
            spawn_blocking(|| Directory::open(files)).await.expect("opening does not panic")?;
        let mut inherited = std::mem::take(&mut host.sockets);
        let listeners = inherited.settle(&config)?;
        let has_wss_socket = inherited.wss.is_some();
        if !inherited.is_empty() {
            info!(
                wss = has_wss_socket,
                admin = inherited.admin.is_some(),
                udp = inherited.udp.len(),
                listeners = Some(inherited.of_tables()).filter(|count| *count > 0),
                "took over sockets: their settings do nothing"
            );
        }
        let patience = bind::Patience::new(config.bind_wait, host.manager.as_ref());
        let udp_sockets = match (inherited.udp.is_empty(), config.free_bind) {
            (false, _) => udp::Sockets::HandedOver,
            (true, true) => udp::Sockets::OpenedFreely,
            (true, false) => udp::Sockets::Opened,
        };
        let sockets = patience.bind(|| bind::udp(&mut inherited.udp, &config)).await?;
        let free = config.free_bind.into();
        let bound = bind::listeners(&patience, &mut inherited, &listeners, free).await?;
        let (admin, admin_address) =
            patience.bind(|| bind::admin(&mut inherited.admin, &config)).await?;
        let udp_address = sockets.first().expect("at least one was opened").address();
        let receiving = sockets.clone();

        let traffic = Arc::<Traffic>::default();
        let table = Table::new(config.max_peers, config.max_nodes);
        let table = Arc::new(table.with_translators(config.translators.clone()));
        let joining = match &config.cluster {
            Some(cluster) => {
                let open = || Joining::open(cluster, &config, &traffic);
                Some(patience.bind(open).await?)
            }
            None => None,
        };
        let cluster = joining.as_ref().map(|joining| Arc::clone(&joining.cluster));
        let rules = settings::rules(&config, udp_address);
        let beacons = Beacons::new(config.open_gossip, config.translators.clone());
        // Before the first packet: what is a beacon's is no node's. Names follow in the background.
        beacons.list(settings::beacons(&config));
        let (relay, grants) = Relay::new(
            Arc::clone(&table),
            Arc::clone(&traffic),
            directory.clone(),
            sockets,
            rules,
            beacons,
            cluster.clone(),
        );
        if cluster.is_some() {
            // Before anybody comes.
            table.watch();
        }
        let threads = udp::Threads::start(&receiving, &relay).map_err(StartError::Thread)?;
        let pilot =
            Pilot::new(directory.clone(), ToRelay(Arc::clone(&relay)), settings::login(&config));
        let doors: [Arc<dyn Door>; 1] = [Arc::clone(&pilot) as _];
        let of_listeners = listeners.iter().map(|listener| settings::doors(listener, &doors));
        let of_listeners = settings::listeners(&config, &listeners).into_iter().zip(of_listeners);
        let specs = bound.into_iter().zip(of_listeners);
        let specs = specs.map(|(listener, (settings, doors))| Spec { listener, settings, doors });
        let sessions =
            session::Server::serve(specs.collect(), Arc::clone(&table), Arc::clone(&traffic));
        let sessions = Arc::new(sessions);

        let stopping = CancellationToken::new();
        let health = Arc::<Health>::default();
        let vitals = Vitals::new(
            watched.clone(),
            &config,
            &table,
            &directory,
            cluster.as_ref(),
            Arc::clone(&health),
            threads.turns().clone(),
        );
        let vitals = Arc::new(vitals);
        let service = Service::new(host.manager.take(), Arc::clone(&vitals), Arc::clone(&table));
        let service = Arc::new(service);
        let at_start = Arc::new(config);
        let (config, in_force) = watch::channel(Arc::clone(&at_start));
        let parts = reload::Parts {
            sessions: Arc::clone(&sessions),
            pilot: Arc::clone(&pilot),
            has_wss_socket,
            relay: Arc::clone(&relay),
            table: Arc::clone(&table),
            directory: directory.clone(),
            udp_address,
            service: Arc::clone(&service),
            traffic: Arc::clone(&traffic),
        };
        let reloader = Reloader::new(parts, config, &mut host);
        let registry = exporters::all(&exporters::Parts {
            traffic: &traffic,
            table: &table,
            relay: &relay,
            directory: &directory,
            sessions: &sessions,
            pilot: &pilot,
            threads: &threads,
            reloader: &reloader,
            vitals: &vitals,
            cluster: cluster.as_ref(),
            log: host.log.take(),
        });
        let pages = admin::Sources {
            registry,
            phase: watched,
            readiness: {
                let vitals = Arc::clone(&vitals);
                Box::new(move || vitals.readiness())
            },
            status: exporters::status(&traffic, &table, &relay, cluster.as_ref()),
            tables: exporters::tables(&table, &traffic),
            since,
            max_connections: settings::max_operators(),
            hosts: settings::admin_hosts(&at_start, admin_address),
        };
        let pages = Arc::new(pages);
        let numbers = Arc::clone(&pages);
        let (orders, ordered) = Orders::new();
        let parts = control::Parts {
            table: Arc::clone(&table),
            traffic: Arc::clone(&traffic),
            directory: directory.clone(),
            cluster,
            switches: Arc::clone(relay.switches()),
            local: Arc::clone(relay.local_addresses()),
            notify: {
                let relay = Arc::clone(&relay);
                Box::new(move |node| relay.notify(node, Instant::now()))
            },
            status: Box::new(move || serde_json::to_value(numbers.snapshot()).unwrap_or_default()),
            orders,
            config: reloader.config(),
            health,
        };
        let recorder = Recorder::start(Arc::clone(&traffic), &at_start.state_dir);
        let recorder = recorder.map_err(StartError::Thread)?;
        let mut tasks = Tasks::default();
        operators::start(&mut tasks, &stopping, admin, pages, parts, &at_start)
            .map_err(StartError::Thread)?;
        tasks.spawn("directory", directory.clone().run(stopping.clone()));
        tasks.spawn("configuration file", Arc::clone(&reloader).watch());
        background::start(&mut tasks, &stopping, in_force, &relay, &table, &directory, grants);
        let cluster = joining.map(|joining| {
            let telling = cluster::tell(Arc::clone(&table), Arc::clone(&joining.cluster));
            tasks.spawn("changes for the cluster", telling);
            Part::start(joining)
        });

        let udp_canary = udp::Canary::new(&threads, udp_sockets, relay::canary_script);
        let canary = pilot::Canary::new(pilot, Arc::clone(&sessions));
        vitals.start(&mut tasks, canary, udp_canary, reloader.config()).await;
        tasks.spawn("service manager", Arc::clone(&service).keep_telling());
        phase.send_replace(Phase::Running);
        let server = Self {
            sessions,
            listeners,
            udp_address,
            admin_address,
            threads: Some(threads),
            table,
            directory,
            cluster,
            phase,
            stopping,
            tasks,
            reloader,
            vitals,
            service,
            recorder,
            traffic,
            orders: Some(ordered),
        };
        server.announce();
        server.service.ready();
        Ok(server)
    }

    fn announce(&self) {
        let config = self.config();
        let addresses =
            self.listeners.iter().zip(self.sessions.addrs()).map(|(listener, address)| {
                address.map_or_else(|| listener.bind.to_string(), |address| address.to_string())
            });
        let mut listening = self.listeners.iter().zip(addresses);
        let (_, wss) = listening.next().expect("the configuration has a listener");
        let (udp, admin) = (self.udp_address, self.admin_address);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            %wss,
            %udp,
            %admin,
            max_peers = config.max_peers,
            "listening"
        );
        for (listener, bind) in listening {
            let doors: Vec<_> = listener.doors.iter().map(|door| door.name).collect();
            info!(listener = listener.label(), %bind, doors = doors.join(","), "also listening");
        }
    }

    /// The address of the first WebSocket listener; `None` where that is a Unix socket.
    #[must_use]
    pub fn wss_addr(&self) -> Option<SocketAddr> {
        self.sessions.addr()
    }

    /// The address of the UDP sockets.
    #[must_use]
    pub const fn udp_addr(&self) -> SocketAddr {
        self.udp_address
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
        self.reloader.reload(force).await
    }

    /// What reloads this relay, for who outlives a borrow of it.
    #[must_use]
    pub const fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.reloader.config().borrow())
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
        let udp = async {
            match &self.threads {
                Some(threads) => threads.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.tasks.failed() => {}
            () = self.sessions.failed() => {}
            () = udp => {}
            () = cluster => {}
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
        &self.recorder
    }

    /// Sends the peers away over the drain time and ends everything, at most 1 s later.
    pub async fn shutdown(mut self) {
        let time = self.config().drain_time;
        self.vitals.drain(time);
        self.service.stopping(time);
        self.phase.send_replace(Phase::Draining);
        // Before anybody is told: who hears of the drain finds the door closed.
        self.sessions.refuse_upgrades(time);
        self.traffic.events.note(Event::new(What::Draining));
        info!(peers = self.sessions.peer_count(), "draining");
        if let Some(part) = &self.cluster {
            part.drain();
        }
        self.sessions.drain(time).await;
        if let Some(threads) = self.threads.take() {
            let stopped = spawn_blocking(|| threads.stop()).await;
            debug_assert!(stopped.is_ok(), "joining threads does not panic");
        }
        if let Some(part) = self.cluster.take() {
            part.leave(&self.table).await;
        }
        // What is not written by then is not needed: the file before stays whole.
        let _saved = timeout(SAVE_TIME, self.directory.save()).await;
        self.phase.send_replace(Phase::Stopped);
        self.stopping.cancel();
        self.tasks.shutdown().await;
        info!("stopped");
    }
}
