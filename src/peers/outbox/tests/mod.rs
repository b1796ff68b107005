//! Bounds, drops and accounts of an outbox, against a model where a list will do.

mod full;
mod kept;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::metrics::Dropped;
use crate::wire::name::testing::name;
use crate::wire::websocket::Header;

const LIMITS: Limits = Limits { bytes: 100_000, age: Duration::from_secs(2), message: usize::MAX };

struct Bench {
    outbox: Outbox,
    traffic: Traffic,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::that(Overflow::DropOldest)
    }

    fn that(overflow: Overflow) -> Self {
        let outbox = Outbox::new(name(1), Transport::Wss, Framing::Binary, overflow);
        Self { outbox, traffic: Traffic::default(), now: Instant::now() }
    }

    fn push(&mut self, source: u64, body: &[u8]) {
        self.push_from(Source::Session(source), body);
    }

    fn push_from(&mut self, source: Source, body: &[u8]) {
        let record = Record { head: b"h", body };
        let arrival = Arrival { source, origin: Origin::Relayed, sender: None, at: self.now };
        self.outbox.push(std::iter::once(record), &arrival, &LIMITS, self.traffic.shard());
    }

    fn flush(&mut self) -> Vec<u8> {
        let mut written = Vec::new();
        while let Some(mut taken) = self.outbox.take(&LIMITS, self.now, self.traffic.shard()) {
            written.extend_from_slice(taken.rest().bytes());
            let length = taken.rest().bytes().len();
            assert!(taken.wrote(length, self.now));
            self.outbox.finish(taken, self.now, &self.traffic);
        }
        written
    }

    /// Begins a flush that the kernel does not take whole.
    fn block(&mut self) {
        let mut taken = self.outbox.take(&LIMITS, self.now, self.traffic.shard()).unwrap();
        assert!(!taken.wrote(1, self.now));
        self.outbox.put_back(taken, &self.traffic);
    }

    /// What each source holds, in flight and pending, counted anew.
    fn held_by_source(&self) -> HashMap<Source, usize> {
        let in_flight = self.outbox.in_flight.as_ref().map(|in_flight| &in_flight.chunk);
        let chunks = in_flight.into_iter().chain(&self.outbox.pending);
        let mut held = HashMap::new();
        for run in chunks.flat_map(|chunk| chunk.runs()) {
            *held.entry(run.source).or_default() += run.cost();
        }
        held
    }

    /// What has to become of a record, by the rule and an exact count: the reason why it is
    /// dropped itself, if it is.
    fn verdict(&self, source: u64, length: usize) -> Option<Drop> {
        let cost = 1 + length + 4 + RECORD_COST + RUN_COST;
        if self.outbox.taken + cost > LIMITS.bytes {
            return Some(Drop::OUTBOX_FULL);
        }
        let held = self.held_by_source().get(&Source::Session(source)).copied().unwrap_or_default();
        if held * 2 <= self.outbox.held() {
            return None;
        }
        let mut room = LIMITS.bytes - self.outbox.held();
        for run in self.outbox.pending.iter().flat_map(|chunk| chunk.runs()) {
            if room >= cost {
                break;
            }
            if run.source != Source::Session(source) {
                return Some(Drop::OUTBOX_SHARE);
            }
            room += run.cost();
        }
        None
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.traffic.packets_dropped(reason)
    }

    fn sent(&self) -> u64 {
        self.traffic.packets_out(Transport::Wss).0
    }
}

/// The first byte of each frame's body, behind the head.
fn firsts(mut bytes: &[u8]) -> Vec<u8> {
    let mut firsts = Vec::new();
    while !bytes.is_empty() {
        let header = Header::decode(bytes).unwrap().unwrap();
        let end = header.size + usize::try_from(header.length).unwrap();
        firsts.push(bytes[header.size + 1]);
        bytes = &bytes[end..];
    }
    firsts
}

#[test]
fn records_leave_in_the_order_in_which_they_came() {
    let mut bench = Bench::new();
    for n in 0..200u8 {
        bench.push(u64::from(n % 3), &[n; 300]);
    }
    assert_eq!(firsts(&bench.flush()), (0..200).collect::<Vec<u8>>());
    assert_eq!((bench.outbox.held(), bench.sent(), bench.traffic.packets_queued()), (0, 200, 0));
}

#[test]
fn record_that_waited_too_long_is_dropped_with_its_reason() {
    let mut bench = Bench::new();
    bench.push(1, b"old");
    bench.now += LIMITS.age + Duration::from_millis(1);
    bench.push(1, b"new");
    assert_eq!(firsts(&bench.flush()), [b'n']);
    assert_eq!(bench.dropped(Drop::OUTBOX_AGED), 1);
}

#[test]
fn old_records_were_dropped_from_the_middle_of_those_of_which_none_may_be_missing() {
    for overflow in [Overflow::Refuse, Overflow::EndSession] {
        let mut bench = Bench::that(overflow);
        bench.push(1, b"x");
        bench.now += LIMITS.age + Duration::from_millis(1);
        bench.push(1, b"y");
        assert_eq!(firsts(&bench.flush()), b"xy");
        assert_eq!(bench.dropped(Drop::OUTBOX_AGED), 0);
    }
}

