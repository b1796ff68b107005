//! Packets that came over UDP, from nodes and from beacons.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::departures::{Departures, Target};
use super::routing::Flow;
use super::{Relay, Rules, decode_reason, limit_reason};
use crate::metrics::{Drop, Shard, Transport, Whose};
use crate::net::udp::{Datagram, Datagrams, Received, Run};
use crate::peers;
use crate::proto::limit::{Bucket, Places, Rate, Source};
use crate::proto::network::Client;
use crate::wire::beacon::{self, Packet, RELAY_HEADER};

/// Sources that have buckets at a time, for each thread: as many as 32,768 addresses that
/// all send at once; a source beyond that begins with a full bucket.
const SOURCES: usize = 32_768;

/// Client addresses that have a bucket for what they ask the relay, for each thread; one
/// beyond that begins with a full bucket.
const CLIENTS: usize = 16_384;

/// Discovers and punches of one client address that each thread answers at once, however many
/// threads share its rate: more than one node ever sends.
const LEAST_QUESTIONS: u64 = 10;

/// Addresses that have a bucket for Syncs, for each thread: many more than there are beacons.
const SYNC_SOURCES: usize = 1_024;

/// Syncs a second of one address and port: twice what gossip takes. Over that, a flood would
/// make the threads wait for its lock. For each port, or whoever forges one could use up the
/// Syncs of the beacon at another.
const SYNC_RATE: Rate = Rate::per_second(2);

/// What one receiving thread owns: its socket and the buckets of the flows that the kernel
/// gives to that socket.
pub struct Worker {
    socket: Arc<dyn Datagrams>,
    /// Which of the relay's sockets it is.
    number: u64,
    /// How many there are.
    workers: u64,
    sources: Places<Source>,
    clients: Places<Bucket>,
    syncs: Places<Bucket>,
    kernel_dropped: u32,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("address", &self.socket.address()).finish_non_exhaustive()
    }
}

/// Where packets come from, as far as it decides about them.
#[derive(Clone, Copy)]
struct From {
    address: SocketAddr,
    transport: Transport,
}

/// What holds for all packets of one batch.
struct Batch<'a> {
    received: &'a Received,
    rules: &'a Rules,
    now: Instant,
    shard: &'a Shard,
}

/// Counts in what a batch holds behind the datagram that ended it by a panic.
struct Rest<'a> {
    relay: &'a Relay,
    received: &'a Received,
    shard: &'a Shard,
    next: usize,
}

impl std::ops::Drop for Rest<'_> {
    fn drop(&mut self) {
        for (datagram, packet) in self.received.iter().skip(self.next) {
            self.shard.came_in(self.relay.transport_of(datagram), 1, packet.len() as u64);
        }
    }
}

