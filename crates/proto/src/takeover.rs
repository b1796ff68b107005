//! How often the sessions of one peer take over from each other, and how long the next one
//! waits for it.
//!
//! A peer that reconnects takes over from its own dead session, which costs nothing. Two
//! programs of one identity take over from each other for ever, as fast as they dial: from the
//! fourth takeover within [`WINDOW`] on the next login waits, each time twice as long, and the
//! session that is there serves until then.

use std::time::{Duration, Instant};

/// So many takeovers within a [`WINDOW`] are those of a peer whose network comes and goes.
const FREE: usize = 3;

/// In what time takeovers are counted. The wait halves with each such time without one.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait: a client has to be patient for so long before its login is answered.
pub const MOST_WAIT: Duration = Duration::from_secs(10);

/// Takeovers that are remembered of a peer.
const REMEMBERED: usize = FREE + 1;

/// So many takeovers as are remembered, within this time, are no accident: 0.067 a second, which
/// two clients make that redial each 30 s, are four in 45 s.
const CONTESTED: Duration = Duration::from_secs(90);

/// The takeovers of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Takeovers {
    /// The last ones, the latest first.
    last: [Option<Instant>; REMEMBERED],
    /// How long the next one waits, if it comes at once.
    wait: Duration,
    /// When a login that has come may take over, and the wait of which that is the end.
    due: Option<(Instant, Duration)>,
}

/// What there is to say of a peer's takeovers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// How many there were in the last [`WINDOW`], up to four.
    pub recent: usize,
    /// How long the next login would wait.
    pub wait: Duration,
    /// It goes on, so that it is none of a peer that has lost its network.
    pub is_contested: bool,
}

impl Takeovers {
    /// A session has taken over. True where logins begin to wait for it.
    pub fn note(&mut self, now: Instant) -> bool {
        let waited = match self.due.take() {
            Some((_, wait)) => wait,
            None => self.wait_at(now),
        };
        self.last.rotate_right(1);
        self.last[0] = Some(now);
        let begins = waited.is_zero() && self.within(WINDOW, now) > FREE;
        self.wait = if begins { FIRST_WAIT } else { (2 * waited).min(MOST_WAIT) };
        begins
    }

    /// When a login that comes now may take over; `None` for at once.
    ///
    /// A login that gives up does not begin the wait anew for the one that follows it: a
    /// client that is less patient comes in as well.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let due = match self.due {
            Some((at, _)) if now < at + WINDOW => at,
            Some(_) | None => {
                let wait = self.wait_at(now);
                self.due = (!wait.is_zero()).then_some((now + wait, wait));
                now + wait
            }
        };
        (now < due).then_some(due)
    }

    /// What there is to say at this moment.
    #[must_use]
    pub fn pace(&self, now: Instant) -> Pace {
        Pace {
            recent: self.within(WINDOW, now),
            wait: self.wait_at(now),
            is_contested: self.within(CONTESTED, now) == REMEMBERED,
        }
    }

    /// Whether there is nothing left to be remembered.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.within(CONTESTED, now) == 0
    }

    fn within(&self, time: Duration, now: Instant) -> usize {
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < time;
        self.last.iter().flatten().filter(recent).count()
    }

    /// The wait of a login that comes now: half of it for each quiet [`WINDOW`].
    fn wait_at(&self, now: Instant) -> Duration {
        let [Some(last), ..] = self.last else { return Duration::ZERO };
        let quiet = now.saturating_duration_since(last).as_secs() / WINDOW.as_secs();
        let halvings = u32::try_from(quiet).unwrap_or(u32::MAX);
        let wait = 2u32.checked_pow(halvings).map_or(Duration::ZERO, |part| self.wait / part);
        if wait < FIRST_WAIT { Duration::ZERO } else { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    /// Logs in after `pause`, and takes over when it may; how long it waited.
    fn take_over(peer: &mut Takeovers, now: &mut Instant, pause: Duration) -> Duration {
        *now += pause;
        let due = peer.due(*now).unwrap_or(*now);
        let waited = due - *now;
        *now = due;
        peer.note(*now);
        waited
    }

    #[test]
    fn fourth_takeover_in_ten_seconds_makes_the_next_login_wait_and_each_one_longer() {
        let (mut peer, mut now) = (Takeovers::default(), Instant::now());
        let waits: Vec<_> = (0..11).map(|_| take_over(&mut peer, &mut now, 250 * MS)).collect();
        let seconds: Vec<_> = waits.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 0, 0, 0, 1, 2, 4, 8, 10, 10, 10]);
        assert!(peer.pace(now).is_contested);
    }

    #[test]
    fn peer_that_reconnects_now_and_then_never_waits() {
        let (mut peer, mut now) = (Takeovers::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(take_over(&mut peer, &mut now, 3_400 * MS), Duration::ZERO);
        }
        let mut peer = Takeovers::default();
        assert_eq!(take_over(&mut peer, &mut now, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn quiet_peer_waits_less_and_less() {
        let (mut peer, mut now) = (Takeovers::default(), Instant::now());
        (0..12).for_each(|_| _ = take_over(&mut peer, &mut now, 250 * MS));
        for (quiet, wait) in [(9, 10_000), (10, 5_000), (20, 2_500), (39, 1_250), (40, 0)] {
            assert_eq!(peer.pace(now + quiet * S).wait, wait * MS, "after {quiet} s");
        }
        assert!(!peer.is_over(now + 89 * S) && peer.is_over(now + 90 * S));
        assert_eq!(take_over(&mut peer, &mut now, 40 * S), Duration::ZERO);
        assert_eq!(peer.pace(now).wait, Duration::ZERO);
    }

    #[test]
    fn login_that_gives_up_does_not_begin_the_wait_anew_for_the_next() {
        let (mut peer, mut now) = (Takeovers::default(), Instant::now());
        (0..8).for_each(|_| _ = take_over(&mut peer, &mut now, 250 * MS));
        let due = peer.due(now).unwrap();
        assert_eq!(peer.due(now + 4 * S), Some(due));
        assert_eq!(peer.due(due), None);
        // Whoever comes long after that is another story.
        assert_eq!(peer.due(due + 11 * S), Some(due + 11 * S + 2_500 * MS));
    }

    #[test]
    fn two_clients_at_their_longest_redial_are_seen_though_nobody_waits() {
        let (mut peer, mut now) = (Takeovers::default(), Instant::now());
        let mut contested = Vec::new();
        for _ in 0..12 {
            assert_eq!(take_over(&mut peer, &mut now, 15 * S), Duration::ZERO);
            contested.push(peer.pace(now + 14 * S).is_contested);
        }
        assert_eq!(contested.iter().filter(|contested| !**contested).count(), 3);
        assert!(contested[3..].iter().all(|contested| *contested));
    }
}
