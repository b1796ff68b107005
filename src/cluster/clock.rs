//! How far the clocks of the relays are apart, by what they tell each other with each sign of
//! life. Sans-IO.
//!
//! A relay says what its clock shows, and repeats what the other's last word showed and how
//! long ago that came. So the receiver knows the round trip, half of which it adds. Epochs of
//! a clock that is a minute ahead are believed by nobody, so a relay whose clock is off has to
//! say so long before, and it has to be the right one: the one that differs from most others.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::wire::cluster::Reading;

/// Clocks that are further apart than this need somebody: a sixth of what splits the cluster.
pub(super) const MAX_SKEW_MS: u64 = 10_000;

/// A reading whose round trip took longer says too little: it may be wrong by half of that.
const MAX_ROUND_TRIP_MS: u64 = 2_000;

/// How long nothing more is said about a clock that stays off.
const QUIET: Duration = Duration::from_secs(600);

/// The clock of one member, compared with ours.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// What its last word showed, and when that came.
    heard: Option<(u64, Instant)>,
    /// By how much it is ahead of ours, in milliseconds.
    ahead_ms: Option<i64>,
}

impl Clock {
    /// What to tell the member at this moment.
    pub(super) fn reading(&self, unix_ms: u64, now: Instant) -> Reading {
        let (echo_ms, held) = match self.heard {
            Some((shown, at)) => (shown, now.saturating_duration_since(at)),
            None => (0, Duration::ZERO),
        };
        let held_ms = u32::try_from(held.as_millis()).unwrap_or(u32::MAX);
        Reading { shown_ms: unix_ms, echo_ms, held_ms }
    }

    /// Takes in what the member told.
    pub(super) fn hear(&mut self, reading: Reading, unix_ms: u64, now: Instant) {
        self.heard = Some((reading.shown_ms, now));
        if reading.echo_ms == 0 {
            return;
        }
        let since_said = unix_ms.checked_sub(reading.echo_ms);
        let round_trip = since_said.and_then(|ms| ms.checked_sub(u64::from(reading.held_ms)));
        // A step of our own clock in between looks like a long round trip, or a negative one.
        let Some(round_trip) = round_trip.filter(|ms| *ms <= MAX_ROUND_TRIP_MS) else { return };
        let shows = i128::from(reading.shown_ms) + i128::from(round_trip / 2);
        let ahead = shows - i128::from(unix_ms);
        self.ahead_ms = Some(i64::try_from(ahead).unwrap_or(i64::MAX));
    }

    pub(super) const fn ahead_ms(&self) -> Option<i64> {
        self.ahead_ms
    }
}

/// By how much our clock is ahead of the others', given by how much each of theirs is ahead
/// of ours: the median, and of two in the middle the one that is nearer to ours. So whoever
/// differs from more than half of the others is the one that is off, and of two relays both.
pub(super) fn own_ahead_ms(mut others: Vec<i64>) -> Option<i64> {
    others.sort_unstable();
    let upper = *others.get(others.len() / 2)?;
    let lower = *others.get((others.len() - 1) / 2)?;
    let median = if lower.unsigned_abs() < upper.unsigned_abs() { lower } else { upper };
    Some(median.saturating_neg())
}

/// Whether a clock that is ahead by so much needs somebody.
pub(super) const fn is_off(ahead_ms: i64) -> bool {
    ahead_ms.unsigned_abs() > MAX_SKEW_MS
}

/// What was said in the log about a clock.
#[derive(Debug, Default)]
pub(super) struct Notice(Mutex<Option<Instant>>);

/// What to say about a clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Say {
    Nothing,
    Off,
    RightAgain,
}

impl Notice {
    /// Takes in how a clock is: that it is off is said at once and every 10 min.
    pub(super) fn about(&self, is_off: bool, now: Instant) -> Say {
        let mut said = self.0.lock();
        match (*said, is_off) {
            (None, true) => {
                *said = Some(now);
                Say::Off
            }
            (Some(at), true) if now.saturating_duration_since(at) >= QUIET => {
                *said = Some(now);
                Say::Off
            }
            (Some(_), false) => {
                *said = None;
                Say::RightAgain
            }
            (Some(_), true) | (None, false) => Say::Nothing,
        }
    }
}

/// How our clock and those of the members are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Clocks {
    /// By how much ours is ahead of the others', in milliseconds; `None` where none is known.
    pub(super) own_ahead_ms: Option<i64>,
    /// The largest difference between ours and a member's, in milliseconds.
    pub(super) widest_ms: u64,
}

