//! What a scrape shows of the registry.

use prometheus::proto::MetricFamily;

use super::Registry;
use crate::metrics::family;

impl Registry {
    pub(in crate::doors::pilot::directory) fn metrics(&self, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        let (entries, in_flight) = (self.cache.len() as f64, self.in_flight.len() as f64);
        #[allow(clippy::cast_precision_loss)] // at most 65,536
        let held = self.claims.held() as f64;
        families.extend([
            family::gauge_value(
                "pilot_beacon_registry_up",
                "1 unless the last attempt to reach the registry failed, or it did not answer in time.",
                f64::from(u8::from(self.is_up())),
            ),
            family::labelled(
                "pilot_beacon_registry_failures_total",
                "Connections to the registry that failed and requests that it did not answer.",
                "reason",
                &self.health.failures,
            ),
            family::gauge_value(
                "pilot_beacon_registry_lookups_in_flight",
                "Nodes that the registry is being asked about.",
                in_flight,
            ),
            family::labelled(
                "pilot_beacon_registry_saves_total",
                "Attempts to save the remembered keys for the next start.",
                "result",
                &self.saves,
            ),
            family::gauge_value(
                "pilot_beacon_registry_held_nodes",
                "Nodes of which the registry says that their key is gone or another, held back \
                 since it says so of too many.",
                held,
            ),
            family::labelled(
                "pilot_beacon_registry_contradictions_total",
                "Answers of the registry against a remembered key, by what became of them.",
                "result",
                &self.claims.fates,
            ),
            family::gauge_value(
                "pilot_beacon_directory_cache_entries",
                "Keys of the registry that are remembered.",
                entries,
            ),
            family::counts(
                "pilot_beacon_directory_cache_evictions_total",
                "Keys of the registry that were forgotten to make room.",
                &[],
                [(&[] as &[&str], self.cache.evictions())],
            ),
        ]);
    }
}
