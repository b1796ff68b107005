//! Whether the relay is fit for peers: what is looked at by the clock, and what that comes to.

mod canary;
mod certificates;
mod lag;
mod machine;
mod parts;
mod udp_threads;
mod visits;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use self::canary::{Canary, Names};
use self::lag::Lag;
use self::machine::Machine;
use self::udp_threads::UdpThreads;
pub(super) use self::visits::Visits;
use self::visits::VisitsError;
use super::audited::Audited;
use super::certificates::Keeper;
use super::core::Core;
use super::last_reload::LastReload;
use super::messages::MessageThread;
use super::tasks::Tasks;
use crate::admin::{Part, Phase, Readiness};
use crate::config::Config;
use crate::control::Health;
use crate::doors::pilot;
use crate::metrics::family;
use crate::udp;
use crate::udp::Turns;

/// How often descriptors and memory are counted: there may be 100,000 to count.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The relay's own clients.
pub(super) struct Canaries {
    /// Of Pilot, over WebSocket.
    pub(super) pilot: pilot::Canary,
    /// Over UDP.
    pub(super) udp: udp::Canary,
    /// Of a door that has the relay visit it, where one is served.
    pub(super) visits: Option<Visits>,
}

/// What is looked at.
pub(super) struct Watched {
    pub(super) core: Arc<Core>,
    pub(super) health: Arc<Health>,
    pub(super) certificates: Arc<Keeper>,
    pub(super) last_reload: Arc<LastReload>,
    /// Of the threads that receive over UDP.
    pub(super) turns: Vec<Turns>,
    /// Whether a door has the relay visit it.
    pub(super) is_visited: bool,
}

/// Everything that says how the relay fares.
pub(super) struct Vitals {
    phase: watch::Receiver<Phase>,
    canary: Canary<pilot::CanaryError>,
    udp_canary: Canary<udp::CanaryError>,
    /// That of a door which has the relay visit it, where one is served.
    door_canary: Option<Canary<VisitsError>>,
    udp_threads: UdpThreads,
    lag: Lag,
    /// That of the thread of the sessions with messages, where a door has some.
    message_lag: Option<Lag>,
    machine: ArcSwap<Machine>,
    core: Arc<Core>,
    health: Arc<Health>,
    certificates: Arc<Keeper>,
    last_reload: Arc<LastReload>,
    /// The check of the audit log of messages, where a door has messages.
    audited: Option<Arc<Audited>>,
    /// When the drain is to be over.
    due: OnceLock<Instant>,
}

impl std::fmt::Debug for Vitals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vitals").field("canary", &self.canary).finish_non_exhaustive()
    }
}

impl Vitals {
    pub(super) fn new(phase: watch::Receiver<Phase>, config: &Config, watched: Watched) -> Self {
        let Watched { core, health, certificates, last_reload, turns, is_visited } = watched;
        Self {
            phase,
            canary: Canary::new(Names::WSS, config.canary_interval),
            udp_canary: Canary::new(Names::UDP, config.canary_interval),
            door_canary: is_visited.then(|| Canary::new(Names::NETBIRD, config.canary_interval)),
            udp_threads: UdpThreads::new(turns),
            lag: Lag::new(
                "pilot_beacon_scheduler_lag_seconds",
                "How late the runtime gets to what is due, ten times a second.",
            ),
            message_lag: core.bus.as_ref().map(|_| {
                Lag::new(
                    "beacon_relay_message_scheduler_lag_seconds",
                    "How late the thread of sessions with messages gets to what is due.",
                )
            }),
            machine: ArcSwap::default(),
            audited: core.bus.as_ref().map(|bus| Audited::new(bus.store())),
            core,
            health,
            certificates,
            last_reload,
            due: OnceLock::new(),
        }
    }

    /// Looks at everything once, then goes on by the clock.
    pub(super) async fn start(
        self: &Arc<Self>,
        tasks: &mut Tasks,
        Canaries { pilot: canary, udp, visits }: Canaries,
        config: watch::Receiver<Arc<Config>>,
        messages: Option<&MessageThread>,
    ) {
        let vitals = Arc::clone(self);
        tasks.spawn("lag", async move { vitals.lag.watch().await });
        if let Some(messages) = messages {
            let vitals = Arc::clone(self);
            // Its end is that of its thread, which is watched.
            messages.runtime().spawn(async move {
                if let Some(lag) = &vitals.message_lag {
                    lag.watch().await;
                }
            });
        }
        self.look().await;
        if !config.borrow().canary_interval.is_zero() {
            let visit = async {
                if let (Some(canary), Some(visits)) = (&self.door_canary, &visits) {
                    canary.fly(visits).await;
                }
            };
            tokio::join!(self.canary.fly(&canary), self.udp_canary.fly(&udp), visit);
        }
        let vitals = Arc::clone(self);
        tasks.spawn("machine", async move {
            let mut ticks = interval(LOOK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                vitals.look().await;
            }
        });
        let vitals = Arc::clone(self);
        let watched = config.clone();
        tasks.spawn("canary", async move {
            vitals.canary.keep_flying(&canary, watched).await;
        });
        if let Some(visits) = visits {
            let vitals = Arc::clone(self);
            let watched = config.clone();
            tasks.spawn("canary of a door", async move {
                match &vitals.door_canary {
                    Some(canary) => canary.keep_flying(&visits, watched).await,
                    None => std::future::pending().await,
                }
            });
        }
        if let Some(audited) = &self.audited {
            tasks.spawn("audit of messages", Arc::clone(audited).keep_checking());
        }
        let vitals = Arc::clone(self);
        tasks.spawn("canary over UDP", async move {
            vitals.udp_canary.keep_flying(&udp, config).await;
        });
    }

