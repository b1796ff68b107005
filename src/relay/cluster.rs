//! Packets from the other relays of the cluster, and what is known of them.

use std::sync::Arc;
use std::time::Instant;

use super::Relay;
use super::departures::Departures;
use super::routing::{Flow, Routed};
use crate::cluster::{Cluster, Local};
use crate::ids::{NodeId, RelayId};
use crate::metrics::{Drop, Transport, Whose};
use crate::peers::Source;
use crate::wire::cluster::{Packets, Run};
use crate::wire::name::Name;

impl Relay {
    /// Whether a node has a session at another relay, as far as that is known.
    #[must_use]
    pub fn has_session_elsewhere(&self, node: NodeId, now: Instant) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|cluster| cluster.has_session_elsewhere(node.into(), None, now))
    }

    /// Whether a flow's destination, which a beacon serves, is at another relay as well.
    pub(super) fn is_known_elsewhere(&self, flow: &Flow) -> bool {
        let cluster = self.cluster.as_ref().filter(|_| flow.transport != Transport::Cluster);
        cluster.is_some_and(|cluster| cluster.is_known_elsewhere(flow.dest.into()))
    }

    /// Whether a packet in this sender's name may come from that relay: not if the sender
    /// has proved to be here, or is known to have proved it elsewhere.
    fn may_speak_for(&self, relay: RelayId, sender: NodeId, now: Instant) -> bool {
        let elsewhere =
            |cluster: &Arc<Cluster>| cluster.has_session_elsewhere(sender.into(), Some(relay), now);
        !self.table.has_session(sender.into()) && !self.cluster.as_ref().is_some_and(elsewhere)
    }
}

impl Local for Relay {
    fn deliver(
        &self,
        from: RelayId,
        packets: &[Packets<'_, Name>],
        now: Instant,
        not_here: &mut dyn FnMut(&Run<Name>, u64),
    ) {
        let shard = self.traffic.shard();
        // Before the look into the table: whatever comes later has a higher number.
        let serial = self.table.generation();
        let payloads: Vec<&[u8]> = packets.iter().flat_map(Packets::iter).collect();
        let payload = |index: usize| *payloads.get(index).expect("the runs hold as many packets");
        let socket = self.socket_of(u64::from(from.0.0[0]));
        let came = payloads.len() as u64;
        Departures::of_batch(socket, payload, now, shard, came, |out| {
            let mut next = 0;
            for run in packets.iter().filter(|run| run.count() > 0) {
                let positions = next..next + run.count();
                next = positions.end;
                let Run { dest, sender, .. } = run.run;
                let (Some(dest), Some(sender)) = (dest.node_id(), sender.node_id()) else {
                    let whose = Whose::packet(sender, dest);
                    shard.dropped_of(whose, Drop::NotForRelay, run.count() as u64, now);
                    continue;
                };
                if !self.may_speak_for(from, sender, now) {
                    let (whose, count) = (Whose::packet(sender, dest), run.count() as u64);
                    shard.dropped_of(whose, Drop::SenderElsewhere, count, now);
                    continue;
                }
                let flow = Flow {
                    transport: Transport::Cluster,
                    source: Source::remote(run.run.sender),
                    sender,
                    dest,
                    packets: positions,
                    header: 0,
                    is_hidden: false,
                };
                let reason = match self.route(&flow, payload, out, now, shard) {
                    Routed::Session => continue,
                    Routed::Own(way) => {
                        self.depart(&way, &flow, payload, out, now, shard);
                        continue;
                    }
                    // What came from another relay goes to none.
                    Routed::Relay | Routed::Nowhere => {
                        not_here(&run.run, serial);
                        Drop::NotHere
                    }
                    Routed::Loop => Drop::BeaconLoop,
                    Routed::Off => Drop::RelayOff,
                };
                shard.dropped_of(flow.whose(), reason, flow.packets.len() as u64, now);
            }
        });
    }

    fn superseded(&self, node: Name, serial: u64, now: Instant) {
        if self.table.supersede(node, serial, now).is_some() {
            tracing::debug!(%node, "a session gives way to a newer one at another relay");
        }
    }
}
