//! Connections over QUIC, where each message is a datagram: accepted, logged in, served, closed.
//!
//! An address is believed once it has sent something back. As long as few do not have to, who
//! comes is spared the round trip; beyond that each has to show a token before the relay keeps
//! anything of it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::attempt::{Alive, Attempt, Carrier, CountedHandshake, Found, evicted};
use super::counters::{Handshake, QuicLoss};
use super::keepalive::{Event, Keepalive};
use super::turn::Turn;
use super::{Client, Conversation, Door, Kind, Messages, Outcome, Quic, Session, Site};
use crate::metrics::{Transport, What, Word};
use crate::net::quic::{Blame, Connection, Incoming, Losses, Lost, Port, Receiver};
use crate::peers::{End, Registration};
use crate::wire::{Frames, Framing};

/// Handshakes with addresses that may be forged, at a time; beyond that each is validated first.
const MOST_UNVALIDATED: usize = 32;

/// Bytes of the messages that are handed over together, at most.
const BATCH: usize = 65_536;

/// How often a session looks what its path carries while records wait for that.
const PATH_LOOK: Duration = Duration::from_millis(20);

/// Time for the last message to leave, before the close.
const CLOSE_GRACE: Duration = Duration::from_millis(200);

/// Time for the last closes to arrive when the listener ends.
const FAREWELL: Duration = Duration::from_millis(200);

/// Datagrams that a thread hands over together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

thread_local! {
    static BATCHES: RefCell<Batch> = RefCell::default();
}

/// Accepts connections until `accepting` ends, and serves them until they or `ending` end.
pub(super) async fn accept(
    port: Port,
    site: Arc<Site>,
    accepting: CancellationToken,
    ending: CancellationToken,
) {
    let mut connections = JoinSet::new();
    // Each handshake whose address may be forged has a clone of it.
    let unvalidated = Arc::new(());
    loop {
        let incoming = tokio::select! {
            () = accepting.cancelled() => break,
            Some(ended) = connections.join_next() => {
                site.note_end(ended);
                continue;
            }
            incoming = port.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            return error!(address = %port.address(), "a UDP port for QUIC has failed");
        };
        let is_validated = incoming.is_validated();
        if !is_validated && Arc::strong_count(&unvalidated) > MOST_UNVALIDATED {
            site.shared.counters.quic_retries.increment();
            incoming.retry();
            continue;
        }
        let Some(incoming) = site.passed(incoming) else { continue };
        let forgeable = (!is_validated).then(|| Arc::clone(&unvalidated));
        let turn = Turn {
            generation: site.shared.table.generation(),
            accepted: Instant::now(),
            is_probe: false,
        };
        connections.spawn(Arc::clone(&site).connection_over_quic(incoming, forgeable, turn));
    }
    port.stop_accepting();
    let served = async {
        while let Some(ended) = connections.join_next().await {
            site.note_end(ended);
        }
        let _expired = timeout(FAREWELL, port.idle()).await;
    };
    // What is left when `ending` comes is aborted with the set.
    let _ended = ending.run_until_cancelled(served).await;
}

/// A handshake with an address that may be forged is under way as long as this is there.
type Forgeable = Option<Arc<()>>;

/// A connection that has logged in.
struct LoggedIn {
    door: Arc<dyn Door>,
    quic: Quic,
    connection: Connection,
    receiver: Receiver,
    session: Arc<Session>,
    registration: Registration,
}

impl Site {
    /// Whoever may make a handshake; others are sent away.
    fn passed(&self, incoming: Incoming) -> Option<Incoming> {
        let gate = &self.shared.gate;
        let (remote, settings) = (incoming.remote(), self.settings.load());
        let outcome = if gate.draining().is_some() {
            Outcome::Draining
        } else if gate.is_full() {
            Outcome::AtCapacity
        } else if incoming.is_validated() && !gate.admits(remote.ip(), &settings, Instant::now()) {
            Outcome::RateLimited
        } else {
            return Some(incoming);
        };
        gate.count(outcome);
        debug!(remote_addr = %remote, outcome = outcome.word(), "refused a connection over QUIC");
        incoming.refuse();
        None
    }

