//! What came of the last reload: reloads write it down, readiness, pages and metrics show it.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use crate::admin::{Part, ReloadStatus};
use crate::config::Difference;
use crate::control::rfc3339;
use crate::metrics::family;

/// Shared by whoever reloads and whoever shows it.
#[derive(Debug)]
pub(super) struct LastReload(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When the last attempt ended.
    at: SystemTime,
    /// When the settings in force were read.
    good_at: SystemTime,
    /// Why what is in force is older than the files, where it is.
    error: Option<String>,
    /// The keys of settings that wait for a restart.
    needs_restart: Vec<String>,
}

impl Default for LastReload {
    /// The reading at the start, which went well.
    fn default() -> Self {
        let now = SystemTime::now();
        let state = State { at: now, good_at: now, error: None, needs_restart: Vec::new() };
        Self(Mutex::new(state))
    }
}

impl LastReload {
    /// Everything was read and is in force, but for what needs a restart.
    pub(super) fn succeeded(&self, difference: &Difference) {
        let now = SystemTime::now();
        let needs_restart = difference.needs_restart.iter().map(|change| change.key.clone());
        let needs_restart = needs_restart.collect();
        *self.0.lock() = State { at: now, good_at: now, error: None, needs_restart };
    }

    /// Everything stays as it was.
    pub(super) fn failed(&self, error: String) {
        let mut state = self.0.lock();
        state.at = SystemTime::now();
        state.error = Some(error);
    }

    /// For `/status`.
    pub(super) fn status(&self) -> ReloadStatus {
        let state = self.0.lock();
        ReloadStatus { at: rfc3339(state.at), error: state.error.clone() }
    }

    /// The keys of settings that wait for a restart.
    pub(super) fn needs_restart(&self) -> Vec<String> {
        self.0.lock().needs_restart.clone()
    }

    /// Whether the files say what is in force.
    pub(super) fn part(&self) -> Part {
        let state = self.0.lock();
        match &state.error {
            None => Part::ok(format!("read at {}", rfc3339(state.at))),
            Some(error) => {
                let reason = format!("not reloaded, everything is as it was before: {error}");
                let remedy = "correct what it names, then `beacon-relay reload`; \
                              `beacon-relay check-config` checks a file before";
                Part::degraded(reason, remedy)
            }
        }
    }

    /// Appends the families to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let state = self.0.lock();
        let good_at = state.good_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let good_at = good_at.as_secs() as f64;
        families.extend([
            family::gauge_value(
                "pilot_beacon_last_reload_success",
                "1 if the last reload went well, 0 if what is in force is older.",
                f64::from(u8::from(state.error.is_none())),
            ),
            family::gauge_value(
                "pilot_beacon_last_reload_timestamp_seconds",
                "When the settings in force were read, in Unix time.",
                good_at,
            ),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Condition;
    use crate::config::Change;

    #[test]
    fn failed_reload_degrades_until_one_goes_well_and_forgets_no_pending_restart() {
        let last = LastReload::default();
        let (key, old, new) = ("udp_bind".to_owned(), "a".to_owned(), "b".to_owned());
        let needs_restart = vec![Change { key, old, new }];
        last.succeeded(&Difference { needs_restart, ..Difference::default() });

        last.failed("x.toml: line 1".to_owned());

        assert_eq!(last.part().condition, Condition::Degraded);
        assert_eq!(last.status().error.as_deref(), Some("x.toml: line 1"));
        assert_eq!(last.needs_restart(), ["udp_bind"]);
        last.succeeded(&Difference::default());
        assert_eq!(last.part().condition, Condition::Ok);
        assert!(last.needs_restart().is_empty());
    }
}
