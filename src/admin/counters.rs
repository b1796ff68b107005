//! What the operators' port counts of itself.

use prometheus::proto::MetricFamily;

use crate::metrics::{Counter, family};

/// The port's counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Snapshots that were made for those who watch.
    pub(super) snapshots: Counter,
    /// Who found no place to watch.
    pub(super) watchers_refused: Counter,
    /// Connections that took nothing for too long.
    pub(super) stuck: Counter,
    /// Connections whose client had gone before there was a place for them.
    pub(super) abandoned: Counter,
}

impl Counters {
    /// Appends the port's families to a scrape, with how many watch.
    pub(super) fn families(&self, watchers: usize, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // a few hundred at most
        let watchers = watchers as f64;
        families.extend([
            family::gauge_value(
                "pilot_beacon_admin_watchers",
                "Who watch the status page.",
                watchers,
            ),
            family::counter(
                "pilot_beacon_admin_watchers_refused_total",
                "Who found no place to watch the status page.",
                &self.watchers_refused,
            ),
            family::counter(
                "pilot_beacon_admin_snapshots_total",
                "Snapshots that were made for those who watch.",
                &self.snapshots,
            ),
            family::counter(
                "pilot_beacon_admin_stuck_total",
                "Connections of operators that were ended because nothing was read from them.",
                &self.stuck,
            ),
            family::counter(
                "pilot_beacon_admin_abandoned_total",
                "Connections of operators that waited for a place until their client had gone.",
                &self.abandoned,
            ),
        ]);
    }
}
