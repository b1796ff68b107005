//! Whether the relay is fit for peers: what is looked at by the clock, and what that comes to.

mod canary;
mod lag;
mod machine;
mod udp_threads;
mod visits;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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
use super::acme::Acme;
use super::audited::Audited;
use super::core::Core;
use super::messages::MessageThread;
use super::tasks::Tasks;
use crate::admin::{Condition, Part, Phase, Readiness};
use crate::bus;
use crate::cluster::Status;
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
    acme: Arc<Acme>,
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
    pub(super) fn new(
        phase: watch::Receiver<Phase>,
        config: &Config,
        core: Arc<Core>,
        health: Arc<Health>,
        turns: Vec<Turns>,
        acme: Arc<Acme>,
        is_visited: bool,
    ) -> Self {
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
            acme,
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
        let parts = [
            ("acme", self.acme.part()),
            ("audit", written(self.health.audit())),
            ("canary", self.canary.part(now)),
            ("cluster", self.cluster()),
            ("control", reachable(self.health.socket())),
            ("descriptors", machine.descriptors()),
            ("drain", self.drained(now)),
            ("memory", machine.memory()),
            ("registry", self.registry()),
            ("scheduler", self.lag.part(now)),
            ("udp", self.udp(now)),
        ];
        let mut parts = BTreeMap::from(parts);
        if let Some(canary) = &self.door_canary {
            parts.insert("netbird", canary.part(now));
        }
        if let Some(lag) = &self.message_lag {
            parts.insert("messages", lag.part(now));
        }
        if let Some(bus) = &self.core.bus {
            let broken = self.audited.as_ref().and_then(|audited| audited.broken());
            parts.insert("bus", kept(&bus.health(), broken));
        }
        Readiness::new(phase, parts)
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
            return Part::new(Condition::Ok, "not part of one");
        };
        let status = cluster.status();
        if status.cloned {
            let reason = "another relay has this relay's key: remove cluster.key of one";
            return Part::new(Condition::Degraded, reason);
        }
        if let Some(part) = clocks(&status) {
            return part;
        }
        let members = status.members;
        let up = members.iter().filter(|member| member.state == "up").count();
        // The first relay of a cluster has to be ready while it is alone.
        let condition = if members.is_empty() || up < members.len() {
            Condition::Degraded
        } else {
            Condition::Ok
        };
        Part::new(condition, format!("{} other relays, {up} of them up", members.len()))
    }

    /// The worse of the canary over UDP and of the threads that receive.
    fn udp(&self, now: Instant) -> Part {
        let hung = self.udp_threads.hung(now);
        if hung == 0 {
            return self.udp_canary.part(now);
        }
        Part::new(Condition::Failed, format!("{hung} of its threads do not receive"))
    }

    fn registry(&self) -> Part {
        let directory = &self.core.directory;
        let held = directory.held();
        if held > 0 {
            let reason = format!(
                "says that the keys of {held} nodes are gone or changed, too many to be believed: \
                 held back, until it is repeated for an hour or `beacon-relay reload --force`"
            );
            return Part::new(Condition::Degraded, reason);
        }
        match (directory.registry_is_up(), directory.registry_refuses()) {
            (None, _) => Part::new(Condition::Ok, "not in use"),
            (Some(true), Some(true)) => {
                let reason = "answers look-ups with an error; what is remembered counts";
                Part::new(Condition::Degraded, reason)
            }
            (Some(true), _) => Part::new(Condition::Ok, "answers"),
            (Some(false), _) => {
                Part::new(Condition::Degraded, "cannot be reached; what is remembered counts")
            }
        }
    }

    fn drained(&self, now: Instant) -> Part {
        match self.due.get() {
            None => Part::new(Condition::Ok, "not asked for"),
            Some(due) => {
                let (peers, left) =
                    (self.core.table.session_count(), due.saturating_duration_since(now));
                let reason = format!("{peers} peers left, {} s to go", left.as_secs());
                Part::new(Condition::Failed, reason)
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

/// That a clock of the cluster is off, if one is: relays whose clocks are a minute apart do
/// not believe each other.
fn clocks(cluster: &Status) -> Option<Part> {
    let difference = |ahead_ms: Option<i64>| {
        let ahead_ms = ahead_ms.unwrap_or_default();
        let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
        format!("{} s {side}", ahead_ms.unsigned_abs() / 1_000)
    };
    let reason = if cluster.clock_is_off {
        let difference = difference(cluster.clock_ahead_ms);
        format!("this relay's clock is {difference} the other relays'")
    } else {
        let member = cluster.members.iter().find(|member| member.clock_is_off)?;
        let difference = difference(member.clock_ahead_ms);
        format!("the clock of relay {} is {difference} this one's", member.relay)
    };
    Some(Part::new(Condition::Degraded, reason))
}

/// Whether messages can be kept.
fn kept(bus: &bus::Health, broken: Option<String>) -> Part {
    match bus {
        bus::Health::Serving => broken.map_or_else(
            || Part::new(Condition::Ok, "takes messages"),
            |reason| {
                let reason = format!("its audit log is not what this relay wrote: {reason}");
                Part::new(Condition::Degraded, reason)
            },
        ),
        bus::Health::Damaged(reason) => {
            let reason = format!("some of what is stored cannot be read: {reason}");
            Part::new(Condition::Degraded, reason)
        }
        bus::Health::Limited(trouble) => Part::new(Condition::Degraded, trouble.to_string()),
        bus::Health::Full => {
            let reason = "the disk is full: new messages wait or are refused, the rest goes on";
            Part::new(Condition::Degraded, reason)
        }
        bus::Health::Unavailable(trouble) => {
            Part::new(Condition::Failed, format!("messages cannot be stored: {trouble}"))
        }
    }
}

/// How the audit log is, by what is wrong with it.
fn written(trouble: Option<String>) -> Part {
    trouble.map_or_else(
        || Part::new(Condition::Ok, "nothing was lost"),
        |reason| Part::new(Condition::Degraded, format!("cannot be written: {reason}")),
    )
}

/// How the control socket is, by what is wrong with it.
fn reachable(trouble: Option<String>) -> Part {
    trouble.map_or_else(
        || Part::new(Condition::Ok, "the socket is there"),
        |reason| Part::new(Condition::Degraded, format!("no socket: {reason}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_whose_messages_cannot_be_stored_is_not_ready_and_says_why() {
        let reason = "no space left".to_owned();
        let trouble = bus::Trouble { reason, since: Instant::now() };
        let unavailable = bus::Health::Unavailable(trouble);
        let of = |health: &bus::Health, broken: Option<&str>| {
            let Part { condition, reason } = kept(health, broken.map(str::to_owned));
            (condition, reason)
        };
        let reason = "messages cannot be stored: no space left, for 0 s".to_owned();
        assert_eq!(of(&unavailable, None), (Condition::Failed, reason));
        assert_eq!(of(&bus::Health::Serving, None).0, Condition::Ok);
        assert_eq!(of(&bus::Health::Full, None).0, Condition::Degraded);
        let trouble = bus::Trouble { reason: "no NATS".to_owned(), since: Instant::now() };
        let limited = of(&bus::Health::Limited(trouble), None);
        assert_eq!(limited, (Condition::Degraded, "no NATS, for 0 s".to_owned()));
        let (condition, reason) = of(&bus::Health::Serving, Some("entry 7"));
        assert_eq!((condition, reason.ends_with("entry 7")), (Condition::Degraded, true));
    }
}
