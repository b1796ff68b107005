//! What a connection receives with: datagrams one by one.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use quinn::{Connection, ConnectionError};
use tokio_util::sync::ReusableBoxFuture;

/// Why nothing comes any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lost {
    /// The other side has closed, with this code.
    Closed(u64),
    /// Nothing was heard of it.
    Silent,
    /// It broke the rules of QUIC.
    Broken,
    /// It is gone.
    Gone,
}

impl From<ConnectionError> for Lost {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::Closed(close.error_code.into_inner())
            }
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::TransportError(_) => Self::Broken,
            ConnectionError::VersionMismatch
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => Self::Gone,
        }
    }
}

type Received = Result<Bytes, ConnectionError>;

/// The receiving half of a connection.
pub struct Receiver {
    connection: Connection,
    next: Option<Bytes>,
    waiting: ReusableBoxFuture<'static, Received>,
    /// Whether what waits has not ended.
    is_waiting: bool,
    /// Datagrams that were taken from QUIC.
    taken: Arc<AtomicU64>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

async fn next(connection: Connection) -> Received {
    connection.read_datagram().await
}

impl Receiver {
    pub(super) fn new(connection: Connection, taken: Arc<AtomicU64>) -> Self {
        let waiting = ReusableBoxFuture::new(next(connection.clone()));
        Self { connection, next: None, waiting, is_waiting: true, taken }
    }

    /// Waits until a datagram is there.
    ///
    /// # Errors
    /// Why none will come.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if self.next.is_none() {
            if !self.is_waiting {
                self.waiting.set(next(self.connection.clone()));
                self.is_waiting = true;
            }
            let received = ready!(self.waiting.poll(cx));
            self.is_waiting = false;
            self.next = Some(received?);
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// The next datagram that is there.
    ///
    /// # Errors
    /// Why none will come.
    pub fn try_receive(&mut self) -> Result<Option<Bytes>, Lost> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        let read = pin!(self.connection.read_datagram());
        match read.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(received) => {
                let received = received?;
                self.taken.fetch_add(1, Ordering::Relaxed);
                Ok(Some(received))
            }
            Poll::Pending => Ok(None),
        }
    }

    /// Waits for the next datagram. May be dropped at any time: none is lost.
    ///
    /// # Errors
    /// Why none will come.
    pub async fn receive(&mut self) -> Result<Bytes, Lost> {
        loop {
            std::future::poll_fn(|cx| self.poll_readable(cx)).await?;
            if let Some(datagram) = self.try_receive()? {
                return Ok(datagram);
            }
        }
    }
}
