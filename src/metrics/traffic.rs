//! The accounts of packets: what came in, what went out, what was dropped and why.
//!
//! Each thread counts in a shard of its own, so that no packet waits for another
//! thread's cache line; a scrape sums the shards. At rest
//! `in = out + dropped + handled + queued`, and the tests hold it to that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use prometheus::proto::MetricFamily;

use super::family::{by_word, counts, gauge_value, histogram};
use super::reasons::{Drop, Owner, Reasons};
use super::shard::{OUTBOX_DELAYS, Shard, TRANSPORTS};
use super::sharded::{SHARDS, own_shard};
use super::words::{EndpointEvent, Transport};
use super::{Dropped, Events, Talkers, Word, talkers};
use crate::wire::name::Name;

/// All accounts of packets.
#[derive(Debug)]
pub struct Traffic {
    shards: Box<[Shard]>,
    /// The relay's reasons, and those of its doors.
    tables: RwLock<Vec<&'static Reasons>>,
    /// The last events of connections.
    pub events: Events,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            tables: RwLock::new(vec![Drop::REASONS]),
            events: Events::default(),
        }
    }
}

impl Traffic {
    /// Shows the drops of a door as well. The same table again changes nothing.
    ///
    /// # Panics
    /// The table of another door counts in the same place: one of the two needs a realm that is
    /// not the same modulo 15.
    pub fn register(&self, table: &'static Reasons) {
        let mut tables = self.tables.write();
        let is_beside = |known: &&&Reasons| known.owner.block() == table.owner.block();
        match tables.iter().find(is_beside) {
            Some(known) => assert!(
                std::ptr::eq(*known, table),
                "the drops of {:?} and {:?} have the same counters: give one another realm",
                known.owner,
                table.owner
            ),
            None => tables.push(table),
        }
    }

    /// Why packets are dropped, here and at the doors.
    #[must_use]
    pub fn reasons(&self) -> Vec<Drop> {
        self.tables.read().iter().flat_map(|table| table.rows()).collect()
    }

    /// The shard of the calling thread.
    #[must_use]
    #[allow(clippy::indexing_slicing)] // there are as many shards
    #[inline]
    pub fn shard(&self) -> &Shard {
        &self.shards[own_shard()]
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
        self.sum(|shard| &shard.dropped[reason.slot()])
    }

    /// Packets dropped for any reason but those of which nothing is wrong
    /// ([`Reason::is_expected`](super::Reason::is_expected)).
    #[must_use]
    pub fn packets_dropped_unexpectedly(&self) -> u64 {
        let unexpected = self.reasons().into_iter().filter(|reason| !reason.is_expected);
        unexpected.map(|reason| self.packets_dropped(reason)).sum()
    }

