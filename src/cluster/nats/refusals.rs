//! Counts what is refused, and says so in the log without flooding it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cluster::{Cluster, Reject};
use crate::ids::RelayId;
use crate::metrics::Word as _;

/// Between two warnings of one reason.
const QUIET: Duration = Duration::from_secs(60);

/// What was refused, by reason.
#[derive(Debug)]
pub(super) struct Refusals {
    cluster: Arc<Cluster>,
    warned: Mutex<[Option<Instant>; Reject::ALL.len()]>,
}

impl Refusals {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, warned: Mutex::default() }
    }

    /// Counts something that `relay`, or a stranger, sent. The first of a reason in a minute
    /// is a warning.
    pub(super) fn count(&self, reason: Reject, relay: Option<RelayId>) {
        self.cluster.counters().rejects.of(reason).increment();
        let (relay, reason) = (relay.map(tracing::field::display), (reason, reason.word()));
        if self.is_due(reason.0, Instant::now()) {
            tracing::warn!(relay, reason = reason.1, "refused a message of the cluster");
        } else {
            tracing::debug!(relay, reason = reason.1, "refused a message of the cluster");
        }
    }

    fn is_due(&self, reason: Reject, now: Instant) -> bool {
        let mut warned = self.warned.lock();
        let Some(last) = warned.get_mut(reason.index()) else { return false };
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nats::tests::cluster;

    #[test]
    fn each_reason_is_a_warning_once_a_minute() {
        let refusals = Refusals::new(cluster(1, QUIET));
        let t0 = Instant::now();
        assert!(refusals.is_due(Reject::NoMember, t0));
        assert!(refusals.is_due(Reject::Malformed, t0));
        assert!(!refusals.is_due(Reject::NoMember, t0 + QUIET - Duration::from_millis(1)));
        assert!(refusals.is_due(Reject::NoMember, t0 + QUIET));
    }
}
