//! Finds the way of a flow. What goes to a session here is queued; what goes elsewhere, or
//! nowhere, is the caller's to send, to hand on or to drop.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use super::departures::{Body, Departures, Target};
use super::{NAMES_DESTINATION, Relay, Switch};
use crate::cluster::{Circular, Cluster, Outward};
use crate::ids::NodeId;
use crate::metrics::{Drop, Origin, Shard, Transport, Whose};
use crate::peers::{Arrival, Destination, EndpointView, Neighbour, Record, Source};
use crate::wire::beacon::{deliver_dest_header, deliver_header, relay_header};

/// Relay packets that follow each other in a batch from one source, of one sender, for one
/// destination.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) transport: Transport,
    pub(super) source: Source,
    pub(super) sender: NodeId,
    pub(super) dest: NodeId,
    /// The positions of the packets in the batch.
    pub(super) packets: Range<usize>,
    /// Bytes in front of each payload: those of a Relay packet, none from another relay.
    pub(super) header: usize,
    /// It is of a hidden session: that of the relay's own canary.
    pub(super) is_hidden: bool,
}

impl Flow {
    /// Whose its packets are.
    pub(super) fn whose(&self) -> Whose {
        Whose::packet(self.sender, self.dest)
    }
}

/// Where the packets of a flow go.
#[derive(Debug)]
pub(super) enum Routed {
    /// To a session here: they are in its outbox.
    Session,
    /// Where Pilot has a way of its own to.
    Own(Way),
    /// To another relay, which is known to have the destination.
    Relay,
    /// Only back to the kind of neighbour that they came from.
    Loop,
    /// Nobody here has the destination.
    Nowhere,
    /// Nowhere at this time: nothing is relayed.
    Off,
}

/// A way that only Pilot has: its packets leave as datagrams.
#[derive(Debug)]
pub(super) enum Way {
    /// To the UDP endpoint of the destination.
    Endpoint(EndpointView),
    /// To the beacon that serves it, at this address.
    Beacon(SocketAddr),
}

impl Relay {
    /// Takes a flow of a peer or a beacon to its destination, wherever that is; where there is
    /// none, its packets are dropped and counted.
    pub(super) fn carry<'a>(
        &self,
        flow: &Flow,
        packet: impl Fn(usize) -> &'a [u8] + Copy,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) {
        let header = flow.header;
        let payload =
            |index| packet(index).get(header..).expect("a packet of a flow has its header");
        let reason = match self.route(flow, payload, out, now, shard) {
            Routed::Session => return,
            Routed::Own(way) => return self.depart(&way, flow, payload, out, now, shard),
            Routed::Relay | Routed::Nowhere => match &self.cluster {
                Some(cluster) => match forward(cluster, flow, payload, out, now) {
                    Ok(()) => return,
                    Err(Circular) => Drop::BeaconLoop,
                },
                None => Drop::UnknownDestination,
            },
            Routed::Loop => Drop::BeaconLoop,
            Routed::Off => Drop::RelayOff,
        };
        shard.dropped_of(flow.whose(), reason, flow.packets.len() as u64, now);
    }

    /// Looks the destination of a flow up, once, and queues its packets if that is a session
    /// here. Accounts for no packet that goes another way.
    pub(super) fn route<'a>(
        &self,
        flow: &Flow,
        payload: impl Fn(usize) -> &'a [u8] + Copy,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) -> Routed {
        // The canary flies on: it shows that the relay could serve.
        if !flow.is_hidden && !self.switches.is_on(Switch::Relay) {
            return Routed::Off;
        }
        let from = match flow.transport {
            Transport::Beacon => Neighbour::Foreign,
            Transport::Cluster => Neighbour::Relay,
            Transport::Wss | Transport::Udp => Neighbour::Peer,
        };
        let count = flow.packets.len() as u64;
        let bytes = flow.packets.clone().map(|index| payload(index).len() as u64).sum();
        shard.passed(flow.sender.into(), flow.dest.into(), (count, bytes), now);
        match self.table.route(flow.dest.into(), from, now) {
            // What is hidden reaches nobody but itself, and nobody reaches it.
            Destination::Session(session) if session.is_hidden != flow.is_hidden => Routed::Nowhere,
            Destination::Session(session) => {
                let with_dest = deliver_dest_header(flow.sender, flow.dest);
                let without = deliver_header(flow.sender);
                let head: &[u8] =
                    if session.has(NAMES_DESTINATION) { &with_dest } else { &without };
                let records =
                    flow.packets.clone().map(|index| Record { head, body: payload(index) });
                let arrival = Arrival {
                    source: flow.source,
                    origin: Origin::Relayed,
                    sender: Some(flow.sender.into()),
                    at: now,
                };
                out.flush_later(&session);
                session.push(records, &arrival);
                shard.bridged(flow.transport, session.transport(), count, bytes);
                Routed::Session
            }
            Destination::Endpoint(endpoint) => Routed::Own(Way::Endpoint(endpoint)),
            Destination::Foreign(_) | Destination::Loop if self.is_known_elsewhere(flow) => {
                Routed::Relay
            }
            Destination::Foreign(address) => Routed::Own(Way::Beacon(address)),
            Destination::Loop => Routed::Loop,
            Destination::Unknown => Routed::Nowhere,
        }
    }

    /// Has the packets of a flow sent as datagrams.
    pub(super) fn depart<'a>(
        &self,
        way: &Way,
        flow: &Flow,
        payload: impl Fn(usize) -> &'a [u8] + Copy,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) {
        let count = flow.packets.len() as u64;
        let mut bytes = 0;
        let mut note = |index, target: Target, head: &[u8]| {
            let length = head.len() + payload(index).len();
            let Flow { sender, dest, header: skip, .. } = *flow;
            let body = Body { index, skip, sender, dest };
            out.relay(target, head, body, length, now, shard);
        };
        match way {
            Way::Endpoint(endpoint) => {
                let with_dest = deliver_dest_header(flow.sender, flow.dest);
                let without = deliver_header(flow.sender);
                let head: &[u8] =
                    if endpoint.has(NAMES_DESTINATION) { &with_dest } else { &without };
                let target = Target::of(endpoint);
                for index in flow.packets.clone() {
                    bytes += payload(index).len() as u64;
                    if endpoint.quiet && !self.may_disturb(endpoint.address, now) {
                        shard.dropped_of(flow.whose(), Drop::QuietEndpoint, 1, now);
                    } else {
                        note(index, target, head);
                    }
                }
                shard.bridged(flow.transport, target.transport, count, bytes);
            }
            Way::Beacon(address) => {
                let head = relay_header(flow.sender, flow.dest);
                let target = Target { to: *address, from: None, transport: Transport::Beacon };
                for index in flow.packets.clone() {
                    bytes += payload(index).len() as u64;
                    note(index, target, &head);
                }
                shard.bridged(flow.transport, target.transport, count, bytes);
            }
        }
    }
}

/// Hands a flow to the relay that has its destination, or has it wait until one is found.
fn forward<'a>(
    cluster: &Cluster,
    flow: &Flow,
    payload: impl Fn(usize) -> &'a [u8] + Copy,
    out: &mut Departures,
    now: Instant,
) -> Result<(), Circular> {
    let outward = Outward {
        sender: flow.sender.into(),
        dest: flow.dest.into(),
        transport: flow.transport,
        count: flow.packets.len() as u64,
        from_foreign: flow.transport == Transport::Beacon,
    };
    if let Some(member) = cluster.forward(&outward, flow.packets.clone().map(payload), now)? {
        out.wake_later(member);
    }
    Ok(())
}
