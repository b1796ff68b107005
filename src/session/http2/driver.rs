//! One session over HTTP/2, from its acceptance to its close: takes calls, reads what comes in
//! them, sends what the outbox has, and answers pings.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until, timeout};
use tracing::debug;

use super::super::conversation::hear_out;
use super::super::keepalive::{Event, Keepalive};
use super::calls::{Begun, Calls, Came};
use super::outgoing::{Outgoing, Purpose};
use super::{Connection, status_of};
use crate::peers::{End, State};
use crate::session;

/// Time for the last answers to leave and for the peer to close its side.
const CLOSE_GRACE: Duration = Duration::from_millis(700);

/// What a session's own task keeps.
pub(super) struct Driver<'a> {
    times: Keepalive<'a>,
    handler: &'a dyn session::Calls,
    connection: Connection,
    outgoing: Arc<Outgoing>,
    calls: Calls,
    pings: h2::PingPong,
    is_pinged: bool,
}

/// What the task does next, beyond what it has done already.
enum Step {
    Event(Event),
    /// Let others of its thread have their turn.
    Yield,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        times: Keepalive<'a>,
        handler: &'a dyn session::Calls,
        mut connection: Connection,
        outgoing: Arc<Outgoing>,
    ) -> Self {
        let pings = connection.h2.ping_pong().expect("nobody has asked for it before");
        let calls = Calls::default();
        Self { times, handler, connection, outgoing, calls, pings, is_pinged: false }
    }

    /// Runs until the session is to end; [`Self::close`] comes next.
    pub(super) async fn run(&mut self) -> End {
        for begun in std::mem::take(&mut self.connection.parked) {
            self.begin(begun);
        }
        let mut timer = std::pin::pin!(sleep_until(self.times.next_deadline().into()));
        loop {
            match poll_fn(|cx| self.poll_step(cx, timer.as_mut())).await {
                Step::Yield => tokio::task::yield_now().await,
                Step::Event(Event::Timer) => {
                    self.times.keep_time(Instant::now());
                    timer.as_mut().reset(self.times.next_deadline().into());
                }
                Step::Event(Event::Released) => self.times.resume(Instant::now()),
                Step::Event(Event::Ending(end)) => return end,
                Step::Event(Event::Readable) => {}
            }
        }
    }

    /// Does all that can be done at this moment.
    fn poll_step(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Step> {
        loop {
            let event = self.times.poll_event(cx, timer.as_mut(), |_| Poll::Pending);
            if let Poll::Ready(event) = event {
                return Poll::Ready(Step::Event(event));
            }
            if let Some(end) = self.poll_connection(cx) {
                return Poll::Ready(Step::Event(Event::Ending(end)));
            }
            let has_more = self.times.session.state() == State::Open && self.read(cx);
            let has_written = self.write(cx);
            if has_more {
                return Poll::Ready(Step::Yield);
            }
            if !has_written {
                return Poll::Pending;
            }
        }
    }

    /// Has the library read and write, and takes the calls that have begun; the end of the
    /// connection, where that has come.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let end = loop {
            match self.connection.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if let Some(begun) = Begun::new(request, respond) {
                        self.begin(begun);
                    }
                }
                Poll::Ready(Some(Err(error))) if error.is_io() => break Some(End::ConnectionLost),
                Poll::Ready(Some(Err(error))) => {
                    debug!(peer = %self.times.session.id(), %error, "a peer broke the rules of HTTP/2");
                    break Some(End::Violation);
                }
                Poll::Ready(None) => break Some(End::PeerLeft),
                Poll::Pending => break None,
            }
        };
        if self.connection.socket.was_heard() {
            self.times.last_heard = Instant::now();
        }
        if self.is_pinged
            && let Poll::Ready(answer) = self.pings.poll_pong(cx)
        {
            self.is_pinged = false;
            if answer.is_ok() {
                self.times.pong_due = None;
            }
        }
        end
    }

    fn begin(&mut self, begun: Begun) {
        match self.handler.begin(&self.times.session, begun.id, begun.path()) {
            Ok(()) => self.calls.add(begun),
            Err(status) => begun.refuse(&status),
        }
    }

    /// Hands over what has come; true where there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { times, handler, calls, .. } = self;
        let mut now = None;
        calls.read(cx, |call, came| match came {
            Came::Data(data) => {
                let now = *now.get_or_insert_with(Instant::now);
                handler.data(&times.session, call, &data, now);
            }
            Came::End(how) => handler.ended(&times.session, call, how),
        })
    }

    /// Sends what waits, as far as the peer takes it; true where that was something.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Some((call, purpose, record)) = self.outgoing.take(cx) {
            progress = true;
            let length = record.len();
            let is_waiting = match purpose {
                Purpose::Data => self.calls.push(call, record),
                Purpose::End => {
                    self.calls.end(call, status_of(&record));
                    false
                }
                Purpose::Ping => {
                    // One that is not answered yet stands for this one.
                    self.is_pinged |= self.pings.send_ping(h2::Ping::opaque()).is_ok();
                    false
                }
            };
            if !is_waiting {
                self.outgoing.left(length);
            }
        }
        self.calls.write(cx, &self.outgoing) || progress
    }

    /// Ends all calls and says goodbye as far as the peer still listens, within 0.7 s.
    pub(super) async fn close(mut self, end: End) {
        let session = Arc::clone(&self.times.session);
        session.close_with(None, None, Instant::now());
        if end == End::ConnectionLost {
            return;
        }
        let status = self.handler.farewell(end);
        let expired = timeout(CLOSE_GRACE, self.farewell(status)).await.is_err();
        self.outgoing.close();
        if expired {
            // Or the kernel would keep what the peer never took, long after the session.
            self.connection.socket.stream.give_up();
        }
    }

    async fn farewell(&mut self, status: session::Status) {
        let session = Arc::clone(&self.times.session);
        let mut has_ended = false;
        poll_fn(|cx| {
            loop {
                while session.poll_flush(cx).is_ready() {}
                if self.poll_connection(cx).is_some() {
                    return Poll::Ready(());
                }
                let has_written = self.write(cx);
                if !has_ended && session.is_drained() {
                    has_ended = true;
                    self.calls.end_all(&status);
                    continue;
                }
                if has_ended && self.calls.is_empty() {
                    self.connection.h2.graceful_shutdown();
                    return Poll::Ready(());
                }
                if !has_written {
                    return Poll::Pending;
                }
            }
        })
        .await;
        // A peer that is gone needs no goodbye.
        let _ = poll_fn(|cx| self.connection.h2.poll_closed(cx)).await;
        let stream = &self.connection.socket.stream;
        stream.shutdown_write();
        hear_out(&**stream).await;
    }
}
