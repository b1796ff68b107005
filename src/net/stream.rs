//! The byte stream under a session.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use super::calls::{self, Call};

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

    /// Waits until [`Self::try_read`] is worth a call.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Waits until [`Self::try_write`] is worth a call.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the other side that nothing more will come; an error means that it is gone.
    fn shutdown_write(&self);

    /// Has the stream end without waiting for the other side, once it is dropped: what was
    /// not taken is given up.
    fn give_up(&self) {}
}

macro_rules! stream {
    ($kind:ty) => {
        impl Stream for $kind {
            fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                calls::count(Call::Read);
                Self::try_read(self, buffer)
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

            fn give_up(&self) {
                // A Unix socket has no such thing, and needs none.
                let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
            }
        }
    };
}

stream!(TcpStream);
stream!(UnixStream);
