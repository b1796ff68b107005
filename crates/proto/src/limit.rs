//! Rates: token buckets, and a fixed table of them.
//!
//! What exceeds a rate is refused, never delayed. The table has a fixed size and a seeded
//! hash, so that strangers can neither grow it nor aim at one of its places.

use std::hash::{BuildHasher as _, Hash};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

/// How much may pass: so many a second, and so many at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self { per_second: 0, burst: 0 };

    /// A rate whose bucket holds one second's worth; 0 means no limit.
    #[must_use]
    #[inline]
    pub const fn per_second(per_second: u64) -> Self {
        Self { per_second, burst: per_second }
    }

    /// The same rate with room for `burst` at once.
    #[must_use]
    #[inline]
    pub const fn with_burst(self, burst: u64) -> Self {
        Self { burst, ..self }
    }

    /// One of `parts` equal shares, where as many buckets together keep to this rate. Each has
    /// room for `least` at once, or for all of the rate's burst where that is less.
    #[must_use]
    pub fn share(self, parts: u64, least: u64) -> Self {
        let burst = self.burst.div_ceil(parts).max(least.min(self.burst));
        Self { per_second: self.per_second.div_ceil(parts), burst }
    }

    #[inline]
    fn time_of(self, amount: u64) -> Duration {
        let ns = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// A token bucket, kept as the moment at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// One from which nothing was taken.
    pub const FULL: Self = Self { full_at: None };

    /// Whether all that was taken has come back.
    #[must_use]
    #[inline]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }

    /// Takes `amount` tokens, or nothing where there are fewer.
    ///
    /// A full bucket lets any one amount pass, or a packet larger than the burst never would.
    #[inline]
    pub fn take(&mut self, rate: Rate, amount: u64, now: Instant) -> bool {
        if rate.per_second == 0 {
            return true;
        }
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let after = missing + rate.time_of(amount);
        let passes = missing.is_zero() || after <= rate.time_of(rate.burst);
        if passes {
            self.full_at = Some(now + after);
        }
        passes
    }
}

/// What one source of packets may send in a second.
#[derive(Clone, Copy, Debug)]
pub struct SourceRates {
    /// Packets.
    pub packets: Rate,
    /// Bytes of whole packets.
    pub bytes: Rate,
}

/// Which of its rates a source exceeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exceeded {
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
}

/// The buckets of one source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source {
    packets: Bucket,
    bytes: Bucket,
}

impl Source {
    /// Lets one packet of `bytes` pass, or says which rate it exceeds.
    ///
    /// # Errors
    /// The rate that is exceeded; the packet must be dropped.
    #[inline]
    pub fn take(
        &mut self,
        rates: &SourceRates,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Exceeded> {
        if !self.packets.take(rates.packets, 1, now) {
            return Err(Exceeded::Packets);
        }
        if !self.bytes.take(rates.bytes, bytes as u64, now) {
            return Err(Exceeded::Bytes);
        }
        Ok(())
    }
}

const WAYS: usize = 4;

/// State for each of many keys in a fixed number of places.
///
/// A key without a place takes that of the least recently used of four; the key that loses
/// its place starts afresh when it comes back, which is what a full bucket is.
#[derive(Debug)]
pub struct Places<T> {
    sets: Box<[[Place<T>; WAYS]]>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place<T> {
    key: u64,
    used: Option<Instant>,
    state: T,
}

impl<T: Copy + Default> Places<T> {
    /// A table of `places` places, rounded up to a power of two.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let sets = (places / WAYS).next_power_of_two();
        Self { sets: vec![[Place::default(); WAYS]; sets].into(), hasher: RandomState::default() }
    }

