//! The ports of one host that have spoken and have no place: which of them came back.
//!
//! There is room for each port that there is, so that whoever forges Syncs from many of them
//! crowds none out; what they say is not kept.

use std::time::{Duration, Instant};

/// Seconds after which a port that speaks again has come back: who sends twice at once has not.
const COMES_BACK_AFTER: u16 = 6;

/// Seconds after which it begins anew: the time of three Syncs.
const FORGOTTEN_AFTER: u16 = 30;

/// Ports that a host can have, 0 among them.
const PORTS: usize = 1 << 16;

/// When each port of a host was first heard.
#[derive(Debug)]
pub(super) struct Newcomers {
    began: Instant,
    /// When the last was heard.
    heard: Instant,
    /// Seconds since the beginning, modulo 2^16: what is older than 18 hours may look new, which
    /// brings a port no more than one Sync does. 0 for a port that was not heard.
    since: Box<[u16]>,
}

impl Newcomers {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, heard: now, since: vec![0; PORTS].into() }
    }

    /// Notes that a port has spoken; since when it did, if it came back.
    pub(super) fn note(&mut self, port: u16, now: Instant) -> Option<Instant> {
        self.heard = now;
        let second = self.second(now);
        let since = self.since_of(port);
        let age = second.wrapping_sub(*since);
        if *since == 0 || age > FORGOTTEN_AFTER {
            *since = second;
            return None;
        }
        let first = now.checked_sub(Duration::from_secs(age.into())).unwrap_or(now);
        (age >= COMES_BACK_AFTER).then_some(first)
    }

    /// Forgets a port: it has to come back once more for another place.
    pub(super) fn forget(&mut self, port: u16) {
        *self.since_of(port) = 0;
    }

    /// Whether nobody has spoken for so long that none could come back.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.heard + Duration::from_secs(FORGOTTEN_AFTER.into()) + Duration::from_secs(1)
    }

    fn since_of(&mut self, port: u16) -> &mut u16 {
        self.since.get_mut(usize::from(port)).expect("there is one for each port")
    }

    /// Never 0.
    #[allow(clippy::cast_possible_truncation)] // modulo 2^16 is meant
    fn second(&self, now: Instant) -> u16 {
        let seconds = now.saturating_duration_since(self.began).as_secs() as u16;
        seconds.wrapping_add(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_comes_back_after_its_next_sync_however_many_others_speak() {
        let t0 = Instant::now();
        let mut newcomers = Newcomers::new(t0);
        let at = |seconds| t0 + Duration::from_secs(seconds);
        assert_eq!(newcomers.note(9_001, t0), None);
        for port in 0..=u16::MAX {
            newcomers.note(port, t0);
        }
        assert_eq!(newcomers.note(9_001, at(5)), None, "too soon");
        assert_eq!(newcomers.note(9_001, at(10)), Some(t0));
        assert_eq!(newcomers.note(9_001, at(30)), Some(t0));
        assert_eq!(newcomers.note(9_001, at(31)), None, "it begins anew");
        assert_eq!(newcomers.note(9_001, at(41)), Some(at(31)));

        newcomers.forget(9_001);
        assert_eq!(newcomers.note(9_001, at(51)), None);
        assert!(!newcomers.is_over(at(81)));
        assert!(newcomers.is_over(at(82)));
    }

    #[test]
    fn time_of_newcomers_goes_round() {
        let t0 = Instant::now();
        let mut newcomers = Newcomers::new(t0);
        let late = t0 + Duration::from_secs(65_530);
        assert_eq!(newcomers.note(1, late), None);
        assert_eq!(newcomers.note(1, late + Duration::from_secs(10)), Some(late));
    }
}
