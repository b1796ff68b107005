//! What operators see and steer: readiness, reloads, the control socket, the pages and actions
//! over HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::core::Core;
use super::doors::Doors;
use super::exporters;
use super::last_reload::LastReload;
use super::readiness::{Vitals, Watched};
use super::reload;
use super::service::Service;
use super::sockets::OperatorSockets;
use super::tasks::Tasks;
use super::{Host, Reloader, settings};
use crate::admin::{self, HealthReport, Phase, Report};
use crate::config::{self, Config};
use crate::control::{
    Actions, Health, Order, Orders, Parts, Queues, Recorder, Socket, Token, keep_socket, rfc3339,
    routes,
};
use crate::doors::keyop;
use crate::log_writer::LogWriter;

/// Who watches a relay and changes it while it runs.
#[derive(Debug)]
pub(super) struct Operators {
    pub(super) vitals: Arc<Vitals>,
    pub(super) service: Arc<Service>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) recorder: Recorder,
    health: Arc<Health>,
    last_reload: Arc<LastReload>,
    phase: watch::Receiver<Phase>,
    since: Instant,
}

impl Operators {
    /// What watches this core and these doors, which run by `config`.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(super) fn new(
        config: Config,
        core: &Arc<Core>,
        doors: &Arc<Doors>,
        host: &mut Host,
        phase: watch::Receiver<Phase>,
        since: Instant,
    ) -> io::Result<Self> {
        let health = Arc::<Health>::default();
        let turns = std::iter::once(doors.threads.turns()).chain(doors.stun.turns());
        let turns = turns.cloned().collect();
        let last_reload = Arc::<LastReload>::default();
        let watched = Watched {
            core: Arc::clone(core),
            health: Arc::clone(&health),
            certificates: Arc::clone(&doors.certificates),
            last_reload: Arc::clone(&last_reload),
            turns,
            is_visited: doors.visited().is_some(),
        };
        let vitals = Arc::new(Vitals::new(phase.clone(), &config, watched));
        let service = Service::new(host.manager.take(), Arc::clone(&vitals), Arc::clone(core));
        let service = Arc::new(service);
        let recorder = Recorder::start(Arc::clone(&core.traffic), &config.state_dir)?;
        let parts = reload::Parts {
            core: Arc::clone(core),
            doors: Arc::clone(doors),
            service: Arc::clone(&service),
        };
        let config = watch::Sender::new(Arc::new(config));
        let reloader = Reloader::new(parts, config, Arc::clone(&last_reload), host);
        Ok(Self { vitals, service, reloader, recorder, health, last_reload, phase, since })
    }

    /// The settings in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.reloader.config().borrow())
    }

    /// Serves operators until `stopping`, and returns what only the owner of the server can do
    /// for them; watches the configuration file, which they write. Must be called within the runtime.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(super) fn serve(
        &self,
        tasks: &mut Tasks,
        stopping: &CancellationToken,
        sockets: OperatorSockets,
        core: &Arc<Core>,
        doors: &Doors,
        log: Option<LogWriter>,
    ) -> io::Result<mpsc::Receiver<Order>> {
        let config = self.config();
        let OperatorSockets { admin: (listener, address), health } = sockets;
        let pages = Arc::new(self.pages(core, doors, log, address));
        let (orders, ordered) = Orders::new();
        let actions = Actions::start(self.parts(core, doors, &pages, orders), &config.state_dir)?;
        actions.answer_relays();
        let (hosts, counted) = (Arc::clone(&pages.hosts), Arc::clone(&actions));
        pages.registry.add(move |families| {
            hosts.families(families);
            counted.families(families);
        });
        let control = Socket::bind(&config.state_dir);
        let keeping = keep_socket(control, config.state_dir.clone(), Arc::clone(&actions));
        tasks.spawn("control socket", keeping);
        let watched = Arc::clone(&actions);
        tasks.spawn("audit log", async move { watched.failed().await });
        let guessed = Arc::clone(&actions);
        let stopped = stopping.clone();
        tasks.spawn("audit of guesses", async move {
            let _stopped = stopped.run_until_cancelled(guessed.audit_guesses()).await;
        });
        let token = config.admin_token.as_ref().map(|token| Token::new(token.expose()));
        let waiting = Arc::clone(&actions);
        let actions = admin::Actions {
            routes: routes(actions, token),
            give_way: Box::new(move || waiting.give_way()),
        };
        let stopped = stopping.clone().cancelled_owned();
        let serving = admin::serve(listener, pages, actions, stopped);
        tasks.spawn("operators' port", serving);
        if let Some((listener, address)) = health {
            info!(health = %address, "answering health checks");
            let stopped = stopping.clone().cancelled_owned();
            let serving = admin::serve_health(listener, self.report(doors), stopped);
            tasks.spawn("health", serving);
        }
        tasks.spawn("configuration file", Arc::clone(&self.reloader).watch());
        Ok(ordered)
    }

    /// What is answered to who asks for the health of a door whose listeners are asked for it.
    fn report(&self, doors: &Doors) -> Report {
        let vitals = Arc::clone(&self.vitals);
        let certificates = Arc::clone(&doors.certificates);
        let visited = doors.visited_listeners();
        let labels: Vec<_> = visited.clone().map(|one| one.label().to_owned()).collect();
        let speaks_tls = visited.clone().any(config::Listener::speaks_tls);
        let quic = doors.is_visited_over_quic().then_some("quic");
        let listeners: Vec<_> = std::iter::once("ws").chain(quic).collect();
        Arc::new(move || {
            let now = SystemTime::now();
            let certificate_valid = speaks_tls && certificates.are_valid(&labels, now);
            let is_healthy = vitals.readiness().ready && (certificate_valid || !speaks_tls);
            let status = if is_healthy { HealthReport::HEALTHY } else { HealthReport::UNHEALTHY };
            let listeners = listeners.clone();
            HealthReport { status, timestamp: rfc3339(now), listeners, certificate_valid }
        })
    }

    /// What the pages show.
    fn pages(
        &self,
        core: &Arc<Core>,
        doors: &Doors,
        log: Option<LogWriter>,
        address: SocketAddr,
    ) -> admin::Sources {
        let registry = exporters::all(&exporters::Parts {
            core,
            doors,
            reloader: &self.reloader,
            vitals: &self.vitals,
            log,
        });
        let vitals = Arc::clone(&self.vitals);
        admin::Sources {
            registry,
            phase: self.phase.clone(),
            readiness: Box::new(move || vitals.readiness()),
            status: exporters::status(core, doors, &self.last_reload),
            tables: exporters::tables(core, doors),
            since: self.since,
            max_connections: settings::max_operators(),
            hosts: settings::admin_hosts(&self.config(), address),
        }
    }

    /// What the actions are carried out on.
    fn parts(
        &self,
        core: &Core,
        doors: &Doors,
        pages: &Arc<admin::Sources>,
        orders: Orders,
    ) -> Parts {
        let Core { table, traffic, cluster, overlay, .. } = core;
        let numbers = Arc::clone(pages);
        let vitals = Arc::clone(&self.vitals);
        let config = self.reloader.config();
        let queues = core.bus.as_ref().map(|bus| Queues {
            bus: bus.clone(),
            channel_realm: keyop::REALM,
            labels: Box::new(move || settings::labels(&config.borrow())),
        });
        Parts {
            table: Arc::clone(table),
            traffic: Arc::clone(traffic),
            doors: doors.all.clone(),
            cluster: cluster.clone(),
            store: core.bus.as_ref().map(|bus| bus.store()),
            queues,
            switches: core.switches(),
            local: Arc::clone(overlay.local_addresses()),
            status: Box::new(move || serde_json::to_value(numbers.snapshot()).unwrap_or_default()),
            readiness: Box::new(move || {
                let readiness = vitals.readiness();
                json!({
                    "verdict": readiness.verdict,
                    "phase": readiness.phase,
                    "reasons": readiness.reasons(),
                    "line": readiness.to_string(),
                })
            }),
            orders,
            config: self.reloader.config(),
            health: Arc::clone(&self.health),
        }
    }
}
