//! Finds the way of a run of packets and puts them on it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::departures::{Body, Departures, Target};
use super::{Relay, Switch};
use crate::ids::NodeId;
use crate::metrics::{Drop, Origin, Shard, Transport, Whose};
use crate::peers::{Arrival, Destination, Record, Source};
use crate::proto::route::From;
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
    pub(super) const fn whose(&self) -> Whose {
        Whose::packet(self.sender, self.dest)
    }
}

impl Relay {
    /// Looks the destination up once and hands it the packets of a flow. False if it is not
    /// here, nor behind a beacon.
    pub(super) fn route<'a>(
        &self,
        flow: &Flow,
        packet: impl Fn(usize) -> &'a [u8] + Copy,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) -> bool {
        let count = flow.packets.len() as u64;
        // The canary flies on: it shows that the relay could serve.
        if !flow.is_hidden && !self.switches.is_on(Switch::Relay) {
            shard.dropped_of(flow.whose(), Drop::RelayOff, count, now);
            // Wherever the destination is, it need not be looked for elsewhere.
            return true;
        }
        let from = match flow.transport {
            Transport::Beacon => From::Beacon,
            Transport::Cluster => From::Relay,
            Transport::Wss | Transport::Udp => From::Peer,
        };
        let payload =
            |index| packet(index).get(flow.header..).expect("a packet of a flow has its header");
        let bytes = flow.packets.clone().map(|index| payload(index).len() as u64).sum();
        shard.passed(flow.sender, flow.dest, (count, bytes), now);
        match self.table.route(flow.dest, from, now) {
            // What is hidden reaches nobody but itself, and nobody reaches it.
            Destination::Session(session) if session.is_hidden != flow.is_hidden => {
                shard.dropped_of(flow.whose(), Drop::UnknownDestination, count, now);
            }
            Destination::Session(session) => {
                let with_dest = deliver_dest_header(flow.sender, flow.dest);
                let without = deliver_header(flow.sender);
                let head: &[u8] = if session.names_destination.load(Ordering::Relaxed) {
                    &with_dest
                } else {
                    &without
                };
                let records =
                    flow.packets.clone().map(|index| Record { head, body: payload(index) });
                let arrival = Arrival {
                    source: flow.source,
                    origin: Origin::Relayed,
                    whose: flow.whose(),
                    at: now,
                };
                out.flush_later(&session);
                session.push(records, &arrival);
                shard.bridged(flow.transport, session.transport(), count, bytes);
            }
            Destination::Endpoint(endpoint) => {
                let with_dest = deliver_dest_header(flow.sender, flow.dest);
                let without = deliver_header(flow.sender);
                let head: &[u8] = if endpoint.names_destination { &with_dest } else { &without };
                let target = Target {
                    to: endpoint.address,
                    from: endpoint.local,
                    transport: Transport::Udp,
                };
                for index in flow.packets.clone() {
                    if endpoint.quiet && !self.may_disturb(endpoint.address, now) {
                        shard.dropped_of(flow.whose(), Drop::QuietEndpoint, 1, now);
                        continue;
                    }
                    let length = head.len() + payload(index).len();
                    let body = Body { index, skip: flow.header, whose: flow.whose() };
                    out.relay(target, head, body, length, now, shard);
                }
                shard.bridged(flow.transport, Transport::Udp, count, bytes);
            }
            Destination::Beacon(_) | Destination::Loop if self.is_known_elsewhere(flow) => {
                self.forward(flow, payload, out, now);
            }
            Destination::Beacon(address) => {
                let head = relay_header(flow.sender, flow.dest);
                let target = Target { to: address, from: None, transport: Transport::Beacon };
                for index in flow.packets.clone() {
                    let length = head.len() + payload(index).len();
                    let body = Body { index, skip: flow.header, whose: flow.whose() };
                    out.relay(target, &head, body, length, now, shard);
                }
                shard.bridged(flow.transport, Transport::Beacon, count, bytes);
            }
            Destination::Loop => shard.dropped_of(flow.whose(), Drop::BeaconLoop, count, now),
            Destination::Unknown => {
                if self.cluster.is_some() {
                    self.forward(flow, payload, out, now);
                } else {
                    shard.dropped_of(flow.whose(), Drop::UnknownDestination, count, now);
                }
                return false;
            }
        }
        true
    }
}
