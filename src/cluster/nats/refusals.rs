//! Counts what is refused, and says so in the log without flooding it.

use std::sync::Arc;
use std::time::Instant;

use async_nats::ServerError;

use crate::cluster::{Cluster, Reject};
use crate::ids::RelayId;
use crate::metrics::{Rarely, Word as _};

/// What was refused, by reason.
#[derive(Debug)]
pub(super) struct Refusals {
    cluster: Arc<Cluster>,
    ours: [Rarely; Reject::ALL.len()],
    of_server: Rarely,
}

impl Refusals {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, ours: Default::default(), of_server: Rarely::default() }
    }

    /// Counts something that `relay`, or a stranger, sent. The first of a reason in a minute
    /// is a warning.
    pub(super) fn count(&self, reason: Reject, relay: Option<RelayId>) {
        self.cluster.counters().rejects.of(reason).increment();
        let is_due = self.ours.get(reason.index()).is_some_and(|last| last.is_due(Instant::now()));
        let (relay, reason) = (relay.map(tracing::field::display), reason.word());
        if is_due {
            tracing::warn!(relay, reason, "refused a message of the cluster");
        } else {
            tracing::debug!(relay, reason, "refused a message of the cluster");
        }
    }

    /// Says that the server has refused something of ours, which may be each message.
    pub(super) fn by_server(&self, error: &ServerError) {
        if self.of_server.is_due(Instant::now()) {
            tracing::warn!(%error, "NATS has refused something");
        } else {
            tracing::debug!(%error, "NATS has refused something");
        }
    }
}
