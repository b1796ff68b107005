//! The byte stream under a session.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::calls::{self, Call};

/// Another side that has not answered for two minutes is gone.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Records that go out one behind the other; of the first a part may have left.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    ends: &'a [u32],
    at: usize,
}

impl<'a> Records<'a> {
    /// The records in `bytes` from position `at` on; `ends` are the positions where each record
    /// ends, in ascending order.
    #[must_use]
    pub const fn new(bytes: &'a [u8], ends: &'a [u32], at: usize) -> Self {
        Self { bytes, ends, at }
    }

    /// All of them in one piece.
    ///
    /// # Panics
    /// If they begin behind the bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes.get(self.at..).expect("the records begin inside of the bytes")
    }

    /// One by one.
    ///
    /// # Panics
    /// If one ends behind the bytes.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Self { bytes, ends, at } = *self;
        let gone = ends.partition_point(|end| *end as usize <= at);
        let left = ends.get(gone..).unwrap_or_default();
        let mut start = at;
        left.iter().map(move |end| {
            let end = *end as usize;
            let record = bytes.get(start..end).expect("a record ends inside of the bytes");
            start = end;
            record
        })
    }
}

/// How long the records of a stream may be that keeps them apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Longest {
    /// Longest that can leave at this moment, in bytes.
    pub now: usize,
    /// Longest that may be able to leave soon: it is not known yet what the path carries.
    pub soon: usize,
}

/// A connected stream that any thread may write to without waiting, while its owner's task
/// waits for readiness.
///
/// Only one task may call the `poll_` functions: the socket remembers one waker for each
/// direction.
pub trait Stream: fmt::Debug + Send + Sync + 'static {
    /// Reads what is there; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; any other error ends the stream.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as the kernel takes at this moment.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; any other error ends the stream.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as many records as the kernel takes at this moment; returns how many bytes of them
    /// it took. A byte stream may take a part of a record. One that keeps records apart sends
    /// each as a datagram of its own, or not at all.
    ///
    /// # Errors
    /// Those of [`Self::try_write`].
    fn try_write_records(&self, records: &Records<'_>) -> io::Result<usize> {
        self.try_write(records.bytes())
    }

    /// How long a record may be, of a stream that keeps records apart; nothing where any length
    /// can leave.
    fn longest_record(&self) -> Option<Longest> {
        None
    }

    /// Waits until [`Self::try_read`] is worth a call.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Waits until a write is worth a call.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the other side that nothing more will come; an error means that it is gone.
    fn shutdown_write(&self);

    /// Has the system look whether the other side is still there, and end the stream where it is not,
    /// for who says nothing for long.
    fn keep_alive(&self) {}

    /// Has the stream end without waiting for the other side, once it is dropped: what was
    /// not taken is given up.
    fn give_up(&self) {}
}

macro_rules! stream {
    ($kind:ty) => {
        impl Stream for $kind {
            fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut short = None;
                let read = self.try_io(Interest::READABLE, || {
                    calls::count(Call::Read);
                    let (read, _) = recv(self, &mut *buffer, RecvFlags::empty())?;
                    if read > 0 && read < buffer.len() {
                        // That was all: who waits is woken by the next that comes, and
                        // asks the kernel no second time. What tokio knows of an end stays.
                        short = Some(read);
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Ok(read)
                });
                short.map_or(read, Ok)
            }

            fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                calls::count(Call::Write);
                Self::try_write(self, bytes)
            }

            fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(cx)
            }

            fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_write_ready(cx)
            }

            fn shutdown_write(&self) {
                // The other side may have closed already, which is the end as well.
                let _ = SockRef::from(self).shutdown(Shutdown::Write);
            }

            fn keep_alive(&self) {
                // A Unix socket has no such thing: its other side is on this machine.
                let _ = SockRef::from(self).set_tcp_keepalive(&KEEPALIVE);
            }

            fn give_up(&self) {
                // A Unix socket has no such thing, and needs none.
                let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
            }
        }
    };
}

stream!(TcpStream);
stream!(UnixStream);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::task::Poll;

    use tokio::net::TcpListener;

    use super::*;

    async fn readable(stream: &TcpStream) {
        poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn a_read_that_takes_all_is_the_only_one_until_more_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 8];
        for said in [&b"first"[..], b"then"] {
            peer.write_all(said).unwrap();
            readable(&stream).await;
            let before = calls::made_here(Call::Read);
            assert_eq!(Stream::try_read(&stream, &mut buffer).unwrap(), said.len());
            let waits = poll_fn(|cx| Poll::Ready(stream.poll_readable(cx).is_pending())).await;
            assert!(waits, "nothing is there");
            let nothing = Stream::try_read(&stream, &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(calls::made_here(Call::Read), before + 1);
        }

        // Of more than the buffer takes, the rest is read without waiting.
        peer.write_all(b"nine bytes").unwrap();
        readable(&stream).await;
        assert_eq!(Stream::try_read(&stream, &mut buffer).unwrap(), 8);
        readable(&stream).await;
        assert_eq!(Stream::try_read(&stream, &mut buffer).unwrap(), 2);
    }

    #[tokio::test]
    async fn an_end_behind_the_last_bytes_is_read_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        peer.write_all(b"last").unwrap();
        drop(peer);
        let mut read = Vec::new();
        let mut buffer = [0; 8];
        loop {
            readable(&stream).await;
            match Stream::try_read(&stream, &mut buffer) {
                Ok(0) => break,
                Ok(more) => read.extend_from_slice(&buffer[..more]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(read, b"last");
    }
}