#[test]
fn what_is_in_flight_is_never_dropped() {
    let mut bench = Bench::new();
    bench.push(1, &[1; 50_000]);
    let mut taken = bench.outbox.take(&LIMITS, bench.now, bench.traffic.shard()).unwrap();
    assert!(bench.outbox.take(&LIMITS, bench.now, bench.traffic.shard()).is_none(), "one flusher");
    assert!(!taken.wrote(10, bench.now));
    bench.outbox.put_back(taken, &bench.traffic);
    bench.now += 10 * LIMITS.age;
    for n in 0..10 {
        bench.push(1, &[n; 20_000]);
    }
    assert!(bench.outbox.held() <= LIMITS.bytes);
    bench.outbox.blocked = false;
    let rest = bench.outbox.take(&LIMITS, bench.now, bench.traffic.shard()).unwrap();
    assert_eq!(rest.rest().bytes().len(), 50_000 + 1 + 4 - 10);
}

#[test]
fn control_frames_go_before_records_and_pongs_leave_room_for_a_close() {
    let mut bench = Bench::new();
    bench.push(1, b"record");
    while bench.outbox.push_control(Opcode::Pong, &[0; 100]) {}
    assert!(bench.outbox.push_control(Opcode::Close, &[3, 232]));
    let written = bench.flush();
    assert_eq!(written[0], 0x8a);
    assert_eq!(&written[204..208], [0x88, 2, 3, 232]);
    assert!(written.ends_with(b"record"));
}

#[test]
fn closed_outbox_counts_what_it_held_and_takes_nothing() {
    let mut bench = Bench::new();
    bench.push(1, b"one");
    bench.push(1, b"two");
    bench.outbox.close(&bench.traffic);
    bench.push(1, b"three");
    assert_eq!(bench.dropped(Drop::PEER_GONE), 3);
    assert_eq!((bench.outbox.held(), bench.traffic.packets_queued()), (0, 0));
    assert!(bench.flush().is_empty());
}

#[test]
fn record_longer_than_the_outbox_is_dropped_alone() {
    let mut bench = Bench::new();
    bench.push(1, &[1; 200_000]);
    bench.push(1, b"short");
    assert_eq!(firsts(&bench.flush()), [b's']);
    assert_eq!(bench.dropped(Drop::OUTBOX_FULL), 1);
}

#[test]
fn record_that_cannot_fit_behind_what_is_in_flight_costs_nobody_else() {
    let mut bench = Bench::new();
    bench.push(1, &[1; 60_000]);
    let mut taken = bench.outbox.take(&LIMITS, bench.now, bench.traffic.shard()).unwrap();
    assert!(!taken.wrote(10, bench.now));
    bench.outbox.put_back(taken, &bench.traffic);
    bench.push(2, &[2; 1_000]);
    bench.push(3, &[3; 60_000]);
    bench.outbox.blocked = false;
    assert_eq!(firsts(&bench.flush()[60_005 - 10..]), [2]);
    assert_eq!(bench.dropped(Drop::OUTBOX_FULL), 1);
}

proptest! {
    #[test]
    fn who_holds_most_of_the_queue_loses_its_own_arrivals_and_nobody_else(
        steps in proptest::collection::vec((0u64..6, 0usize..40_000, 0u8..14, 0u64..300), 1..120),
    ) {
        let mut bench = Bench::new();
        let mut flusher = None;
        for (source, length, action, ms) in steps {
            bench.now += Duration::from_millis(ms);
            match (action, flusher.take()) {
                (0, None) => { bench.flush(); }
                // A flush whose system call lasts: until the next step that ends it.
                (1..=3, None) => {
                    flusher = bench.outbox.take(&LIMITS, bench.now, bench.traffic.shard());
                }
                (0, Some(mut taken)) => {
                    let length = taken.rest().bytes().len();
                    prop_assert!(taken.wrote(length, bench.now));
                    bench.outbox.finish(taken, bench.now, &bench.traffic);
                }
                (1, Some(mut taken)) => {
                    taken.wrote(1.min(taken.rest().bytes().len() - 1), bench.now);
                    bench.outbox.put_back(taken, &bench.traffic);
                    bench.outbox.blocked = false;
                }
                (_, still) => flusher = still,
            }
            bench.outbox.expire(LIMITS.age, bench.now, bench.traffic.shard());
            let of = [Drop::OUTBOX_FULL, Drop::OUTBOX_SHARE];
            let length = if action % 2 == 0 { length } else { length / 50 };
            let verdict = bench.verdict(source, length);
            let before = of.map(|reason| bench.dropped(reason));

            bench.push(source, &vec![0; length]);

            let exact: usize = bench.held_by_source().values().sum();
            prop_assert_eq!(exact, bench.outbox.held());
            let [full, share] = of.map(|reason| bench.dropped(reason));
            prop_assert_eq!(share - before[1], u64::from(verdict == Some(Drop::OUTBOX_SHARE)));
            if verdict == Some(Drop::OUTBOX_FULL) {
                prop_assert_eq!(full - before[0], 1);
            }
        }
    }

    #[test]
    fn every_record_is_accounted_for(
        steps in proptest::collection::vec((0u64..5, 0usize..40_000, 0u8..10, 0u64..900), 1..200),
    ) {
        let mut bench = Bench::new();
        let pushed = steps.len() as u64;
        for (source, length, action, ms) in steps {
            bench.now += Duration::from_millis(ms);
            bench.push(source, &vec![0; length]);
            prop_assert!(bench.outbox.held() <= LIMITS.bytes);
            match action {
                0..=2 => { bench.flush(); }
                3 => {
                    if let Some(mut taken) = bench.outbox.take(&LIMITS, bench.now, bench.traffic.shard()) {
                        taken.wrote(1, bench.now);
                        bench.outbox.put_back(taken, &bench.traffic);
                        bench.outbox.blocked = false;
                    }
                }
                _ => {}
            }
            let dropped: u64 = [Drop::OUTBOX_FULL, Drop::OUTBOX_SHARE, Drop::OUTBOX_AGED]
                .iter().map(|reason| bench.dropped(*reason)).sum();
            let so_far = bench.sent() + dropped + bench.traffic.packets_queued();
            prop_assert!(so_far <= pushed);
        }
        bench.outbox.close(&bench.traffic);
        let dropped: u64 = [Drop::OUTBOX_FULL, Drop::OUTBOX_SHARE, Drop::OUTBOX_AGED, Drop::PEER_GONE]
            .iter().map(|reason| bench.dropped(*reason)).sum();
        prop_assert_eq!(bench.sent() + dropped, pushed);
        prop_assert_eq!(bench.outbox.held(), 0);
    }
}

