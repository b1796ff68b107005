//! Packets that came over UDP, from nodes and from beacons.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::PilotDrop;
use super::buckets::Buckets;
use super::{Handled, Overlay, Rules, decode_reason};
use crate::metrics::{Shard, Transport, Whose};
use crate::net::udp::{Datagram, Datagrams, Received};
use crate::peers::Source;
use crate::proto::limit::SourceRates;
use crate::relay::{Departures, Flow, Target, limit_reason};
use crate::udp::DatagramSink;
use crate::wire::beacon::{self, Packet, RELAY_HEADER};

/// Where packets come from, as far as it decides about them.
#[derive(Clone, Copy)]
struct From {
    address: SocketAddr,
    transport: Transport,
    /// Whether that is the very address of a listed beacon.
    is_listed: bool,
}

/// What holds for all datagrams of one batch.
pub(super) struct Batch<'a> {
    /// The socket that they came to.
    pub(super) socket: &'a dyn Datagrams,
    pub(super) received: &'a Received,
    pub(super) rules: &'a Rules,
    /// What a node may send in a second.
    source: SourceRates,
    pub(super) now: Instant,
    pub(super) shard: &'a Shard,
}

/// Counts in what a batch holds behind the datagram that ended it by a panic.
struct Rest<'a> {
    overlay: &'a Overlay,
    received: &'a Received,
    shard: &'a Shard,
    next: usize,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        for (datagram, packet) in self.received.iter().skip(self.next) {
            let from = self.overlay.from(datagram.from);
            self.shard.came_in(from.transport, 1, packet.len() as u64);
        }
    }
}

impl DatagramSink for Overlay {
    type Worker = Buckets;

    fn worker(&self, threads: usize) -> Buckets {
        Buckets::new(threads)
    }

    fn datagrams(
        &self,
        buckets: &mut Buckets,
        socket: &dyn Datagrams,
        received: &Received,
        now: Instant,
    ) {
        let shard = self.traffic.shard();
        let rules = &**self.rules.load();
        let source = self.router.rates();
        let batch = Batch { socket, received, rules, source, now, shard };
        let packet = |index| received.packet(index);
        Departures::of_batch(Some(socket), packet, now, shard, 0, |out| {
            self.route_datagrams(buckets, &batch, out);
        });
    }
}

impl Overlay {
    fn route_datagrams(&self, buckets: &mut Buckets, batch: &Batch<'_>, out: &mut Departures) {
        let &Batch { received, now, shard, .. } = batch;
        let mut rest = Rest { overlay: self, received, shard, next: 0 };
        let mut last_from: Option<From> = None;
        let mut flow: Option<(SocketAddr, Flow)> = None;
        for (index, (datagram, packet)) in received.iter().enumerate() {
            rest.next = index + 1;
            // Datagrams of one address come in runs.
            let from = match last_from {
                Some(from) if from.address == datagram.from => from,
                _ => *last_from.insert(self.from(datagram.from)),
            };
            shard.came_in(from.transport, 1, packet.len() as u64);
            let relay = match beacon::decode(packet) {
                Ok(Packet::Relay(relay)) => relay,
                Ok(other) => {
                    self.for_relay(buckets, &other, datagram, batch, out);
                    if matches!(other, Packet::Sync(_)) {
                        // It makes a beacon of who sent it.
                        last_from = None;
                    }
                    continue;
                }
                Err(error) => {
                    shard.dropped(decode_reason(error), 1);
                    continue;
                }
            };
            let rates = if from.is_listed { &batch.rules.beacon } else { &batch.source };
            if let Err(exceeded) = buckets.take(from.address, rates, packet.len(), now) {
                let whose = Whose::packet(relay.sender, relay.dest);
                shard.dropped_of(whose, limit_reason(exceeded), 1, now);
                continue;
            }
            match &mut flow {
                Some((address, flow))
                    if *address == from.address
                        && (flow.sender, flow.dest) == (relay.sender.into(), relay.dest.into())
                        && flow.packets.end == index =>
                {
                    flow.packets.end = index + 1;
                }
                _ => {
                    let next = Flow {
                        transport: from.transport,
                        source: Source::address(from.address),
                        sender: relay.sender.into(),
                        dest: relay.dest.into(),
                        packets: index..index + 1,
                        header: RELAY_HEADER,
                        is_hidden: false,
                    };
                    if let Some((address, flow)) = flow.replace((from.address, next)) {
                        self.route_checked(address, &flow, batch, out);
                    }
                }
            }
        }
        if let Some((address, flow)) = flow {
            self.route_checked(address, &flow, batch, out);
        }
    }

    fn from(&self, address: SocketAddr) -> From {
        let is_listed = self.beacons.is_listed(address);
        let is_beacon = is_listed || self.beacons.is_source(address);
        let transport = if is_beacon { Transport::Foreign } else { Transport::Udp };
        From { address, transport, is_listed }
    }

    /// Routes a flow after one look at its sender: the claim is not proved over UDP.
    fn route_checked(
        &self,
        address: SocketAddr,
        flow: &Flow,
        batch: &Batch<'_>,
        out: &mut Departures,
    ) {
        let &Batch { received, rules, now, shard, .. } = batch;
        let count = flow.packets.len() as u64;
        let sender = self.table.sender(flow.sender, address, now);
        if sender.has_session || self.router.has_session_elsewhere(flow.sender, now) {
            return shard.dropped_of(flow.whose(), PilotDrop::SENDER_IS_WSS, count, now);
        }
        let observed = sender.is_endpoint || flow.transport == Transport::Foreign;
        if rules.observed_senders_only && !observed {
            return shard.dropped_of(flow.whose(), PilotDrop::SENDER_NOT_OBSERVED, count, now);
        }
        self.router.carry(self, flow, |index| received.packet(index), out, now, shard);
    }

    /// Packets that are meant for the relay itself.
    fn for_relay(
        &self,
        buckets: &mut Buckets,
        packet: &Packet<'_>,
        datagram: &Datagram,
        batch: &Batch<'_>,
        out: &mut Departures,
    ) {
        match packet {
            Packet::Discover(discover) => self.discover(buckets, discover, datagram, batch, out),
            Packet::PunchRequest(request) => self.punch(buckets, request, datagram, batch, out),
            Packet::Sync(sync) => {
                let &Batch { now, shard, .. } = batch;
                let admits = || buckets.admits_sync(datagram.from, now);
                match self.beacons.sync(sync, datagram.from, admits, &self.table, now) {
                    Ok(()) => self.count_handled(Handled::Sync, shard),
                    Err(reason) => shard.dropped(reason, 1),
                }
            }
            Packet::DiscoverReply(_)
            | Packet::PunchCommand(_)
            | Packet::Deliver(_)
            | Packet::Notify(_)
            | Packet::Relay(_) => {
                batch.shard.dropped(PilotDrop::NOT_FOR_RELAY, 1);
            }
        }
    }
}

/// The answer to a datagram goes back where it came from, from the address it came to.
pub(super) const fn back_to(datagram: &Datagram) -> Target {
    Target { to: datagram.from, from: datagram.to, transport: Transport::Udp }
}