    async fn connection_over_quic(
        self: Arc<Self>,
        incoming: Incoming,
        forgeable: Forgeable,
        turn: Turn,
    ) {
        // Boxed, so that what only the login needs is given back while the session lives.
        let logged_in = Box::pin(self.log_in_over_quic(incoming, forgeable, turn)).await;
        let Some(LoggedIn { door, quic, connection, receiver, session, registration }) = logged_in
        else {
            return;
        };
        let guard = Alive::new(&self, &session, door.name());
        let found = Found { registration: &registration, door: &*door, session: &session };
        let times = Keepalive::new(Arc::clone(&session), &*door, &self.settings);
        let mut driver = Driver { times, receiver };
        let end = driver.run().await;
        // First nobody finds the session any more, then the peer hears of it.
        drop(found);
        Box::pin(driver.close(end, &connection)).await;
        self.note_losses(&connection);
        connection.close(quic.code, quic.reason);
        guard.ended(end);
        drop(registration);
    }

    fn note_losses(&self, connection: &Connection) {
        let Losses { unread, unsent } = connection.losses();
        let lost = &self.shared.counters.quic_lost;
        lost.of(QuicLoss::Unread).add(unread);
        lost.of(QuicLoss::Unsent).add(unsent);
    }

    async fn log_in_over_quic(
        &self,
        incoming: Incoming,
        forgeable: Forgeable,
        turn: Turn,
    ) -> Option<LoggedIn> {
        let remote = incoming.remote();
        let attempt = Attempt { site: self, turn, door: None };
        attempt.note(What::Accepted, None, remote, "");
        // One state of them for the whole login.
        let settings = self.settings.load_full();
        let gate = &self.shared.gate;
        let place = gate.enter(remote.ip(), &settings);
        let deadline = (turn.accepted + settings.timing.auth_timeout).into();
        let refuse = |outcome: Outcome| {
            attempt.count(outcome);
            attempt.note(What::Refused, None, remote, outcome.word());
            debug!(remote_addr = %remote, outcome = outcome.word(), "refused a connection");
        };
        let connected = tokio::select! {
            connected = timeout_at(deadline, attempt.shake_hands(incoming)) => {
                connected.unwrap_or(Err(Outcome::AuthTimeout))
            }
            () = evicted(Some(&place)) => Err(Outcome::CrowdedOut),
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(outcome) => {
                refuse(outcome);
                return None;
            }
        };
        let Some((door, quic)) = self.door_over_quic(&connection) else {
            // TLS agrees to no other protocol.
            refuse(Outcome::NotFound);
            return None;
        };
        // Who had no token to show is counted now that its address is sure.
        if forgeable.is_some() && !gate.admits(remote.ip(), &settings, Instant::now()) {
            refuse(Outcome::RateLimited);
            connection.close(quic.code, quic.reason);
            return None;
        }
        drop(forgeable);
        let attempt = Attempt { door: Some(door.name()), ..attempt };
        let client = Client { address: remote, is_probe: false };
        let (sender, mut receiver) = (connection.sender(), connection.receiver());
        let longest = door.max_greeting();
        let mut conversation = Conversation::in_datagrams(&sender, &mut receiver, client, longest);
        let settled =
            attempt.settle(&*door, &mut conversation, Some(place), &settings, deadline).await;
        let (welcome, took) = match settled {
            Ok(settled) => settled,
            Err(refusal) => {
                attempt.refused(&refusal, remote);
                connection.close(quic.code, quic.reason);
                return None;
            }
        };
        let (transport, framing) = (Transport::Quic, Framing::Datagram);
        let carrier = Carrier {
            stream: Box::new(sender),
            transport,
            framing,
            client: remote,
            certified: None,
        };
        match attempt.admit(&*door, carrier, &welcome, took, settings.outbox) {
            Ok((session, registration)) => {
                session.flush(Instant::now());
                Some(LoggedIn { door, quic, connection, receiver, session, registration })
            }
            Err((session, refused)) => {
                attempt.not_registered(&session, refused);
                connection.close(quic.code, quic.reason);
                None
            }
        }
    }

    /// The door whose protocol was agreed on.
    fn door_over_quic(&self, connection: &Connection) -> Option<(Arc<dyn Door>, Quic)> {
        let protocol = connection.protocol()?;
        self.doors.iter().find_map(|door| {
            let quic = door.quic().filter(|quic| quic.protocol.as_bytes() == protocol)?;
            Some((Arc::clone(door), quic))
        })
    }
}