    async fn look(&self) {
        if let Ok(machine) = spawn_blocking(Machine::look).await {
            self.machine.store(Arc::new(machine));
        }
        self.udp_threads.look(Instant::now());
    }

    /// The drain is to be over after `time`.
    pub(super) fn drain(&self, time: Duration) {
        self.due.get_or_init(|| Instant::now() + time);
    }

    /// Whether peers should be sent here, and why.
    pub(super) fn readiness(&self) -> Readiness {
        let (now, phase, machine) = (Instant::now(), *self.phase.borrow(), **self.machine.load());
        let conditions = [
            ("acme", self.certificates.acme().part()),
            ("audit", parts::written(self.health.audit())),
            ("canary", self.canary.part(now)),
            ("certificates", certificates::part(&self.certificates.of_files(), SystemTime::now())),
            ("cluster", self.cluster()),
            ("control", parts::reachable(self.health.socket())),
            ("descriptors", machine.descriptors()),
            ("drain", self.drained(now)),
            ("keys", parts::believed(self.core.directory.file_trouble())),
            ("memory", machine.memory()),
            ("registry", self.registry()),
            ("reload", self.last_reload.part()),
            ("scheduler", self.lag.part(now)),
            ("switches", parts::served(&self.core.switches())),
            ("udp", self.udp(now)),
        ];
        let mut conditions = BTreeMap::from(conditions);
        if let Some(canary) = &self.door_canary {
            conditions.insert("netbird", canary.part(now));
        }
        if let Some(lag) = &self.message_lag {
            conditions.insert("messages", lag.part(now));
        }
        if let Some(bus) = &self.core.bus {
            let broken = self.audited.as_ref().and_then(|audited| audited.broken());
            conditions.insert("bus", parts::kept(&bus.health(), broken));
        }
        Readiness::new(phase, conditions)
    }

    /// Whether the end has begun.
    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// Whether the process does what it is there for, as far as a restart could mend it.
    pub(super) fn is_alive(&self) -> bool {
        // A runtime that is stuck cannot even ask.
        *self.phase.borrow() != Phase::Running || !self.canary.is_stuck(Instant::now())
    }

    fn cluster(&self) -> Part {
        let Some(cluster) = &self.core.cluster else {
            return Part::ok("not part of one");
        };
        let status = cluster.status();
        if status.cloned {
            let remedy = "remove cluster.key from the state folder of one of them, and restart it";
            return Part::degraded("another relay has this relay's key", remedy);
        }
        if let Some(part) = parts::clocks(&status) {
            return part;
        }
        parts::members(&status)
    }

    /// The worse of the canary over UDP and of the threads that receive.
    fn udp(&self, now: Instant) -> Part {
        let hung = self.udp_threads.hung(now);
        if hung == 0 {
            return self.udp_canary.part(now);
        }
        let remedy = "look at `top` and the log, restart the relay, and report it with its log";
        Part::failed(format!("{hung} of its threads do not receive"), remedy)
    }

    fn registry(&self) -> Part {
        let directory = &self.core.directory;
        let held = directory.held();
        if held > 0 {
            let reason = format!(
                "says that the keys of {held} nodes are gone or changed, too many to be believed: \
                 held back, until it is repeated for an hour"
            );
            let remedy = "`beacon-relay reload --force` believes it at once";
            return Part::degraded(reason, remedy);
        }
        match (directory.registry_is_up(), directory.registry_refuses()) {
            (None, _) => Part::ok("not in use"),
            (Some(true), Some(true)) => {
                let reason = "answers look-ups with an error; what is remembered counts";
                Part::degraded(reason, "look at the registry's log; `beacon-relay doctor` asks it")
            }
            (Some(true), _) => Part::ok("answers"),
            (Some(false), _) => {
                let reason = "cannot be reached; what is remembered counts";
                Part::degraded(
                    reason,
                    "start the registry; `beacon-relay doctor` says what is in the way",
                )
            }
        }
    }

    fn drained(&self, now: Instant) -> Part {
        match self.due.get() {
            None => Part::ok("not asked for"),
            Some(due) => {
                let (peers, left) =
                    (self.core.table.session_count(), due.saturating_duration_since(now));
                let reason = format!("{peers} peers left, {} s to go", left.as_secs());
                Part::failed(reason, "wait; a second SIGTERM ends it at once")
            }
        }
    }

    /// Appends the families of readiness to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        self.canary.families(families);
        self.udp_canary.families(families);
        if let Some(canary) = &self.door_canary {
            canary.families(families);
        }
        if let Some(audited) = &self.audited {
            audited.families(families);
        }
        self.lag.families(families);
        if let Some(lag) = &self.message_lag {
            lag.families(families);
        }
        families.push(family::gauge_value(
            "pilot_beacon_ready",
            "1 while peers should be sent to this relay, as /readyz says.",
            f64::from(u8::from(self.readiness().ready)),
        ));
    }
}
