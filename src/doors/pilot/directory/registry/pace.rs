//! How fast one connection may ask the registry.
//!
//! Sans-IO: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Time of one request: 70 a second.
///
/// A registry lets a connection wait that asks more than 100 times a second, and closes one that
/// asks more than 500 times.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / 70);

/// Requests at once after a pause: no second has more than 78 = 70 + 8.
const BURST: u32 = 8;

/// The pace of one connection, kept when it is made anew.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that was asked would have been asked at an even pace.
    even: Option<Instant>,
}

impl Pace {
    /// From when on the next request may go.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        let burst = INTERVAL * (BURST - 1);
        self.even.and_then(|even| even.checked_sub(burst)).map_or(now, |at| at.max(now))
    }

    /// Counts a request that goes now.
    pub(super) fn take(&mut self, now: Instant) {
        self.even = Some(self.even.map_or(now, |even| even.max(now)) + INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_78_requests() {
        let mut pace = Pace::default();
        let mut now = Instant::now() + Duration::from_secs(10);
        let mut sent = Vec::new();
        for round in 0..1_000 {
            now = pace.ready_at(now);
            pace.take(now);
            sent.push(now);
            if round % 100 == 0 {
                now += Duration::from_millis(500);
            }
        }
        for (first, start) in sent.iter().enumerate() {
            let until = *start + Duration::from_secs(1);
            let in_second = sent[first..].iter().take_while(|at| **at < until).count();
            assert!(in_second <= 78, "{in_second}");
        }
        let took = now - sent[0];
        assert!(took < Duration::from_secs(19), "{took:?} for 1,000");
    }
}
