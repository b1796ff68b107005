//! One session after its registration: moves messages between the socket and the queues, pairs
//! receipts with what they are for, and notices when the broker is gone.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tracing::{debug, warn};

use super::delivery::{Acked, Delivery, Held};
use super::error::SendError;
use super::letter::{Letter, Pen};
use super::options::Timeouts;
use super::seen::{Origin, Seen, Verdict};
use super::{QUEUE, Sent};
use crate::SessionError;
use crate::socket::{BUFFER, Socket};
use crate::wire::peerbus::{Envelope, FromBroker, ReceiptResult, ack, peers_request};

/// Longest wait for the broker's close after ours, and for ours to leave.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What the application hands to the sessions.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A message.
    Letter(Letter),
    /// The question who is connected, and who asks.
    Peers(oneshot::Sender<Vec<String>>),
    /// The end.
    Close,
}

/// The queues of a client, which outlive its sessions.
pub(super) struct Queues {
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) acks: mpsc::Receiver<Acked>,
    /// What each delivery is acknowledged with.
    pub(super) acknowledge: mpsc::Sender<Acked>,
}

/// What is known from one session to the next.
#[derive(Default)]
pub(super) struct Memory {
    /// Messages that have not left or have no receipt, in the order in which they are sent.
    letters: VecDeque<Letter>,
    pub(super) seen: Seen,
    /// Nothing is sent any more but `letters`.
    is_leaving: bool,
}

impl Memory {
    /// Whether the application has ended the client and nothing of its is left to send.
    pub(super) fn is_done(&self) -> bool {
        self.is_leaving && self.letters.is_empty()
    }
}

/// What a client is, for each of its sessions.
pub(super) struct Terms<'a> {
    pub(super) pen: &'a Pen,
    /// Whether the broker was asked for receipts.
    pub(super) receipts: bool,
    pub(super) timeouts: Timeouts,
}

/// Runs a session to its end; `Ok` after our own close, or when nobody receives any more.
pub(super) async fn run(
    socket: Socket,
    queues: &mut Queues,
    memory: &mut Memory,
    terms: &Terms<'_>,
) -> Result<(), SessionError> {
    let mut session = Session {
        socket,
        terms,
        memory,
        acknowledge: queues.acknowledge.clone(),
        sent: 0,
        asked: VecDeque::new(),
        next_ping: Instant::now() + terms.timeouts.ping_interval,
        silent_since: None,
        flush_by: None,
        leave_by: None,
    };
    let Queues { outgoing, deliveries, acks, acknowledge: _ } = queues;
    let ended = session.go_on(outgoing, deliveries, acks).await;
    // The library has queued the answer to a close.
    let _ = timeout(CLOSE_GRACE, session.socket.flush()).await;
    ended
}

struct Session<'a> {
    socket: Socket,
    terms: &'a Terms<'a>,
    memory: &'a mut Memory,
    acknowledge: mpsc::Sender<Acked>,
    /// How many of the letters were handed to this session's socket.
    sent: usize,
    /// Who wants to know who is connected, the first that asked in front.
    asked: VecDeque<oneshot::Sender<Vec<String>>>,
    next_ping: Instant,
    /// When the oldest ping was sent that nothing has followed.
    silent_since: Option<Instant>,
    /// Set while messages wait for the socket.
    flush_by: Option<Instant>,
    /// Set after our own close.
    leave_by: Option<Instant>,
}

