//! That another relay has this relay's key: a state folder that was copied. The two never link,
//! and the others take them for one relay that starts again and again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long nothing more is said of a clone that goes on.
const QUIET: Duration = Duration::from_secs(600);

/// How long a clone of which nothing more is heard counts as there, at least.
const MEMORY: Duration = Duration::from_secs(120);

/// When a clone was heard of, and when that was said.
#[derive(Debug, Default)]
pub(super) struct Clone(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<Instant>,
    said: Option<Instant>,
}

impl Clone {
    /// Notes that a clone was heard of; whether that is to be said.
    pub(super) fn heard(&self, now: Instant) -> bool {
        let mut seen = self.0.lock();
        seen.last = Some(now);
        let is_due = seen.said.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        if is_due {
            seen.said = Some(now);
        }
        is_due
    }

    /// Whether there is a clone, as far as it gives a sign of life every `keepalive`.
    pub(super) fn is_there(&self, keepalive: Duration, now: Instant) -> bool {
        let memory = MEMORY.max(keepalive * super::DEAD_AFTER);
        let last = self.0.lock().last;
        last.is_some_and(|at| now.saturating_duration_since(at) < memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_is_said_at_once_and_every_ten_minutes_and_forgotten_when_it_is_gone() {
        let (clone, t0) = (Clone::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(!clone.is_there(second, t0));
        let said = [0, 5, 599, 600, 605].map(|s| clone.heard(t0 + s * second));
        assert_eq!(said, [true, false, false, true, false]);
        let is_there = |s, keepalive| clone.is_there(keepalive, t0 + s * second);
        assert!(is_there(724, second) && !is_there(725, second));
        assert!(is_there(1_504, 300 * second) && !is_there(1_505, 300 * second));
    }
}
