//! Finds the way of a flow. What goes to a session here is queued; what goes elsewhere, or
//! nowhere, is the caller's to send, to hand on or to drop.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use super::departures::Departures;
use super::{Delivery, Router};
use crate::cluster::{Circular, Cluster, Outward};
use crate::metrics::{Drop, Origin, Shard, Transport, Whose};
use crate::peers::{Arrival, Destination, EndpointView, Neighbour, Record, Source};
use crate::wire::name::Name;

/// Packets that follow each other in a batch from one source, of one sender, for one
/// destination.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Over what they came.
    pub transport: Transport,
    /// Whose share of an outbox they take.
    pub source: Source,
    /// Who sent them, or says so.
    pub sender: Name,
    /// Whom they are for.
    pub dest: Name,
    /// The positions of the packets in the batch.
    pub packets: Range<usize>,
    /// Bytes in front of each payload; none from another relay.
    pub header: usize,
    /// It is of a hidden session: that of the relay's own canary.
    pub is_hidden: bool,
}

impl Flow {
    /// Whose its packets are.
    #[must_use]
    pub fn whose(&self) -> Whose {
        Whose::packet(self.sender, self.dest)
    }

    /// Whether the packet at this position of the batch is one more of it.
    #[inline]
    pub(super) fn continues(&self, dest: Name, header: usize, index: usize) -> bool {
        self.dest == dest && self.packets.end == index && self.header == header
    }
}

/// Where the packets of a flow go.
#[derive(Debug)]
pub(super) enum Routed {
    /// To a session here: they are in its outbox.
    Session,
    /// Where their door has a way of its own to.
    Own(Own),
    /// To another relay, which is known to have the destination.
    Relay,
    /// Nobody here has the destination.
    Nowhere,
    /// Nowhere at this time: nothing is relayed.
    Off,
}

/// A flow that leaves by a way of its door's own, as datagrams.
#[derive(Debug)]
pub struct Own {
    /// Which way.
    pub way: Way,
    /// Bytes of the payloads.
    pub bytes: u64,
    /// Bytes of the longest payload.
    pub longest: usize,
}

/// A way that a door has told the table.
#[derive(Debug)]
pub enum Way {
    /// To the endpoint of the destination.
    Endpoint(EndpointView),
    /// To the foreign server that has it, at this address.
    Foreign(SocketAddr),
    /// None: only back to the kind of neighbour that they came from.
    Loop,
}

impl Router {
    /// Takes a flow of a peer or a foreign server to its destination, wherever that is; where
    /// there is none, its packets are dropped and counted.
    pub fn carry<'a, D: Delivery + ?Sized>(
        &self,
        door: &D,
        flow: &Flow,
        packet: impl Fn(usize) -> &'a [u8] + Copy,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) {
        let header = flow.header;
        let payload =
            |index| packet(index).get(header..).expect("a packet of a flow has its header");
        let reason = match self.route(door, flow, payload, out, now, shard) {
            Routed::Session => return,
            Routed::Own(own) => return door.depart(&own, flow, &payload, out, now, shard),
            // No other relay learns of what is hidden.
            Routed::Nowhere if flow.is_hidden => Drop::UNKNOWN_DESTINATION,
            Routed::Relay | Routed::Nowhere => match &self.cluster {
                Some(cluster) => match forward(cluster, flow, payload, out, now) {
                    Ok(()) => return,
                    Err(Circular) => {
                        let own = Own { way: Way::Loop, bytes: 0, longest: 0 };
                        return door.depart(&own, flow, &payload, out, now, shard);
                    }
                },
                None => Drop::UNKNOWN_DESTINATION,
            },
            Routed::Off => Drop::RELAY_OFF,
        };
        shard.dropped_of(flow.whose(), reason, flow.packets.len() as u64, now);
    }

    /// Looks the destination of a flow up, once, and queues its packets if that is a session
    /// here. Accounts for no packet that goes another way.
    pub(super) fn route<'a, D: Delivery + ?Sized>(
        &self,
        door: &D,
        flow: &Flow,
        payload: impl Fn(usize) -> &'a [u8] + Copy,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) -> Routed {
        // The canary flies on: it shows that the relay could serve.
        if !flow.is_hidden && !self.relaying.is_on() {
            return Routed::Off;
        }
        let from = match flow.transport {
            Transport::Foreign => Neighbour::Foreign,
            Transport::Cluster => Neighbour::Relay,
            Transport::Wss | Transport::Quic | Transport::Udp => Neighbour::Peer,
        };
        let count = flow.packets.len() as u64;
        let (mut bytes, mut longest) = (0, 0);
        for length in flow.packets.clone().map(|index| payload(index).len()) {
            bytes += length as u64;
            longest = longest.max(length);
        }
        shard.passed(flow.sender, flow.dest, (count, bytes), now);
        let own = |way| Routed::Own(Own { way, bytes, longest });
        match self.table.route(flow.dest, from, now) {
            // What is hidden reaches nobody but itself, and nobody reaches it.
            Destination::Session(session) if session.is_hidden != flow.is_hidden => Routed::Nowhere,
            Destination::Session(session) => {
                let head = door.head(flow, &session);
                let records = flow
                    .packets
                    .clone()
                    .map(|index| Record { head: head.bytes(), body: payload(index) });
                let arrival = Arrival {
                    source: flow.source,
                    origin: Origin::Relayed,
                    sender: Some(flow.sender),
                    at: now,
                };
                out.flush_later(&session);
                session.push(records, &arrival);
                door.delivered(flow, &session, bytes);
                shard.bridged(flow.transport, session.transport(), count, bytes);
                Routed::Session
            }
            _ if flow.is_hidden => Routed::Nowhere,
            Destination::Endpoint(endpoint) => own(Way::Endpoint(endpoint)),
            Destination::Foreign(_) | Destination::Loop if self.is_known_elsewhere(flow) => {
                Routed::Relay
            }
            Destination::Foreign(address) => own(Way::Foreign(address)),
            Destination::Loop => own(Way::Loop),
            Destination::Unknown => Routed::Nowhere,
        }
    }

    /// Whether a flow's destination, which a foreign server has, is at another relay as well.
    fn is_known_elsewhere(&self, flow: &Flow) -> bool {
        let cluster = self.cluster.as_ref().filter(|_| flow.transport != Transport::Cluster);
        cluster.is_some_and(|cluster| cluster.is_known_elsewhere(flow.dest))
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
        sender: flow.sender,
        dest: flow.dest,
        transport: flow.transport,
        count: flow.packets.len() as u64,
        from_foreign: flow.transport == Transport::Foreign,
    };
    if let Some(member) = cluster.forward(&outward, flow.packets.clone().map(payload), now)? {
        out.wake_later(member);
    }
    Ok(())
}