impl Session<'_> {
    async fn go_on(
        &mut self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        deliveries: &mpsc::Sender<Delivery>,
        acks: &mut mpsc::Receiver<Acked>,
    ) -> Result<(), SessionError> {
        let mut room = None;
        let mut can_take = true;
        loop {
            if self.flush_by.is_none() {
                self.feed_letters()?;
            }
            let is_reading = room.is_some();
            let is_flushing = self.flush_by.is_some();
            let may_take = can_take && self.may_take();
            let deadline = self.deadline(is_reading);
            tokio::select! {
                // What the broker sent comes first: it may be the sign of life that is waited for.
                biased;
                driven = self.drive(is_reading) => match driven? {
                    Some(Message::Close(_)) if self.leave_by.is_some() => return Ok(()),
                    Some(Message::Close(frame)) => return Err(SessionError::closed(frame)),
                    Some(message) => {
                        if let Some(delivery) = self.received(&message)?
                            && let Some(room) = room.take()
                        {
                            mpsc::Permit::send(room, delivery);
                        }
                    }
                    None => self.flushed(),
                },
                permit = deliveries.reserve(), if !is_reading => match permit {
                    Ok(permit) => room = Some(permit),
                    Err(_nobody_receives) => return Ok(()),
                },
                acked = acks.recv(), if !is_flushing => {
                    let mut next = acked;
                    let mut bytes = 0;
                    while let Some(Acked(held)) = next {
                        bytes += held.key.len();
                        self.acked(held)?;
                        next = if bytes < BUFFER { acks.try_recv().ok() } else { None };
                    }
                }
                next = outgoing.recv(), if may_take => match next {
                    Some(next) => self.take(next)?,
                    None => can_take = false,
                },
                () = sleep_until(deadline) => {
                    if self.passed(Instant::now(), is_reading)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Flushes what waits, and reads if there is room: the next message, or `None` when a flush is
    /// complete. Cancel-safe.
    async fn drive(&mut self, is_reading: bool) -> Result<Option<Message>, SessionError> {
        poll_fn(|cx| {
            if self.flush_by.is_some() && self.socket.poll_flush_unpin(cx)?.is_ready() {
                return Poll::Ready(Ok(None));
            }
            if !is_reading {
                return Poll::Pending;
            }
            self.socket.poll_next_unpin(cx).map(|message| match message {
                Some(message) => Ok(Some(message?)),
                None => Ok(Some(Message::Close(None))),
            })
        })
        .await
    }

    /// What a message comes to for the application.
    fn received(&mut self, message: &Message) -> Result<Option<Delivery>, SessionError> {
        self.silent_since = None;
        // The library answers pings; no messages of bytes are known.
        let Message::Text(text) = message else { return Ok(None) };
        match FromBroker::parse(text.as_bytes()) {
            Ok(FromBroker::Deliver { key, envelope }) => self.delivered(&key, &envelope),
            Ok(FromBroker::Receipt { id, result, reason }) => {
                self.receipted(&id, result, &reason);
                Ok(None)
            }
            Ok(FromBroker::Peers(names)) => {
                if let Some(asked) = self.asked.pop_front() {
                    let names = names.into_iter().map(String::from).collect();
                    // Whoever asked may have given up.
                    let _ = asked.send(names);
                }
                Ok(None)
            }
            Ok(FromBroker::Other) | Err(_) => {
                debug!(bytes = text.len(), "passed over a message of the broker");
                Ok(None)
            }
        }
    }

    fn delivered(
        &mut self,
        key: &str,
        envelope: &Envelope<'_>,
    ) -> Result<Option<Delivery>, SessionError> {
        if key.is_empty() || !self.terms.pen.is_genuine(envelope) {
            // It is not acknowledged, so that somebody sees it at the broker as well.
            warn!(
                bytes = envelope.body.as_bytes().len(),
                "passed over a message with a bad signature"
            );
            return Ok(None);
        }
        let from = envelope.from.clone().into_owned();
        let origin = Origin { from, id: envelope.id.clone().into_owned() };
        Ok(match self.memory.seen.delivered(&origin) {
            Verdict::New(alive) => {
                let held = Held { key: key.to_owned(), origin, _alive: alive };
                Some(Delivery::new(envelope, held, self.acknowledge.clone()))
            }
            Verdict::Held => None,
            Verdict::Acked => {
                self.feed_text(ack(key))?;
                None
            }
        })
    }

    fn receipted(&mut self, id: &str, result: ReceiptResult, reason: &str) {
        let letters = &mut self.memory.letters;
        // Nearly always the first: the broker answers in order.
        let Some(at) = letters.iter().take(self.sent).position(|letter| letter.draft.id() == id)
        else {
            return;
        };
        if let Some(letter) = letters.remove(at) {
            self.sent -= 1;
            letter.answer(match result {
                ReceiptResult::Stored => Ok(Sent::Stored),
                ReceiptResult::Duplicate => Ok(Sent::Duplicate),
                ReceiptResult::Refused => Err(SendError::Refused { reason: reason.to_owned() }),
            });
        }
    }

    fn acked(&mut self, held: Held) -> Result<(), SessionError> {
        let Held { key, origin, _alive } = held;
        self.memory.seen.acked(origin);
        self.feed_text(ack(&key))
    }

    /// All that was fed has left.
    fn flushed(&mut self) {
        self.flush_by = None;
        if !self.terms.receipts {
            for letter in self.memory.letters.drain(..self.sent) {
                letter.answer(Ok(Sent::Written));
            }
            self.sent = 0;
        }
    }

    /// Whether another message or question may be taken from the application.
    fn may_take(&self) -> bool {
        let is_idle = self.flush_by.is_none() && self.leave_by.is_none();
        let has_room = self.memory.letters.len() < QUEUE && self.asked.len() < QUEUE;
        is_idle && has_room && !self.memory.is_leaving
    }

    fn take(&mut self, outgoing: Outgoing) -> Result<(), SessionError> {
        match outgoing {
            Outgoing::Letter(letter) => self.memory.letters.push_back(letter),
            Outgoing::Peers(asked) => {
                // Behind the messages that were sent before: all have been fed.
                self.asked.push_back(asked);
                self.feed(Message::Text(Utf8Bytes::from_static(peers_request())))?;
            }
            Outgoing::Close => self.memory.is_leaving = true,
        }
        Ok(())
    }

    /// Feeds the letters that this session has not sent, as much as the socket buffers, and our
    /// close behind the last.
    fn feed_letters(&mut self) -> Result<(), SessionError> {
        let mut bytes = 0;
        while bytes < BUFFER
            && let Some(letter) = self.memory.letters.get(self.sent)
        {
            let text = letter.draft.text();
            bytes += text.len();
            self.sent += 1;
            self.feed(Message::Text(text))?;
        }
        if self.memory.is_done() && self.leave_by.is_none() {
            self.leave_by = Some(Instant::now() + CLOSE_GRACE);
            let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            self.feed(Message::Close(Some(frame)))?;
        }
        Ok(())
    }

    fn feed_text(&mut self, json: Vec<u8>) -> Result<(), SessionError> {
        let text = String::from_utf8(json).expect("made of strings");
        self.feed(Message::text(text))
    }

    fn feed(&mut self, message: Message) -> Result<(), SessionError> {
        let write = self.terms.timeouts.write;
        self.flush_by.get_or_insert_with(|| Instant::now() + write);
        Ok(self.socket.start_send_unpin(message)?)
    }

    /// The next moment at which something is due; silence counts only while we listen.
    fn deadline(&self, is_reading: bool) -> Instant {
        [self.flush_by, self.leave_by, self.silent_by(is_reading)]
            .into_iter()
            .flatten()
            .fold(self.next_ping, Instant::min)
    }

    fn silent_by(&self, is_reading: bool) -> Option<Instant> {
        self.silent_since.filter(|_| is_reading).map(|since| since + self.terms.timeouts.pong)
    }

    /// Does what is due at `now`; true when our close has waited long enough.
    fn passed(&mut self, now: Instant, is_reading: bool) -> Result<bool, SessionError> {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.leave_by) {
            return Ok(true);
        }
        if due(self.flush_by) {
            return Err(SessionError::Stuck(self.terms.timeouts.write));
        }
        if due(self.silent_by(is_reading)) {
            return Err(SessionError::Silent(self.terms.timeouts.pong));
        }
        if due(Some(self.next_ping)) {
            self.next_ping = now + self.terms.timeouts.ping_interval;
            self.silent_since.get_or_insert(now);
            self.feed(Message::Ping(bytes::Bytes::new()))?;
        }
        Ok(false)
    }
}
