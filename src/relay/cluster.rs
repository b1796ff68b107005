//! Packets from the other relays of the cluster: each realm's go to its door.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Instant;

use super::departures::{Departures, contain};
use super::routing::{Flow, Routed};
use super::{Delivery, Router};
use crate::cluster::{Cluster, Local};
use crate::ids::RelayId;
use crate::metrics::{Drop, Transport, Whose};
use crate::peers::Source;
use crate::wire::cluster::{Packets, Run};
use crate::wire::name::Name;

impl Router {
    /// Whether a packet in this sender's name may come from that relay: not if the sender
    /// has proved to be here, or is known to have proved it elsewhere.
    fn may_speak_for(&self, relay: RelayId, sender: Name, now: Instant) -> bool {
        let elsewhere =
            |cluster: &Arc<Cluster>| cluster.has_session_elsewhere(sender, Some(relay), now);
        !self.table.has_session(sender) && !self.cluster.as_ref().is_some_and(elsewhere)
    }

    /// Delivers packets of one realm.
    fn deliver_to(
        &self,
        door: &dyn Delivery,
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
        let socket = door.socket(u64::from(from.0.0[0]));
        let came = payloads.len() as u64;
        Departures::of_batch(socket, payload, now, shard, came, |out| {
            let mut next = 0;
            for run in packets.iter().filter(|run| run.count() > 0) {
                let positions = next..next + run.count();
                next = positions.end;
                let Run { dest, sender, .. } = run.run;
                let whose = Whose::packet(sender, dest);
                let count = run.count() as u64;
                let is_own = |name: Name| name.realm() == dest.realm() && door.has(name);
                if !(is_own(dest) && is_own(sender)) {
                    shard.dropped_of(whose, Drop::FOREIGN_NAME, count, now);
                    continue;
                }
                if !self.may_speak_for(from, sender, now) {
                    shard.dropped_of(whose, Drop::SENDER_ELSEWHERE, count, now);
                    continue;
                }
                let flow = Flow {
                    transport: Transport::Cluster,
                    source: Source::remote(sender),
                    sender,
                    dest,
                    packets: positions,
                    header: 0,
                    is_hidden: false,
                };
                let reason = match self.route(door, &flow, payload, out, now, shard) {
                    Routed::Session => continue,
                    Routed::Own(own) => {
                        door.depart(&own, &flow, &payload, out, now, shard);
                        continue;
                    }
                    // What came from another relay goes to none.
                    Routed::Relay | Routed::Nowhere => {
                        not_here(&run.run, serial);
                        Drop::NOT_HERE
                    }
                    Routed::Off => Drop::RELAY_OFF,
                };
                shard.dropped_of(whose, reason, count, now);
            }
        });
    }
}

impl Local for Router {
    fn deliver(
        &self,
        from: RelayId,
        packets: &[Packets<'_, Name>],
        now: Instant,
        not_here: &mut dyn FnMut(&Run<Name>, u64),
    ) {
        let realm = |packets: &Packets<'_, Name>| packets.run.dest.realm();
        let mut panic = None;
        for of_realm in packets.chunk_by(|one, next| realm(one) == realm(next)) {
            let Some(first) = of_realm.first() else { continue };
            match self.door(realm(first)) {
                Some(door) => contain(&mut panic, || {
                    self.deliver_to(&*door, from, of_realm, now, not_here);
                }),
                None => {
                    let shard = self.traffic.shard();
                    for packets in of_realm {
                        let whose = Whose::packet(packets.run.sender, packets.run.dest);
                        shard.dropped_of(whose, Drop::FOREIGN_NAME, packets.count() as u64, now);
                    }
                }
            }
        }
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn superseded(&self, node: Name, serial: u64, was_granted: bool, now: Instant) {
        if self.table.supersede(node, serial, was_granted, now).is_some() {
            tracing::debug!(%node, "a session gives way to a newer one at another relay");
        }
    }
}
