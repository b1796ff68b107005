//! When a certificate is ordered: at two thirds of its life, later after failures, and never
//! often enough to hit an authority's limits.
//!
//! Sans-IO: the caller passes the times and the randomness. What certificates say is Unix time;
//! waits are by a clock that nobody sets.

use std::time::{Duration, Instant};

use crate::proto::backoff::{between, doubled};

/// Orders an hour that may fail at the authority, also across restarts: Let's Encrypt allows
/// five failed validations for each name.
const MOST_FAILED: usize = 4;

/// What that counts over.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The first wait after a failure that does not count at the authority, and the longest.
const UNCOUNTED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10 * 60));

/// The same after one that does.
const COUNTED: (Duration, Duration) = (Duration::from_secs(60), HOUR);

/// The longest wait that an authority can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest time between two orders that went well, whatever the clock says.
const LEAST_BETWEEN: Duration = Duration::from_secs(2);

/// The longest that is needed of it: a third of a life beyond that is no sign of a wrong clock.
const MOST_BETWEEN: Duration = Duration::from_secs(24 * 60 * 60);

/// When one certificate is ordered.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// When it should be renewed, in Unix time; `None` while there is none.
    renew_at: Option<u64>,
    /// No order before.
    not_before: Option<Instant>,
    /// Failures of one kind in a row, and whether they counted at the authority.
    failures: u32,
    is_counted: bool,
}

impl Schedule {
    /// A certificate of these times, in Unix time, is in force.
    pub(super) fn holds(&mut self, not_before: u64, not_after: u64, random: u32) {
        let life = Duration::from_secs(not_after.saturating_sub(not_before));
        // Many relays of one day shall not come on one day.
        let share = between(life * 3 / 5, life * 2 / 3, random);
        self.renew_at = Some(not_before.saturating_add(share.as_secs()));
    }

    /// It has just come.
    pub(super) fn succeeded(&mut self, life: Duration, now: Instant) {
        self.failures = 0;
        self.not_before = Some(now + (life / 3).clamp(LEAST_BETWEEN, MOST_BETWEEN));
    }

    /// An order has failed; how long to wait before the next.
    pub(super) fn failed(
        &mut self,
        is_counted: bool,
        retry_after: Option<Duration>,
        random: u32,
        now: Instant,
    ) -> Duration {
        let (first, longest) = if is_counted { COUNTED } else { UNCOUNTED };
        if self.is_counted != is_counted {
            // An authority that was long away owes no long wait for what it says then.
            self.failures = 0;
            self.is_counted = is_counted;
        }
        let wait = doubled(first, self.failures, longest);
        let wait = between(wait, wait + wait / 4, random);
        let asked = retry_after.unwrap_or_default().min(LONGEST_ASKED);
        self.failures = self.failures.saturating_add(1);
        self.wait_at_least(wait.max(asked), now)
    }

    /// No order for that long; how long it is in all.
    pub(super) fn wait_at_least(&mut self, wait: Duration, now: Instant) -> Duration {
        let before =
            self.not_before.map_or(Duration::ZERO, |then| then.saturating_duration_since(now));
        let wait = wait.max(before);
        self.not_before = Some(now + wait);
        wait
    }

    /// Time until the next order.
    pub(super) fn due_in(&self, now: Instant, unix: u64) -> Duration {
        let renewal = self.renew_at.map_or(0, |at| at.saturating_sub(unix));
        let wait = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        wait.max(Duration::from_secs(renewal))
    }
}

/// How long no order may be made since so many have failed of late; and those of the last hour.
/// All in Unix time, in seconds.
pub(super) fn too_many(failed: &[u64], unix: u64) -> (Option<Duration>, Vec<u64>) {
    let is_recent = |at: &&u64| **at <= unix && unix - **at < HOUR.as_secs();
    let mut recent: Vec<_> = failed.iter().filter(is_recent).copied().collect();
    recent.sort_unstable();
    let decisive = recent.len().checked_sub(MOST_FAILED).and_then(|at| recent.get(at));
    let wait = decisive.map(|at| Duration::from_secs(at + HOUR.as_secs() - unix));
    (wait, recent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn certificate_is_renewed_before_two_thirds_of_its_life_are_over() {
        let now = Instant::now();
        for (random, at) in [(0, 1_540), (u32::MAX, 1_600)] {
            let mut schedule = Schedule::default();
            assert_eq!(schedule.due_in(now, 1_000), Duration::ZERO, "there is none");
            schedule.holds(1_000, 1_900, random);
            assert_eq!(schedule.due_in(now, 1_000), SECOND * (at - 1_000));
            assert_eq!(schedule.due_in(now, 5_000), Duration::ZERO);
        }
    }

    #[test]
    fn clock_that_is_wrong_orders_no_certificate_after_the_other() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.holds(1_000, 1_900, 0);
        schedule.succeeded(SECOND * 900, now);
        assert_eq!(schedule.due_in(now, 9_000), SECOND * 300);
        schedule.succeeded(SECOND * 90 * 86_400, now);
        assert_eq!(schedule.due_in(now, 9_000), MOST_BETWEEN);
        schedule.succeeded(Duration::ZERO, now);
        assert_eq!(schedule.due_in(now, 9_000), LEAST_BETWEEN);
    }

    #[test]
    fn waits_grow_up_to_a_bound_and_are_what_the_authority_asks_for() {
        let now = Instant::now();
        let waits = |is_counted, count| {
            let mut schedule = Schedule::default();
            let wait = |at: u32| {
                let later = now + HOUR * 9 * at;
                schedule.failed(is_counted, None, 0, later).as_secs()
            };
            (0..count).map(wait).collect::<Vec<_>>()
        };
        assert_eq!(waits(false, 10), [2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        assert_eq!(waits(true, 8), [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        let mut schedule = Schedule { failures: 9, ..Schedule::default() };
        assert_eq!(schedule.failed(true, None, 0, now), SECOND * 60, "the first of its kind");
        let mut schedule = Schedule::default();
        assert_eq!(schedule.failed(false, None, u32::MAX, now).as_millis(), 2_500);
        assert_eq!(schedule.failed(false, Some(SECOND * 90), 0, now), SECOND * 90);
        assert_eq!(schedule.failed(false, Some(HOUR * 99), 0, now), LONGEST_ASKED);
        assert_eq!(schedule.due_in(now, 0), LONGEST_ASKED);
    }

    #[test]
    fn fifth_failure_of_an_hour_waits_for_the_first_to_be_an_hour_old() {
        assert_eq!(too_many(&[], 9_000), (None, vec![]));
        assert_eq!(too_many(&[5_000, 8_000, 8_100, 8_200], 9_000).0, None, "one is older");
        let (wait, recent) = too_many(&[8_300, 8_000, 8_100, 8_200, 1], 9_000);
        assert_eq!(wait, Some(SECOND * 2_600));
        assert_eq!(recent, [8_000, 8_100, 8_200, 8_300]);
        assert_eq!(too_many(&[8_000, 8_100, 8_200, 8_300, 8_400], 9_000).0, Some(SECOND * 2_700));
        // A clock that was set back makes no attempt wait for ever.
        assert_eq!(too_many(&[9_001, 9_002, 9_003, 9_004], 9_000), (None, vec![]));
    }
}
