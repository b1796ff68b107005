//! What peers come in by: the doors over WebSocket, and the threads that receive over UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::StartError;
use super::certificates::Keeper;
use super::core::Core;
use super::messages::MessageThread;
use super::readiness::{Canaries, Visits};
use super::settings;
use super::sockets::{PublicListener, PublicSockets};
use crate::bus::Handle;
use crate::config::{self, Config, DoorKind};
use crate::doors::pilot::{self, Login, Pilot};
use crate::doors::{self, Plan};
use crate::session::{self, Door, Spec};
use crate::stun;
use crate::udp;
use crate::wire::name::Realm;

/// The ways in, which are open.
pub(super) struct Doors {
    /// All doors over WebSocket, Pilot's among them.
    pub(super) all: Vec<Arc<dyn Door>>,
    pub(super) pilot: Arc<Pilot>,
    pub(super) sessions: Arc<session::Server>,
    pub(super) threads: udp::Threads,
    pub(super) stun: stun::Server,
    /// What serves the listeners of doors with messages, where there are some.
    pub(super) messages: Option<MessageThread>,
    /// What the configuration said of each listener when it was opened.
    pub(super) listeners: Vec<config::Listener>,
    pub(super) certificates: Arc<Keeper>,
    has_wss_socket: bool,
    udp_origin: udp::Sockets,
}

/// The doors that can be opened besides Pilot's, where each is there that a listener names.
///
/// # Errors
/// One is not, or two cannot be told apart.
pub(super) fn plans(config: &Config, of_host: Vec<Plan>) -> Result<Vec<Plan>, StartError> {
    let mut plans = doors::plans();
    plans.extend(of_host);
    let mut known = vec![(config::PILOT.name, Realm::PILOT)];
    for &Plan { kind: DoorKind { name, .. }, realm, .. } in &plans {
        if let Some((other, _)) = known.iter().find(|other| other.0 == *name || other.1 == realm) {
            return Err(StartError::TwoDoors(name, other));
        }
        known.push((name, realm));
    }
    let is_there = |door: &&DoorKind| {
        **door == config::PILOT || plans.iter().any(|plan| plan.kind.name == door.name)
    };
    let mut named = config.listeners.iter().flat_map(|listener| &listener.doors);
    match named.find(|door| !is_there(door)) {
        Some(missing) => Err(StartError::NoDoor(missing.name)),
        None => Ok(plans),
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Doors {
    /// Opens them: peers may come from here on.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(super) fn open(
        config: &Config,
        core: &Core,
        sockets: PublicSockets,
        plans: Vec<Plan>,
    ) -> io::Result<Arc<Self>> {
        let PublicSockets { udp, udp_origin, stun, listeners, certificates, has_wss_socket } =
            sockets;
        let stun = stun::Server::start(&stun, config.translators.clone())?;
        let split = |one: PublicListener| (one.said, (one.listener, one.tls, one.quic));
        let (listeners, streams): (Vec<_>, Vec<_>) = listeners.into_iter().map(split).unzip();
        let threads = udp::Threads::start(&udp, &core.overlay)?;
        let sink = Arc::clone(&core.overlay);
        let pilot = Pilot::new(core.directory.clone(), sink, Login::from(config));
        let mut doors: Vec<Arc<dyn Door>> = vec![Arc::clone(&pilot) as _];
        let mut with_messages = Vec::new();
        for plan in plans {
            if plan.has_messages {
                with_messages.push(plan.kind);
            }
            // A door that no listener names costs nothing.
            if listeners.iter().any(|listener| listener.doors.contains(&plan.kind)) {
                let bus = core.bus.as_ref();
                doors.push((plan.make)(doors::Parts { router: &core.router, config, bus }));
            }
        }
        // The sessions of one listener share a runtime.
        let has_messages =
            |said: &config::Listener| said.doors.iter().all(|door| with_messages.contains(door));
        // A thread without sessions takes no turns.
        let turns = |bus: &Handle| bus.turns().filter(|_| listeners.iter().any(has_messages));
        let start = |bus: &Handle| MessageThread::start(turns(bus));
        let messages = core.bus.as_ref().map(start).transpose()?;
        let runtime = |said: &config::Listener| {
            messages.as_ref().filter(|_| has_messages(said)).map(|thread| thread.runtime().clone())
        };
        let of_each = settings::listeners(config, &listeners).into_iter().zip(&listeners);
        let specs = streams.into_iter().zip(of_each);
        let specs = specs.map(|((listener, tls, quic), (settings, said))| Spec {
            listener,
            settings,
            doors: settings::doors(said, &doors),
            tls,
            quic,
            runtime: runtime(said),
        });
        let table = Arc::clone(&core.table);
        let traffic = Arc::clone(&core.traffic);
        let cluster = core.cluster.clone();
        let sessions = session::Server::serve(specs.collect(), table, traffic, cluster);
        let sessions = Arc::new(sessions);
        let ways = Self {
            all: doors,
            pilot,
            sessions,
            threads,
            stun,
            messages,
            listeners,
            certificates,
            has_wss_socket,
            udp_origin,
        };
        Ok(Arc::new(ways))
    }

    /// Goes on by these settings.
    pub(super) fn update(&self, config: &Config) {
        let listeners = config.all_listeners(self.has_wss_socket);
        self.sessions.update(settings::listeners(config, &listeners));
        self.all.iter().for_each(|door| door.update(config));
    }

    /// The relay's own clients of them.
    pub(super) fn canaries(&self) -> Canaries {
        let visit =
            |door: &Arc<dyn Door>| Visits::new(Arc::clone(door), Arc::clone(&self.sessions));
        Canaries {
            pilot: pilot::Canary::new(Arc::clone(&self.pilot), Arc::clone(&self.sessions)),
            udp: udp::Canary::new(&self.threads, self.udp_origin, pilot::canary_script),
            visits: self.visited().map(visit),
        }
    }

    /// The door that has the relay visit it, where one is served.
    pub(super) fn visited(&self) -> Option<&Arc<dyn Door>> {
        self.all.iter().find(|door| door.is_visited())
    }

    /// The listeners of that door.
    pub(super) fn visited_listeners(&self) -> impl Iterator<Item = &config::Listener> + Clone {
        let name = self.visited().map(|door| door.name());
        let speaks = move |listener: &&config::Listener| {
            listener.doors.iter().any(|door| Some(door.name) == name)
        };
        self.listeners.iter().filter(speaks)
    }

    /// Whether one of them is a port of QUIC as well.
    pub(super) fn is_visited_over_quic(&self) -> bool {
        let quic = self.listeners.iter().zip(self.sessions.quic_addrs());
        let quic: Vec<_> = quic.filter_map(|(one, quic)| quic.map(|_| one)).collect();
        self.visited_listeners().any(|listener| quic.contains(&listener))
    }

    /// Where the UDP sockets are bound.
    pub(super) const fn udp_address(&self) -> SocketAddr {
        self.threads.address()
    }

    /// Waits until one has ended without being told to: a failure of ours.
    pub(super) async fn failed(&self) {
        let messages = async {
            match &self.messages {
                Some(thread) => thread.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.sessions.failed() => {}
            () = self.threads.failed() => {}
            () = self.stun.failed() => {}
            () = messages => {}
        }
    }
}

#[cfg(test)]
mod tests;