#[test]
fn dropped_records_are_remembered_by_sender_and_reason() {
    let mut bench = Bench::new();
    let senders = [7, 8].map(name);
    // One source says to be both: a foreign server, or a relay without names.
    let source = Source::Address(9);
    let push = |bench: &mut Bench, sender: Name, count: usize| {
        let records = std::iter::repeat_n(Record { head: &[], body: &[0; 300] }, count);
        let sender = Some(sender);
        let arrival = Arrival { source, origin: Origin::Relayed, sender, at: bench.now };
        bench.outbox.push(records, &arrival, &LIMITS, bench.traffic.shard());
    };
    push(&mut bench, senders[0], 3);
    bench.now += LIMITS.age + Duration::from_secs(1);
    push(&mut bench, senders[1], 2);
    push(&mut bench, senders[0], 1);
    assert_eq!(bench.outbox.backlog(bench.now).records, 3);
    bench.outbox.close(&bench.traffic);
    assert_eq!(
        bench.outbox.backlog(bench.now),
        Backlog { records: 0, bytes: 0, age: Duration::ZERO, stuck: None }
    );
    push(&mut bench, senders[0], 1);

    let mut drops: Vec<_> = bench
        .traffic
        .drops_of(name(1), bench.now)
        .iter()
        .map(|Dropped { reason, whose, packets, .. }| (*reason, whose.sender, *packets))
        .collect();
    drops.sort_by_key(|(reason, sender, _)| (reason.label, *sender));
    let [first, second] = senders.map(Some);
    assert_eq!(
        drops,
        [(Drop::OUTBOX_AGED, first, 3), (Drop::PEER_GONE, first, 2), (Drop::PEER_GONE, second, 2)]
    );
}

#[test]
fn longest_message_leaves_alone_and_whole_and_others_wait_their_turn() {
    const LONGEST: usize = 1_048_576;
    let limits = Limits { bytes: LONGEST + 65_536, message: LONGEST, ..LIMITS };
    let traffic = Traffic::default();
    let mut outbox = Outbox::new(name(1), Transport::Wss, Framing::Text, Overflow::Refuse);
    let now = Instant::now();
    let bodies = [vec![b'a'; 10], vec![b'b'; LONGEST], vec![b'c'; 10], vec![b'd'; LONGEST]];
    let records = bodies.iter().map(|body| Record { head: &[], body });
    let pushed = outbox.push(records, &Arrival::ours(now), &limits, traffic.shard());
    assert_eq!((pushed.queued, pushed.refused, pushed.overflowed), (3, 1, true));

    let mut written = Vec::new();
    let mut writes = 0;
    while let Some(mut taken) = outbox.take(&limits, now, traffic.shard()) {
        // The kernel takes a little at a time.
        let some = taken.rest().bytes();
        let some = &some[..some.len().min(100_000)];
        written.extend_from_slice(some);
        writes += 1;
        let length = some.len();
        if taken.wrote(length, now) {
            outbox.finish(taken, now, &traffic);
        } else {
            outbox.put_back(taken, &traffic);
            outbox.blocked = false;
        }
        assert!(outbox.held() <= limits.bytes);
    }
    let expected: Vec<u8> = bodies[..3]
        .iter()
        .flat_map(|body| {
            let (header, used) = Framing::Text.header(body.len());
            [&header[..used], body].concat()
        })
        .collect();
    assert!(written == expected, "{writes} writes");
    assert_eq!(outbox.held(), 0);
}
