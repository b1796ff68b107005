//! One session after its login: moves packets between the socket and two queues, pings,
//! and notices when the relay is gone.
//!
//! One task owns the socket. It reads while a flush is going on, so that two sides that
//! both wait for each other's reading cannot lock each other up.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use super::Delivery;
use super::options::Timeouts;
use super::socket::{BUFFER, Socket};
use crate::net::words::of_close;
use crate::wire::auth::BYE;
use crate::wire::beacon::{self, Packet};

/// Longest wait for the relay's close after a bye, and for our own close to leave.
const BYE_GRACE: Duration = Duration::from_secs(1);

/// What the application hands to the session.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A beacon packet.
    Packet(Bytes),
    /// A Discover packet, and who waits for the answer.
    Discover(Bytes, oneshot::Sender<SocketAddr>),
    /// A ping, and who waits for the round-trip time.
    Ping(oneshot::Sender<Duration>),
    /// The graceful end.
    Bye,
}

/// Why a session ended, other than by a bye.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The relay closed the session: in the Pilot protocol 1000 "replaced" by a newer session of
    /// the same node, 1001 when it shuts down, 1009 for a packet that is too large.
    #[error("the relay closed the session ({})", of_close(*.code, .reason))]
    Closed {
        /// The close code, where it gave one.
        code: Option<u16>,
        /// What the relay said.
        reason: String,
    },
    /// The relay gave no sign of life after a ping.
    #[error("the relay did not answer a ping within {0:?}")]
    Silent(Duration),
    /// The socket took nothing.
    #[error("the relay took no packet for {0:?}")]
    Stuck(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Transport(#[source] Box<tungstenite::Error>),
}

impl SessionError {
    pub(super) fn closed(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self::Closed {
                code: Some(frame.code.into()),
                reason: frame.reason.as_str().to_owned(),
            },
            None => Self::Closed { code: None, reason: String::new() },
        }
    }
}

impl From<tungstenite::Error> for SessionError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Transport(Box::new(error))
    }
}

/// Runs a session to its end; `Ok` after a bye, or when nobody receives any more.
pub(super) async fn run(
    socket: Socket,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    deliveries: &mpsc::Sender<Delivery>,
    timeouts: &Timeouts,
) -> Result<(), SessionError> {
    let mut session = Session {
        socket,
        timeouts,
        next_ping: Instant::now() + timeouts.ping_interval,
        ping: (0, Instant::now()),
        silent_since: None,
        flush_by: None,
        leave_by: None,
        round_trip: None,
        observed: None,
    };
    let mut room = None;
    let mut can_send = true;
    loop {
        let reading = room.is_some();
        let deadline = session.deadline(reading);
        tokio::select! {
            // What the relay sent comes first: it may be the sign of life that a deadline asks for.
            biased;
            message = session.drive(reading) => match message? {
                Some(message) => match session.received(message) {
                    Received::Delivery(delivery) => {
                        if let Some(room) = room.take() {
                            mpsc::Permit::send(room, delivery);
                        }
                    }
                    Received::Close(ended) => {
                        // The library has queued the answer to the close.
                        let _ = timeout(BYE_GRACE, session.socket.flush()).await;
                        return ended;
                    }
                    Received::Nothing => {}
                },
                None => session.flush_by = None,
            },
            permit = deliveries.reserve(), if !reading => match permit {
                Ok(permit) => room = Some(permit),
                Err(_nobody_receives) => return Ok(()),
            },
            next = outgoing.recv(), if can_send && session.may_send() => match next {
                Some(first) => session.send(first, outgoing)?,
                None => can_send = false,
            },
            () = sleep_until(deadline) => {
                if session.passed(Instant::now(), reading)? {
                    return Ok(());
                }
            }
        }
    }
}

struct Session<'a> {
    socket: Socket,
    timeouts: &'a Timeouts,
    next_ping: Instant,
    /// The latest ping: its number, and when it was sent.
    ping: (u64, Instant),
    /// When the oldest ping was sent that no frame has followed.
    silent_since: Option<Instant>,
    /// Set while bytes wait for the socket.
    flush_by: Option<Instant>,
    /// Set after a bye.
    leave_by: Option<Instant>,
    round_trip: Option<oneshot::Sender<Duration>>,
    observed: Option<oneshot::Sender<SocketAddr>>,
}

/// What a frame comes to.
enum Received {
    Delivery(Delivery),
    /// The end, which is no error after our bye.
    Close(Result<(), SessionError>),
    Nothing,
}