impl Relay {
    /// One worker for each socket.
    pub fn workers(&self) -> impl Iterator<Item = Worker> + '_ {
        self.sockets.iter().zip(0..).map(|(socket, number)| Worker {
            socket: Arc::clone(socket),
            number,
            workers: self.sockets.len() as u64,
            sources: Places::new(SOURCES),
            clients: Places::new(CLIENTS),
            syncs: Places::new(SYNC_SOURCES),
            kernel_dropped: 0,
        })
    }

    /// Receives one batch on the worker's socket, waiting 100 ms at most for it, and routes
    /// it.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn receive(&self, worker: &mut Worker, received: &mut Received) -> std::io::Result<()> {
        worker.socket.receive(received)?;
        self.route_datagrams(worker, received, Instant::now());
        Ok(())
    }

    /// Routes one batch of the worker's socket.
    pub(super) fn route_datagrams(&self, worker: &mut Worker, received: &Received, now: Instant) {
        let shard = self.traffic.shard();
        let lost = received.kernel_dropped.wrapping_sub(worker.kernel_dropped);
        worker.kernel_dropped = received.kernel_dropped;
        shard.kernel_dropped(lost.into());
        let rules = &**self.rules.load();
        let canaries = self.canaries.load();
        let batch = Batch { received, rules, now, shard };
        let socket = self.socket_of(worker.number);
        let packet = |index| received.packet(index);
        Departures::of_batch(socket, packet, now, shard, 0, |out| {
            let mut rest = Rest { relay: self, received, shard, next: 0 };
            let mut flow: Option<(SocketAddr, Flow)> = None;
            for (index, (datagram, packet)) in received.iter().enumerate() {
                rest.next = index + 1;
                if canaries.iter().any(|canary| canary.answer(worker, datagram, packet, now)) {
                    continue;
                }
                let from = From { address: datagram.from, transport: self.transport_of(datagram) };
                shard.came_in(from.transport, 1, packet.len() as u64);
                let relay = match beacon::decode(packet) {
                    Ok(Packet::Relay(relay)) => relay,
                    Ok(other) => {
                        self.for_relay(worker, &other, datagram, out, now, shard);
                        continue;
                    }
                    Err(error) => {
                        shard.dropped(decode_reason(error), 1);
                        continue;
                    }
                };
                if let Err(reason) = self.admit_source(worker, from, packet.len(), &batch) {
                    shard.dropped_of(Whose::packet(relay.sender, relay.dest), reason, 1, now);
                    continue;
                }
                match &mut flow {
                    Some((address, flow))
                        if *address == from.address
                            && (flow.sender, flow.dest) == (relay.sender, relay.dest)
                            && flow.packets.end == index =>
                    {
                        flow.packets.end = index + 1;
                    }
                    _ => {
                        let next = Flow {
                            transport: from.transport,
                            source: source_of(from.address),
                            sender: relay.sender,
                            dest: relay.dest,
                            packets: index..index + 1,
                            header: RELAY_HEADER,
                            canary: None,
                        };
                        if let Some((address, flow)) = flow.replace((from.address, next)) {
                            self.route_checked(address, &flow, &batch, out);
                        }
                    }
                }
            }
            if let Some((address, flow)) = flow {
                self.route_checked(address, &flow, &batch, out);
            }
        });
    }

    fn transport_of(&self, datagram: &Datagram) -> Transport {
        if self.beacons.is_beacon(datagram.from) { Transport::Beacon } else { Transport::Udp }
    }

    fn admit_source(
        &self,
        worker: &mut Worker,
        from: From,
        bytes: usize,
        batch: &Batch<'_>,
    ) -> Result<(), Drop> {
        let &Batch { rules, now, .. } = batch;
        let listed = from.transport == Transport::Beacon && self.beacons.is_listed(from.address);
        let rates = if listed { &rules.beacon } else { &rules.source };
        worker.sources.of(&from.address, now).take(rates, bytes, now).map_err(limit_reason)
    }

    /// Routes a flow after one look at its sender: the claim is not proved over UDP.
    fn route_checked(
        &self,
        address: SocketAddr,
        flow: &Flow,
        batch: &Batch<'_>,
        out: &mut Departures,
    ) {
        let &Batch { received, rules, now, shard } = batch;
        let count = flow.packets.len() as u64;
        let sender = self.table.sender(flow.sender, address, now);
        if sender.has_session || self.has_session_elsewhere(flow.sender, now) {
            return shard.dropped_of(flow.whose(), Drop::SenderIsWss, count, now);
        }
        let observed = sender.is_endpoint || flow.transport == Transport::Beacon;
        if rules.observed_senders_only && !observed {
            return shard.dropped_of(flow.whose(), Drop::SenderNotObserved, count, now);
        }
        self.route(flow, |index| received.packet(index), out, now, shard);
    }

    /// Packets that are meant for the relay itself.
    fn for_relay(
        &self,
        worker: &mut Worker,
        packet: &Packet<'_>,
        datagram: &Datagram,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) {
        match packet {
            Packet::Discover(discover) => {
                self.discover(worker, discover, datagram, out, now, shard)
            }
            Packet::PunchRequest(request) => {
                self.punch(worker, request, datagram, out, now, shard);
            }
            Packet::Sync(sync) => {
                let admits = || worker.admits_sync(datagram.from, now);
                self.beacons.sync(sync, datagram.from, admits, &self.table, now, shard);
            }
            Packet::DiscoverReply(_)
            | Packet::PunchCommand(_)
            | Packet::Deliver(_)
            | Packet::Notify(_)
            | Packet::Relay(_) => {
                shard.dropped(Drop::NotForRelay, 1);
            }
        }
    }
}

impl Worker {
    /// The address that the worker's socket is bound to.
    pub(super) fn address(&self) -> SocketAddr {
        self.socket.address()
    }

    /// Whether a client address may ask the relay for something once more.
    ///
    /// The kernel spreads the ports of one address evenly over the sockets, those of a NAT and
    /// those that somebody forges: each thread has an equal share of the address's rate.
    pub(super) fn admits_question(&mut self, ip: IpAddr, rules: &Rules, now: Instant) -> bool {
        let client = Client::of(ip, &rules.translators);
        let rate = rules.discover.share(self.workers, LEAST_QUESTIONS);
        self.clients.of(&client, now).take(rate, 1, now)
    }

    fn admits_sync(&mut self, from: SocketAddr, now: Instant) -> bool {
        self.syncs.of(&from, now).take(SYNC_RATE, 1, now)
    }

    /// Sends what counts nowhere.
    pub(super) fn send(&self, run: &Run<'_>) {
        self.socket.send(std::slice::from_ref(run), &mut |_, _, _| {});
    }
}

/// The answer to a datagram goes back where it came from, from the address it came to.
pub(super) const fn back_to(datagram: &Datagram) -> Target {
    Target { to: datagram.from, from: datagram.to, transport: Transport::Udp }
}

/// Tells sources apart within an outbox: the address, not the sender that it claims, or one
/// address could pass for many.
fn source_of(address: SocketAddr) -> peers::Source {
    use std::hash::BuildHasher as _;
    static HASHER: std::sync::LazyLock<foldhash::fast::RandomState> =
        std::sync::LazyLock::new(foldhash::fast::RandomState::default);
    peers::Source::Address(HASHER.hash_one(address))
}
