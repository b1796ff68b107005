//! A stream whose writes wait: the answer to an upgrade leaves in one packet with the
//! challenge behind it, which spares a system call and a wake-up of the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::head::HeadCheck;

/// Reads from the stream, looks at the head of the request, and keeps what is written: one HTTP
/// response, some hundred bytes.
pub(super) struct Held<T> {
    pub(super) stream: T,
    pub(super) written: Vec<u8>,
    head: HeadCheck,
}

impl<T> Held<T> {
    pub(super) const fn new(stream: T) -> Self {
        Self { stream, written: Vec::new(), head: HeadCheck::once() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Held<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.head.take(buffer, before);
        read
    }
}

impl<T: Unpin> AsyncWrite for Held<T> {
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
