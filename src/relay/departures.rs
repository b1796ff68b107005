//! What a batch has to carry out at its end: outboxes to flush and datagrams to send.

use std::any::Any;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Head;
use crate::cluster::Member;
use crate::metrics::{self, Drop, Origin, Shard, Transport, Whose};
use crate::net::udp::{BATCH, Datagrams, MAX_RUN, MAX_RUN_PACKETS, MAX_SEGMENT, Run, SendError};
use crate::peers::{EndpointView, Filled, Session};

/// Longest packet of our own, and longest head of a relayed one: two bytes and an IPv6 address
/// with its port.
pub const MAX_HEAD: usize = 20;

/// Bytes that are gathered before they are sent: four runs of the largest kind.
const GATHER: usize = 4 * MAX_RUN;

/// A datagram that waits for the end of its batch.
#[derive(Clone, Copy, Debug)]
struct Item {
    to: SocketAddr,
    from: Option<IpAddr>,
    transport: Transport,
    head: [u8; MAX_HEAD],
    head_length: u8,
    /// The rest of a relayed packet; none where the packet is our own.
    body: Option<Body>,
}

impl Item {
    const fn origin(&self) -> Origin {
        if self.body.is_some() { Origin::Relayed } else { Origin::Ours }
    }
}

/// What a relayed datagram carries behind its head.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Which packet of the batch it is taken from.
    pub index: usize,
    /// From which byte on.
    pub skip: usize,
    /// Whose it is, as [`Departures::note`] numbered it.
    pub flow: FlowNumber,
}

/// Whose relayed datagrams are, by the number of their flow in this batch.
#[derive(Clone, Copy, Debug)]
pub struct FlowNumber(u32);

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The address.
    pub to: SocketAddr,
    /// Our address that it must leave from.
    pub from: Option<IpAddr>,
    /// What it is counted as.
    pub transport: Transport,
}

impl Target {
    /// A peer's endpoint, from the address of ours that the peer knows.
    #[must_use]
    pub const fn of(endpoint: &EndpointView) -> Self {
        Self { to: endpoint.address, from: endpoint.local, transport: Transport::Udp }
    }
}

/// Everything that leaves at the end of a batch. Its buffers are kept from batch to batch.
#[derive(Debug, Default)]
pub struct Departures {
    sessions: Filled,
    members: Vec<Arc<Member>>,
    items: Vec<Item>,
    flows: Vec<Whose>,
    /// How many of the items are packets of our own that nobody has told of yet.
    ours: u64,
    order: Vec<u32>,
    gathered: Vec<u8>,
    planned: Vec<Planned>,
}

/// A run whose bytes are gathered: they begin where the run before ends.
#[derive(Clone, Copy, Debug)]
struct Planned {
    item: u32,
    packets: usize,
    bytes: usize,
    segment: usize,
}

/// Why an item is there: orders and plans are made of the positions of items.
const ORDER: &str = "the position of an item";

thread_local! {
    static DEPARTURES: RefCell<Departures> = RefCell::default();
}

