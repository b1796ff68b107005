//! What a connection sends with: each record is a datagram, and none is dropped.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, SendDatagramError};

use crate::net::{Longest, Records, Stream};

/// What QUIC counts a datagram as, beside its bytes, in bytes; at least.
const DATAGRAM_COST: usize = 64;

/// Time after which what a path carries is known, if it has not changed meanwhile.
const SETTLED: Duration = Duration::from_secs(2);

/// A record that waits for room.
type Waiting = Pin<Box<dyn Future<Output = Result<(), SendDatagramError>> + Send>>;

/// The sending half of a connection.
pub struct Sender {
    connection: Connection,
    /// A record that QUIC has no room for. It counts as written, and nothing overtakes it: QUIC
    /// tells of room only to who has a datagram for it.
    waiting: Mutex<Option<Waiting>>,
    path: Mutex<Path>,
    /// Longest datagram on the widest path, in bytes: QUIC begins with that.
    most: usize,
    /// Datagrams that QUIC has taken.
    given: Arc<AtomicU64>,
}

/// What the path carries.
#[derive(Debug)]
struct Path {
    /// Longest datagram, in bytes.
    longest: usize,
    /// Since when.
    since: Instant,
}

impl Sender {
    pub(super) fn new(connection: Connection, given: Arc<AtomicU64>) -> Self {
        let most = connection.max_datagram_size().unwrap_or_default();
        let path = Path { longest: most, since: Instant::now() };
        Self { connection, waiting: Mutex::new(None), path: Mutex::new(path), most, given }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Stream for Sender {
    /// Datagrams are received by the [`Receiver`](super::Receiver): one may be empty.
    fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let end = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.try_write_records(&Records::new(bytes, &[end], 0))
    }

    fn try_write_records(&self, records: &Records<'_>) -> io::Result<usize> {
        let mut waiting = self.waiting.lock();
        if waiting.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut room = self.connection.datagram_send_buffer_space();
        let mut written = 0;
        let mut given = 0;
        for record in records.iter() {
            let cost = record.len() + DATAGRAM_COST;
            let datagram = Bytes::copy_from_slice(record);
            if cost > room {
                // One too long would be given up there.
                if self.connection.max_datagram_size().is_some_and(|most| record.len() > most) {
                    break;
                }
                let connection = self.connection.clone();
                let send = async move { connection.send_datagram_wait(datagram).await };
                *waiting = Some(Box::pin(send));
                written += record.len();
                given += 1;
                break;
            }
            match self.connection.send_datagram(datagram) {
                Ok(()) => {}
                Err(SendDatagramError::TooLarge) => break,
                Err(_) if written > 0 => break,
                Err(error) => return Err(io::Error::other(error)),
            }
            room -= cost;
            written += record.len();
            given += 1;
        }
        self.given.fetch_add(given, Ordering::Relaxed);
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }

    fn longest_record(&self) -> Option<Longest> {
        let now = self.connection.max_datagram_size().unwrap_or_default();
        let mut path = self.path.lock();
        if path.longest != now {
            *path = Path { longest: now, since: Instant::now() };
        }
        let is_settled = path.since.elapsed() > SETTLED;
        Some(Longest { now, soon: if is_settled { now } else { self.most.max(now) } })
    }

    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.waiting.lock();
        let Some(send) = &mut *waiting else { return Poll::Ready(Ok(())) };
        let sent = ready!(send.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(match sent {
            // The path carries less than when it was taken, and has lost it.
            Ok(()) | Err(SendDatagramError::TooLarge) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        })
    }

    /// Datagrams have no end: the connection is closed.
    fn shutdown_write(&self) {}
}
