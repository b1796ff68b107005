//! What a door's messages count as, whatever the door says that they are.

use std::ops::Range;

use super::*;
use crate::metrics::{Owner, Transport};
use crate::peers::{Registration, testing};
use crate::proto::limit::Rate;
use crate::wire::Frames;
use crate::wire::name::testing::REALM;

struct SomeDrop;

crate::reasons! {
    impl SomeDrop of Owner::Door(REALM, "some");

    ODD = "odd", "it is odd", "none";
    EMPTY [expected] = "empty", "it says nothing", "none";
}

/// A door that puts nothing in front of a payload.
struct Bare;

impl Delivery for Bare {
    fn head(&self, _: &Flow, _: &Session) -> Head {
        Head::new(&[])
    }
}

/// A router with one peer, which takes everything.
struct Bench {
    router: Arc<Router>,
    session: Arc<Session>,
    _registration: Registration,
}

impl Bench {
    fn new() -> Self {
        let traffic = Arc::<Traffic>::default();
        traffic.register(SomeDrop::REASONS);
        let table = Arc::new(Table::new(1, 0));
        let link = testing::link(testing::reader());
        let link = crate::peers::Link { traffic: Arc::clone(&traffic), ..link };
        let session = testing::session(testing::name(1), table.generation(), link);
        let registration = table.register(Arc::clone(&session)).unwrap();
        let rates = SourceRates { packets: Rate::NONE, bytes: Rate::NONE };
        let router = Router::new(table, traffic, rates, None);
        Self { router, session, _registration: registration }
    }

    /// Has the router take messages of a byte each, which are what the byte says.
    fn take(&self, messages: &[u8]) {
        let ranges: Vec<Range<usize>> = (0..messages.len()).map(|at| at..at + 1).collect();
        let frames = Frames::new(messages, &ranges);
        self.router.take(&Bare, &self.session, frames, Instant::now(), |_, message| {
            let dropped = |reason| Message::Dropped { reason, dest: None };
            match message {
                b"h" => Message::Handled,
                b"o" => dropped(SomeDrop::ODD),
                b"e" => dropped(SomeDrop::EMPTY),
                b"n" => Message::Packet { dest: testing::name(2), header: 0 },
                // The flow before does not go on with it.
                b"1" => Message::Packet { dest: testing::name(1), header: 1 },
                _ => Message::Packet { dest: testing::name(1), header: 0 },
            }
        });
    }
}

#[test]
fn each_message_is_counted_in_and_once_by_what_it_was() {
    let bench = Bench::new();
    let traffic = bench.router.traffic();

    bench.take(b"p1phoeenhp");

    assert_eq!(traffic.packets_in(Transport::Wss), 10);
    assert_eq!(traffic.packets_out(Transport::Wss), (4, 0));
    let dropped = [SomeDrop::ODD, SomeDrop::EMPTY, Drop::UNKNOWN_DESTINATION];
    assert_eq!(dropped.map(|reason| traffic.packets_dropped(reason)), [1, 2, 1]);
    assert_eq!((traffic.packets_dropped_unexpectedly(), traffic.unaccounted()), (2, 0));
    let remembered = traffic.drops_of(testing::name(1), Instant::now());
    assert!(!remembered.iter().any(|dropped| dropped.reason.is_expected), "{remembered:?}");
}

#[test]
fn messages_of_a_session_that_has_ended_are_counted_all_the_same() {
    let bench = Bench::new();
    bench.session.end(crate::peers::End::Replaced);

    bench.take(b"phoe");

    let traffic = bench.router.traffic();
    assert_eq!(traffic.packets_in(Transport::Wss), 4);
    assert_eq!((traffic.packets_dropped(Drop::SESSION_ENDED), traffic.unaccounted()), (4, 0));
}
