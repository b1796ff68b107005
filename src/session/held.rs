//! A stream whose writes wait: the answer to an upgrade leaves in one packet with the
//! challenge behind it, which spares a system call and a wake-up of the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;
use crate::net::head::HeadCheck;

/// Reads from the stream, looks at the head of the request, and keeps what is written: one HTTP
/// response, some hundred bytes.
pub(super) struct Held<'a> {
    stream: &'a dyn Stream,
    /// What was read of it before.
    early: Vec<u8>,
    pub(super) written: Vec<u8>,
    head: HeadCheck,
}

impl<'a> Held<'a> {
    pub(super) const fn new(stream: &'a dyn Stream, early: Vec<u8>) -> Self {
        Self { stream, early, written: Vec::new(), head: HeadCheck::once() }
    }
}

impl AsyncRead for Held<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.early.is_empty() {
            let taken = self.early.len().min(buffer.remaining());
            let rest = self.early.split_off(taken);
            buffer.put_slice(&std::mem::replace(&mut self.early, rest));
            self.head.take(buffer, before);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_readable(cx))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    self.head.take(buffer, before);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Held<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
