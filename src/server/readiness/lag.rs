//! How late the runtime gets to what is due: all peers wait that long.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::time::sleep_until;

use crate::admin::{Condition, Part};
use crate::metrics::{Buckets, Histogram};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// For how long a lag is remembered, at least.
const MEMORY: Duration = Duration::from_secs(5);

/// A lag that peers notice.
const SLOW: Duration = Duration::from_millis(100);

/// A lag after which none should be sent here.
const STUCK: Duration = Duration::from_secs(1);

/// What to do about a lag.
const REMEDY: &str = "look at `top`, and at a virtual machine's steal time: give the relay more of \
                      the CPU, or add a relay";

/// The timer itself counts in milliseconds.
const LAGS: Buckets = &[
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// How late the runtime is.
#[derive(Debug)]
pub(super) struct Lag {
    family: (&'static str, &'static str),
    lags: Histogram,
    state: Mutex<State>,
}

/// The worst lags of this stretch of time and of the one before.
#[derive(Debug)]
struct State {
    due: Instant,
    since: Instant,
    worst: Duration,
    worst_before: Duration,
}

impl Lag {
    /// That of a runtime, with the name and the help of its metric.
    pub(super) fn new(name: &'static str, help: &'static str) -> Self {
        let now = Instant::now();
        let (worst, worst_before) = (Duration::ZERO, Duration::ZERO);
        let state = State { due: now + INTERVAL, since: now, worst, worst_before };
        Self { family: (name, help), lags: Histogram::new(LAGS), state: Mutex::new(state) }
    }

    /// Looks again and again, for ever.
    pub(super) async fn watch(&self) {
        loop {
            let due = Instant::now() + INTERVAL;
            self.state.lock().due = due;
            sleep_until(due.into()).await;
            self.note(due, Instant::now());
        }
    }

    fn note(&self, due: Instant, now: Instant) {
        let lag = now.saturating_duration_since(due);
        self.lags.observe(lag);
        let mut state = self.state.lock();
        if now >= state.since + MEMORY {
            (state.since, state.worst_before, state.worst) = (now, state.worst, Duration::ZERO);
        }
        state.worst = state.worst.max(lag);
    }

    /// The worst lag of the last seconds, one that goes on among them.
    pub(super) fn worst(&self, now: Instant) -> Duration {
        let state = self.state.lock();
        let present = now.saturating_duration_since(state.due);
        present.max(state.worst).max(state.worst_before)
    }

    /// How that is for peers.
    pub(super) fn part(&self, now: Instant) -> Part {
        let worst = self.worst(now);
        let condition = match worst {
            worst if worst >= STUCK => Condition::Failed,
            worst if worst >= SLOW => Condition::Degraded,
            _ => Condition::Ok,
        };
        Part::judged(condition, format!("at most {} ms late", worst.as_millis()), REMEDY)
    }

    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let (name, help) = self.family;
        families.push(self.lags.family(name, help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_remembered_for_seconds_and_one_that_goes_on_counts() {
        let lag = Lag::new("lag", "of a test");
        let due = lag.state.lock().due;
        let condition = |at: Duration| {
            lag.state.lock().due = due + at;
            lag.part(due + at).condition
        };
        assert_eq!(condition(Duration::ZERO), Condition::Ok);
        lag.note(due, due + SLOW);
        assert_eq!(condition(SLOW), Condition::Degraded);
        lag.note(due + SLOW, due + SLOW + STUCK);
        assert_eq!(condition(STUCK * 3), Condition::Failed);
        for stretch in 1..=2 {
            let at = due + (MEMORY + STUCK) * stretch;
            lag.note(at, at);
        }
        assert_eq!(condition((MEMORY + STUCK) * 2), Condition::Ok);
        assert_eq!(lag.worst(due + (MEMORY + STUCK) * 2 + SLOW), SLOW);
    }
}
