//! The counters of one thread: what came in, what went out, what was dropped and why.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::drops::Drops;
use super::histogram::bucket;
use super::reasons::{Drop, SLOTS};
use super::talkers::Sample;
use super::words::{EndpointEvent, Transport};
use super::{Whose, Word};
use crate::wire::name::Name;

/// Whether a packet is on its way from a peer, or made here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Relayed for somebody.
    Relayed,
    /// A reply, or what a door says unasked.
    Ours,
}

pub(super) const TRANSPORTS: usize = Transport::ALL.len();
const EVENTS: usize = EndpointEvent::ALL.len();

/// 100 µs is a batch, 2 s the default age at which records are dropped.
pub(super) const OUTBOX_DELAYS: [Duration; 9] = [
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// The counters of one thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    pub(super) packets_in: [AtomicU64; TRANSPORTS],
    pub(super) bytes_in: [AtomicU64; TRANSPORTS],
    pub(super) packets_out: [AtomicU64; TRANSPORTS],
    pub(super) bytes_out: [AtomicU64; TRANSPORTS],
    pub(super) ours_out: [AtomicU64; TRANSPORTS],
    pub(super) ours_dropped: AtomicU64,
    pub(super) bridged: [[AtomicU64; TRANSPORTS]; TRANSPORTS],
    pub(super) bridged_bytes: [[AtomicU64; TRANSPORTS]; TRANSPORTS],
    pub(super) dropped: [AtomicU64; SLOTS],
    pub(super) handled: AtomicU64,
    pub(super) endpoint_events: [AtomicU64; EVENTS],
    pub(super) queued: AtomicU64,
    pub(super) unqueued: AtomicU64,
    pub(super) outbox_delays: [AtomicU64; OUTBOX_DELAYS.len() + 1],
    pub(super) outbox_delay_ns: AtomicU64,
    pub(super) drops: Drops,
    pub(super) sample: Sample,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            packets_in: zeros(),
            bytes_in: zeros(),
            packets_out: zeros(),
            bytes_out: zeros(),
            ours_out: zeros(),
            ours_dropped: AtomicU64::new(0),
            bridged: std::array::from_fn(|_| zeros()),
            bridged_bytes: std::array::from_fn(|_| zeros()),
            dropped: zeros(),
            handled: AtomicU64::new(0),
            endpoint_events: zeros(),
            queued: AtomicU64::new(0),
            unqueued: AtomicU64::new(0),
            outbox_delays: zeros(),
            outbox_delay_ns: AtomicU64::new(0),
            drops: Drops::default(),
            sample: Sample::default(),
        }
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

thread_local! {
    /// Packets that this thread counted in, and neither out, dropped, handled nor queued; it
    /// wraps. Not of a shard, which several threads may share.
    static UNSETTLED: Cell<u64> = const { Cell::new(0) };
}

/// The packets that the calling thread has counted in and not settled. Only differences count.
#[must_use]
pub fn unsettled() -> u64 {
    UNSETTLED.get()
}

#[inline]
fn opened(packets: u64) {
    UNSETTLED.set(UNSETTLED.get().wrapping_add(packets));
}

#[inline]
fn settled(packets: u64) {
    UNSETTLED.set(UNSETTLED.get().wrapping_sub(packets));
}

#[inline]
fn add(counter: &AtomicU64, amount: u64) {
    if amount > 0 {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

#[allow(clippy::indexing_slicing)] // words and reasons have their places in the arrays
impl Shard {
    /// Packets that came in, and their bytes.
    #[inline]
    pub fn came_in(&self, from: Transport, packets: u64, bytes: u64) {
        opened(packets);
        add(&self.packets_in[from.index()], packets);
        add(&self.bytes_in[from.index()], bytes);
    }

    /// Packets that the kernel took whole, and their bytes.
    #[inline]
    pub fn went_out(&self, to: Transport, origin: Origin, packets: u64, bytes: u64) {
        match origin {
            Origin::Relayed => {
                settled(packets);
                add(&self.packets_out[to.index()], packets);
            }
            Origin::Ours => add(&self.ours_out[to.index()], packets),
        }
        add(&self.bytes_out[to.index()], bytes);
    }

    /// Packets that a route was found for, and the bytes of their payloads.
    #[inline]
    pub fn bridged(&self, from: Transport, to: Transport, packets: u64, bytes: u64) {
        add(&self.bridged[from.index()][to.index()], packets);
        add(&self.bridged_bytes[from.index()][to.index()], bytes);
    }

    /// A run of so many packets and bytes goes its way, for the sample of talkers.
    #[inline]
    pub fn passed(&self, sender: Name, dest: Name, run: (u64, u64), now: Instant) {
        self.sample.passed(sender, dest, run, now);
    }

    /// Packets of peers that ended here, of whom nobody knows whose they were.
    #[inline]
    pub fn dropped(&self, reason: Drop, packets: u64) {
        settled(packets);
        add(&self.dropped[reason.slot()], packets);
    }

    /// Packets of peers that ended here, remembered for who asks for them.
    pub fn dropped_of(&self, whose: Whose, reason: Drop, packets: u64, now: Instant) {
        self.dropped(reason, packets);
        self.drops.note(whose, reason, packets, now);
    }

    /// Packets of our own that never left.
    pub fn ours_dropped(&self, packets: u64) {
        add(&self.ours_dropped, packets);
    }

    /// Packets that this relay itself was meant by; their door counts what they were.
    pub fn handled(&self, packets: u64) {
        settled(packets);
        add(&self.handled, packets);
    }

    /// Packets that another thread settles.
    #[allow(clippy::unused_self)] // as all that settles packets
    pub fn handed_on(&self, packets: u64) {
        settled(packets);
    }

    /// Something that happened to the endpoint of a peer.
    pub fn endpoint(&self, event: EndpointEvent, times: u64) {
        add(&self.endpoint_events[event.index()], times);
    }

    /// Relayed packets that entered an outbox.
    #[inline]
    pub fn queued(&self, packets: u64) {
        settled(packets);
        add(&self.queued, packets);
    }

    /// Relayed packets that left an outbox, for the kernel or for nowhere.
    #[inline]
    pub fn unqueued(&self, packets: u64) {
        opened(packets);
        add(&self.unqueued, packets);
    }

    /// How long the oldest record of a write waited in its outbox.
    #[inline]
    pub fn waited(&self, time: Duration) {
        add(&self.outbox_delays[bucket(&OUTBOX_DELAYS, time)], 1);
        add(&self.outbox_delay_ns, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}
