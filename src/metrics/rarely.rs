//! Lines of the log that somebody else can cause at will: they are said once in a while.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines of one kind.
const QUIET: Duration = Duration::from_secs(60);

/// When something was last said aloud.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    /// Whether it is time to say it again; if so, it counts as said.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_repeated_after_a_minute() {
        let rarely = Rarely::default();
        let t0 = Instant::now();
        assert!(rarely.is_due(t0));
        assert!(!rarely.is_due(t0 + QUIET - Duration::from_millis(1)));
        assert!(rarely.is_due(t0 + QUIET));
        assert!(!rarely.is_due(t0 + QUIET));
    }
}