impl Clocks {
    /// Judges by how much the clocks of others are ahead of ours, in milliseconds.
    pub(super) fn of(others_ahead_ms: impl Iterator<Item = i64>) -> Self {
        let others: Vec<_> = others_ahead_ms.collect();
        let widest_ms = others.iter().map(|ahead| ahead.unsigned_abs()).max().unwrap_or(0);
        Self { own_ahead_ms: own_ahead_ms(others), widest_ms }
    }

    /// Whether it is ours that is off, as far as the others show.
    pub(super) fn own_is_off(self) -> bool {
        self.own_ahead_ms.is_some_and(is_off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Two relays tell each other twice; the second one's clock is `ahead` of the first one's.
    fn measured(ahead: i64, there: Duration, back: Duration) -> Option<i64> {
        let t0 = Instant::now();
        let begin = 1_700_000_000_000_u64;
        let ours = |at: Duration| begin + u64::try_from(at.as_millis()).unwrap();
        let theirs = |at| ours(at).checked_add_signed(ahead).unwrap();
        let (mut a, mut b) = (Clock::default(), Clock::default());

        let said = a.reading(ours(Duration::ZERO), t0);
        b.hear(said, theirs(there), t0 + there);
        let answered = there + 3_000 * MS;
        let answer = b.reading(theirs(answered), t0 + answered);
        let heard = answered + back;
        a.hear(answer, ours(heard), t0 + heard);
        a.ahead_ms()
    }

    #[test]
    fn half_of_the_round_trip_is_no_skew() {
        assert_eq!(measured(0, 40 * MS, 40 * MS), Some(0));
        assert_eq!(measured(70_000, 200 * MS, 200 * MS), Some(70_000));
        assert_eq!(measured(-70_000, 5 * MS, 5 * MS), Some(-70_000));
        // What differs between there and back is wrong by half.
        assert_eq!(measured(0, Duration::ZERO, 1_000 * MS), Some(-500));
    }

    #[test]
    fn long_round_trip_and_words_without_one_say_nothing() {
        assert_eq!(measured(70_000, 1_000 * MS, 1_001 * MS), None);
        let mut clock = Clock::default();
        for (echo_ms, held_ms) in [(0, 0), (1, 0), (u64::MAX, 0), (999_990, 1_000), (5, u32::MAX)] {
            let reading = Reading { shown_ms: u64::MAX, echo_ms, held_ms };
            clock.hear(reading, 1_000_000, Instant::now());
            assert_eq!(clock.ahead_ms(), None);
        }
        let forged = Reading { shown_ms: u64::MAX, echo_ms: 1_000_000, held_ms: 0 };
        clock.hear(forged, 1_000_000, Instant::now());
        assert_eq!(clock.ahead_ms(), Some(i64::MAX));
        assert_eq!(own_ahead_ms(vec![i64::MIN]), Some(i64::MAX));
    }

    #[test]
    fn relay_that_differs_from_most_others_is_the_one_that_is_off() {
        let off = |others: &[i64]| own_ahead_ms(others.to_vec()).is_some_and(is_off);
        // Of two relays both say it; nobody can know whose clock is right.
        assert!(off(&[70_000]) && off(&[-70_000]) && !off(&[10_000]) && !off(&[]));
        // Of three, four and five the one that is alone, and no other.
        for others in 2..=4 {
            let mut seen_by_others = vec![0; others - 1];
            seen_by_others.push(70_000);
            assert!(!off(&seen_by_others), "{others}");
            assert!(off(&vec![-70_000; others]), "{others}");
        }
        // Two against two: all.
        assert!(off(&[0, 70_000, 70_000]));
        // A member that lies says nothing about us.
        assert_eq!(own_ahead_ms(vec![5, i64::MAX, -3]), Some(-5));
    }

    #[test]
    fn clock_that_is_off_is_named_at_once_and_not_each_time() {
        let (notice, t0) = (Notice::default(), Instant::now());
        let said = [(false, 0), (true, 5), (true, 10), (true, 605), (false, 610), (false, 615)];
        let said = said.map(|(off, s)| notice.about(off, t0 + Duration::from_secs(s)));
        let quiet = Say::Nothing;
        assert_eq!(said, [quiet, Say::Off, quiet, Say::Off, Say::RightAgain, quiet]);
    }
}
