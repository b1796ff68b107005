//! How long to wait before another attempt: longer each time, and spread at random, so that
//! many who lost the same thing at once do not come back at once.
//!
//! Sans-IO: randomness is an argument.

use std::time::Duration;

/// `first`, doubled so many times, but `longest` at most.
#[must_use]
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}

/// A time from `shortest` to `longest`, where `random` is in the range of its type.
#[must_use]
pub fn between(shortest: Duration, longest: Duration, random: u32) -> Duration {
    let spread = longest.saturating_sub(shortest);
    shortest + spread.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn doubles_up_to_the_longest_whatever_the_number() {
        let waits = [0, 1, 2, 3, 31, 32, u32::MAX].map(|times| doubled(SECOND, times, SECOND * 5));
        assert_eq!(waits.map(|wait| wait.as_secs()), [1, 2, 4, 5, 5, 5, 5]);
        assert_eq!(doubled(SECOND * 9, 0, SECOND), SECOND);
    }

    #[test]
    fn spreads_from_one_end_to_the_other() {
        let spread = |random| between(SECOND, SECOND * 3, random).as_millis();
        assert_eq!([0, u32::MAX / 2 + 1, u32::MAX].map(spread), [1_000, 2_000, 3_000]);
        assert_eq!(between(SECOND, Duration::ZERO, 7), SECOND);
    }
}
