//! Accepts operators' connections: a bounded number, each with bounded buffers and time.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::Counters;
use crate::net::head::{HeadCheck, says_body};
use crate::net::options::Wish;

/// Time for the head of a request, and between two requests of one connection.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Longest time in which a client takes nothing of what is written to it.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Bytes of a request's head, and of a response that waits for the kernel.
const BUFFER: usize = 16_384;

/// What the kernel may hold for one client, in bytes: it doubles this for its own bookkeeping.
const SEND_BUFFER: usize = 65_536;

/// Wait after a connection could not be accepted, most often for want of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Pause between two connections that are asked to give way while no place is free.
const GIVE_WAY_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `shutdown`, then ends all connections. Beyond `max_connections` at once,
/// further ones wait in the kernel's backlog, and `give_way` is called until one has ended. A request
/// finds its connection's place as an `Arc<OwnedSemaphorePermit>` among its extensions: who keeps
/// that keeps the place, also after the client has gone.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    counters: Arc<Counters>,
    give_way: impl Fn(),
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(max_connections));
    // Others came while no place was free, and those who gave up have left their connections.
    let mut is_crowded = false;
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let place = loop {
                match timeout(GIVE_WAY_PAUSE, Arc::clone(&places).acquire_owned()).await {
                    Ok(place) => break Arc::new(place.expect("nobody closes the semaphore")),
                    Err(_) => {
                        is_crowded = true;
                        give_way();
                    }
                }
            };
            (place, listener.accept().await)
        };
        let (place, stream, remote) = tokio::select! {
            () = &mut shutdown => return,
            Some(_ended) = connections.join_next() => continue,
            (place, accepted) = accepted => match accepted {
                Ok((stream, remote)) => (place, stream, remote),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an operator's connection");
                    sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            },
        };
        if places.available_permits() > max_connections / 2 {
            is_crowded = false;
        }
        // Whatever it has asked, nobody hears the answer, and the living wait behind it.
        if is_crowded && has_gone(&stream) {
            counters.abandoned.increment();
            continue;
        }
        // A request may keep the place beyond the connection.
        let extensions = (Extension(ConnectInfo(remote)), Extension(Arc::clone(&place)));
        let router = router.clone().layer(extensions);
        let service = TowerToHyperService::new(router);
        let counters = Arc::clone(&counters);
        connections.spawn(async move {
            bound_buffers(&stream);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(BUFFER)
                .serve_connection(TokioIo::new(Patient::new(stream, counters)), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an operator's connection has ended");
            }
            drop(place);
        });
    }
}

/// Ends the connection after a request with a body: what comes behind that was not looked at.
pub(super) async fn end_after_body(request: Request, next: Next) -> Response {
    let is_last = says_body(request.headers());
    let mut response = next.run(request).await;
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the client has closed the connection, or its own direction at least.
fn has_gone(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // One that cannot be looked at is served: reading tells.
    poll(&mut polled, Some(&at_once)).is_ok_and(|gone| gone > 0)
}

fn bound_buffers(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    Wish::SendBuffer.settle(socket.set_send_buffer_size(SEND_BUFFER));
    Wish::NoDelay.settle(socket.set_tcp_nodelay(true));
}

/// A stream that fails once the other side has taken nothing for [`WRITE_TIME`].
struct Patient<S> {
    stream: S,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    counters: Arc<Counters>,
    head: HeadCheck,
}

impl<S> Patient<S> {
    const fn new(stream: S, counters: Arc<Counters>) -> Self {
        Self { stream, deadline: None, counters, head: HeadCheck::up_to_a_body() }
    }

    /// What a write came to, unless it has waited for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let due = || Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIME));
        ready!(self.deadline.get_or_insert_with(due).as_mut().poll(cx));
        self.counters.stuck.increment();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_nothing_is_given_up_and_one_that_reads_slowly_is_not() {
        let (ours, mut theirs) = duplex(1_000);
        let counters = Arc::<Counters>::default();
        let mut stream = Patient::new(ours, Arc::clone(&counters));
        let reader = tokio::spawn(async move {
            for _ in 0..5 {
                sleep(WRITE_TIME - Duration::from_millis(1)).await;
                theirs.read_exact(&mut [0; 1_000]).await.unwrap();
            }
            theirs
        });
        stream.write_all(&[0; 6_000]).await.unwrap();
        assert_eq!(counters.stuck.value(), 0);
        let _silent = reader.await.unwrap();

        let began = Instant::now();
        let error = stream.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, WRITE_TIME));
        assert_eq!(counters.stuck.value(), 1);
    }
}