impl Departures {
    /// Has `fill` note what a batch has to carry out, and carries it out. `packet` finds a
    /// packet of the batch, `came` of which were counted in before. Datagrams leave by `socket`.
    ///
    /// # Panics
    /// `fill` notes a datagram, and there is no socket.
    /// As `fill` does, or a socket; but not before all that was noted is carried out: nobody
    /// else would flush the outboxes that the batch filled. What is left of the batch is counted
    /// as failed.
    pub fn of_batch<'a>(
        socket: Option<&dyn Datagrams>,
        packet: impl Fn(usize) -> &'a [u8],
        now: Instant,
        shard: &Shard,
        came: u64,
        fill: impl FnOnce(&mut Self),
    ) {
        let before = metrics::unsettled();
        // Taken out meanwhile, so that a flush that comes back here finds another one.
        let mut departures = DEPARTURES.take();
        let mut panic = None;
        contain(&mut panic, || fill(&mut departures));
        for session in departures.sessions.drain() {
            contain(&mut panic, || session.flush(now));
        }
        for member in departures.members.drain(..) {
            contain(&mut panic, || member.outbox.wake());
        }
        contain(&mut panic, || departures.send_all(socket, packet, now, shard));
        match panic {
            None => DEPARTURES.set(departures),
            Some(panic) => {
                let left = metrics::unsettled().wrapping_sub(before).wrapping_add(came);
                // Nothing is left below zero: that would be a packet that counts twice.
                shard.dropped(Drop::FAILED, left.cast_signed().max(0).cast_unsigned());
                shard.ours_dropped(departures.ours);
                resume_unwind(panic)
            }
        }
    }

    /// Has a session's outbox flushed at the end.
    pub fn flush_later(&mut self, session: &Arc<Session>) {
        self.sessions.note(session);
    }

    /// Has a relay's outbox taken up at the end.
    pub fn wake_later(&mut self, member: Arc<Member>) {
        if !self.members.last().is_some_and(|last| Arc::ptr_eq(last, &member)) {
            self.members.push(member);
        }
    }

    /// Notes whose the next datagrams are.
    pub fn note(&mut self, whose: Whose) -> FlowNumber {
        let number = u32::try_from(self.flows.len()).expect("fewer flows than bytes");
        self.flows.push(whose);
        FlowNumber(number)
    }

    /// Has a packet sent that is `head`, of [`MAX_HEAD`] bytes at most, and a part of a packet of
    /// the batch.
    ///
    /// # Panics
    /// The head is longer.
    pub fn relay(&mut self, target: Target, head: &Head, body: Body) {
        self.push(target, head, Some(body));
    }

    /// Has a packet of our own sent, of [`MAX_HEAD`] bytes at most.
    ///
    /// # Panics
    /// It is longer.
    pub fn send(&mut self, target: Target, packet: &[u8]) {
        self.push(target, &Head::new(&[packet]), None);
    }

    fn push(&mut self, target: Target, head: &Head, body: Option<Body>) {
        let Target { to, from, transport } = target;
        assert!(head.bytes().len() <= MAX_HEAD, "no head is longer");
        // As many bytes for each: a copy of that length takes no call.
        let (first, _) = head.bytes.split_first_chunk().expect("a head has room for more");
        self.ours += u64::from(body.is_none());
        self.items.push(Item { to, from, transport, head: *first, head_length: head.length, body });
    }

    /// Sends the datagrams.
    fn send_all<'a>(
        &mut self,
        socket: Option<&dyn Datagrams>,
        packet: impl Fn(usize) -> &'a [u8],
        now: Instant,
        shard: &Shard,
    ) {
        if self.items.is_empty() {
            return;
        }
        let socket = socket.expect("a door that has datagrams sent has a socket");
        self.group();
        for position in 0..self.order.len() {
            let index = *self.order.get(position).expect("a position below the length");
            let item = *self.items.get(index as usize).expect(ORDER);
            let body = item.body.map_or(&[] as &[u8], |body| {
                packet(body.index).get(body.skip..).expect("a relayed packet has its header")
            });
            if self.gathered.len() + MAX_HEAD + body.len() > GATHER {
                self.send_gathered(socket, now, shard);
            }
            self.gather(index, &item, body);
        }
        self.send_gathered(socket, now, shard);
        self.items.clear();
        self.flows.clear();
    }

    /// Brings packets for one destination together, each flow in its order.
    fn group(&mut self) {
        self.order.clear();
        self.order.extend(0..u32::try_from(self.items.len()).expect("fewer packets than bytes"));
        let first = self.items.first().map(|item| item.to);
        if self.items.iter().all(|item| Some(item.to) == first) {
            return;
        }
        let items = &self.items;
        // Not `sort_by_key`, which is stable but allocates; the position keeps the order.
        self.order
            .sort_unstable_by_key(|index| (items.get(*index as usize).map(|item| item.to), *index));
    }

    fn gather(&mut self, index: u32, item: &Item, body: &[u8]) {
        let length = usize::from(item.head_length) + body.len();
        let joins = |run: &&mut Planned| {
            let first = self.items.get(run.item as usize).expect(ORDER);
            (first.to, first.from, first.transport, first.origin())
                == (item.to, item.from, item.transport, item.origin())
                && run.segment <= MAX_SEGMENT
                && length <= run.segment
                && length > 0
                // A shorter packet ends its run.
                && run.bytes == run.packets * run.segment
                && run.packets < MAX_RUN_PACKETS
                && run.bytes + length <= MAX_RUN
        };
        match self.planned.last_mut().filter(joins) {
            Some(run) => {
                run.packets += 1;
                run.bytes += length;
            }
            None => self.planned.push(Planned {
                item: index,
                packets: 1,
                bytes: length,
                segment: length,
            }),
        }
        let head = item.head.get(..usize::from(item.head_length));
        let head = head.expect("no head is longer than its place");
        self.gathered.extend_from_slice(head);
        self.gathered.extend_from_slice(body);
    }

    fn send_gathered(&mut self, socket: &dyn Datagrams, now: Instant, shard: &Shard) {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut rest = &*self.gathered;
        for planned in self.planned.chunks(BATCH) {
            let mut runs = [Run { to: nowhere, from: None, bytes: &[], segment: 0 }; BATCH];
            for (run, planned) in runs.iter_mut().zip(planned) {
                let (bytes, after) =
                    rest.split_at_checked(planned.bytes).expect("what is planned is gathered");
                rest = after;
                let item = self.items.get(planned.item as usize).expect(ORDER);
                *run = Run { to: item.to, from: item.from, bytes, segment: planned.segment };
            }
            let runs = runs.get(..planned.len()).expect("no more than a batch");
            socket.send(runs, &mut |index, packets, result| {
                let planned = planned.get(index).expect("a socket tells of the runs that it got");
                let item = self.items.get(planned.item as usize).expect(ORDER);
                if item.body.is_none() {
                    self.ours -= packets as u64;
                }
                let bytes = planned.bytes * packets / planned.packets.max(1);
                let owner = item.body.map(|body| {
                    self.flows.get(body.flow.0 as usize).expect("a flow that was noted")
                });
                count(shard, item, owner, (packets as u64, bytes as u64), result, now);
            });
        }
        self.planned.clear();
        self.gathered.clear();
    }
}

/// Takes a step whose panic waits for the steps behind it; the first of a batch stays.
pub(super) fn contain(panic: &mut Option<Box<dyn Any + Send>>, step: impl FnOnce()) {
    if let Err(caught) = catch_unwind(AssertUnwindSafe(step)) {
        panic.get_or_insert(caught);
    }
}

fn count(
    shard: &Shard,
    item: &Item,
    owner: Option<&Whose>,
    (packets, bytes): (u64, u64),
    result: Result<(), SendError>,
    now: Instant,
) {
    let reason = match result {
        Ok(()) => return shard.went_out(item.transport, item.origin(), packets, bytes),
        Err(SendError::Full) => Drop::UDP_SOCKET_FULL,
        Err(SendError::Refused) => Drop::UDP_SEND_FAILED,
    };
    match owner {
        // Of packets that left together, those of the first sender stand for all.
        Some(whose) => shard.dropped_of(*whose, reason, packets, now),
        None => shard.ours_dropped(packets),
    }
}
