//! What the store on JetStream counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use super::Leadership;
use crate::metrics::{Counter, HALF_DECADES, Histogram, family};

/// What the store counts.
pub(super) struct Meters {
    appends: Histogram,
    pub(super) failures: Counter,
    pub(super) lost: Counter,
    pub(super) snapshots: Counter,
    pub(super) fills: Counter,
    /// The last position of the log that is known here, and the last that the replica has.
    last: AtomicU64,
    applied: AtomicU64,
    pub(super) log_bytes: AtomicU64,
    pub(super) snapshot_bytes: AtomicU64,
    /// When the next snapshot may begin; none while one is written.
    pub(super) next_snapshot: Mutex<Option<Instant>>,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            appends: Histogram::new(HALF_DECADES),
            failures: Counter::default(),
            lost: Counter::default(),
            snapshots: Counter::default(),
            fills: Counter::default(),
            last: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            next_snapshot: Mutex::new(Some(Instant::now())),
        }
    }

    /// A record was appended, which took so long, at this position.
    pub(super) fn appended(&self, took: Duration, at: u64) {
        self.appends.observe(took);
        self.last.store(at, Ordering::Relaxed);
        self.applied.store(at, Ordering::Relaxed);
    }

    /// The log ends here.
    pub(super) fn log_ends(&self, at: u64) {
        self.last.store(at, Ordering::Relaxed);
    }

    /// The replica has the log up to here.
    pub(super) fn applied(&self, at: u64) {
        self.applied.store(at, Ordering::Relaxed);
        self.last.fetch_max(at, Ordering::Relaxed);
    }

    pub(super) fn families(
        &self,
        leadership: Leadership,
        is_connected: bool,
        families: &mut Vec<MetricFamily>,
    ) {
        let counters = [
            ("failures_total", "Appends and reads of the log that failed.", &self.failures),
            ("lost_total", "Records of the log that NATS had acknowledged and lost.", &self.lost),
            ("snapshots_total", "Snapshots that were written.", &self.snapshots),
            ("fills_total", "Times that the replica was filled anew.", &self.fills),
        ];
        for (name, help, counter) in counters {
            families.push(family::counter(&format!("beacon_relay_bus_log_{name}"), help, counter));
        }
        let (leads, epoch) = match leadership {
            Leadership::Nobody => (0, 0),
            Leadership::Here { epoch } => (1, epoch),
            Leadership::There { epoch, .. } => (0, epoch),
        };
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let behind = number(&self.last).saturating_sub(number(&self.applied));
        let gauges = [
            ("connected", "1 where NATS is connected.", u64::from(is_connected)),
            ("leads", "1 where this relay leads.", leads),
            ("epoch", "Number of the epoch of who leads, 0 where nobody does.", epoch),
            ("behind", "Records of the log that the replica is yet to take.", behind),
            ("bytes", "Bytes of the log.", number(&self.log_bytes)),
            ("snapshot_bytes", "Bytes of its snapshots.", number(&self.snapshot_bytes)),
        ];
        for (name, help, value) in gauges {
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let value = value as f64;
            families.push(family::gauge_value(
                &format!("beacon_relay_bus_log_{name}"),
                help,
                value,
            ));
        }
        families.push(
            self.appends.family("beacon_relay_bus_log_append_seconds", "Time that appends take."),
        );
    }
}
