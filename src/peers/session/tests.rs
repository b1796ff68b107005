//! Flushes, streams that break, datagrams, and sessions that end over a full outbox.

use super::*;
use crate::ids::{NodeId, PublicKey};
use crate::metrics::{Drop, Origin, Whose};
use crate::net::Records;
use crate::peers::{Realm, Source};
use std::future::poll_fn;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{OnceLock, Weak};
use std::time::Duration;

/// A stream that takes everything or breaks, and counts how often it was asked.
#[derive(Debug, Default)]
struct Fake {
    broken: bool,
    writes: AtomicUsize,
    /// Whose outbox is filled during each write, as another thread would.
    filled: OnceLock<Weak<Session<NodeId>>>,
}

impl Stream for Arc<Fake> {
    fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(session) = self.filled.get().and_then(Weak::upgrade)
            && writes < 100_000
        {
            push(&session);
        }
        Ok(bytes.len())
    }
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn shutdown_write(&self) {}
}

/// A stream that keeps records apart, and has room for some at a time.
#[derive(Debug, Default)]
struct Datagrams {
    room: AtomicUsize,
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Stream for Arc<Datagrams> {
    fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn try_write(&self, _: &[u8]) -> io::Result<usize> {
        unreachable!("a session writes records")
    }
    fn try_write_records(&self, records: &Records<'_>) -> io::Result<usize> {
        let mut written = 0;
        for record in records.iter() {
            if self.room.load(Ordering::Relaxed) == 0 {
                break;
            }
            self.room.fetch_sub(1, Ordering::Relaxed);
            self.sent.lock().push(record.to_vec());
            written += record.len();
        }
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn shutdown_write(&self) {}
}

fn link(stream: impl Stream, traffic: &Arc<Traffic>) -> Link {
    Link {
        stream: Box::new(stream),
        transport: Transport::Wss,
        framing: Framing::Binary,
        limits: Limits { bytes: 200_000, age: Duration::from_secs(2), message: 65_536 },
        overflow: Overflow::DropOldest,
        traffic: Arc::clone(traffic),
    }
}

fn session_of(link: Link) -> Arc<Session<NodeId>> {
    let name = NodeId::new(1).unwrap();
    let principal = Principal { realm: Realm::Node, name, credential: PublicKey([1; 32]) };
    let observed = ([192, 0, 2, 1], 1).into();
    Arc::new(Session::new(principal, 1, observed, link, Instant::now()))
}

fn session(stream: &Arc<Fake>, traffic: &Arc<Traffic>) -> Arc<Session<NodeId>> {
    session_of(link(Arc::clone(stream), traffic))
}

fn push(session: &Session<NodeId>) {
    push_bodies(session, &[b"x"]);
}

fn push_bodies(session: &Session<NodeId>, bodies: &[&[u8]]) -> Pushed {
    let records = bodies.iter().map(|body| Record { head: b"", body });
    let arrival = Arrival {
        source: Source::Session(2),
        origin: Origin::Relayed,
        whose: Whose::NOBODY,
        at: Instant::now(),
    };
    session.push(records, &arrival)
}

#[tokio::test]
async fn broken_stream_is_not_written_to_again_and_again() {
    let (stream, traffic) = (Arc::new(Fake { broken: true, ..Fake::default() }), Arc::default());
    let session = session(&stream, &traffic);
    push(&session);
    session.flush(Instant::now());
    assert_eq!(session.ending(), Some(End::ConnectionLost));

    let more = poll_fn(|cx| Poll::Ready(session.poll_flush(cx).is_ready())).await;
    assert!(!more && session.is_drained());
    assert_eq!(stream.writes.load(Ordering::Relaxed), 1);
    assert_eq!((traffic.packets_dropped(Drop::PeerGone), traffic.packets_queued()), (1, 0));
}

#[tokio::test]
async fn peer_whose_outbox_is_filled_all_the_time_gets_to_its_other_work() {
    let (stream, traffic) = (Arc::<Fake>::default(), Arc::default());
    let session = session(&stream, &traffic);
    stream.filled.set(Arc::downgrade(&session)).unwrap();
    push(&session);
    poll_fn(|cx| {
        while session.poll_flush(cx).is_ready() {}
        Poll::Ready(())
    })
    .await;
    assert!(stream.writes.load(Ordering::Relaxed) < 100_000);
}
#[test]
fn datagram_carries_one_record_whatever_leaves_together_or_in_parts() {
    let (stream, traffic) = (Arc::<Datagrams>::default(), Arc::default());
    let framing = Framing::Datagram;
    let session = session_of(Link { framing, ..link(Arc::clone(&stream), &traffic) });
    session.push_control(Opcode::Binary, b"accepted");
    session.push_control(Opcode::Ping, b"ping");
    push_bodies(&session, &[b"one", b"two", b"three", b"four"]);

    for room in [1, 2, 1, 5] {
        stream.room.store(room, Ordering::Relaxed);
        session.outbox.lock().blocked = false;
        session.flush(Instant::now());
    }

    let expected: [&[u8]; 6] = [b"accepted", b"ping", b"one", b"two", b"three", b"four"];
    assert_eq!(*stream.sent.lock(), expected);
    assert!(session.is_drained());
    assert_eq!(traffic.packets_out(Transport::Wss), (4, 0));
}

#[test]
fn datagrams_that_were_dropped_from_the_front_of_the_queue_do_not_leave() {
    let (stream, traffic) = (Arc::<Datagrams>::default(), Arc::default());
    let base = link(Arc::clone(&stream), &traffic);
    let limits = Limits { bytes: 350, ..base.limits };
    let session = session_of(Link { framing: Framing::Datagram, limits, ..base });
    push_bodies(&session, &[&[1; 100], &[2; 100], &[3; 100]]);
    stream.room.store(9, Ordering::Relaxed);

    session.flush(Instant::now());

    assert_eq!(*stream.sent.lock(), [[2; 100], [3; 100]]);
    assert_eq!(traffic.packets_dropped(Drop::OutboxFull), 1);
}

#[test]
fn session_ends_with_a_reason_of_its_own_where_no_record_may_be_missing() {
    let (stream, traffic) = (Arc::<Fake>::default(), Arc::default());
    let overflow = Overflow::EndSession;
    let session = session_of(Link { overflow, ..link(stream, &traffic) });
    let bodies: [&[u8]; 4] = [&[0; 65_000]; 4];
    assert_eq!(session.ending(), None);

    let pushed = push_bodies(&session, &bodies);

    assert_eq!(pushed, Pushed { queued: 3, refused: 1, overflowed: true });
    assert_eq!(session.ending(), Some(End::Overflow));
    session.close_outbox();
    assert_eq!((traffic.packets_dropped(Drop::PeerGone), traffic.packets_queued()), (3, 0));
}
