//! Messages that nothing pushes out, among records that make room.

use super::*;

impl Bench {
    fn keep(&mut self, body: &[u8]) -> Pushed {
        self.outbox.push_kept(&LIMITS, body, self.now, self.traffic.shard())
    }

    /// The bodies of what leaves, in that order, by their first bytes.
    fn leave(&mut self) -> Vec<u8> {
        let written = self.flush();
        let mut first = Vec::new();
        let mut at = 0;
        while let Some(header) = Header::decode(&written[at..]).unwrap() {
            let body = at + header.size;
            let is_record = written[body] == b'h';
            first.push(written[body + usize::from(is_record)]);
            at = body + usize::try_from(header.length).unwrap();
        }
        first
    }
}

#[test]
fn kept_message_stays_in_its_place_among_records() {
    let mut bench = Bench::that(Overflow::EvictOldest);
    bench.push(1, b"1");
    assert_eq!(bench.keep(b"a").queued, 1);
    bench.push(1, b"2");
    bench.keep(b"b");
    assert_eq!(bench.leave(), *b"1a2b");
    bench.keep(b"c");
    bench.push(1, b"3");
    assert_eq!(bench.leave(), *b"c3");
}

#[test]
fn oldest_records_go_and_kept_messages_among_them_do_not() {
    for overflow in [Overflow::EvictOldest, Overflow::DropOldest] {
        let mut bench = Bench::that(overflow);
        let body = |first: u8| [&[first], &*vec![0; 30_000]].concat();
        bench.push(1, &body(b'1'));
        bench.keep(b"a");
        bench.push(1, &body(b'2'));
        bench.keep(b"b");
        bench.push(1, &body(b'3'));
        bench.push(1, &body(b'4'));
        bench.push(1, &body(b'5'));
        assert_eq!(bench.outbox.held(), bench.outbox.backlog(bench.now).bytes);
        assert_eq!(bench.leave(), *b"ab345", "{overflow:?}");
        assert_eq!(bench.outbox.held(), 0);
    }
}

#[test]
fn kept_message_makes_room_and_says_what_went() {
    let mut bench = Bench::that(Overflow::EvictOldest);
    for first in *b"123" {
        bench.push(1, &[&[first], &*vec![0; 30_000]].concat());
    }
    let pushed = bench.keep(&[&b"a"[..], &vec![0; 40_000]].concat());
    assert_eq!((pushed.queued, pushed.evicted, pushed.overflowed), (1, 2, false));
    assert_eq!(bench.leave(), *b"3a");
}

#[test]
fn publications_do_not_age() {
    let mut bench = Bench::that(Overflow::EvictOldest);
    bench.push(1, b"1");
    bench.now += 10 * LIMITS.age;
    bench.push(1, b"2");
    assert_eq!(bench.leave(), *b"12");
}

#[test]
fn kept_messages_of_a_peer_that_reads_nothing_are_bounded() {
    let mut bench = Bench::that(Overflow::EvictOldest);
    bench.push(1, b"1");
    bench.block();
    bench.push(1, b"2");
    let body = vec![0; 30_000];
    let kept = (0..100).take_while(|_| !bench.keep(&body).overflowed).count();
    assert!((3..=7).contains(&kept), "{kept}");
}
