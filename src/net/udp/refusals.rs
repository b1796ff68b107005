//! What the kernel refused to send on a socket, remembered so that it is not asked for every run.
//!
//! A device that computes no checksums takes no segmented run at all (EIO). A route whose MTU
//! is smaller than the segments refuses only those to its own destinations (EINVAL,
//! EMSGSIZE): whoever makes the path to itself narrow must not slow down all others.
//!
//! An address of ours that was removed cannot be sent from: what should leave from it leaves
//! from the kernel's choice, until it is there again. Whether it was removed shows the attempt:
//! the list of the machine's addresses is some seconds old, and lacks those that a local route
//! makes ours.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::net::local::Locality;

/// After this time segmentation is tried again: a device or a route may be another by then, and
/// an attempt an hour costs nothing.
const SEGMENTS_AGAIN: Duration = Duration::from_secs(3_600);

/// Destinations that are remembered; of more, the oldest is forgotten and asked again.
const DESTINATIONS: usize = 256;

/// After this time an address of ours that is not in the machine's list is tried again.
const SOURCE_AGAIN: Duration = Duration::from_secs(10);

/// The same for one that the list does not lack: it may have been removed since, or a route of
/// its own may refuse one destination, for which all others would leave from another address.
/// For as long, an address without which a packet was refused as well is not blamed again: a
/// destination that takes nothing is no reason for more system calls.
const SOURCE_DOUBTED: Duration = Duration::from_secs(1);

/// Addresses of ours that are remembered at a time; for more, each send is tried twice.
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
        match error.raw_os_error() {
            Some(libc::EIO) => {
                let mut remembered = self.remembered.lock();
                let is_news = remembered.segments.replace(until).is_none();
                remembered.ends_at(until);
                drop(remembered);
                if is_news {
                    tracing::info!("a device takes no segmented datagrams: they go one by one");
                }
            }
            Some(libc::EINVAL | libc::EMSGSIZE) => {
                self.remembered.lock().add_narrow(to, until);
                tracing::debug!(%to, "a route takes no segmented datagrams: they go one by one");
            }
            _ => return false,
        }
        self.any.store(true, Ordering::Relaxed);
        count(Retry::Segments);
        true
    }

    /// Whether a send may have failed because of the address that it should leave from: it is
    /// to be tried without. `locality` is what is known of the address.
    pub(super) fn may_be_of_source(
        &self,
        error: &io::Error,
        from: IpAddr,
        locality: Locality,
        now: Instant,
    ) -> bool {
        // Which of these it is depends on the kernel and on the family.
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
        match remembered.sources.iter().find(|source| source.address == from) {
            // Whoever has a destination that takes nothing must not blind us for the loss.
            Some(source) => source.is_gone || locality == Locality::Foreign,
            None => true,
        }
    }

    /// Remembers what became of a packet that should have left from this address and was tried
    /// without; true where it passed, which is new.
    pub(super) fn tried_without(
        &self,
        from: IpAddr,
        passed: bool,
        locality: Locality,
        now: Instant,
    ) -> bool {
        let time = match (passed, locality) {
            (true, Locality::Foreign) => SOURCE_AGAIN,
            (true, Locality::Local | Locality::Unknown) | (false, _) => SOURCE_DOUBTED,
        };
        let found = Source { address: from, is_gone: passed, until: now + time };
        let mut remembered = self.remembered.lock();
        let was_gone = remembered.lacks(from);
        remembered.sources.retain(|source| source.address != from);
        if remembered.sources.len() < SOURCES {
            remembered.ends_at(found.until);
            remembered.sources.push(found);
            self.any.store(true, Ordering::Relaxed);
        }
        drop(remembered);
        if passed && !was_gone {
            count(Retry::Source);
        }
        passed && !was_gone
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
    fn address_that_is_lost_is_tried_again_soon_where_the_list_still_has_it() {
        let refusals = Refusals::default();
        let (now, ours) = (Instant::now(), host(99));
        for (locality, time) in [
            (Locality::Local, SOURCE_DOUBTED),
            (Locality::Unknown, SOURCE_DOUBTED),
            (Locality::Foreign, SOURCE_AGAIN),
        ] {
            assert!(refusals.may_be_of_source(&error(libc::EINVAL), ours, locality, now));
            assert!(!refusals.may_be_of_source(&error(libc::EPERM), ours, locality, now));
            assert!(refusals.tried_without(ours, true, locality, now), "{locality:?}");
            assert!(!refusals.tried_without(ours, true, locality, now), "it is known");

            let mut remembered = refusals.remembered.lock();
            assert!(remembered.lacks(ours) && !remembered.lacks(host(98)));
            remembered.forget(now + time - Duration::from_millis(1));
            assert!(remembered.lacks(ours), "{locality:?}");
            remembered.forget(now + time);
            assert!(!remembered.lacks(ours), "{locality:?}");
        }
    }

    #[test]
    fn destination_that_takes_nothing_costs_no_second_attempt_and_hides_no_loss() {
        let refusals = Refusals::default();
        let (now, ours) = (Instant::now(), host(99));
        let may_be =
            |locality| refusals.may_be_of_source(&error(libc::EINVAL), ours, locality, now);
        assert!(!refusals.tried_without(ours, false, Locality::Local, now));
        assert!(!may_be(Locality::Local));
        assert!(may_be(Locality::Foreign));
        assert!(!refusals.remembered.lock().lacks(ours));
    }

    #[test]
    fn addresses_that_are_remembered_are_bounded() {
        let refusals = Refusals::default();
        let now = Instant::now();
        (0..100).for_each(|number| {
            refusals.tried_without(host(number), true, Locality::Foreign, now);
        });
        assert_eq!(refusals.remembered.lock().sources.len(), SOURCES);
    }

    #[test]
    fn other_errors_say_nothing_of_segmentation() {
        let refusals = Refusals::default();
        assert!(!refusals.is_of_segments(&error(libc::EPERM), host(1), Instant::now()));
        assert!(refusals.current().is_none());
    }
}
