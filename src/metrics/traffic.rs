//! The accounts of packets: what came in, what went out, what was dropped and why.
//!
//! Each thread counts in a shard of its own, so that no packet waits for another
//! thread's cache line; a scrape sums the shards. At rest
//! `in = out + dropped + handled + queued`, and the tests hold it to that.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;

use super::drops::Drops;
use super::family::{counts, gauge_value, histogram};
use super::histogram::bucket;
use super::talkers::{self, Sample};
use super::words::{Drop, EndpointEvent, Handled, Transport};
use super::{Dropped, Events, Talkers, Whose, Word};
use crate::wire::name::Name;

/// Whether a packet is on its way from a peer, or made here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Relayed for somebody.
    Relayed,
    /// A reply, a punch command or gossip of our own.
    Ours,
}

const SHARDS: usize = 16;
const TRANSPORTS: usize = Transport::ALL.len();
const DROPS: usize = Drop::ALL.len();
const HANDLED: usize = Handled::ALL.len();
const EVENTS: usize = EndpointEvent::ALL.len();

/// The counters of one thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    packets_in: [AtomicU64; TRANSPORTS],
    bytes_in: [AtomicU64; TRANSPORTS],
    packets_out: [AtomicU64; TRANSPORTS],
    bytes_out: [AtomicU64; TRANSPORTS],
    ours_out: [AtomicU64; TRANSPORTS],
    ours_dropped: AtomicU64,
    bridged: [[AtomicU64; TRANSPORTS]; TRANSPORTS],
    bridged_bytes: [[AtomicU64; TRANSPORTS]; TRANSPORTS],
    dropped: [AtomicU64; DROPS],
    handled: [AtomicU64; HANDLED],
    endpoint_events: [AtomicU64; EVENTS],
    queued: AtomicU64,
    unqueued: AtomicU64,
    outbox_delays: [AtomicU64; OUTBOX_DELAYS.len() + 1],
    outbox_delay_ns: AtomicU64,
    drops: Drops,
    sample: Sample,
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
            handled: zeros(),
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

fn opened(packets: u64) {
    UNSETTLED.set(UNSETTLED.get().wrapping_add(packets));
}

fn settled(packets: u64) {
    UNSETTLED.set(UNSETTLED.get().wrapping_sub(packets));
}

