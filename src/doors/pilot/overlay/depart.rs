//! How packets leave to nodes and beacons: laid out for a session, or sent as datagrams.

use std::time::Instant;

use super::super::PilotDrop;
use super::{NAMES_DESTINATION, Overlay};
use crate::ids::NodeId;
use crate::metrics::{Shard, Transport};
use crate::net::udp::Datagrams;
use crate::peers::Session;
use crate::relay::{Body, Delivery, Departures, Flow, Head, Own, Payloads, Target, Way};
use crate::wire::beacon::{MAX_UDP_PACKET, deliver_dest_header, deliver_header, relay_header};
use crate::wire::name::Name;

impl Delivery for Overlay {
    fn head(&self, flow: &Flow, session: &Session) -> Head {
        deliver(flow, session.has(NAMES_DESTINATION))
    }

    fn has(&self, name: Name) -> bool {
        name.node_id().is_some()
    }

    fn socket(&self, number: u64) -> Option<&dyn Datagrams> {
        Some(self.socket_of(number))
    }

    fn depart(
        &self,
        own: &Own,
        flow: &Flow,
        payload: Payloads<'_>,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) {
        let count = flow.packets.len() as u64;
        let (target, head, quiet) = match &own.way {
            Way::Endpoint(endpoint) => {
                let names_destination = endpoint.has(NAMES_DESTINATION);
                (Target::of(endpoint), deliver(flow, names_destination), endpoint.quiet)
            }
            Way::Foreign(beacon) => {
                let target = Target { to: *beacon, from: None, transport: Transport::Foreign };
                let [sender, dest] = [flow.sender, flow.dest].map(node);
                (target, Head::new(&[&relay_header(sender, dest)]), false)
            }
            Way::Loop => return shard.dropped_of(flow.whose(), PilotDrop::BEACON_LOOP, count, now),
        };
        let number = out.note(flow.whose());
        let room = MAX_UDP_PACKET - head.bytes().len();
        let all_fit = own.longest <= room;
        for index in flow.packets.clone() {
            if !all_fit && payload(index).len() > room {
                shard.dropped_of(flow.whose(), PilotDrop::TOO_LARGE_FOR_UDP, 1, now);
            } else if quiet && !self.may_disturb(target.to, now) {
                shard.dropped_of(flow.whose(), PilotDrop::QUIET_ENDPOINT, 1, now);
            } else {
                out.relay(target, &head, Body { index, skip: flow.header, flow: number });
            }
        }
        shard.bridged(flow.transport, target.transport, count, own.bytes);
    }
}

/// What stands in front of a payload for a node, which may want to be named there itself.
fn deliver(flow: &Flow, names_destination: bool) -> Head {
    let sender = node(flow.sender);
    if names_destination {
        Head::new(&[&deliver_dest_header(sender, node(flow.dest))])
    } else {
        Head::new(&[&deliver_header(sender)])
    }
}

/// The node of a name.
fn node(name: Name) -> NodeId {
    name.node_id().expect("the packets of this door are from nodes to nodes")
}
