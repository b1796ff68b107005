//! The time that a bus goes by: the system's clock, as far as it can be believed.

use std::time::Duration;

use super::types::{Millis, Recovered};

/// It gains this part of the time that passes, where the system's clock is ahead.
const GAIN: u32 = 4;

/// The longest time without a bus that is believed at once, in milliseconds.
const MOST_BELIEVED: u64 = 24 * 60 * 60 * 1_000;

/// The time that messages age by. It goes on as fast as time passes for the process, and where the
/// system's clock is ahead a quarter faster, until it has caught up. So a clock that is set forward
/// by mistake costs a message a fifth of its retention at most, and a fifth more where the relay
/// starts again meanwhile; one that is set back stops nothing.
#[derive(Debug)]
pub struct Clock {
    /// Since the Unix epoch.
    at: Duration,
    /// For how long the process had run then.
    uptime: Duration,
}

impl Clock {
    /// A clock that begins at the system's, where that is believed: it is not before the newest
    /// time of the store, nor ahead of it by more than a day, or by a quarter of the retention.
    /// Otherwise it goes on from there.
    #[must_use]
    pub fn start(system: Duration, newest: Option<Millis>, retention: u64) -> Self {
        let believed = Duration::from_millis((retention / 4).min(MOST_BELIEVED));
        let newest = newest.map(|newest| Duration::from_millis(newest.0));
        let is_believed = newest
            .is_none_or(|newest| system.checked_sub(newest).is_some_and(|ahead| ahead <= believed));
        let at = newest.filter(|_| !is_believed).unwrap_or(system);
        Self { at, uptime: Duration::ZERO }
    }

    /// The time, when the system's clock says this and the process has run for so long.
    pub fn read(&mut self, system: Duration, uptime: Duration) -> Millis {
        let passed = uptime.saturating_sub(self.uptime);
        self.uptime += passed;
        let least = self.at.saturating_add(passed);
        let most = least.saturating_add(passed / GAIN);
        self.at = system.clamp(least, most);
        Millis::from(self.at)
    }

    /// What the last reading was.
    #[must_use]
    pub const fn last(&self) -> Duration {
        self.at
    }
}

impl From<Duration> for Millis {
    fn from(since_epoch: Duration) -> Self {
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Recovered {
    /// The newest time that a store has.
    #[must_use]
    pub fn newest(&self) -> Option<Millis> {
        let names = self.names.iter().flat_map(|(named, level)| [named.seen, level.oldest]);
        let accepted = self.accepted.iter().map(|(_, at, _)| *at);
        let cursors = self.cursors.iter().map(|(.., cursor)| cursor.seen);
        let channels = self.channels.iter().map(|channel| channel.oldest);
        names.chain(accepted).chain(cursors).chain(channels).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);
    const WEEK: u64 = 7 * 24 * 60 * 60 * 1_000;
    /// Some day.
    const T0: Duration = Duration::from_hours(24 * 20_000);

    fn started(newest: Option<Duration>) -> Clock {
        Clock::start(T0, newest.map(Millis::from), WEEK)
    }

    #[test]
    fn clock_that_is_right_is_followed() {
        let mut clock = started(None);

        for hours in 1..100 {
            let passed = hours * HOUR;
            assert_eq!(clock.read(T0 + passed, passed), Millis::from(T0 + passed));
        }
    }

    #[test]
    fn clock_that_was_set_forward_is_caught_up_with_by_a_quarter_of_what_passes() {
        let mut clock = started(None);

        let read = clock.read(T0 + 30 * DAY, 4 * HOUR);
        assert_eq!(read, Millis::from(T0 + 5 * HOUR));
        // Also where it is asked often: what is less than a millisecond counts too.
        for nanos in 0..1_000_000 {
            clock.read(T0 + 30 * DAY, 4 * HOUR + Duration::from_nanos(nanos * 1_000));
        }
        let second = Duration::from_nanos(999_999_000);
        let read = clock.read(T0 + 30 * DAY, 4 * HOUR + second);
        assert!(read >= Millis::from(T0 + 5 * HOUR + second + second / 5), "{read:?}");

        // Set right, it is followed no faster than time passes.
        let passed = 10 * HOUR;
        let read = clock.read(T0 + passed, passed);
        let gained = read.since(Millis::from(T0 + passed));
        assert!((3_600_000..3_601_000).contains(&gained), "{gained}");
    }

    #[test]
    fn time_goes_on_where_the_clock_was_set_back() {
        let mut clock = started(None);

        assert_eq!(clock.read(Duration::ZERO, HOUR), Millis::from(T0 + HOUR));
        assert_eq!(clock.read(Duration::ZERO, HOUR), Millis::from(T0 + HOUR));
        assert_eq!(clock.read(T0 - DAY, 2 * HOUR), Millis::from(T0 + 2 * HOUR));
    }

    #[test]
    fn start_believes_a_day_without_the_relay_and_no_more() {
        let mut day = started(Some(T0 - DAY));
        assert_eq!(day.read(T0, Duration::ZERO), Millis::from(T0));

        let newest = T0 - DAY - Duration::from_millis(1);
        let mut longer = started(Some(newest));
        assert_eq!(longer.read(T0, Duration::ZERO), Millis::from(newest));
        assert_eq!(longer.read(T0, 4 * HOUR), Millis::from(newest + 5 * HOUR));
        assert_eq!(longer.read(T0 + 5 * DAY, 5 * DAY), Millis::from(T0 + 5 * DAY));
    }

    #[test]
    fn start_believes_a_quarter_of_a_short_retention() {
        let at = |ahead| {
            let newest = Millis::from(T0 - ahead);
            let mut clock = Clock::start(T0, Some(newest), 4 * 60 * 60 * 1_000);
            clock.read(T0, Duration::ZERO)
        };

        assert_eq!(at(HOUR), Millis::from(T0));
        assert_eq!(at(2 * HOUR), Millis::from(T0 - 2 * HOUR));
    }

    #[test]
    fn start_with_a_clock_behind_the_store_goes_on_from_the_store() {
        let mut clock = started(Some(T0 + DAY));

        assert_eq!(clock.read(T0, Duration::ZERO), Millis::from(T0 + DAY));
        assert_eq!(clock.read(T0 + HOUR, HOUR), Millis::from(T0 + DAY + HOUR));
    }

    #[test]
    fn no_time_of_a_store_is_too_much() {
        let mut clock = Clock::start(T0, Some(Millis(u64::MAX)), WEEK);

        assert_eq!(clock.read(T0, HOUR), Millis(u64::MAX));
    }
}
