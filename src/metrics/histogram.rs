//! Histograms of durations, with fixed bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::family;

/// Upper bounds of the buckets, ascending; what is longer than the last counts in `+Inf`.
pub type Buckets = &'static [Duration];

/// Upper bounds for what takes from microseconds to half a minute: two a decade.
pub const HALF_DECADES: Buckets = &[
    Duration::from_micros(10),
    Duration::from_micros(30),
    Duration::from_micros(100),
    Duration::from_micros(300),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// The bucket that a duration counts in.
pub(super) fn bucket(bounds: &[Duration], duration: Duration) -> usize {
    bounds.partition_point(|bound| *bound < duration)
}

/// Counts durations by bucket; an observation is two additions.
#[derive(Debug)]
pub struct Histogram {
    bounds: Buckets,
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// A histogram with these upper bounds.
    #[must_use]
    pub fn new(bounds: Buckets) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_ns: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let bucket = bucket(self.bounds, duration);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// The family for a scrape, in seconds.
    #[must_use]
    pub fn family(&self, name: &str, help: &str) -> MetricFamily {
        self.family_in(Duration::from_secs(1), name, help)
    }

    /// The family for a scrape, in milliseconds, as those of other programs have it.
    #[must_use]
    pub fn family_ms(&self, name: &str, help: &str) -> MetricFamily {
        self.family_in(Duration::from_millis(1), name, help)
    }

    fn family_in(&self, unit: Duration, name: &str, help: &str) -> MetricFamily {
        let counts: Vec<u64> = self.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed));
        family::histogram_in(unit, name, help, self.bounds, &counts, sum)
    }
}