impl Attempt<'_> {
    /// Makes the handshake.
    async fn shake_hands(self, incoming: Incoming) -> Result<Connection, Outcome> {
        // Counted even where it is given up.
        let mut handshake = CountedHandshake { attempt: self, outcome: Handshake::NotDone };
        let failure = match incoming.accept().await {
            Ok(connection) => {
                handshake.outcome = Handshake::Full;
                return Ok(connection);
            }
            Err(failure) => failure,
        };
        debug!(%failure, "a handshake of QUIC failed");
        let (counted, outcome) = match failure.blame() {
            Blame::Incompatible => (Handshake::Incompatible, Outcome::TlsFailed),
            Blame::Client => (Handshake::ClientRefused, Outcome::TlsFailed),
            Blame::Rules => (Handshake::Invalid, Outcome::TlsFailed),
            Blame::Gone => (Handshake::Gone, Outcome::Gone),
        };
        handshake.outcome = counted;
        Err(outcome)
    }
}

/// What a session's own task keeps.
struct Driver<'a> {
    times: Keepalive<'a>,
    receiver: Receiver,
}

impl Driver<'_> {
    /// Runs until the session is to end; [`Self::close`] comes next.
    async fn run(&mut self) -> End {
        let mut timer = std::pin::pin!(sleep_until(self.times.next_deadline().into()));
        loop {
            let Self { times, receiver } = self;
            let mut readable = |cx: &mut Context<'_>| receiver.poll_readable(cx).map_err(end_of);
            let event = poll_fn(|cx| {
                let event = times.poll_event(cx, timer.as_mut(), &mut readable);
                let soon = tokio::time::Instant::now() + PATH_LOOK;
                if event.is_ready() || !times.session.has_aside() || timer.deadline() <= soon {
                    return event;
                }
                timer.as_mut().reset(soon);
                times.poll_event(cx, timer.as_mut(), &mut readable)
            });
            match event.await {
                Event::Readable => {
                    if self.read() {
                        // More is there already: the others of this thread come first.
                        tokio::task::yield_now().await;
                    }
                }
                Event::Timer => {
                    let now = Instant::now();
                    if self.times.session.has_aside() {
                        self.times.session.retry_aside(now);
                    }
                    self.times.keep_time(now);
                    timer.as_mut().reset(self.times.next_deadline().into());
                }
                Event::Released => self.times.resume(Instant::now()),
                Event::Ending(end) => return end,
            }
        }
    }

    /// Hands over the datagrams that are there, as one batch; true where that was all that a
    /// batch takes.
    fn read(&mut self) -> bool {
        let mut batch = BATCHES.take();
        let Batch { bytes, ranges } = &mut batch;
        let Keepalive { session, door, .. } = &self.times;
        let longest = door.max_message();
        let mut end = None;
        while bytes.len() < BATCH {
            match self.receiver.try_receive() {
                Ok(Some(datagram)) if datagram.len() > longest => {
                    end = Some(End::Violation);
                    break;
                }
                Ok(Some(datagram)) => {
                    let start = bytes.len();
                    bytes.extend_from_slice(&datagram);
                    ranges.push(start..bytes.len());
                }
                Ok(None) => break,
                Err(lost) => {
                    end = Some(end_of(lost));
                    break;
                }
            }
        }
        let is_full = bytes.len() >= BATCH;
        if !ranges.is_empty() {
            let now = Instant::now();
            let messages = Messages { kind: Kind::Binary, frames: Frames::new(bytes, ranges) };
            door.messages(session, messages, now);
            self.times.last_heard = now;
        }
        if let Some(end) = end {
            self.times.session.end(end);
        }
        bytes.clear();
        ranges.clear();
        BATCHES.set(batch);
        is_full
    }

    /// Says goodbye as far as the peer still listens.
    async fn close(self, end: End, connection: &Connection) {
        let Keepalive { session, door, .. } = &self.times;
        session.close_with(door.parting(end), None, Instant::now());
        let farewell = async {
            poll_fn(|cx| {
                while session.poll_flush(cx).is_ready() {}
                if session.is_drained() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            connection.flushed().await;
        };
        // QUIC sends nothing any more once it is closed.
        let _expired = timeout(CLOSE_GRACE, farewell).await;
    }
}

/// What the loss of a connection says of the end.
const fn end_of(lost: Lost) -> End {
    match lost {
        Lost::Closed(0) => End::PeerLeft,
        Lost::Closed(_) => End::PeerClosed,
        Lost::Silent => End::Idle,
        Lost::Broken => End::Violation,
        Lost::Gone => End::ConnectionLost,
    }
}