    /// What was dropped lately of the packets from and to a peer, the latest first: one entry
    /// for each pair and reason, whichever threads noted it.
    #[must_use]
    pub fn drops_of(&self, peer: Name, now: Instant) -> Vec<Dropped> {
        let mut noted = Vec::new();
        self.shards.iter().for_each(|shard| shard.drops.of(peer, now, &mut noted));
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

    /// The `count` peers that sent and received most in the last seconds, by estimate.
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
    pub(crate) fn unaccounted(&self) -> i64 {
        let transports = || Transport::ALL.iter().copied();
        let came: u64 = transports().map(|from| self.packets_in(from)).sum();
        let went: u64 = transports().map(|to| self.packets_out(to).0).sum();
        let dropped = self.shards.iter().flat_map(|shard| &shard.dropped);
        let dropped: u64 = dropped.map(|counter| counter.load(Ordering::Relaxed)).sum();
        let handled = self.sum(|shard| &shard.handled);
        came.wrapping_sub(went + dropped + handled + self.packets_queued()).cast_signed()
    }

    /// Packets of our own that never left.
    #[cfg(test)]
    pub(crate) fn packets_originated_dropped(&self) -> u64 {
        self.sum(|shard| &shard.ours_dropped)
    }

    /// Appends the families for a scrape, in which foreign servers are called `foreign`.
    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    pub fn families(&self, foreign: &'static str, families: &mut Vec<MetricFamily>) {
        let by = |name: &str, help: &str, counter: fn(&Shard) -> &[AtomicU64; TRANSPORTS]| {
            let samples = Transport::ALL.iter().map(|transport| {
                let sum = self.sum(|shard| &counter(shard)[transport.index()]);
                (shown(*transport, foreign), sum)
            });
            by_word(name, help, "transport", samples)
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
            "Packets of our own that left: replies, and what doors say unasked.",
            |s| &s.ours_out,
        ));
        self.drop_families(families);
        families.push(by_word(
            "pilot_beacon_endpoint_events_total",
            "What happened to the endpoints of peers over UDP.",
            "event",
            EndpointEvent::ALL.iter().map(|event| {
                (event.word(), self.sum(|shard| &shard.endpoint_events[event.index()]))
            }),
        ));
        families.push(self.cells(
            "pilot_beacon_relay_bridge_total",
            "Packets that a route was found for, by where they came from and go to.",
            foreign,
            |s| &s.bridged,
        ));
        families.push(self.cells(
            "pilot_beacon_relay_bridge_bytes_total",
            "Bytes of the payloads of those packets.",
            foreign,
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

    fn drop_families(&self, families: &mut Vec<MetricFamily>) {
        let mut relays = Vec::new();
        let mut doors = Vec::new();
        for table in &*self.tables.read() {
            let counts = table.rows().map(|reason| (reason.label, self.packets_dropped(reason)));
            match table.owner {
                Owner::Relay | Owner::AmongRelay(_) => {
                    relays.extend(counts.map(|(label, count)| ([label], count)));
                }
                Owner::Door(_, door) => {
                    doors.extend(counts.map(|(label, count)| ([door, label], count)));
                }
            }
        }
        families.push(counts(
            "pilot_beacon_packets_dropped_total",
            "Packets that were not passed on, by reason.",
            &["reason"],
            relays.iter().map(|(words, count)| (words.as_slice(), *count)),
        ));
        if !doors.is_empty() {
            families.push(counts(
                "beacon_relay_packets_dropped_total",
                "Packets that a door did not pass on, by reason.",
                &["door", "reason"],
                doors.iter().map(|(words, count)| (words.as_slice(), *count)),
            ));
        }
    }

    #[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
    fn cells(
        &self,
        name: &str,
        help: &str,
        foreign: &'static str,
        counter: fn(&Shard) -> &[[AtomicU64; TRANSPORTS]; TRANSPORTS],
    ) -> MetricFamily {
        let mut samples = Vec::new();
        for from in Transport::ALL {
            for to in Transport::ALL {
                let sum = self.sum(|shard| &counter(shard)[from.index()][to.index()]);
                samples.push(([*from, *to].map(|end| shown(end, foreign)), sum));
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

/// The label value of a transport, where foreign servers are called `foreign`.
fn shown(transport: Transport, foreign: &'static str) -> &'static str {
    if transport == Transport::Foreign { foreign } else { transport.word() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Whose;
    use crate::metrics::testing::name;
    use crate::wire::name::Realm;

    #[test]
    fn waits_are_counted_in_the_place_of_the_thread_and_summed_for_a_scrape() {
        let traffic = Traffic::default();
        let [one, other, ..] = &*traffic.shards else { panic!("one shard") };
        one.waited(Duration::from_millis(3));
        other.waited(Duration::from_millis(4));
        other.waited(Duration::from_secs(60));

        let mut families = Vec::new();
        traffic.families("foreign", &mut families);

        let name = "pilot_beacon_outbox_delay_seconds";
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let histogram = family.get_metric()[0].get_histogram();
        assert_eq!(histogram.get_sample_count(), 3);
        assert!((histogram.get_sample_sum() - 60.007).abs() < 1e-9);
        assert_eq!(histogram.get_bucket()[2].cumulative_count(), 2);
        assert_eq!(one.outbox_delays[2].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn foreign_servers_have_the_name_that_their_door_gives_them() {
        let traffic = Traffic::default();
        let mut families = Vec::new();
        traffic.families("cousin", &mut families);

        let labels = families.iter().flat_map(|family| family.get_metric());
        let labels = labels.flat_map(|metric| metric.get_label().iter().map(|pair| pair.value()));
        let labels: Vec<_> = labels.collect();
        assert!(labels.contains(&"cousin") && !labels.contains(&"foreign"), "{labels:?}");
    }

    #[test]
    fn drops_that_several_threads_noted_are_one_entry() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let second = Duration::from_secs(1);
        let [a, b] = [1, 2].map(name);
        let pair = Whose::packet(a, b);
        let [one, other, ..] = &*traffic.shards else { panic!("one shard") };
        one.dropped_of(pair, Drop::OUTBOX_FULL, 3, start);
        other.dropped_of(pair, Drop::OUTBOX_FULL, 4, start + second);
        one.dropped_of(pair, Drop::OUTBOX_FULL, 5, start + 2 * second);
        other.dropped_of(pair, Drop::OUTBOX_AGED, 1, start + 3 * second);

        let found = traffic.drops_of(b, start + 4 * second);
        let expected = |reason, packets, first, last| Dropped {
            reason,
            whose: pair,
            packets,
            is_estimate: false,
            first: first * second,
            last: last * second,
        };
        let aged = expected(Drop::OUTBOX_AGED, 1, 1, 1);
        assert_eq!(found, [aged, expected(Drop::OUTBOX_FULL, 12, 4, 2)]);
    }

    struct SomeDrop;

    crate::reasons! {
        impl SomeDrop of Owner::Door(Realm(9), "some");

        LATE = "late", "it came too late", "send it before";
        EARLY [expected] = "early", "it came too early", "none";
    }

    #[test]
    fn drops_of_a_door_are_shown_once_it_is_known() {
        let traffic = Traffic::default();
        let name = "beacon_relay_packets_dropped_total";
        let shown = |traffic: &Traffic| {
            let mut families = Vec::new();
            traffic.families("foreign", &mut families);
            families.into_iter().find(|family| family.name() == name)
        };
        assert_eq!(shown(&traffic), None, "a family has samples");

        traffic.register(SomeDrop::REASONS);
        traffic.register(SomeDrop::REASONS);
        traffic.shard().dropped(SomeDrop::LATE, 2);
        traffic.shard().dropped(SomeDrop::EARLY, 3);
        traffic.shard().dropped(Drop::FAILED, 4);

        let family = shown(&traffic).unwrap();
        let samples = family.get_metric().iter().map(|metric| {
            let labels = metric.get_label().iter().map(|label| label.value().to_owned());
            (labels.collect::<Vec<_>>().join(" "), metric.get_counter().get_value())
        });
        let expected = [("some late".to_owned(), 2.0), ("some early".to_owned(), 3.0)];
        assert_eq!(samples.collect::<Vec<_>>(), expected);
        assert_eq!(traffic.packets_dropped_unexpectedly(), 6);
    }

    struct OtherDrop;

    crate::reasons! {
        impl OtherDrop of Owner::Door(Realm(9 + 15), "other");

        LATE = "late", "it came too late", "send it before";
    }

    #[test]
    #[should_panic(expected = "give one another realm")]
    fn doors_whose_counters_would_be_the_same_are_refused() {
        let traffic = Traffic::default();
        assert_eq!(SomeDrop::LATE, OtherDrop::LATE);
        traffic.register(SomeDrop::REASONS);
        traffic.register(OtherDrop::REASONS);
    }
}