impl Session<'_> {
    /// Flushes what waits, and reads if there is room: the next message, or `None` when a
    /// flush is complete. Cancel-safe.
    async fn drive(&mut self, reading: bool) -> Result<Option<Message>, SessionError> {
        poll_fn(|cx| {
            if self.flush_by.is_some() && self.socket.poll_flush_unpin(cx)?.is_ready() {
                return Poll::Ready(Ok(None));
            }
            if !reading {
                return Poll::Pending;
            }
            self.socket.poll_next_unpin(cx).map(|message| match message {
                Some(message) => Ok(Some(message?)),
                None => Ok(Some(Message::Close(None))),
            })
        })
        .await
    }

    fn received(&mut self, message: Message) -> Received {
        self.silent_since = None;
        match message {
            Message::Binary(packet) => self.packet(&packet),
            Message::Pong(number) => {
                let (latest, sent) = self.ping;
                if *number == latest.to_be_bytes()
                    && let Some(waiting) = self.round_trip.take()
                {
                    // Whoever asked may have given up.
                    let _ = waiting.send(sent.elapsed());
                }
                Received::Nothing
            }
            Message::Close(_) if self.leave_by.is_some() => Received::Close(Ok(())),
            Message::Close(frame) => Received::Close(Err(SessionError::closed(frame))),
            // The library answers pings; no text of a relay is known after the login.
            Message::Ping(_) | Message::Text(_) | Message::Frame(_) => Received::Nothing,
        }
    }

    fn packet(&mut self, bytes: &Bytes) -> Received {
        match beacon::decode(bytes) {
            Ok(Packet::Deliver(deliver)) => {
                let payload = bytes.slice_ref(deliver.payload);
                Received::Delivery(Delivery { sender: deliver.sender, payload })
            }
            Ok(Packet::DiscoverReply(address)) => {
                if let Some(waiting) = self.observed.take() {
                    // Whoever asked may have given up.
                    let _ = waiting.send(address);
                }
                Received::Nothing
            }
            Ok(
                Packet::Discover(_)
                | Packet::PunchRequest(_)
                | Packet::PunchCommand(_)
                | Packet::Relay(_)
                | Packet::Sync(_)
                | Packet::Notify(_),
            )
            | Err(_) => Received::Nothing,
        }
    }

    /// Whether the socket took all there was, and we are not leaving.
    fn may_send(&self) -> bool {
        self.flush_by.is_none() && self.leave_by.is_none()
    }

    /// Hands `first` and what is queued behind it to the socket's buffer, as much as it holds.
    fn send(
        &mut self,
        first: Outgoing,
        queue: &mut mpsc::Receiver<Outgoing>,
    ) -> Result<(), SessionError> {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(outgoing) = next {
            match outgoing {
                Outgoing::Packet(packet) => {
                    bytes += packet.len();
                    self.feed(Message::Binary(packet))?;
                }
                Outgoing::Discover(packet, waiting) => {
                    self.observed = Some(waiting);
                    self.feed(Message::Binary(packet))?;
                }
                Outgoing::Ping(waiting) => {
                    self.round_trip = Some(waiting);
                    self.send_ping(Instant::now())?;
                }
                Outgoing::Bye => {
                    self.leave_by = Some(Instant::now() + BYE_GRACE);
                    return self.feed(Message::text(BYE));
                }
            }
            next = if bytes < BUFFER { queue.try_recv().ok() } else { None };
        }
        Ok(())
    }

    fn send_ping(&mut self, now: Instant) -> Result<(), SessionError> {
        let number = self.ping.0.wrapping_add(1);
        self.ping = (number, now);
        self.silent_since.get_or_insert(now);
        self.feed(Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes())))
    }

    fn feed(&mut self, message: Message) -> Result<(), SessionError> {
        self.flush_by.get_or_insert_with(|| Instant::now() + self.timeouts.write);
        Ok(self.socket.start_send_unpin(message)?)
    }

    /// The next moment at which something is due; silence counts only while we listen.
    fn deadline(&self, reading: bool) -> Instant {
        [self.flush_by, self.leave_by, self.silent_by(reading)]
            .into_iter()
            .flatten()
            .fold(self.next_ping, Instant::min)
    }

    fn silent_by(&self, reading: bool) -> Option<Instant> {
        self.silent_since.filter(|_| reading).map(|since| since + self.timeouts.pong)
    }

    /// Does what is due at `now`; true when a bye has waited long enough.
    fn passed(&mut self, now: Instant, reading: bool) -> Result<bool, SessionError> {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.leave_by) {
            return Ok(true);
        }
        if due(self.flush_by) {
            return Err(SessionError::Stuck(self.timeouts.write));
        }
        if due(self.silent_by(reading)) {
            return Err(SessionError::Silent(self.timeouts.pong));
        }
        if due(Some(self.next_ping)) {
            self.next_ping = now + self.timeouts.ping_interval;
            self.send_ping(now)?;
        }
        Ok(false)
    }
}
