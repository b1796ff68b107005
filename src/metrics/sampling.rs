//! Takes one of many, at random: what comes in a rhythm must not be taken always or never.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

thread_local! {
    /// State of this thread's generator, never 0.
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(()) | 1);
    /// Whether this thread takes the same ones in each run.
    static IS_FIXED: Cell<bool> = const { Cell::new(false) };
}

/// Of so many one is taken where that is fixed: about what a busy relay takes.
const FIXED_RATE: u32 = 64;

/// Has this thread take the same ones in each run, so that counts of instructions can be
/// compared. For benchmarks alone.
#[doc(hidden)]
pub fn fix_samples() {
    STATE.set(1);
    IS_FIXED.set(true);
}

/// Of how many one is taken where [`fix_samples`] was called on this thread.
pub(super) fn fixed_rate() -> Option<u32> {
    IS_FIXED.get().then_some(FIXED_RATE)
}

/// How many to leave out before the next, so that one of `rate` is taken on average.
#[allow(clippy::cast_possible_truncation)] // the remainder is below a u32
pub(super) fn gap(rate: u32) -> u32 {
    // Marsaglia's xorshift: good enough to fall out of step, and a few instructions.
    let mut state = STATE.get();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    STATE.set(state);
    let rate = u64::from(rate.max(1));
    (state % (2 * rate - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_so_many_is_taken_on_average() {
        assert_eq!(gap(1), 0);
        let rounds = 100_000_u32;
        let sum: u32 = (0..rounds).map(|_| gap(64)).sum();
        // 63 are left out for each that is taken.
        assert!((60 * rounds..66 * rounds).contains(&sum), "{sum}");
    }
}
