//! A batch that panics: what it had queued leaves all the same, whichever way it came.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cluster::{Siblings, node};
use super::*;
use crate::cluster::Local as _;
use crate::metrics::Transport;
use crate::peers::testing::FakeStream;
use crate::wire::Frames as Batch;
use crate::wire::cluster::{Frame, Frames, Run as Flow, add_packet, begin_packets};

/// Nodes that a batch goes to: 31 has a broken session, 32 a good one, 33 an endpoint.
struct Receivers {
    _sessions: [Registration; 2],
}

impl Receivers {
    fn of(fixture: &mut Fixture) -> Self {
        let broken = FakeStream::new(|_| -> io::Result<usize> { panic!("a bug") });
        let sessions = [log_in_over(broken, &fixture.relay, 31), log_in(&fixture.relay, 32)];
        assert_eq!(fixture.one(at(33), &discover(33), Instant::now()).len(), 1);
        Self { _sessions: sessions }
    }

    /// Carries a batch out that panics, and sees that it reached 32 and 33.
    fn after(fixture: &Fixture, batch: impl FnOnce()) {
        assert!(catch_unwind(AssertUnwindSafe(batch)).is_err());
        let traffic = &fixture.relay.traffic;
        assert_eq!(traffic.packets_out(Transport::Wss), (1, 0));
        let sent = std::mem::take(&mut *fixture.wire.runs.lock());
        assert_eq!(sent, [(at(33), vec![delivery(12, b"x")])]);
        assert_eq!(traffic.unaccounted(), 0);
    }
}

#[test]
fn panic_in_a_batch_of_datagrams_loses_nothing_that_it_had_queued() {
    let mut fixture = Fixture::new();
    let _receivers = Receivers::of(&mut fixture);
    let packets = [31, 32, 33].map(|dest| packet(12, dest, b"x"));
    let datagrams: Vec<_> = packets.iter().map(|packet| (at(12), &packet[..])).collect();
    let received = Received::of(&datagrams);
    let relay = Arc::clone(&fixture.relay);
    let mut buckets = relay.worker(1);

    let wire = Arc::clone(&fixture.wire);
    Receivers::after(&fixture, || {
        relay.datagrams(&mut buckets, &*wire, &received, Instant::now());
    });
}

#[test]
fn panic_in_a_batch_of_a_session_loses_nothing_that_it_had_queued() {
    let mut fixture = Fixture::new();
    let _receivers = Receivers::of(&mut fixture);
    let _sender = log_in(&fixture.relay, 12);
    let session = fixture.relay.table.session(NodeId::new(12).unwrap().into()).unwrap();
    let bytes = [31, 32, 33].map(|dest| packet(12, dest, b"x")).concat();
    let ranges = [0..10, 10..20, 20..30];
    let relay = Arc::clone(&fixture.relay);

    Receivers::after(&fixture, || {
        relay.route_frames(&session, Batch::new(&bytes, &ranges), Instant::now());
    });
}

#[test]
fn panic_in_a_batch_of_another_relay_loses_nothing_that_it_had_queued() {
    let mut siblings = Siblings::new();
    let _receivers = Receivers::of(&mut siblings.fixture);
    let mut bytes = Vec::new();
    for dest in [32, 33, 99] {
        let run = Flow { dest: node(dest), sender: node(12), epoch: 5 };
        let at = begin_packets(&run, &mut bytes);
        add_packet(at, b"x", &mut bytes);
    }
    let packets: Vec<_> = Frames::new(&bytes)
        .map(|frame| match frame {
            Ok(Frame::Packets(packets)) => packets,
            other => panic!("{other:?}"),
        })
        .collect();
    let relay = Arc::clone(&siblings.fixture.relay);
    relay.traffic.shard().came_in(Transport::Cluster, 3, 3);

    // The batch is not even whole: the panic comes while it is routed.
    Receivers::after(&siblings.fixture, || {
        relay
            .router
            .deliver(siblings.b.relay, &packets, Instant::now(), &mut |_, _| panic!("a bug"));
    });
}

#[test]
fn panic_in_the_middle_of_a_batch_left_the_rest_of_it_in_no_count() {
    let mut fixture = Fixture::new();
    let _receivers = Receivers::of(&mut fixture);
    // Whether it comes from the socket itself is asked of a socket that panics.
    let asks = discover(50);
    let packets = [32, 33, 33].map(|dest| packet(12, dest, b"x"));
    let [routed, pending, behind] = packets.each_ref().map(|packet| (at(12), &packet[..]));
    let received = Received::of(&[routed, pending, (at(50), &asks), behind, behind]);
    fixture.wire.lost.store(true, Ordering::Relaxed);

    assert!(batch_panics(&fixture, &received));

    let traffic = &fixture.relay.traffic;
    assert_eq!(traffic.packets_out(Transport::Wss), (1, 0));
    assert_eq!(fixture.dropped(Drop::FAILED), 4, "the pending one, the panic, and two behind it");
    assert_eq!(traffic.unaccounted(), 0);
}

#[test]
fn panic_while_sending_left_what_was_to_be_sent_in_no_count() {
    let mut fixture = Fixture::new();
    let _receivers = Receivers::of(&mut fixture);
    let whole = packet(12, 33, b"x");
    let question = discover(0);
    let received = Received::of(&[(at(12), &whole), (at(12), &question), (at(12), &whole)]);
    fixture.wire.broken.store(true, Ordering::Relaxed);

    assert!(batch_panics(&fixture, &received));

    let traffic = &fixture.relay.traffic;
    assert_eq!((fixture.dropped(Drop::FAILED), traffic.packets_originated_dropped()), (2, 1));
    assert_eq!(traffic.unaccounted(), 0);
}

fn batch_panics(fixture: &Fixture, received: &Received) -> bool {
    let mut buckets = fixture.relay.worker(1);
    let batch = || {
        fixture.relay.datagrams(&mut buckets, &*fixture.wire, received, Instant::now());
    };
    catch_unwind(AssertUnwindSafe(batch)).is_err()
}
