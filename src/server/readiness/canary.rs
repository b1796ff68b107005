//! Sends the canary off by the clock, and remembers how it came back.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{info, warn};

use crate::admin::{Condition, Part};
use crate::config::Config;
use crate::doors::pilot;
use crate::metrics::{Buckets, Histogram, Labelled, family};
use crate::{udp, words};

/// Longest flight; a peer's patience.
const LIMIT: Duration = Duration::from_secs(3);

/// Longest wait after a flight that went wrong.
const RETRY: Duration = Duration::from_secs(1);

/// Flights in a row that go wrong before the relay is not ready; one can be an accident.
const FAILURES: u32 = 2;

/// What a busy machine may be late by before it counts.
const GRACE: Duration = Duration::from_secs(5);

/// From one on an idle machine (two signatures, a handful of packets) to the longest.
const TIME: Buckets = &[
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    LIMIT,
];

words! {
    /// How a flight ended.
    pub(super) enum Landing {
        Ok => "ok",
        Connect => "connect",
        Login => "login",
        Session => "session",
        Timeout => "timeout",
    }
}

/// What to do where nothing is heard of a canary.
const OVERDUE: &str = "the CPU is full, or the relay hangs: look at `top` and the log, and restart it \
                       if it stays like this";

impl Landing {
    /// What to do about it.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Ok => "wait for the first flight",
            Self::Connect => {
                "let the relay's user connect to its own listener: look at the firewall, and at \
                 SocketUser= of a socket of systemd"
            }
            Self::Login | Self::Session => {
                "`beacon-relay doctor` and the log say what a peer would see"
            }
            Self::Timeout => {
                "the CPU is full, or a local firewall drops it: look at `top`, give the relay more of \
                 the CPU, or add a relay"
            }
        }
    }
}

/// A canary that can be sent off.
pub(super) trait Flight: Send + Sync {
    /// Why it may go wrong.
    type Error: Failure;

    /// Makes one flight, within `limit`; how long it took.
    fn fly(&self, limit: Duration) -> impl Future<Output = Result<Duration, Self::Error>> + Send;
}

impl Flight for pilot::Canary {
    type Error = pilot::CanaryError;

    async fn fly(&self, limit: Duration) -> Result<Duration, pilot::CanaryError> {
        Self::fly(self, limit).await
    }
}

impl Flight for udp::Canary {
    type Error = udp::CanaryError;

    async fn fly(&self, limit: Duration) -> Result<Duration, udp::CanaryError> {
        self.there_and_back(limit).await
    }
}

/// Why a flight went wrong.
pub(super) trait Failure: fmt::Debug + fmt::Display + Send + 'static {
    /// What it counts as.
    fn landing(&self) -> Landing;

    /// Whether it shows no fault of the relay, so that peers need not go elsewhere.
    fn is_excused(&self) -> bool;

    /// What to do about it.
    fn remedy(&self) -> &'static str {
        self.landing().remedy()
    }
}

impl Failure for pilot::CanaryError {
    fn landing(&self) -> Landing {
        match self {
            Self::Connect(_) => Landing::Connect,
            Self::Login(_) => Landing::Login,
            Self::Late(_) => Landing::Timeout,
            Self::At { error, .. } => error.landing(),
            Self::Session(_) | Self::Send(_) | Self::Ended => Landing::Session,
        }
    }

    fn is_excused(&self) -> bool {
        false
    }
}

impl Failure for udp::CanaryError {
    fn landing(&self) -> Landing {
        match self {
            Self::Send(_) | Self::AddressNotHere(_) => Landing::Connect,
            Self::Late(_) | Self::Crowded { .. } => Landing::Timeout,
            Self::Elsewhere(error) => error.landing(),
        }
    }

    fn is_excused(&self) -> bool {
        Self::is_excused(self)
    }

    fn remedy(&self) -> &'static str {
        match self {
            Self::Send(_) | Self::Late(_) => self.landing().remedy(),
            Self::Crowded { .. } => {
                "look for a flood (the alert on kernel drops), and raise net.core.rmem_max: see \
                 docs/INSTALL.md"
            }
            Self::AddressNotHere(_) => "give the machine the address, or correct --udp-bind",
            Self::Elsewhere(_) => {
                "look whether nodes are served; if so, --canary-interval 0s turns the canary off"
            }
        }
    }
}

/// What a canary is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// In the log: what it flies over, or the door.
    pub(super) over: &'static str,
    /// The family of the times that it takes.
    seconds: &'static str,
    /// The family of its flights.
    total: &'static str,
}

impl Names {
    /// That of Pilot over WebSocket.
    pub(super) const WSS: Self = Self {
        over: "wss",
        seconds: "pilot_beacon_canary_seconds",
        total: "pilot_beacon_canary_total",
    };

