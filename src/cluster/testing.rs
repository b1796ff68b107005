//! What tests of both fabrics share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Cluster, Local};
use crate::ids::RelayId;
use crate::wire::cluster::{Packets, Run};
use crate::wire::name::Name;
use crate::wire::name::testing::name;

/// A relay that fails at the first batch of packets that it is to deliver, and counts the others.
#[derive(Debug, Default)]
pub(super) struct FailsOnce {
    batches: AtomicU64,
}

impl FailsOnce {
    pub(super) fn serving(cluster: &Cluster) -> Arc<Self> {
        let local = Arc::<Self>::default();
        let weak: std::sync::Weak<Self> = Arc::downgrade(&local);
        cluster.serve(weak);
        local
    }

    pub(super) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}

impl Local for FailsOnce {
    fn deliver(
        &self,
        _from: RelayId,
        _packets: &[Packets<'_, Name>],
        _now: Instant,
        _not_here: &mut dyn FnMut(&Run<Name>, u64),
    ) {
        assert_ne!(self.batches.fetch_add(1, Ordering::Relaxed), 0, "on purpose");
    }

    fn superseded(&self, _peer: Name, _serial: u64, _was_granted: bool, _now: Instant) {}
}

/// A batch of one packet.
pub(super) fn packet() -> Vec<u8> {
    let mut batch = Vec::new();
    let run = Run { dest: name(1), sender: name(2), epoch: 1 };
    let at = crate::wire::cluster::begin_packets(&run, &mut batch);
    crate::wire::cluster::add_packet(at, b"payload", &mut batch);
    batch
}
