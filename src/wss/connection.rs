//! One connection: accepted, upgraded, logged in, served, closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::canary::Canary;
use super::gate::Place;
use super::login::{self, Conversation, Failed};
use super::session::Driver;
use super::upgrade::{self, Upgraded};
use super::{Door, EndReason, FrameSink, Outcome, Session};
use crate::ids::NodeId;
use crate::metrics::{Event, Transport, What, Word};
use crate::net::Stream;
use crate::net::listener::{Accepted, Listener};
use crate::peers::{
    End, Limits, Link, Overflow, Principal, Realm, Refused, Registration, Takeover,
};
use crate::wire::Framing;
use crate::wire::auth::AUTH_OK;
use crate::wire::websocket::{CloseCode, Decoder, Opcode};

/// Wait after a connection could not be accepted, for want of descriptors most often.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A client over a Unix socket whose proxy does not name it.
const UNIX_CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Time for a client that lost its place, or its login, to take the close frame.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// Who is served at a listener.
pub(super) struct Doors<S> {
    pub(super) peers: Arc<Door<S>>,
    pub(super) canary: Arc<Canary<S>>,
}

/// Accepts connections until `accepting` ends, and serves them until they or `ending` end.
pub(super) async fn accept<S: FrameSink>(
    listener: Listener,
    doors: Doors<S>,
    accepting: CancellationToken,
    ending: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut fails = false;
    loop {
        let accepted = tokio::select! {
            () = accepting.cancelled() => break,
            Some(ended) = connections.join_next() => {
                doors.peers.note_end(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                if std::mem::take(&mut fails) {
                    info!("connections are accepted again");
                }
                let is_canary = doors.canary.is_from(|| accepted.origin());
                let door = if is_canary { &doors.canary.door } else { &doors.peers };
                // Here, where connections come one after the other: how long the login of one
                // takes shall not make it newer than another.
                let turn = Turn { generation: door.table.generation(), accepted: Instant::now() };
                let connection = Arc::clone(door).connection(accepted, turn);
                connections.spawn(connection);
            }
            Err(error) => {
                doors.peers.counters.accept_errors.increment();
                if !std::mem::replace(&mut fails, true) {
                    warn!(%error, "cannot accept a connection: whoever dials waits");
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    let served = async {
        while let Some(ended) = connections.join_next().await {
            doors.peers.note_end(ended);
        }
    };
    // What is left when `ending` comes is aborted with the set.
    let _ended = ending.run_until_cancelled(served).await;
}

/// When it was a connection's turn to be accepted: of two logins of a node the later one counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) generation: u64,
    pub(super) accepted: Instant,
}

/// A session that is in the table.
type Admitted = (Arc<Session>, Registration<NodeId>);

/// A connection that has logged in.
struct LoggedIn {
    session: Arc<Session>,
    registration: Registration<NodeId>,
    decoder: Decoder,
    early: Vec<u8>,
}

impl<S: FrameSink> Door<S> {
    fn note_end(&self, ended: Result<(), tokio::task::JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.counters.panics.increment();
            warn!("a connection ended by a panic: this is a bug of the relay");
        }
    }

    async fn connection(self: Arc<Self>, accepted: Accepted, turn: Turn) {
        // Boxed, so that what only the login needs is given back while the session lives.
        let logged_in = match accepted {
            Accepted::Tcp(stream, remote) => Box::pin(self.log_in(stream, remote, turn)).await,
            Accepted::Unix(stream) => Box::pin(self.log_in(stream, UNIX_CLIENT, turn)).await,
        };
        let Some(LoggedIn { session, registration, decoder, early }) = logged_in else { return };
        let guard = Alive::new(&self, &session);
        let mut driver =
            Driver::new(Arc::clone(&session), &*self.sink, &self.settings, decoder, early);
        let end = driver.run().await;
        // First nobody finds the session any more, then the peer hears of it.
        registration.withdraw();
        driver.close(end).await;
        guard.ended(end);
        drop(registration);
    }

    async fn log_in<T>(&self, stream: T, remote: SocketAddr, turn: Turn) -> Option<LoggedIn>
    where
        T: AsyncRead + AsyncWrite + Unpin + Stream,
    {
        self.note(What::Accepted, None, remote, "");
        // One state of them for the whole login.
        let settings = self.settings.load_full();
        let place = self.gate.enter(remote.ip(), &settings);
        let deadline = (turn.accepted + settings.timing.auth_timeout).into();
        let upgrade = upgrade::upgrade(stream, remote, &self.gate, &settings);
        let upgraded = tokio::select! {
            upgraded = timeout_at(deadline, upgrade) => upgraded,
            () = place.evicted() => {
                self.count(Outcome::CrowdedOut);
                self.note_refused(None, remote, Outcome::CrowdedOut.word());
                return None;
            }
        };
        let Upgraded { stream, response, early, client } = match upgraded {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(outcome)) => {
                if let Some(outcome) = outcome {
                    self.note_refused(None, remote, outcome.word());
                    debug!(remote_addr = %remote, outcome = outcome.word(), "refused a connection");
                }
                return None;
            }
            Err(_) => {
                self.count(Outcome::AuthTimeout);
                self.note_refused(None, remote, Outcome::AuthTimeout.word());
                return None;
            }
        };
        place.belongs_to(client.address.ip(), &settings);
        let stream: Box<dyn Stream> = Box::new(stream);
        let mut conversation = Conversation::new(&*stream, response, &early);
        let login = conversation.log_in(&settings, &*self.keys);
        let accepted = match within(login, &place, deadline).await {
            Ok(accepted) => {
                // It has proved who it is, and takes no room from those that have not.
                drop(place);
                let waited =
                    self.await_turn(&mut conversation, &accepted, &client, turn, &settings).await;
                waited.map(|()| accepted)
            }
            Err(failed) => Err(failed),
        };
        let (early, decoder) = conversation.into_rest();
        let failed = match accepted {
            // What began before the drain ends in it.
            Ok(_) if self.gate.draining().is_some() => {
                Failed::new(Outcome::Draining, Some((CloseCode::GoingAway, "shutting down")))
            }
            Ok(accepted) => {
                match self.admit(stream, client.address, &accepted, settings.outbox, turn) {
                    Ok((session, registration)) => {
                        return Some(LoggedIn { session, registration, decoder, early });
                    }
                    Err((session, refused)) => {
                        self.turn_away(&session, refused).await;
                        return None;
                    }
                }
            }
            Err(failed) => failed,
        };
        self.count(failed.outcome);
        if let Some(reason) = failed.refusal {
            self.counters.refusals.of(reason).increment();
        }
        let reason = failed.refusal.map_or_else(|| failed.outcome.word(), Word::word);
        self.note_refused(failed.node, client.address, reason);
        debug!(
            remote_addr = %client.address,
            node = failed.node.map(tracing::field::display),
            outcome = failed.outcome.word(),
            reason = failed.refusal.map(Word::word),
            "refused a login"
        );
        if let Some((code, reason)) = failed.close {
            let close = login::close(&*stream, code, reason);
            let _expired = tokio::time::timeout(CLOSE_TIME, close).await;
        }
        None
    }

    /// Makes a session of an accepted login: its acceptance is queued, the session
    /// published, and only then flushed, so that nothing precedes the acceptance.
    fn admit(
        &self,
        stream: Box<dyn Stream>,
        client: SocketAddr,
        accepted: &login::Accepted,
        outbox: Limits,
        turn: Turn,
    ) -> Result<Admitted, (Arc<Session>, Refused)> {
        let login::Accepted { reply, generation, .. } = accepted;
        let now = Instant::now();
        let principal =
            Principal { realm: self.realm, name: reply.node, credential: reply.public_key };
        let link = Link {
            stream,
            transport: Transport::Wss,
            framing: Framing::Binary,
            limits: Limits { message: reply.max_message.bytes(), ..outbox },
            overflow: Overflow::DropOldest,
            traffic: Arc::clone(&self.traffic),
        };
        let session = Session::new(principal, turn.generation, client, link, now);
        let session = Arc::new(session.accepted_at(turn.accepted));
        session.push_control(Opcode::Text, AUTH_OK.as_bytes());
        let registration = match self.table.register(Arc::clone(&session), Takeover::Always) {
            Ok(registration) => registration,
            Err(refused) => return Err((session, refused)),
        };
        // The key may have gone between its look-up and here, where nobody found this session.
        self.keys.session_began(reply.node, reply.public_key);
        // Counted before the peer can know of it.
        self.count(Outcome::AuthOk);
        self.counters
            .login_time
            .observe(accepted.at.saturating_duration_since(turn.accepted.into()));
        let node = reply.node;
        self.note(What::LoggedIn, Some(node), client, "");
        if self.realm == Realm::Node {
            let generation = generation.number();
            debug!(%node, remote_addr = %client, generation, "peer connected");
        }
        if registration.replaced {
            self.counters.replacements.increment();
            info!(%node, "a newer session of the same node replaced the one before");
        }
        if registration.is_contested {
            warn!(
                %node,
                "sessions of a node replace each other again and again, as those of two programs \
                 with one key do: further logins of it wait"
            );
        }
        session.flush(now);
        Ok((session, registration))
    }

    /// Closes a session that found no place in the table.
    async fn turn_away(&self, session: &Session, refused: Refused) {
        let (outcome, code, reason) = match refused {
            Refused::Full => (Outcome::AtCapacity, CloseCode::TryAgain, "at capacity"),
            Refused::Taken => (Outcome::Superseded, CloseCode::Normal, "replaced"),
        };
        self.count(outcome);
        self.note_refused(Some(session.id()), session.observed, outcome.word());
        let close = login::close(session.stream(), code, reason);
        let _expired = tokio::time::timeout(CLOSE_TIME, close).await;
    }

    fn count(&self, outcome: Outcome) {
        self.gate.count(outcome);
    }

    fn note_refused(&self, node: Option<NodeId>, address: SocketAddr, reason: &'static str) {
        self.note(What::Refused, node, address, reason);
    }
}

impl<S> Door<S> {
    pub(super) fn note(
        &self,
        what: What,
        node: Option<NodeId>,
        address: SocketAddr,
        reason: &'static str,
    ) {
        // The canary is nobody's business.
        if self.realm == Realm::Node {
            let event = Event { node, address: Some(address), reason, ..Event::new(what) };
            self.traffic.events.note(event);
        }
    }
}

/// The login, within the one deadline that began when the connection was accepted.
async fn within(
    login: impl Future<Output = Result<login::Accepted, Failed>>,
    place: &Place,
    deadline: tokio::time::Instant,
) -> Result<login::Accepted, Failed> {
    tokio::select! {
        outcome = timeout_at(deadline, login) => {
            let close = Some((CloseCode::Policy, "auth timeout"));
            outcome.unwrap_or_else(|_| Err(Failed::new(Outcome::AuthTimeout, close)))
        }
        () = place.evicted() => {
            let close = Some((CloseCode::TryAgain, "too many logins"));
            Err(Failed::new(Outcome::CrowdedOut, close))
        }
    }
}

/// Counts a session while it lives, and its end even where that is a panic.
struct Alive<'a, S> {
    door: &'a Door<S>,
    session: &'a Session,
    end: End,
}

impl<'a, S> Alive<'a, S> {
    fn new(door: &'a Door<S>, session: &'a Session) -> Self {
        door.sessions.add(1);
        Self { door, session, end: End::Failed }
    }

    fn ended(mut self, end: End) {
        self.end = end;
    }
}

impl<S> Drop for Alive<'_, S> {
    fn drop(&mut self) {
        self.door.sessions.add(-1);
        let reason = EndReason::from(self.end);
        self.door.counters.ended.of(reason).increment();
        let Session { observed, .. } = self.session;
        self.door.note(What::Ended, Some(self.session.id()), *observed, reason.word());
        if self.door.realm == Realm::Node {
            debug!(
                node = %self.session.id(),
                reason = reason.word(),
                seconds = self.session.since.elapsed().as_secs(),
                "peer disconnected"
            );
        }
    }
}