    /// That of Pilot over UDP.
    pub(super) const UDP: Self = Self {
        over: "udp",
        seconds: "pilot_beacon_udp_canary_seconds",
        total: "pilot_beacon_udp_canary_total",
    };

    /// That of the NetBird door.
    pub(super) const NETBIRD: Self = Self {
        over: "netbird",
        seconds: "beacon_relay_netbird_canary_seconds",
        total: "beacon_relay_netbird_canary_total",
    };
}

/// How a canary fares: one over WebSocket, one over UDP, or that of a door.
#[derive(Debug)]
pub(super) struct Canary<E> {
    names: Names,
    state: Mutex<State<E>>,
    time: Histogram,
    landings: Labelled<Landing>,
}

#[derive(Debug)]
struct State<E> {
    /// Between flights; none are made where it is zero.
    interval: Duration,
    /// When the next flight begins, unless it is under way.
    due: Instant,
    /// When the last flight ended, or the first could have begun.
    landed: Instant,
    /// How long the last took that went well.
    took: Option<Duration>,
    /// Flights since then.
    failures: u32,
    /// The last of them, in a row, that nothing excuses.
    faults: u32,
    error: Option<E>,
}

impl<E: Failure> Canary<E> {
    pub(super) fn new(names: Names, interval: Duration) -> Self {
        let landed = Instant::now();
        let due = landed + interval;
        let state =
            State { interval, due, landed, took: None, failures: 0, faults: 0, error: None };
        let (state, landings) = (Mutex::new(state), Labelled::default());
        Self { names, state, time: Histogram::new(TIME), landings }
    }

    /// Makes one flight.
    pub(super) async fn fly(&self, flight: &impl Flight<Error = E>) {
        self.note(flight.fly(LIMIT).await);
    }

    fn note(&self, flight: Result<Duration, E>) {
        let landing = flight.as_ref().map_or_else(Failure::landing, |_| Landing::Ok);
        self.landings.of(landing).increment();
        let mut state = self.state.lock();
        state.landed = Instant::now();
        match flight {
            Ok(took) => {
                self.time.observe(took);
                if state.failures >= FAILURES {
                    let over = self.names.over;
                    info!(over, failures = state.failures, "the canary is served again");
                }
                state.took = Some(took);
                state.failures = 0;
                state.faults = 0;
                state.error = None;
            }
            Err(error) => {
                state.failures += 1;
                state.faults = if error.is_excused() { 0 } else { state.faults + 1 };
                if state.failures == FAILURES || state.took.is_none() && state.failures == 1 {
                    let over = self.names.over;
                    warn!(over, %error, "the relay does not serve its canary: peers may not be served either");
                }
                state.error = Some(error);
            }
        }
        let wait = if state.failures == 0 { state.interval } else { state.interval.min(RETRY) };
        state.due = state.landed + wait;
    }

    /// When the next flight is due at this interval; never where it is zero. Another interval
    /// than before begins with a flight, and is not held against the one before.
    fn next(&self, interval: Duration, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        if state.interval != interval {
            (state.interval, state.landed, state.due) = (interval, now, now);
        }
        (!interval.is_zero()).then_some(state.due)
    }

    /// Makes a flight whenever one is due, for ever.
    pub(super) async fn keep_flying(
        &self,
        flight: &impl Flight<Error = E>,
        mut config: watch::Receiver<Arc<Config>>,
    ) {
        loop {
            let interval = config.borrow_and_update().canary_interval;
            let due = self.next(interval, Instant::now());
            let wait = sleep_until(due.unwrap_or_else(Instant::now).into());
            tokio::select! {
                () = wait, if due.is_some() => self.fly(flight).await,
                Ok(()) = config.changed() => {}
                // Off, and nobody can change that any more.
                else => return std::future::pending().await,
            }
        }
    }

    /// How it fares at this moment.
    pub(super) fn part(&self, now: Instant) -> Part {
        let state = self.state.lock();
        let ago = now.saturating_duration_since(state.landed);
        match (&state.error, state.took) {
            _ if state.interval.is_zero() => Part::ok("off"),
            _ if state.is_overdue(now) => {
                let reason = format!("nothing of it for {:.1} s", ago.as_secs_f64());
                Part::failed(reason, OVERDUE)
            }
            (None, None) => {
                Part::failed("not back from its first flight yet", Landing::Ok.remedy())
            }
            (None, Some(took)) => {
                let (ms, ago) = (took.as_secs_f64() * 1e3, ago.as_secs_f64());
                Part::ok(format!("back after {ms:.1} ms, {ago:.1} s ago"))
            }
            (Some(error), took) => {
                let may_be_accident = state.faults < FAILURES && took.is_some();
                let condition = if may_be_accident || error.is_excused() {
                    Condition::Degraded
                } else {
                    Condition::Failed
                };
                let times = state.failures;
                let reason = format!("{error}; failed {times} times in a row");
                Part::judged(condition, reason, error.remedy())
            }
        }
    }

