//! Flushes, streams that break, datagrams, and sessions that end over a full outbox.

use std::future::poll_fn;
use std::io;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;
use crate::metrics::{Drop, Origin};
use crate::net::{Longest, Records};
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

/// A stream that keeps records apart, and has room for some at a time, of some length.
#[derive(Debug)]
struct Datagrams {
    room: AtomicUsize,
    longest: Mutex<Longest>,
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Default for Datagrams {
    fn default() -> Self {
        let longest = Mutex::new(Longest { now: 1_400, soon: 1_400 });
        Self { room: AtomicUsize::new(0), longest, sent: Mutex::default() }
    }
}

impl Datagrams {
    fn stream(self: &Arc<Self>) -> impl Stream + use<> {
        Half(Arc::clone(self))
    }

    /// What was sent since the last call.
    fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent.lock())
    }
}

/// What a session has of [`Datagrams`].
#[derive(Debug)]
struct Half(Arc<Datagrams>);

impl Stream for Half {
    fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_write(&self, _: &[u8]) -> io::Result<usize> {
        unreachable!("a session writes records")
    }

    fn try_write_records(&self, records: &Records<'_>) -> io::Result<usize> {
        let Datagrams { room, longest, sent } = &*self.0;
        let longest = longest.lock().now;
        let fits = |record: &&[u8]| record.len() <= longest;
        let taken = records.iter().take(room.load(Ordering::Relaxed)).take_while(fits);
        let taken: Vec<_> = taken.map(<[u8]>::to_vec).collect();
        room.fetch_sub(taken.len(), Ordering::Relaxed);
        let written: usize = taken.iter().map(Vec::len).sum();
        sent.lock().extend(taken);
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }

    fn longest_record(&self) -> Option<Longest> {
        Some(*self.0.longest.lock())
    }

    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn shutdown_write(&self) {}
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
fn datagrams_that_did_not_leave_age_and_make_room_as_those_that_wait() {
    let (datagrams, traffic) = (Arc::<Datagrams>::default(), Arc::default());
    let base = link(datagrams.stream(), &traffic);
    let limits = Limits { bytes: 450, age: Duration::from_secs(2), ..base.limits };
    let session = session(Link { framing: Framing::Datagram, limits, ..base });
    push_bodies(&session, &[&[1; 100], &[2; 100]]);
    datagrams.room.store(1, Ordering::Relaxed);
    session.flush(Instant::now());
    assert_eq!(datagrams.take_sent(), [[1; 100]]);
    assert_eq!((traffic.packets_out(Transport::Wss), traffic.packets_queued()), ((1, 0), 1));
    assert_eq!(session.stuck_since(), None, "none is in flight");

    // The second makes room for the fourth, as if it had never been tried.
    push_bodies(&session, &[&[3; 100], &[4; 100]]);
    assert_eq!(traffic.packets_dropped(Drop::OUTBOX_FULL), 1);
    let later = Instant::now() + Duration::from_secs(3);
    session.outbox.lock().blocked = false;
    datagrams.room.store(9, Ordering::Relaxed);
    session.flush(later);
    assert_eq!(datagrams.take_sent(), [[0; 0]; 0]);
    assert_eq!(traffic.packets_dropped(Drop::OUTBOX_AGED), 2);
    assert!(session.is_drained());
    assert_eq!(traffic.packets_queued(), 0);
}

#[test]
fn datagram_that_the_path_may_carry_soon_waits_and_holds_nobody_up() {
    let (datagrams, traffic) = (Arc::<Datagrams>::default(), Arc::default());
    let session =
        session(Link { framing: Framing::Datagram, ..link(datagrams.stream(), &traffic) });
    *datagrams.longest.lock() = Longest { now: 1_150, soon: 1_400 };
    datagrams.room.store(99, Ordering::Relaxed);
    push_bodies(&session, &[&[1; 100], &[2; 1_350], &[3; 100], &[4; 1_401], &[5; 100]]);
    session.flush(Instant::now());
    session.outbox.lock().blocked = false;
    session.flush(Instant::now());
    let sent: Vec<_> = datagrams.take_sent().iter().map(|sent| sent[0]).collect();
    assert_eq!(sent, [1, 3, 5]);
    assert!(session.has_aside());
    assert_eq!(traffic.packets_dropped(Drop::TOO_LARGE_FOR_PATH), 1, "no path carries it");
    assert_eq!(traffic.packets_queued(), 1);

    // Not yet; then the path is wider.
    session.retry_aside(Instant::now());
    assert!(session.has_aside() && datagrams.take_sent().is_empty());
    datagrams.longest.lock().now = 1_400;
    session.retry_aside(Instant::now());
    assert_eq!(datagrams.take_sent(), [[2; 1_350]]);
    assert!(!session.has_aside() && session.is_drained());

    // Two that wait: one until it is too old, one until it is clear that the path is narrow.
    for longest in [Longest { now: 1_150, soon: 1_400 }, Longest { now: 1_150, soon: 1_150 }] {
        *datagrams.longest.lock() = Longest { now: 1_150, soon: 1_400 };
        push_bodies(&session, &[&[6; 1_350]]);
        session.flush(Instant::now());
        assert!(session.has_aside());
        *datagrams.longest.lock() = longest;
        let is_settled = longest.soon == 1_150;
        let later = Duration::from_secs(if is_settled { 0 } else { 3 });
        session.retry_aside(Instant::now() + later);
        assert!(!session.has_aside());
    }
    assert_eq!(traffic.packets_dropped(Drop::TOO_LARGE_FOR_PATH), 3);
    assert_eq!((traffic.packets_out(Transport::Wss), traffic.packets_queued()), ((4, 0), 0));
}

#[test]
fn datagrams_that_wait_for_their_path_are_bounded_and_end_with_the_session() {
    let (datagrams, traffic) = (Arc::<Datagrams>::default(), Arc::default());
    let session =
        session(Link { framing: Framing::Datagram, ..link(datagrams.stream(), &traffic) });
    *datagrams.longest.lock() = Longest { now: 1_150, soon: 1_400 };
    datagrams.room.store(9, Ordering::Relaxed);
    for _ in 0..1_000 {
        push_bodies(&session, &[&[2; 1_350]]);
        session.flush(Instant::now());
    }
    let waiting = session.backlog(Instant::now()).records;
    assert!((20..=48).contains(&waiting), "{waiting}");
    let dropped = traffic.packets_dropped(Drop::TOO_LARGE_FOR_PATH);
    assert_eq!((dropped + waiting as u64, traffic.packets_queued()), (1_000, waiting as u64));

    session.close_outbox();
    assert_eq!(
        (traffic.packets_dropped(Drop::PEER_GONE), traffic.packets_queued()),
        (waiting as u64, 0)
    );
}

#[test]
fn session_ends_with_a_reason_of_its_own_where_no_record_may_be_missing() {
    let traffic = Arc::default();
    let overflow = Overflow::EndSession;
    let session = session(Link { overflow, ..link(testing::reader(), &traffic) });
    let bodies: [&[u8]; 4] = [&[0; 65_000]; 4];
    assert_eq!(session.ending(), None);

    let pushed = push_bodies(&session, &bodies);

    assert_eq!(pushed, Pushed { queued: 3, refused: 1, overflowed: true, ..Pushed::default() });
    assert_eq!(session.ending(), Some(End::Overflow));
    session.close_outbox();
    assert_eq!((traffic.packets_dropped(Drop::PEER_GONE), traffic.packets_queued()), (3, 0));
}

#[test]
fn session_that_ends_while_it_is_held_ends_once_and_for_its_first_reason() {
    let session = session(testing::link(testing::reader()));
    session.hold(true);
    assert_eq!((session.state(), session.is_open()), (State::Held, true));
    session.end(End::Kicked);
    session.end(End::Idle);
    assert_eq!((session.state(), session.is_open()), (State::Ending(End::Kicked), false));
    session.hold(false);
    session.resumed();
    assert_eq!(session.ending(), Some(End::Kicked));

    let other = self::session(testing::link(testing::reader()));
    other.hold(false);
    assert_eq!(other.state(), State::Open, "it was not held");
    other.hold(true);
    other.hold(false);
    other.hold(true);
    assert_eq!(other.state(), State::Held);
    other.hold(false);
    assert_eq!(other.state(), State::Released);
    other.resumed();
    assert_eq!(other.state(), State::Open);
}