fn add(counter: &AtomicU64, amount: u64) {
    if amount > 0 {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

#[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
impl Shard {
    /// Packets that came in, and their bytes.
    pub fn came_in(&self, from: Transport, packets: u64, bytes: u64) {
        opened(packets);
        add(&self.packets_in[from.index()], packets);
        add(&self.bytes_in[from.index()], bytes);
    }

    /// Packets that the kernel took whole, and their bytes.
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
    pub fn bridged(&self, from: Transport, to: Transport, packets: u64, bytes: u64) {
        add(&self.bridged[from.index()][to.index()], packets);
        add(&self.bridged_bytes[from.index()][to.index()], bytes);
    }

    /// A run of so many packets and bytes goes its way, for the sample of talkers.
    pub fn passed(&self, sender: Name, dest: Name, run: (u64, u64), now: Instant) {
        self.sample.passed(sender, dest, run, now);
    }

    /// Packets of peers that ended here, of whom nobody knows whose they were.
    pub fn dropped(&self, reason: Drop, packets: u64) {
        settled(packets);
        add(&self.dropped[reason.index()], packets);
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

    /// Packets that this relay itself was meant by.
    pub fn handled(&self, what: Handled, packets: u64) {
        settled(packets);
        add(&self.handled[what.index()], packets);
    }

    /// Packets that another thread settles.
    #[allow(clippy::unused_self)] // as all that settles packets
    pub fn handed_on(&self, packets: u64) {
        settled(packets);
    }

    /// Something that happened to the endpoint of a node.
    pub fn endpoint(&self, event: EndpointEvent, times: u64) {
        add(&self.endpoint_events[event.index()], times);
    }

    /// Relayed packets that entered an outbox.
    pub fn queued(&self, packets: u64) {
        settled(packets);
        add(&self.queued, packets);
    }

    /// Relayed packets that left an outbox, for the kernel or for nowhere.
    pub fn unqueued(&self, packets: u64) {
        opened(packets);
        add(&self.unqueued, packets);
    }

    /// How long the oldest record of a write waited in its outbox.
    pub fn waited(&self, time: Duration) {
        add(&self.outbox_delays[bucket(&OUTBOX_DELAYS, time)], 1);
        add(&self.outbox_delay_ns, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// All accounts of packets.
#[derive(Debug)]
pub struct Traffic {
    shards: Box<[Shard]>,
    /// The last events of connections.
    pub events: Events,
}

/// 100 µs is a batch, 2 s the default age at which records are dropped.
const OUTBOX_DELAYS: [Duration; 9] = [
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

impl Default for Traffic {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), events: Events::default() }
    }
}

impl Traffic {
    /// The shard of the calling thread.
    #[must_use]
    #[allow(clippy::indexing_slicing)] // taken modulo the number of shards
    pub fn shard(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        &self.shards[SHARD.get()]
    }

    fn sum(&self, counter: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
    }

    /// Packets that came in over `from`.
    #[must_use]
    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    pub fn packets_in(&self, from: Transport) -> u64 {
        self.sum(|shard| &shard.packets_in[from.index()])
    }

    /// Packets that left over `to`: those relayed, and those of our own.
    #[must_use]
    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    pub fn packets_out(&self, to: Transport) -> (u64, u64) {
        let i = to.index();
        (self.sum(|shard| &shard.packets_out[i]), self.sum(|shard| &shard.ours_out[i]))
    }

    /// Packets dropped for `reason`.
    #[must_use]
    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    pub fn packets_dropped(&self, reason: Drop) -> u64 {
        self.sum(|shard| &shard.dropped[reason.index()])
    }

    /// Packets dropped for any reason but those of which nothing is wrong
    /// ([`Drop::is_expected`]).
    #[must_use]
    pub fn packets_dropped_unexpectedly(&self) -> u64 {
        let unexpected = Drop::ALL.iter().copied().filter(|reason| !reason.is_expected());
        unexpected.map(|reason| self.packets_dropped(reason)).sum()
    }

    /// What was dropped lately of the packets from and to a node, the latest first: one entry
    /// for each pair and reason, whichever threads noted it.
    #[must_use]
    pub fn drops_of(&self, node: Name, now: Instant) -> Vec<Dropped> {
        let mut noted = Vec::new();
        self.shards.iter().for_each(|shard| shard.drops.of(node, now, &mut noted));
        let mut found: HashMap<_, Dropped> = HashMap::with_capacity(noted.len());
        for dropped in noted {
            found
                .entry((dropped.whose, dropped.reason))
                .and_modify(|all| all.absorb(&dropped))
                .or_insert(dropped);
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by_key(|dropped| dropped.last);
        found
    }

    /// The `count` nodes that sent and received most in the last seconds, by estimate.
    #[must_use]
    pub fn talkers(&self, count: usize, now: Instant) -> Talkers {
        talkers::heaviest(self.shards.iter().map(|shard| &shard.sample), count, now)
    }

    /// Relayed packets that wait in outboxes at this moment.
    #[must_use]
    pub fn packets_queued(&self) -> u64 {
        // Read in this order, a packet that leaves between the two counts as still queued.
        let unqueued = self.sum(|shard| &shard.unqueued);
        self.sum(|shard| &shard.queued).saturating_sub(unqueued)
    }

    /// Packets that came in and are in no other count: none, at rest.
    #[cfg(test)]
    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    pub(crate) fn unaccounted(&self) -> i64 {
        let transports = || Transport::ALL.iter().copied();
        let came: u64 = transports().map(|from| self.packets_in(from)).sum();
        let went: u64 = transports().map(|to| self.packets_out(to).0).sum();
        let dropped: u64 = Drop::ALL.iter().map(|reason| self.packets_dropped(*reason)).sum();
        let handled: u64 = (0..HANDLED).map(|kind| self.sum(|shard| &shard.handled[kind])).sum();
        came.wrapping_sub(went + dropped + handled + self.packets_queued()).cast_signed()
    }

    /// Packets of our own that never left.
    #[cfg(test)]
    pub(crate) fn packets_originated_dropped(&self) -> u64 {
        self.sum(|shard| &shard.ours_dropped)
    }

    /// Appends the families for a scrape.
    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        let by = |name: &str, help: &str, counter: fn(&Shard) -> &[AtomicU64; TRANSPORTS]| {
            labelled::<Transport>(name, help, "transport", |i| self.sum(|s| &counter(s)[i]))
        };
        families.push(by(
            "pilot_beacon_packets_in_total",
            "Packets received, by where they came from.",
            |s| &s.packets_in,
        ));
        families.push(by("pilot_beacon_bytes_in_total", "Bytes of the packets received.", |s| {
            &s.bytes_in
        }));
        families.push(by(
            "pilot_beacon_packets_out_total",
            "Relayed packets that the kernel took whole.",
            |s| &s.packets_out,
        ));
        families.push(by(
            "pilot_beacon_bytes_out_total",
            "Bytes of all packets that the kernel took.",
            |s| &s.bytes_out,
        ));
        families.push(by(
            "pilot_beacon_packets_originated_total",
            "Packets of our own that left: replies, punch commands, gossip.",
            |s| &s.ours_out,
        ));
        families.push(labelled::<Drop>(
            "pilot_beacon_packets_dropped_total",
            "Packets that were not passed on, by reason.",
            "reason",
            |i| self.sum(|s| &s.dropped[i]),
        ));
        families.push(labelled::<Handled>(
            "pilot_beacon_packets_handled_total",
            "Packets that were meant for the relay itself.",
            "kind",
            |i| self.sum(|s| &s.handled[i]),
        ));
        families.push(labelled::<EndpointEvent>(
            "pilot_beacon_endpoint_events_total",
            "What happened to the endpoints of UDP nodes.",
            "event",
            |i| self.sum(|s| &s.endpoint_events[i]),
        ));
        families.push(self.cells(
            "pilot_beacon_relay_bridge_total",
            "Packets that a route was found for, by where they came from and go to.",
            |s| &s.bridged,
        ));
        families.push(self.cells(
            "pilot_beacon_relay_bridge_bytes_total",
            "Bytes of the payloads of those packets.",
            |s| &s.bridged_bytes,
        ));
        let single =
            |name: &str, help: &str, value| counts(name, help, &[], [(&[] as &[&str], value)]);
        families.push(single(
            "pilot_beacon_packets_originated_dropped_total",
            "Packets of our own that never left.",
            self.sum(|s| &s.ours_dropped),
        ));
        let wss = Transport::Wss.index();
        families.push(single(
            "pilot_beacon_wss_frames_in_total",
            "Binary frames received after authentication.",
            self.sum(|s| &s.packets_in[wss]),
        ));
        let (relayed, ours) = self.packets_out(Transport::Wss);
        families.push(single(
            "pilot_beacon_wss_frames_out_total",
            "Binary frames sent after authentication.",
            relayed + ours,
        ));
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let queued = self.packets_queued() as f64;
        families.push(gauge_value(
            "pilot_beacon_packets_queued",
            "Relayed packets that wait in outboxes.",
            queued,
        ));
        let delays: [u64; OUTBOX_DELAYS.len() + 1] =
            std::array::from_fn(|bucket| self.sum(|shard| &shard.outbox_delays[bucket]));
        families.push(histogram(
            "pilot_beacon_outbox_delay_seconds",
            "How long the oldest record of a batch waited in its outbox before the kernel took it.",
            &OUTBOX_DELAYS,
            &delays,
            Duration::from_nanos(self.sum(|shard| &shard.outbox_delay_ns)),
        ));
    }

    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    fn cells(
        &self,
        name: &str,
        help: &str,
        counter: fn(&Shard) -> &[[AtomicU64; TRANSPORTS]; TRANSPORTS],
    ) -> MetricFamily {
        let mut samples = Vec::new();
        for from in Transport::ALL {
            for to in Transport::ALL {
                let sum = self.sum(|shard| &counter(shard)[from.index()][to.index()]);
                samples.push(([from.word(), to.word()], sum));
            }
        }
        counts(
            name,
            help,
            &["src_transport", "dst_transport"],
            samples.iter().map(|(words, sum)| (words.as_slice(), *sum)),
        )
    }
}

fn labelled<W: Word>(
    name: &str,
    help: &str,
    label: &str,
    sum: impl Fn(usize) -> u64,
) -> MetricFamily {
    let samples: Vec<_> = W::ALL.iter().map(|word| ([word.word()], sum(word.index()))).collect();
    counts(name, help, &[label], samples.iter().map(|(words, sum)| (words.as_slice(), *sum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_counted_in_the_place_of_the_thread_and_summed_for_a_scrape() {
        let traffic = Traffic::default();
        let [one, other, ..] = &*traffic.shards else { panic!("one shard") };
        one.waited(Duration::from_millis(3));
        other.waited(Duration::from_millis(4));
        other.waited(Duration::from_secs(60));

        let mut families = Vec::new();
        traffic.families(&mut families);

        let name = "pilot_beacon_outbox_delay_seconds";
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let histogram = family.get_metric()[0].get_histogram();
        assert_eq!(histogram.get_sample_count(), 3);
        assert!((histogram.get_sample_sum() - 60.007).abs() < 1e-9);
        assert_eq!(histogram.get_bucket()[2].cumulative_count(), 2);
        assert_eq!(one.outbox_delays[2].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn drops_that_several_threads_noted_are_one_entry() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let second = Duration::from_secs(1);
        let [a, b] = [1, 2].map(|number| Name::from(crate::ids::NodeId::new(number).unwrap()));
        let pair = Whose::packet(a, b);
        let [one, other, ..] = &*traffic.shards else { panic!("one shard") };
        one.dropped_of(pair, Drop::OutboxFull, 3, start);
        other.dropped_of(pair, Drop::OutboxFull, 4, start + second);
        one.dropped_of(pair, Drop::OutboxFull, 5, start + 2 * second);
        other.dropped_of(pair, Drop::OutboxAged, 1, start + 3 * second);

        let found = traffic.drops_of(b, start + 4 * second);
        let expected = |reason, packets, first, last| Dropped {
            reason,
            whose: pair,
            packets,
            is_estimate: false,
            first: first * second,
            last: last * second,
        };
        let aged = expected(Drop::OutboxAged, 1, 1, 1);
        assert_eq!(found, [aged, expected(Drop::OutboxFull, 12, 4, 2)]);
    }
}
