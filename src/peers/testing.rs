//! Sessions without a kernel below them: for the tests of this crate, of its benchmarks, and of
//! who embeds it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{Credential, Limits, Link, Overflow, Principal, Session};
use crate::metrics::Transport;
use crate::net::{Records, Stream};
use crate::wire::Framing;
use crate::wire::name::Name;

pub use crate::wire::name::testing::name;

/// The bounds that an outbox has by default.
pub const LIMITS: Limits = Limits { bytes: 262_144, age: Duration::from_secs(2), message: 65_536 };

/// What all of [`principal`] have proved to have.
pub const CREDENTIAL: Credential = Credential([1; 32]);

/// A stream whose other side is two functions: what it says, and what it makes of what it is
/// told.
pub struct FakeStream<R, W> {
    reads: Option<R>,
    writes: W,
}

/// What the other side of a [`FakeStream`] says where nobody cares: nothing.
type Silence = fn(&mut [u8]) -> io::Result<usize>;

impl<W> FakeStream<Silence, W>
where
    W: Fn(&Records<'_>) -> io::Result<usize> + Send + Sync + 'static,
{
    /// A side that says nothing; `writes` takes what it is told, like
    /// [`Stream::try_write_records`].
    pub const fn new(writes: W) -> Self {
        Self { reads: None, writes }
    }
}

impl<R, W> FakeStream<R, W>
where
    R: Fn(&mut [u8]) -> io::Result<usize> + Send + Sync + 'static,
    W: Fn(&Records<'_>) -> io::Result<usize> + Send + Sync + 'static,
{
    /// A side that always has something to say, like [`Stream::try_read`].
    pub const fn talking(reads: R, writes: W) -> Self {
        Self { reads: Some(reads), writes }
    }
}

impl<R, W> fmt::Debug for FakeStream<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeStream").finish_non_exhaustive()
    }
}

impl<R, W> Stream for FakeStream<R, W>
where
    R: Fn(&mut [u8]) -> io::Result<usize> + Send + Sync + 'static,
    W: Fn(&Records<'_>) -> io::Result<usize> + Send + Sync + 'static,
{
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.reads {
            Some(reads) => reads(buffer),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let end = u32::try_from(bytes.len()).expect("a test writes less");
        (self.writes)(&Records::new(bytes, &[end], 0))
    }

    fn try_write_records(&self, records: &Records<'_>) -> io::Result<usize> {
        (self.writes)(records)
    }

    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reads.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn shutdown_write(&self) {}
}

/// A peer that takes everything and says nothing.
#[must_use]
pub fn reader() -> impl Stream {
    FakeStream::new(|records| Ok(records.bytes().len()))
}

/// A peer that takes nothing and says nothing.
#[must_use]
pub fn stuck() -> impl Stream {
    FakeStream::new(|_| Err(io::ErrorKind::WouldBlock.into()))
}

/// A session's link over this stream: as a WebSocket peer has it by default, with accounts of
/// its own.
#[must_use]
pub fn link(stream: impl Stream) -> Link {
    Link {
        stream: Box::new(stream),
        transport: Transport::Wss,
        framing: Framing::Binary,
        limits: LIMITS,
        overflow: Overflow::DropOldest,
        traffic: Arc::default(),
    }
}

/// The peer of this name, which has proved to have [`CREDENTIAL`].
#[must_use]
pub fn principal(name: impl Into<Name>) -> Principal {
    Principal { name: name.into(), credential: CREDENTIAL }
}

/// A session of the peer of this name, seen at 192.0.2.1:1, which is in no table yet.
#[must_use]
pub fn session(name: impl Into<Name>, generation: u64, link: Link) -> Arc<Session> {
    let observed = ([192, 0, 2, 1], 1).into();
    Arc::new(Session::new(principal(name), generation, observed, link, Instant::now()))
}