    /// The state of a key, fresh where it has none.
    #[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // taken modulo the length
    #[inline]
    pub fn of(&mut self, key: &impl Hash, now: Instant) -> &mut T {
        let hash = self.hasher.hash_one(key);
        let index = hash as usize & (self.sets.len() - 1);
        let set = &mut self.sets[index];
        let way = set.iter().position(|place| place.key == hash && place.used.is_some());
        let way = way.unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|way| set[*way].used).unwrap_or_default();
            set[oldest] = Place { key: hash, used: None, state: T::default() };
            oldest
        });
        set[way].used = Some(now);
        &mut set[way].state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn shares_of_a_rate_add_up_to_it_and_let_one_peer_pass() {
        let rate = Rate::per_second(200).with_burst(1_000);
        assert_eq!(rate.share(1, 10), rate);
        assert_eq!(rate.share(32, 10), Rate { per_second: 7, burst: 32 });
        assert_eq!(rate.share(500, 10), Rate { per_second: 1, burst: 10 });
        let small = Rate::per_second(1).with_burst(5);
        assert_eq!(small.share(32, 10), small);
        assert_eq!(Rate::NONE.share(32, 10), Rate::NONE);
    }

    #[test]
    fn bucket_holds_one_second_and_refills_at_its_rate() {
        let t0 = Instant::now();
        let rate = Rate::per_second(10);
        let mut bucket = Bucket::default();
        assert_eq!((0..20).filter(|_| bucket.take(rate, 1, t0)).count(), 10);
        assert!(!bucket.take(rate, 1, t0 + 99 * MS));
        assert!(bucket.take(rate, 1, t0 + 100 * MS));
        assert!(!bucket.take(rate, 1, t0 + 100 * MS));
        let later = t0 + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| bucket.take(rate, 1, later)).count(), 10);
    }

    #[test]
    fn burst_is_separate_from_the_rate() {
        let t0 = Instant::now();
        let rate = Rate::per_second(10).with_burst(100);
        let mut bucket = Bucket::default();
        assert_eq!((0..200).filter(|_| bucket.take(rate, 1, t0)).count(), 100);
        assert_eq!((0..200).filter(|_| bucket.take(rate, 1, t0 + 500 * MS)).count(), 5);
    }

    #[test]
    fn packet_larger_than_the_burst_passes_a_full_bucket_only() {
        let t0 = Instant::now();
        let rate = Rate::per_second(1_000);
        let mut bucket = Bucket::default();
        assert!(bucket.take(rate, 60_000, t0));
        assert!(!bucket.take(rate, 1, t0 + 59_000 * MS));
        assert!(bucket.take(rate, 1, t0 + 60_000 * MS));
    }

    #[test]
    fn rate_of_zero_is_no_limit() {
        let mut source = Source::default();
        let rates = SourceRates { packets: Rate::per_second(0), bytes: Rate::NONE };
        assert!((0..100_000).all(|_| source.take(&rates, 65_536, Instant::now()).is_ok()));
    }

    #[test]
    fn source_says_which_rate_it_exceeded() {
        let t0 = Instant::now();
        let mut source = Source::default();
        let rates = SourceRates { packets: Rate::per_second(3), bytes: Rate::per_second(100) };
        assert_eq!(source.take(&rates, 60, t0), Ok(()));
        assert_eq!(source.take(&rates, 60, t0), Err(Exceeded::Bytes));
        assert_eq!(source.take(&rates, 40, t0), Ok(()));
        assert_eq!(source.take(&rates, 0, t0), Err(Exceeded::Packets));
    }

    #[test]
    fn table_keeps_its_size_under_a_million_keys() {
        let t0 = Instant::now();
        let mut places: Places<Bucket> = Places::new(1_024);
        let rate = Rate::per_second(1);
        for key in 0..1_000_000u32 {
            places.of(&key, t0 + Duration::from_micros(u64::from(key))).take(rate, 1, t0);
        }
        assert_eq!(places.sets.len() * WAYS, 1_024);
        let mut bucket = *places.of(&999_999u32, t0 + Duration::from_secs(1));
        assert!(!bucket.take(rate, 1, t0), "the latest key has kept its place");
    }
}
