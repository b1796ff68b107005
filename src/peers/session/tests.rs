//! Flushes, streams that break, datagrams, and sessions that end over a full outbox.

use std::future::poll_fn;
use std::io;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::metrics::{Drop, Origin};
use crate::peers::testing::FakeStream;
use crate::peers::{Source, testing};

/// A link whose records count in `traffic`.
fn link(stream: impl Stream, traffic: &Arc<Traffic>) -> Link {
    let limits = Limits { bytes: 200_000, ..testing::LIMITS };
    Link { limits, traffic: Arc::clone(traffic), ..testing::link(stream) }
}

fn session(link: Link) -> Arc<Session> {
    testing::session(testing::name(1), 1, link)
}

/// A stream that keeps records apart, and has room for some at a time.
#[derive(Debug, Default)]
struct Datagrams {
    room: AtomicUsize,
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Datagrams {
    fn stream(self: &Arc<Self>) -> impl Stream {
        let datagrams = Arc::clone(self);
        FakeStream::new(move |records| {
            let room = datagrams.room.load(Ordering::Relaxed);
            let sent: Vec<_> = records.iter().take(room).map(<[u8]>::to_vec).collect();
            datagrams.room.fetch_sub(sent.len(), Ordering::Relaxed);
            let written: usize = sent.iter().map(Vec::len).sum();
            datagrams.sent.lock().extend(sent);
            if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
        })
    }
}

fn push(session: &Session) {
    push_bodies(session, &[b"x"]);
}

fn push_bodies(session: &Session, bodies: &[&[u8]]) -> Pushed {
    let records = bodies.iter().map(|body| Record { head: b"", body });
    let arrival = Arrival {
        source: Source::Session(2),
        origin: Origin::Relayed,
        sender: None,
        at: Instant::now(),
    };
    session.push(records, &arrival)
}

#[tokio::test]
async fn broken_stream_is_not_written_to_again_and_again() {
    let traffic = Arc::default();
    let writes = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&writes);
    let broken = FakeStream::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Err(io::ErrorKind::ConnectionReset.into())
    });
    let session = session(link(broken, &traffic));
    push(&session);
    session.flush(Instant::now());
    assert_eq!(session.ending(), Some(End::ConnectionLost));

    let more = poll_fn(|cx| Poll::Ready(session.poll_flush(cx).is_ready())).await;
    assert!(!more && session.is_drained());
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    assert_eq!((traffic.packets_dropped(Drop::PEER_GONE), traffic.packets_queued()), (1, 0));
}

#[tokio::test]
async fn peer_whose_outbox_is_filled_all_the_time_gets_to_its_other_work() {
    let session = Arc::new_cyclic(|session: &Weak<Session>| {
        let session = Weak::clone(session);
        let writes = AtomicUsize::new(0);
        // Fills the outbox during each write, as another thread would.
        let filling = FakeStream::new(move |records| {
            if writes.fetch_add(1, Ordering::Relaxed) < 100_000 {
                session.upgrade().iter().for_each(|session| push(session));
            }
            Ok(records.bytes().len())
        });
        let observed = ([192, 0, 2, 1], 1).into();
        let link = testing::link(filling);
        Session::new(testing::principal(testing::name(1)), 1, observed, link, Instant::now())
    });
    push(&session);
    poll_fn(|cx| {
        while session.poll_flush(cx).is_ready() {}
        Poll::Ready(())
    })
    .await;
    assert!(!session.is_drained(), "it was filled 100,000 times");
}

#[test]
fn datagram_carries_one_record_whatever_leaves_together_or_in_parts() {
    let (datagrams, traffic) = (Arc::<Datagrams>::default(), Arc::default());
    let framing = Framing::Datagram;
    let session = session(Link { framing, ..link(datagrams.stream(), &traffic) });
    session.push_control(Opcode::Binary, b"accepted");
    session.push_control(Opcode::Ping, b"ping");
    push_bodies(&session, &[b"one", b"two", b"three", b"four"]);

    for room in [1, 2, 1, 5] {
        datagrams.room.store(room, Ordering::Relaxed);
        session.outbox.lock().blocked = false;
        session.flush(Instant::now());
    }

    let expected: [&[u8]; 6] = [b"accepted", b"ping", b"one", b"two", b"three", b"four"];
    assert_eq!(*datagrams.sent.lock(), expected);
    assert!(session.is_drained());
    assert_eq!(traffic.packets_out(Transport::Wss), (4, 0));
}

#[test]
fn datagrams_that_were_dropped_from_the_front_of_the_queue_do_not_leave() {
    let (datagrams, traffic) = (Arc::<Datagrams>::default(), Arc::default());
    let base = link(datagrams.stream(), &traffic);
    let limits = Limits { bytes: 450, ..base.limits };
    let session = session(Link { framing: Framing::Datagram, limits, ..base });
    push_bodies(&session, &[&[1; 100], &[2; 100], &[3; 100]]);
    datagrams.room.store(9, Ordering::Relaxed);

    session.flush(Instant::now());

    assert_eq!(*datagrams.sent.lock(), [[2; 100], [3; 100]]);
    assert_eq!(traffic.packets_dropped(Drop::OUTBOX_FULL), 1);
}

#[test]
fn session_ends_with_a_reason_of_its_own_where_no_record_may_be_missing() {
    let traffic = Arc::default();
    let overflow = Overflow::EndSession;
    let session = session(Link { overflow, ..link(testing::reader(), &traffic) });
    let bodies: [&[u8]; 4] = [&[0; 65_000]; 4];
    assert_eq!(session.ending(), None);

    let pushed = push_bodies(&session, &bodies);

    assert_eq!(pushed, Pushed { queued: 3, refused: 1, overflowed: true });
    assert_eq!(session.ending(), Some(End::Overflow));
    session.close_outbox();
    assert_eq!((traffic.packets_dropped(Drop::PEER_GONE), traffic.packets_queued()), (3, 0));
}
