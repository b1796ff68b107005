//! The stream below HTTP/2, as its library reads and writes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// Bytes that are collected before they are written: frames leave together, in one record of TLS
/// where it has room.
const COLLECTED: usize = 65_536;

/// The stream of a connection, and whether something has come over it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: Box<dyn Stream>,
    /// Set with each read that brought something; whoever looks resets it.
    heard: AtomicBool,
}

impl Socket {
    pub(super) fn new(stream: Box<dyn Stream>) -> Arc<Self> {
        Arc::new(Self { stream, heard: AtomicBool::new(false) })
    }

    /// Whether something has come since this was asked.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }
}

/// Reads and writes a socket. What is written waits until it is flushed; an idle one owns no buffer.
#[derive(Debug)]
pub(super) struct Io {
    socket: Arc<Socket>,
    /// What was read before it was known to be HTTP/2.
    early: Vec<u8>,
    collected: Vec<u8>,
    /// How much of that has left.
    written: usize,
}

impl Io {
    pub(super) const fn new(socket: Arc<Socket>, early: Vec<u8>) -> Self {
        Self { socket, early, collected: Vec::new(), written: 0 }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let taken = self.early.len().min(buffer.remaining());
            let rest = self.early.split_off(taken);
            buffer.put_slice(&std::mem::replace(&mut self.early, rest));
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.stream.poll_readable(cx))?;
            match self.socket.stream.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    self.socket.heard.store(true, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.collected.len() >= COLLECTED {
            ready!(self.as_mut().poll_flush(cx))?;
        }
        self.collected.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.collected.len() {
            // Over TLS no byte may be taken of bytes that are encrypted already: then the same ones
            // come again, with more behind them.
            let rest = self.collected.get(self.written..).unwrap_or_default();
            match self.socket.stream.try_write(rest) {
                Ok(0) => ready!(self.socket.stream.poll_writable(cx))?,
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.stream.poll_writable(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.collected = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.socket.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
