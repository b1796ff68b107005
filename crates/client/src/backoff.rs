//! When to dial again: the fleet's back-off, from 250 ms to 30 s with full jitter.
//!
//! Sans-IO: randomness and the length of a session are arguments.

use std::time::Duration;

use beacon_proto::backoff::{between, doubled};

/// Shortest wait before a redial.
pub const FLOOR: Duration = Duration::from_millis(250);

/// Longest wait before a redial.
pub const CEILING: Duration = Duration::from_secs(30);

/// A session that lived this long was a good one: the next redial starts from the floor.
///
/// One ping interval. Two daemons that share an identity replace each other within
/// milliseconds; they must not take each login for a success and chase at full speed.
pub const SETTLED: Duration = Duration::from_secs(30);

/// The wait before redial number `attempt` (from 0), spread evenly by `random` between the
/// floor and a ceiling that doubles from 500 ms.
#[must_use]
pub fn delay(attempt: u32, random: u32) -> Duration {
    between(FLOOR, doubled(FLOOR * 2, attempt, CEILING), random)
}

/// How many redials in a row there were.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// The wait before the next redial.
    #[must_use]
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let delay = delay(self.attempt, random);
        self.attempt = self.attempt.saturating_add(1);
        delay
    }

    /// Starts from the floor again if the session that just ended was a good one.
    pub fn session_ended(&mut self, lived: Duration) {
        if lived >= SETTLED {
            self.attempt = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceiling_doubles_to_thirty_seconds() {
        let ceilings: Vec<_> = (0..9).map(|attempt| delay(attempt, u32::MAX).as_millis()).collect();
        assert_eq!(ceilings, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(delay(u32::MAX, u32::MAX), CEILING);
    }

    #[test]
    fn jitter_spreads_evenly_above_the_floor() {
        for attempt in [0, 3, 40] {
            assert_eq!(delay(attempt, 0), FLOOR);
        }
        let middle = delay(10, u32::MAX / 2).as_millis();
        assert!((15_120..=15_130).contains(&middle), "{middle} ms");
    }

    #[test]
    fn only_a_session_that_lived_resets_the_count() {
        let mut backoff = Backoff::default();
        for expected in [500, 1_000, 2_000] {
            assert_eq!(backoff.next_delay(u32::MAX), Duration::from_millis(expected));
            backoff.session_ended(SETTLED - Duration::from_millis(1));
        }
        backoff.session_ended(SETTLED);
        assert_eq!(backoff.next_delay(u32::MAX), Duration::from_millis(500));
    }
}
