//! A full outbox: whose record is dropped.

use super::*;

#[test]
fn full_outbox_drops_its_oldest_record_first() {
    let mut bench = Bench::new();
    for n in 0..200u8 {
        bench.push(1, &[n; 1_000]);
    }
    assert!(bench.outbox.held() <= LIMITS.bytes);
    let left = firsts(&bench.flush());
    assert_eq!(*left.last().unwrap(), 199);
    assert_eq!(bench.dropped(Drop::OUTBOX_FULL), 200 - left.len() as u64);
    assert!((90..=100).contains(&left.len()), "{}", left.len());
}

#[test]
fn full_outbox_that_refuses_takes_the_first_records_and_none_behind_one_that_does_not_fit() {
    let mut bench = Bench::that(Overflow::Refuse);
    bench.push(1, &[1; 50_000]);
    let lengths = [20_000, 40_000, 10];
    let bodies = lengths.map(|length| vec![2; length]);
    let records = bodies.iter().map(|body| Record { head: b"h", body });
    let arrival = Arrival {
        source: Source::Session(2),
        origin: Origin::Relayed,
        sender: None,
        at: bench.now,
    };

    let pushed = bench.outbox.push(records, &arrival, &LIMITS, bench.traffic.shard());

    assert_eq!(pushed, Pushed { queued: 1, refused: 2, overflowed: true, ..Pushed::default() });
    assert_eq!((bench.dropped(Drop::OUTBOX_FULL), bench.dropped(Drop::OUTBOX_SHARE)), (2, 0));
    assert_eq!(firsts(&bench.flush()), [1, 2]);
    bench.push(1, &[3; 50_000]);
    assert_eq!(firsts(&bench.flush()), [3], "there is room again");
}

#[test]
fn full_outbox_that_ends_its_session_takes_nothing_more_and_sends_what_it_has() {
    let mut bench = Bench::that(Overflow::EndSession);
    bench.push(1, &[1; 60_000]);
    bench.push(2, &[2; 60_000]);

    bench.push(3, &[3; 10]);

    assert_eq!((bench.dropped(Drop::OUTBOX_FULL), bench.dropped(Drop::PEER_GONE)), (1, 1));
    assert_eq!(firsts(&bench.flush()), [1]);
}

#[test]
fn source_that_fills_the_outbox_loses_its_own_packets_and_not_the_others() {
    let mut bench = Bench::new();
    for n in 0..10 {
        bench.push(2, &[222 + n; 1_000]);
        for _ in 0..100 {
            bench.push(1, &[1; 1_000]);
        }
        let left = firsts(&bench.flush());
        assert_eq!(left[0], 222 + n);
        assert!(left.len() > 90);
    }
    assert!(bench.dropped(Drop::OUTBOX_SHARE) > 0);
}

#[test]
fn sender_is_not_punished_for_what_it_sent_in_the_past() {
    let mut bench = Bench::new();
    for _ in 0..15_000 {
        bench.now += Duration::from_micros(100);
        bench.push(1, &[0; 100]);
        bench.flush();
    }
    // The peer stalls: one sender floods it, and the one of before sends a little.
    bench.push(2, &[0; 1_000]);
    bench.block();
    for _ in 0..60 {
        for _ in 0..100 {
            bench.now += Duration::from_micros(1);
            bench.push(2, &[0; 1_000]);
        }
        let before = bench.dropped(Drop::OUTBOX_SHARE);
        bench.push(1, &[9; 1_000]);
        assert_eq!(bench.dropped(Drop::OUTBOX_SHARE), before, "the light sender's is taken");
    }
    bench.outbox.blocked = false;
    let left = firsts(&bench.flush()[1_000 + 1 + 4 - 1..]);
    assert!(left.contains(&9), "and reaches the peer");
}

#[test]
fn arrival_that_is_refused_in_the_end_has_cost_nobody_a_record() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.push(2, &[0; 5_000]);
    }
    bench.push(1, &[0; 40_000]);

    bench.push(1, &[0; 35_000]);

    // It held less than half as it came, and more than half of what its arrival left.
    assert_eq!((bench.dropped(Drop::OUTBOX_SHARE), bench.dropped(Drop::OUTBOX_FULL)), (0, 6));
}

#[test]
fn sources_of_different_kinds_with_the_same_number_are_not_one() {
    let light = [Source::Session(0), Source::Remote(1001), Source::Address(1001), Source::Ours];
    let mut bench = Bench::new();
    bench.push_from(light[2], &[0; 10]);
    for _ in 0..200 {
        bench.push_from(Source::Session(1001), &[0; 1_000]);
    }
    let flood_lost = bench.dropped(Drop::OUTBOX_SHARE);
    assert!(flood_lost > 0);

    for source in light {
        bench.push_from(source, &[0; 1_000]);
    }

    assert_eq!(bench.dropped(Drop::OUTBOX_SHARE), flood_lost);
}

#[test]
fn flood_of_many_sources_into_a_full_outbox_costs_the_same_for_each_record() {
    const RECORDS: usize = 20_000;
    let mut bench = Bench::new();
    for source in 0..RECORDS {
        bench.push(source as u64, &[0; 20]);
    }
    assert!(bench.dropped(Drop::OUTBOX_FULL) > 10_000);
    let looked_at = bench.outbox.looked_at;
    assert!(looked_at <= 4 * RECORDS, "{looked_at}");

    // What is in flight does not leave, however much comes.
    bench.block();
    for source in 0..RECORDS {
        bench.push(source as u64, &[0; 1_000]);
    }
    let looked_at = bench.outbox.looked_at - looked_at;
    assert!(looked_at <= 60 * RECORDS, "{looked_at}");
}
