//! How long to wait before the next attempt to reach the registry.

use std::time::Duration;

use crate::proto::backoff::{between, doubled};

/// Longest first wait; each further one may be twice as long.
const FIRST: Duration = Duration::from_millis(500);

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row. With jitter, the waits lie between 250 ms and 30 s.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure; the wait after it is between half and all of what its number
    /// allows, chosen by `random`.
    pub(super) fn next(&mut self, random: u32) -> Duration {
        let longest = doubled(FIRST, self.failures, LONGEST);
        self.failures = self.failures.saturating_add(1);
        between(longest / 2, longest, random)
    }

    /// Forgets the failures, since the registry has answered.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_250_ms_to_30_s_and_start_again() {
        let mut backoff = Backoff::default();
        let mut shortest = || backoff.next(0).as_millis();
        let waits: Vec<_> = (0..8).map(|_| shortest()).collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        assert_eq!(backoff.next(u32::MAX), LONGEST);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), FIRST);
    }
}
