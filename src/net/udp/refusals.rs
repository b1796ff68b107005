//! What the kernel refused to send on a socket, remembered so that it is not asked for every run.
//!
//! A device that computes no checksums takes no segmented run at all (EIO). A route whose MTU
//! is smaller than the segments refuses only those to its own destinations (EINVAL,
//! EMSGSIZE): whoever makes the path to itself narrow must not slow down all others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// After this time segmentation is tried again: a device or a route may be another by then, and
/// an attempt an hour costs nothing.
const SEGMENTS_AGAIN: Duration = Duration::from_secs(3_600);

/// Destinations that are remembered; of more, the oldest is forgotten and asked again.
const DESTINATIONS: usize = 256;

/// Why packets were sent once more, in another way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retry {
    /// Segmentation was refused: one by one.
    Segments,
}

impl Retry {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Segments];

    /// The word of its metric.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Segments => "segments_refused",
        }
    }
}

static RETRIES: [AtomicU64; Retry::ALL.len()] = [const { AtomicU64::new(0) }; Retry::ALL.len()];

/// How often this process has sent something once more, in another way.
#[must_use]
#[allow(clippy::indexing_slicing)] // a reason is below the array's length
pub fn retries(why: Retry) -> u64 {
    RETRIES[why as usize].load(Ordering::Relaxed)
}

#[allow(clippy::indexing_slicing)] // a reason is below the array's length
fn count(why: Retry) {
    RETRIES[why as usize].fetch_add(1, Ordering::Relaxed);
}

/// What one socket was refused. As long as that is nothing, looking costs one relaxed load.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    any: AtomicBool,
    remembered: Mutex<Remembered>,
}

/// What is remembered, each until when.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Segmentation, whatever the destination.
    segments: Option<Instant>,
    /// Segmentation towards a destination.
    narrow: HashMap<IpAddr, Instant>,
    /// When the first of these ends.
    first_end: Option<Instant>,
}

impl Refusals {
    /// What is refused at this moment; none where nothing is.
    pub(super) fn current(&self) -> Option<MutexGuard<'_, Remembered>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut remembered = self.remembered.lock();
        if remembered.forget(Instant::now()) {
            return Some(remembered);
        }
        self.any.store(false, Ordering::Relaxed);
        None
    }

    /// Remembers that a segmented run was refused, if that is what the error says.
    pub(super) fn is_of_segments(&self, error: &io::Error, to: IpAddr, now: Instant) -> bool {
        let until = now + SEGMENTS_AGAIN;
        let mut remembered = self.remembered.lock();
        match error.raw_os_error() {
            Some(libc::EIO) => {
                if remembered.segments.is_none() {
                    tracing::info!("a device takes no segmented datagrams: they go one by one");
                }
                remembered.segments = Some(until);
                remembered.ends_at(until);
            }
            Some(libc::EINVAL | libc::EMSGSIZE) => {
                tracing::debug!(%to, "a route takes no segmented datagrams: they go one by one");
                remembered.add_narrow(to, until);
            }
            _ => return false,
        }
        self.any.store(true, Ordering::Relaxed);
        count(Retry::Segments);
        true
    }
}

impl Remembered {
    /// Whether runs to a destination may be segmented.
    pub(super) fn takes_segments(&self, to: IpAddr) -> bool {
        self.segments.is_none() && !self.narrow.contains_key(&to)
    }

    fn add_narrow(&mut self, to: IpAddr, until: Instant) {
        if self.narrow.len() >= DESTINATIONS {
            let oldest = self.narrow.iter().min_by_key(|(_, until)| **until).map(|(to, _)| *to);
            self.narrow.remove(&oldest.expect("a full table has an oldest entry"));
        }
        self.narrow.insert(to, until);
        self.ends_at(until);
    }

    fn ends_at(&mut self, until: Instant) {
        self.first_end = Some(self.first_end.map_or(until, |first| first.min(until)));
    }

    /// Forgets what is to be tried again; whether something is left.
    fn forget(&mut self, now: Instant) -> bool {
        if self.first_end.is_some_and(|first| first <= now) {
            self.segments = self.segments.filter(|until| *until > now);
            self.narrow.retain(|_, until| *until > now);
            self.first_end = self.narrow.values().chain(&self.segments).min().copied();
        }
        self.first_end.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xc000_0200 + number).into()
    }

    #[test]
    fn device_without_segmentation_is_asked_again_after_an_hour() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert!(refusals.current().is_none());

        assert!(refusals.is_of_segments(&error(libc::EIO), host(1), now));

        assert!(!refusals.current().unwrap().takes_segments(host(2)));
        let mut remembered = refusals.remembered.lock();
        assert!(remembered.forget(now + SEGMENTS_AGAIN - Duration::from_millis(1)));
        assert!(!remembered.forget(now + SEGMENTS_AGAIN));
        assert!(remembered.takes_segments(host(2)));
    }

    #[test]
    fn narrow_route_slows_down_nobody_else() {
        let refusals = Refusals::default();

        assert!(refusals.is_of_segments(&error(libc::EINVAL), host(1), Instant::now()));

        let remembered = refusals.current().unwrap();
        assert!(!remembered.takes_segments(host(1)));
        assert!(remembered.takes_segments(host(2)));
    }

    #[test]
    fn destinations_are_bounded_and_the_oldest_is_forgotten_first() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for (number, second) in (0..=DESTINATIONS as u32).zip(0..) {
            let now = start + Duration::from_secs(second);
            assert!(refusals.is_of_segments(&error(libc::EMSGSIZE), host(number), now));
        }

        let remembered = refusals.current().unwrap();
        assert_eq!(remembered.narrow.len(), DESTINATIONS);
        assert!(remembered.takes_segments(host(0)));
        assert!(!remembered.takes_segments(host(DESTINATIONS as u32)));
    }

    #[test]
    fn other_errors_say_nothing_of_segmentation() {
        let refusals = Refusals::default();
        assert!(!refusals.is_of_segments(&error(libc::EPERM), host(1), Instant::now()));
        assert!(refusals.current().is_none());
    }
}
