//! The addresses of this machine: a set that is read every few seconds.
//!
//! Asking the kernel about an address costs system calls for each packet that asks, and has no
//! answer where no descriptor is free. So the set is read beside the packets, and whoever looks
//! an address up is told when nobody can know.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// How often the addresses are to be read.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// What was read so long ago says nothing of an address that is not in it: six readings failed.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Addresses whose loss is told at a time; that of more is not.
const TOLD: usize = 64;

/// Whether an address is this machine's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Locality {
    /// It is.
    Local,
    /// It is not.
    Foreign,
    /// The addresses could not be read lately.
    Unknown,
}

/// The addresses of this machine as they were read last.
#[derive(Debug, Default)]
pub struct LocalAddresses {
    read: ArcSwapOption<Reading>,
    failures: AtomicU64,
    /// Addresses whose loss was told, so that each is told once while it lasts.
    told: Mutex<Vec<IpAddr>>,
}

#[derive(Debug)]
struct Reading {
    addresses: HashSet<IpAddr, RandomState>,
    at: Instant,
}

impl LocalAddresses {
    /// Reads the addresses anew; needs a descriptor for a moment.
    ///
    /// # Errors
    /// What the system says; what was read before stays, until it is stale.
    pub fn refresh(&self, now: Instant) -> io::Result<()> {
        let interfaces = if_addrs::get_if_addrs();
        self.take(interfaces.map(|all| all.iter().map(if_addrs::Interface::ip).collect()), now)
    }

    fn take(&self, read: io::Result<Vec<IpAddr>>, now: Instant) -> io::Result<()> {
        let addresses = read.inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
        })?;
        let addresses: HashSet<_, _> = addresses.iter().map(IpAddr::to_canonical).collect();
        // What is back may be lost again.
        self.told.lock().retain(|ip| !addresses.contains(ip));
        self.read.store(Some(Reading { addresses, at: now }.into()));
        Ok(())
    }

    /// Whether an address is this machine's, as far as that is known.
    #[must_use]
    pub fn look(&self, ip: IpAddr, now: Instant) -> Locality {
        let ip = ip.to_canonical();
        // All of 127.0.0.0/8 is here, of which an interface lists one.
        if ip.is_loopback() {
            return Locality::Local;
        }
        match &*self.read.load() {
            Some(reading) if reading.addresses.contains(&ip) => Locality::Local,
            Some(reading) if now < reading.at + STALE_AFTER => Locality::Foreign,
            Some(_) | None => Locality::Unknown,
        }
    }

    /// Whether the loss of an address is news, which it is once until the address is back.
    pub(super) fn is_news(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let mut told = self.told.lock();
        let is_news = told.len() < TOLD && !told.contains(&ip);
        if is_news {
            told.push(ip);
        }
        is_news
    }

    /// How often the addresses could not be read.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl LocalAddresses {
    /// A machine with these addresses.
    pub(super) fn of(addresses: Vec<IpAddr>, now: Instant) -> Self {
        let local = Self::default();
        local.take(Ok(addresses), now).expect("they were read");
        local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_of_an_address_is_told_once_until_it_is_back() {
        let (local, now) = (LocalAddresses::default(), Instant::now());
        let ours = IpAddr::from([192, 0, 2, 1]);
        assert_eq!([local.is_news(ours), local.is_news(ours)], [true, false]);

        local.take(Ok(vec![ours]), now).unwrap();
        assert!(local.is_news(ours));
        let addresses = (0..1_000_u32).map(|number| IpAddr::from(number.to_be_bytes()));
        assert_eq!(addresses.filter(|ip| local.is_news(*ip)).count(), TOLD - 1);
    }

    #[test]
    fn addresses_that_cannot_be_read_are_unknown_and_not_foreign() {
        let (local, t0) = (LocalAddresses::default(), Instant::now());
        let (ours, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 1]));
        assert_eq!(local.look(other, t0), Locality::Unknown, "nothing was read yet");
        assert_eq!(local.look([127, 0, 0, 9].into(), t0), Locality::Local);

        local.take(Ok(vec![ours]), t0).unwrap();
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!([ours, mapped].iter().all(|ip| local.look(*ip, t0) == Locality::Local));
        let out_of_descriptors = || Err(io::Error::from_raw_os_error(24));
        let soon = t0 + STALE_AFTER - Duration::from_millis(1);
        assert!(local.take(out_of_descriptors(), soon).is_err());
        assert_eq!(local.look(other, soon), Locality::Foreign);
        let later = t0 + STALE_AFTER;
        assert_eq!((local.look(other, later), local.failures()), (Locality::Unknown, 1));
        assert_eq!(local.look(ours, later), Locality::Local);

        local.take(Ok(vec![other]), later).unwrap();
        assert_eq!(local.look(ours, later), Locality::Foreign, "it is gone");
        assert_eq!(local.look(other, later), Locality::Local);
    }

    #[test]
    fn addresses_of_this_machine_are_read() {
        let (local, now) = (LocalAddresses::default(), Instant::now());
        local.refresh(now).unwrap();
        assert_eq!(local.look([198, 51, 100, 1].into(), now), Locality::Foreign);
        let read = local.read.load_full().unwrap();
        assert!(read.addresses.iter().all(|ip| local.look(*ip, now) == Locality::Local));
        assert!(!read.addresses.is_empty());
    }
}
