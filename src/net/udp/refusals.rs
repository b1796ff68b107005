//! What the kernel refused to send on a socket, remembered so that it is not asked for every run.
//!
//! A device that computes no checksums takes no segmented run at all (EIO). A route whose MTU
//! is smaller than the segments refuses only those to its own destinations (EINVAL,
//! EMSGSIZE): whoever makes the path to itself narrow must not slow down all others.
//!
//! An address of ours that was removed cannot be sent from: what should leave from it leaves
//! from the kernel's choice, until it is there again.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::is_gone;

/// After this time segmentation is tried again: a device or a route may be another by then, and
/// an attempt an hour costs nothing.
const SEGMENTS_AGAIN: Duration = Duration::from_secs(3_600);

/// Destinations that are remembered; of more, the oldest is forgotten and asked again.
const DESTINATIONS: usize = 256;

/// After this time an address of ours that was gone is tried again.
const SOURCE_AGAIN: Duration = Duration::from_secs(10);

/// For this time an address that is here is not looked for again, whatever the kernel refuses:
/// that a destination has no route is no reason for more system calls.
const SOURCE_HERE: Duration = Duration::from_secs(1);

/// Addresses of ours that are judged at a time; for more, sends fail.
const SOURCES: usize = 16;

/// Why packets were sent once more, in another way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retry {
    /// Segmentation was refused: one by one.
    Segments,
    /// Our address that they should leave from is gone: from the kernel's choice.
    Source,
}

impl Retry {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Segments, Self::Source];

    /// The word of its metric.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Segments => "segments_refused",
            Self::Source => "source_gone",
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
    /// Addresses of ours that the kernel would not send from; at most [`SOURCES`].
    sources: Vec<Source>,
    /// When the first of these ends.
    first_end: Option<Instant>,
}

/// An address of ours, and whether it is gone.
#[derive(Debug)]
struct Source {
    address: IpAddr,
    is_gone: bool,
    until: Instant,
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

impl Refusals {
    /// Whether a send failed because the address that it should leave from is not ours any
    /// more. Asks the system where that is not known.
    pub(super) fn is_of_source(&self, error: &io::Error, from: IpAddr, now: Instant) -> bool {
        let may_be = matches!(
            error.raw_os_error(),
            Some(
                libc::EINVAL
                    | libc::EADDRNOTAVAIL
                    | libc::ENETUNREACH
                    | libc::EHOSTUNREACH
                    | libc::ENODEV
            )
        );
        if !may_be {
            return false;
        }
        let mut remembered = self.remembered.lock();
        remembered.forget(now);
        if let Some(source) = remembered.sources.iter().find(|source| source.address == from) {
            return source.is_gone;
        }
        if remembered.sources.len() == SOURCES {
            return false;
        }
        let is_gone = is_gone(from);
        if is_gone {
            tracing::info!(address = %from, "an address of ours is gone: replies leave from another");
            count(Retry::Source);
        }
        let until = now + if is_gone { SOURCE_AGAIN } else { SOURCE_HERE };
        remembered.sources.push(Source { address: from, is_gone, until });
        remembered.ends_at(until);
        self.any.store(true, Ordering::Relaxed);
        is_gone
    }
}

impl Remembered {
    /// Whether an address is known not to be ours any more.
    pub(super) fn lacks(&self, address: IpAddr) -> bool {
        self.sources.iter().any(|source| source.is_gone && source.address == address)
    }

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
            self.sources.retain(|source| source.until > now);
            let sources = self.sources.iter().map(|source| &source.until);
            self.first_end =
                self.narrow.values().chain(&self.segments).chain(sources).min().copied();
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
        for number in 0..=u32::try_from(DESTINATIONS).unwrap() {
            let now = start + Duration::from_secs(number.into());
            assert!(refusals.is_of_segments(&error(libc::EMSGSIZE), host(number), now));
        }

        let remembered = refusals.current().unwrap();
        assert_eq!(remembered.narrow.len(), DESTINATIONS);
        assert!(remembered.takes_segments(host(0)));
        assert!(!remembered.takes_segments(host(u32::try_from(DESTINATIONS).unwrap())));
    }

    #[test]
    fn address_that_is_here_is_asked_for_once_a_second_and_one_that_is_gone_every_ten() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let here = IpAddr::from([127, 0, 0, 1]);
        assert!(!refusals.is_of_source(&error(libc::ENETUNREACH), here, now));
        assert!(refusals.is_of_source(&error(libc::EINVAL), host(99), now));
        assert!(!refusals.is_of_source(&error(libc::EPERM), host(98), now));
        let mut remembered = refusals.remembered.lock();
        assert_eq!(remembered.sources.len(), 2);
        assert!(remembered.lacks(host(99)) && !remembered.lacks(here));

        remembered.forget(now + SOURCE_HERE);
        assert_eq!(remembered.sources.len(), 1);
        remembered.forget(now + SOURCE_AGAIN);
        assert!(!remembered.lacks(host(99)));
    }

    #[test]
    fn other_errors_say_nothing_of_segmentation() {
        let refusals = Refusals::default();
        assert!(!refusals.is_of_segments(&error(libc::EPERM), host(1), Instant::now()));
        assert!(refusals.current().is_none());
    }
}
