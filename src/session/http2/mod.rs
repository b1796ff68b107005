//! Connections over HTTP/2, whose calls are methods of gRPC: one session each, with an outbox, limits
//! and a door as any other.
//!
//! The library has the frames, the compression of headers, and the flow control; here a connection
//! becomes a session and its calls are the door's ([`Calls`](super::Calls)). All of a connection is
//! one task. What leaves goes through the session's outbox: who fills it never waits for the
//! connection.

mod calls;
mod driver;
mod io;
mod login;
mod outgoing;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf as _, Bytes};

use self::calls::Begun;
use self::driver::Driver;
use self::io::{Io, Socket};
pub(super) use self::login::{LoggedIn, Opened};
use self::outgoing::{Purpose, head};
use super::{CallId, Refusal, Session, Status};
use crate::net::Stream;
use crate::peers::{Arrival, Pushed, Record};

/// What a connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Calls of one connection at a time: clients make two.
const MOST_CALLS: u32 = 16;

/// Bytes of the headers of a request, as HTTP/2 counts them.
const MAX_HEADERS: u32 = 16_384;

/// Bytes that a peer may send in a call before it is told that they were read, and in a connection.
const WINDOW: u32 = 1_048_576;

/// Bytes of a call's answer that the library keeps.
const SEND_BUFFER: usize = 65_536;

/// The record that stands for a ping.
pub(super) const PING: &[u8] = &head(CallId(0), Purpose::Ping);

/// Queues bytes of the answer to a call, behind those before.
pub fn push_data(session: &Session, CallId(call): CallId, data: &[u8], now: Instant) -> Pushed {
    let head = head(CallId(call), Purpose::Data);
    let record = Record { head: &head, body: data };
    session.push(std::iter::once(record), &Arrival::ours(now))
}

/// Queues bytes of the answer to a call in front of those that [`push_data`] has queued: an
/// acknowledgement, of 1,024 bytes at most.
pub fn push_answer(session: &Session, call: CallId, data: &[u8]) {
    session.push_notice(&[&head(call, Purpose::Data), data].concat());
}

/// Queues the end of a call, in front of what [`push_data`] has queued.
pub fn push_end(session: &Session, call: CallId, status: &Status) {
    let code = status.code.to_be_bytes();
    session
        .push_notice(&[&head(call, Purpose::End)[..], &code, status.message.as_bytes()].concat());
}

/// What [`push_end`] wrote behind the head.
fn status_of(record: &Bytes) -> Status {
    let mut rest = record.clone();
    let code = rest.try_get_u32().unwrap_or_default();
    let message = String::from_utf8_lossy(&rest).into_owned();
    Status { code, message: message.into() }
}

/// A connection that speaks HTTP/2.
pub(super) struct Connection {
    h2: h2::server::Connection<Io, Bytes>,
    socket: Arc<Socket>,
    /// Calls that came before there was a session.
    parked: VecDeque<Begun>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Connection {
    /// Exchanges settings with a client, whose first bytes were read already.
    ///
    /// # Errors
    /// It is gone, or speaks something else.
    pub(super) async fn open(stream: Box<dyn Stream>, early: Vec<u8>) -> Result<Self, Refusal> {
        let socket = Socket::new(stream);
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_concurrent_streams(MOST_CALLS)
            .max_header_list_size(MAX_HEADERS)
            .max_send_buffer_size(SEND_BUFFER);
        let h2 = builder.handshake(Io::new(Arc::clone(&socket), early)).await;
        let h2 = h2.map_err(|_| Refusal::gone())?;
        Ok(Self { h2, socket, parked: VecDeque::new() })
    }

    /// Keeps a connection going that has no session yet, and the calls that come, as long as it lives.
    pub(super) async fn listen(&mut self) -> Refusal {
        poll_fn(|cx| self.poll_parked(cx)).await;
        Refusal::gone()
    }

    /// Parks calls; ready when the connection is over.
    fn poll_parked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.parked.extend(Begun::new(request, respond));
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Answers all calls with nothing but what `refusal` says to their paths, until the client goes.
    pub(super) async fn refuse_calls(&mut self, refusal: impl Fn(&str) -> Status) {
        poll_fn(|cx| {
            loop {
                let polled = self.poll_parked(cx);
                if polled.is_ready() || self.parked.is_empty() {
                    return polled;
                }
                for begun in self.parked.drain(..) {
                    let status = refusal(begun.path());
                    begun.refuse(&status);
                }
            }
        })
        .await;
    }

    /// Says goodbye to a client that has no session.
    pub(super) async fn end(mut self) {
        self.h2.graceful_shutdown();
        // A client that is gone needs no goodbye.
        let _ = poll_fn(|cx| self.h2.poll_closed(cx)).await;
        self.socket.stream.shutdown_write();
    }
}

/// What a client begins with: whether that is HTTP/2, and the bytes that were read to know that.
pub(super) async fn opening(stream: &dyn Stream) -> std::io::Result<(bool, Vec<u8>)> {
    let mut read = vec![0; PREFACE.len()];
    let mut filled = 0;
    loop {
        let room = read.get_mut(filled..).unwrap_or_default();
        match stream.try_read(room) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_readable(cx)).await?;
            }
            Err(error) => return Err(error),
        }
        let begins_so = PREFACE.starts_with(read.get(..filled).unwrap_or_default());
        if !begins_so || filled == PREFACE.len() {
            break;
        }
    }
    read.truncate(filled);
    Ok((read == PREFACE, read))
}