    /// Whether the relay has stopped to get to it, although it once did: what a restart mends.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let is_late = state.error.as_ref().is_some_and(|e| e.landing() == Landing::Timeout);
        let has_failed = state.took.is_some() && state.faults >= FAILURES && is_late;
        !state.interval.is_zero() && (has_failed || state.is_overdue(now))
    }

    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let Names { seconds, total, .. } = self.names;
        families.extend([
            self.time.family(
                seconds,
                "Time of the relay's own canary from its connection to the packet it sent itself.",
            ),
            family::labelled(
                total,
                "Flights of the canary, by how they ended.",
                "result",
                &self.landings,
            ),
        ]);
    }
}

impl<E> State<E> {
    fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.landed) > self.interval + LIMIT + GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::pilot::CanaryError;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// A canary after these flights, and when the last of them ended.
    fn after(flights: Vec<Result<(), CanaryError>>) -> (Canary<CanaryError>, Instant) {
        let canary = Canary::new(Names::WSS, INTERVAL);
        for flight in flights {
            canary.note(flight.map(|()| RETRY));
        }
        let landed = canary.state.lock().landed;
        (canary, landed)
    }

    #[test]
    fn one_failure_may_be_an_accident_and_two_are_none() {
        let (late, ended) = (|| Err(CanaryError::Late(LIMIT)), || Err(CanaryError::Ended));
        for (flights, condition, stuck) in [
            (vec![], Condition::Failed, false),
            (vec![Ok(())], Condition::Ok, false),
            (vec![Ok(()), late()], Condition::Degraded, false),
            (vec![Ok(()), late(), late()], Condition::Failed, true),
            (vec![Ok(()), late(), late(), Ok(())], Condition::Ok, false),
            // What does not get through is no reason for a restart, nor what never did.
            (vec![Ok(()), ended(), ended()], Condition::Failed, false),
            (vec![late()], Condition::Failed, false),
            (vec![late(), late()], Condition::Failed, false),
        ] {
            let said = format!("{flights:?}");
            let (canary, now) = after(flights);
            assert_eq!(
                (canary.part(now).condition, canary.is_stuck(now)),
                (condition, stuck),
                "{said}"
            );
        }
    }

    #[test]
    fn flood_or_an_address_that_is_not_here_takes_no_relay_out_of_rotation() {
        use crate::udp::CanaryError;

        let late = || Err(CanaryError::Late(LIMIT));
        let crowded = || Err(CanaryError::Crowded { limit: LIMIT, dropped: 1 });
        let away = || {
            let missing = std::io::ErrorKind::AddrNotAvailable.into();
            Err(CanaryError::AddressNotHere(missing))
        };
        for (flights, condition) in [
            (vec![Ok(()), crowded(), crowded(), crowded()], Condition::Degraded),
            // Nor one that has just started.
            (vec![crowded()], Condition::Degraded),
            (vec![away(), away()], Condition::Degraded),
            (vec![Ok(()), late(), crowded(), late()], Condition::Degraded),
            // It is not the flood that it is lost in.
            (vec![Ok(()), crowded(), late(), late()], Condition::Failed),
        ] {
            let said = format!("{flights:?}");
            let canary = Canary::new(Names::UDP, INTERVAL);
            for flight in flights {
                canary.note(flight.map(|()| RETRY));
            }
            let landed = canary.state.lock().landed;
            assert_eq!(canary.part(landed).condition, condition, "{said}");
        }
    }

    #[test]
    fn another_interval_begins_with_a_flight_and_is_not_overdue() {
        let (canary, landed) = after(vec![Ok(())]);
        assert_eq!(canary.next(INTERVAL, landed), Some(landed + INTERVAL));
        assert_eq!(canary.next(Duration::ZERO, landed), None);
        let later = landed + INTERVAL * 100;
        assert_eq!(canary.next(INTERVAL, later), Some(later));
        assert_eq!(canary.part(later).condition, Condition::Ok);
        assert!(!canary.is_stuck(later));
        // A reload of something else puts nothing off.
        assert_eq!(canary.next(INTERVAL, later + RETRY), Some(later));
        let shorter = later + INTERVAL;
        assert_eq!(canary.next(RETRY, shorter), Some(shorter));
        assert!(!canary.is_stuck(shorter + LIMIT + GRACE));
    }

    #[test]
    fn canary_that_is_not_heard_of_has_failed() {
        let (canary, now) = after(vec![Ok(())]);
        let most = INTERVAL + LIMIT + GRACE;
        assert_eq!(canary.part(now + most).condition, Condition::Ok);
        let later = now + most + RETRY;
        assert_eq!(canary.part(later).condition, Condition::Failed);
        assert!(canary.is_stuck(later));

        canary.state.lock().interval = Duration::ZERO;
        assert_eq!(canary.part(later), Part::ok("off"));
        assert!(!canary.is_stuck(later));
    }
}
