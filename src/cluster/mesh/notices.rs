//! Warnings about strangers: once a minute for each address, so that nobody who can reach
//! the port fills the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long an address stays quiet after a warning about it.
const QUIET: Duration = Duration::from_secs(60);

/// Addresses that are remembered; while they are so many, others get no warning.
const ROOM: usize = 1_024;

/// Who was warned about.
#[derive(Debug, Default)]
pub(super) struct Notices {
    warned: Mutex<HashMap<IpAddr, Instant>>,
}

impl Notices {
    /// Whether a warning about this address is due; it counts as given.
    pub(super) fn is_due(&self, address: IpAddr, now: Instant) -> bool {
        let is_quiet = |at: Instant| now.saturating_duration_since(at) < QUIET;
        let mut warned = self.warned.lock();
        if warned.len() >= ROOM {
            warned.retain(|_, at| is_quiet(*at));
        }
        match warned.get(&address) {
            Some(at) if is_quiet(*at) => false,
            None if warned.len() >= ROOM => false,
            Some(_) | None => {
                warned.insert(address, now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_warned_about_once_a_minute() {
        let (notices, t0) = (Notices::default(), Instant::now());
        let [one, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        assert!(notices.is_due(one, t0) && notices.is_due(other, t0));
        assert!(!notices.is_due(one, t0 + QUIET - Duration::from_millis(1)));
        assert!(notices.is_due(one, t0 + QUIET));
    }

    #[test]
    fn a_crowd_of_addresses_is_not_remembered() {
        let (notices, t0) = (Notices::default(), Instant::now());
        let due = |from: u32, now| {
            (from..from + 2_000)
                .filter(|n| notices.is_due(IpAddr::from(n.to_be_bytes()), now))
                .count()
        };
        assert_eq!(due(0, t0), ROOM);
        assert_eq!(due(10_000, t0), 0);
        assert_eq!(due(20_000, t0 + QUIET), ROOM);
        assert_eq!(notices.warned.lock().len(), ROOM);
    }
}
