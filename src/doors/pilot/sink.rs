//! Where the packets of nodes go.

use std::sync::Arc;
use std::time::Instant;

use prometheus::proto::MetricFamily;

use super::{NotNotified, Overlay, node_of};
use crate::ids::NodeId;
use crate::session::{Notified, Session};
use crate::wire::Frames;

/// Takes the packets of authenticated nodes, a whole read batch at a time.
pub trait PacketSink: Send + Sync + 'static {
    /// Takes the packets of one read, which came from `session` at `now`, and counts them in
    /// ([`Session::came_in`]; [`Router::take`](crate::relay::Router::take) does that). It runs on
    /// the session's own task and must not wait: meanwhile that node is not read.
    fn packets(&self, session: &Arc<Session>, packets: Frames<'_>, now: Instant);

    /// Tells a node that a handshake waits for it at the registry.
    ///
    /// # Errors
    /// Why it was not told.
    fn notify(&self, _node: NodeId, _now: Instant) -> Result<Notified, NotNotified> {
        Err(NotNotified::NotHere)
    }

    /// How many beacons have published nodes.
    fn beacons(&self) -> usize {
        0
    }

    /// Appends its families to a scrape.
    fn families(&self, _families: &mut Vec<MetricFamily>) {}
}

impl PacketSink for Arc<Overlay> {
    fn packets(&self, session: &Arc<Session>, packets: Frames<'_>, now: Instant) {
        self.route_frames(session, packets, now);
    }

    fn notify(&self, node: NodeId, now: Instant) -> Result<Notified, NotNotified> {
        Overlay::notify(self, node, now)
    }

    fn beacons(&self) -> usize {
        Overlay::beacons(self).sources()
    }

    fn families(&self, families: &mut Vec<MetricFamily>) {
        Overlay::families(self, families);
    }
}

/// A sink that calls a function for each packet.
#[derive(Debug)]
pub struct PerPacket<F>(F);

/// Makes a sink of a function that takes the authenticated node and the borrowed packet.
pub const fn per_packet<F: Fn(NodeId, &[u8]) + Send + Sync + 'static>(function: F) -> PerPacket<F> {
    PerPacket(function)
}

impl<F: Fn(NodeId, &[u8]) + Send + Sync + 'static> PacketSink for PerPacket<F> {
    fn packets(&self, session: &Arc<Session>, packets: Frames<'_>, _: Instant) {
        session.came_in(packets.len(), packets.bytes());
        if session.is_open() {
            packets.iter().for_each(|packet| self.0(node_of(session), packet));
        }
    }
}
