//! One connection: accepted, upgraded, logged in, served, closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::conversation::{self, Conversation};
use super::counters::Handshake;
use super::driver::Driver;
use super::gate::Place;
use super::turn::Turn;
use super::upgrade::{Front, NotUpgraded, Upgraded};
use super::{Door, MAX_MESSAGE, Outcome, Refusal, Session, Site, Welcome};
use crate::metrics::{Event, Transport, What, Word};
use crate::net::Stream;
use crate::net::listener::{Accepted, Listener};
use crate::net::tls::{Acceptor, Failure};
use crate::peers::{End, Limits, Link, Refused, Registration};
use crate::wire::name::Name;
use crate::wire::websocket::Decoder;

/// Wait after a connection could not be accepted, for want of descriptors most often.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A client over a Unix socket whose proxy does not name it.
const UNIX_CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Time for a client that lost its place, or its login, to take the close frame.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// Accepts connections until `accepting` ends, and serves them until they or `ending` end.
pub(super) async fn accept(
    listener: Listener,
    site: Arc<Site>,
    accepting: CancellationToken,
    ending: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut fails = false;
    loop {
        let accepted = tokio::select! {
            () = accepting.cancelled() => break,
            Some(ended) = connections.join_next() => {
                site.note_end(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                if std::mem::take(&mut fails) {
                    info!("connections are accepted again");
                }
                // Here, where connections come one after the other: how long the login of one
                // takes shall not make it newer than another.
                let turn = Turn {
                    generation: site.shared.table.generation(),
                    accepted: Instant::now(),
                    is_probe: site.expects(|| accepted.origin()),
                };
                connections.spawn(Arc::clone(&site).connection(accepted, turn));
            }
            Err(error) => {
                site.shared.counters.accept_errors.increment();
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
            site.note_end(ended);
        }
    };
    // What is left when `ending` comes is aborted with the set.
    let _ended = ending.run_until_cancelled(served).await;
}

/// A session that is in the table.
type Admitted = (Arc<Session>, Registration);

/// A connection that has logged in.
struct LoggedIn {
    door: Arc<dyn Door>,
    session: Arc<Session>,
    registration: Registration,
    decoder: Decoder,
    early: Vec<u8>,
}

impl Site {
    /// Whether a connection from there is a probe's.
    fn expects(
        &self,
        origin: impl FnOnce() -> std::io::Result<crate::net::entrance::Origin>,
    ) -> bool {
        let expected = self.expected.lock();
        expected.is_some() && origin().is_ok_and(|origin| Some(&origin) == expected.as_ref())
    }

    fn note_end(&self, ended: Result<(), tokio::task::JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.shared.counters.panics.increment();
            warn!("a connection ended by a panic: this is a bug of the relay");
        }
    }

    async fn connection(self: Arc<Self>, accepted: Accepted, turn: Turn) {
        // Boxed, so that what only the login needs is given back while the session lives.
        let (stream, remote): (Box<dyn Stream>, _) = match accepted {
            Accepted::Tcp(stream, remote) => (Box::new(stream), remote),
            Accepted::Unix(stream) => (Box::new(stream), UNIX_CLIENT),
        };
        let logged_in = Box::pin(self.log_in(stream, remote, turn)).await;
        let Some(LoggedIn { door, session, registration, decoder, early }) = logged_in else {
            return;
        };
        let guard = Alive::new(&self, &session, door.name());
        let found = Found { registration: &registration, door: &*door, session: &session };
        let mut driver = Driver::new(Arc::clone(&session), &*door, &self.settings, decoder, early);
        let end = driver.run().await;
        // First nobody finds the session any more, then the peer hears of it.
        drop(found);
        // Boxed, so that a session which lives has no room for its close in its task.
        Box::pin(driver.close(end)).await;
        guard.ended(end);
        drop(registration);
    }

    async fn log_in(
        &self,
        stream: Box<dyn Stream>,
        remote: SocketAddr,
        turn: Turn,
    ) -> Option<LoggedIn> {
        let attempt = Attempt { site: self, turn, door: None };
        attempt.note(What::Accepted, None, remote, "");
        // One state of them for the whole login.
        let settings = self.settings.load_full();
        let gate = &self.shared.gate;
        // A probe takes no room from others.
        let place = (!turn.is_probe).then(|| gate.enter(remote.ip(), &settings));
        let deadline = (turn.accepted + settings.timing.auth_timeout).into();
        let front = Front { gate, settings: &settings, doors: &self.doors, turn };
        let upgrade = async {
            let stream = match &self.tls {
                Some(tls) => attempt.secure(tls, stream).await?,
                None => stream,
            };
            let upgraded = front.upgrade(&*stream, remote).await?;
            Ok::<_, NotUpgraded>((stream, upgraded))
        };
        let upgraded = tokio::select! {
            upgraded = timeout_at(deadline, upgrade) => upgraded,
            () = evicted(place.as_ref()) => {
                attempt.count(Outcome::CrowdedOut);
                attempt.note(What::Refused, None, remote, Outcome::CrowdedOut.word());
                return None;
            }
        };
        let (stream, Upgraded { response, early, client, door }) = match upgraded {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(outcome)) => {
                if let Some(outcome) = outcome {
                    attempt.note(What::Refused, None, remote, outcome.word());
                    debug!(remote_addr = %remote, outcome = outcome.word(), "refused a connection");
                }
                return None;
            }
            Err(_) => {
                attempt.count(Outcome::AuthTimeout);
                attempt.note(What::Refused, None, remote, Outcome::AuthTimeout.word());
                return None;
            }
        };
        let attempt = Attempt { door: Some(door.name()), ..attempt };
        if let Some(place) = &place {
            place.belongs_to(client.address.ip(), &settings);
        }
        let longest = door.max_greeting();
        let mut conversation = Conversation::new(&*stream, client, longest, response, &early);
        let login = door.greet(&mut conversation);
        let accepted = match within(login, &*door, place.as_ref(), deadline).await {
            Ok(welcome) => {
                let since_accepted = turn.accepted.elapsed();
                // It has proved who it is, and takes no room from those that have not.
                drop(place);
                let waited =
                    attempt.await_turn(&*door, &mut conversation, &welcome, &settings).await;
                waited.map(|()| (welcome, since_accepted))
            }
            Err(refusal) => Err(refusal),
        };
        // More does not fit the buffer that a thread lends: its session would read nothing.
        let longest = door.max_message().min(MAX_MESSAGE);
        let (early, decoder) = conversation.into_rest(longest);
        let refusal = match accepted {
            // What began before the drain ends in it.
            Ok(_) if gate.draining().is_some() => {
                Refusal::new(Outcome::Draining, door.refusal(Outcome::Draining))
            }
            Ok((welcome, since_accepted)) => {
                let admitted =
                    attempt.admit(&*door, stream, client.address, &welcome, settings.outbox);
                match admitted {
                    Ok((session, registration)) => {
                        if !turn.is_probe {
                            self.shared.counters.login_time.observe(since_accepted);
                        }
                        session.flush(Instant::now());
                        return Some(LoggedIn { door, session, registration, decoder, early });
                    }
                    Err((session, refused)) => {
                        attempt.turn_away(&*door, &session, refused).await;
                        return None;
                    }
                }
            }
            Err(refusal) => refusal,
        };
        attempt.count(refusal.outcome);
        let reason = refusal.reason.unwrap_or_else(|| refusal.outcome.word());
        attempt.note(What::Refused, refusal.id, client.address, reason);
        debug!(
            remote_addr = %client.address,
            node = refusal.id.map(tracing::field::display),
            outcome = refusal.outcome.word(),
            reason = refusal.reason,
            "refused a login"
        );
        if let Some(close) = refusal.close {
            let close = conversation::close(&*stream, close);
            let _expired = tokio::time::timeout(CLOSE_TIME, close).await;
        }
        None
    }
}

/// A connection that has no session yet.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) site: &'a Site,
    pub(super) turn: Turn,
    /// Which door the client came to, once that is known.
    pub(super) door: Option<&'static str>,
}

impl Attempt<'_> {
    /// Makes the TLS handshake.
    async fn secure(
        self,
        tls: &Acceptor,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, NotUpgraded> {
        // Counted even where it is given up.
        let mut handshake = CountedHandshake { attempt: self, outcome: Handshake::NotDone };
        match tls.accept(stream).await {
            Ok(stream) => {
                handshake.outcome = stream.kind().into();
                Ok(Box::new(stream))
            }
            Err(failure) => {
                handshake.outcome = (&failure).into();
                if matches!(failure, Failure::Challenge) {
                    // No client of ours, and nothing that was refused.
                    self.count(Outcome::AcmeChallenge);
                    return Err(None);
                }
                debug!(%failure, "a TLS handshake failed");
                let outcome = match failure {
                    Failure::Gone | Failure::Lost(_) => Outcome::Gone,
                    Failure::NotTls
                    | Failure::Challenge
                    | Failure::NoCertificate
                    | Failure::TooLong
                    | Failure::Tls(_) => Outcome::TlsFailed,
                };
                self.count(outcome);
                Err(Some(outcome))
            }
        }
    }

    /// Makes a session of an accepted login: its acceptance is queued, the session
    /// published, and only then flushed, so that nothing precedes the acceptance.
    fn admit(
        self,
        door: &dyn Door,
        stream: Box<dyn Stream>,
        client: SocketAddr,
        welcome: &Welcome,
        outbox: Limits,
    ) -> Result<Admitted, (Arc<Session>, Refused)> {
        let Turn { generation, accepted, is_probe } = self.turn;
        let shared = &self.site.shared;
        let link = Link {
            stream,
            transport: Transport::Wss,
            framing: welcome.framing,
            overflow: welcome.overflow,
            limits: Limits { message: welcome.takes, ..outbox },
            traffic: Arc::clone(if is_probe { &shared.probed } else { &shared.traffic }),
        };
        let session = Session::new(welcome.principal, generation, client, link, Instant::now());
        let mut session = session.accepted_at(accepted);
        session.takeover = welcome.takeover;
        session.is_hidden = is_probe;
        let session = Arc::new(session);
        door.accept(&session);
        let registration = match shared.table.register(Arc::clone(&session)) {
            Ok(registration) => registration,
            Err(refused) => return Err((session, refused)),
        };
        door.opened(&session);
        // Counted before the peer can know of it.
        self.count(Outcome::AuthOk);
        let node = session.id();
        self.note(What::LoggedIn, Some(node), client, "");
        if !is_probe {
            debug!(%node, remote_addr = %client, door = door.name(), "peer connected");
        }
        if registration.replaced && !is_probe {
            shared.counters.replacements.increment();
            info!(%node, "a newer session of the same node replaced the one before");
        }
        if registration.is_contested {
            warn!(
                %node,
                "sessions of a node replace each other again and again, as those of two programs \
                 with one key do: further logins of it wait"
            );
        }
        Ok((session, registration))
    }

    /// Closes a session that found no place in the table.
    async fn turn_away(self, door: &dyn Door, session: &Session, refused: Refused) {
        let outcome = match refused {
            Refused::Full => Outcome::AtCapacity,
            Refused::Taken => Outcome::Superseded,
        };
        self.count(outcome);
        self.note(What::Refused, Some(session.id()), session.observed, outcome.word());
        if let Some(close) = door.refusal(outcome) {
            let close = conversation::close(session.stream(), close);
            let _expired = tokio::time::timeout(CLOSE_TIME, close).await;
        }
    }

    pub(super) fn count(self, outcome: Outcome) {
        if !self.turn.is_probe {
            self.site.shared.gate.count(outcome);
            if let Some(door) = self.door {
                self.site.shared.of_doors.of(door).logins.of(outcome).increment();
            }
        }
    }

    pub(super) fn note(
        self,
        what: What,
        peer: Option<Name>,
        address: SocketAddr,
        reason: &'static str,
    ) {
        if !self.turn.is_probe {
            self.site.note(what, self.door, peer, address, reason);
        }
    }
}

impl Site {
    fn note(
        &self,
        what: What,
        door: Option<&'static str>,
        peer: Option<Name>,
        address: SocketAddr,
        reason: &'static str,
    ) {
        let event = Event { door, peer, address: Some(address), reason, ..Event::new(what) };
        self.shared.traffic.events.note(event);
    }
}

/// Waits until a connection loses its place; for ever where it has none.
async fn evicted(place: Option<&Place>) {
    match place {
        Some(place) => place.evicted().await,
        None => std::future::pending().await,
    }
}

/// The login, within the one deadline that began when the connection was accepted.
async fn within(
    login: impl Future<Output = Result<Welcome, Refusal>>,
    door: &dyn Door,
    place: Option<&Place>,
    deadline: tokio::time::Instant,
) -> Result<Welcome, Refusal> {
    let outcome = tokio::select! {
        outcome = timeout_at(deadline, login) => match outcome {
            Ok(outcome) => return outcome,
            Err(_) => Outcome::AuthTimeout,
        },
        () = evicted(place) => Outcome::CrowdedOut,
    };
    Err(Refusal::new(outcome, door.refusal(outcome)))
}

/// Counts how a handshake ended, a probe's apart.
struct CountedHandshake<'a> {
    attempt: Attempt<'a>,
    outcome: Handshake,
}

impl Drop for CountedHandshake<'_> {
    fn drop(&mut self) {
        if !self.attempt.turn.is_probe {
            self.attempt.site.shared.counters.handshakes.of(self.outcome).increment();
        }
    }
}

/// A session that can be found until this is dropped, even by a panic; then its door is told.
struct Found<'a> {
    registration: &'a Registration,
    door: &'a dyn Door,
    session: &'a Arc<Session>,
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        self.registration.withdraw();
        self.door.closed(self.session);
    }
}

/// Counts a session while it lives, and its end even where that is a panic.
struct Alive<'a> {
    site: &'a Site,
    session: &'a Session,
    door: &'static str,
    end: End,
}

impl<'a> Alive<'a> {
    fn new(site: &'a Site, session: &'a Session, door: &'static str) -> Self {
        if !session.is_hidden {
            site.shared.sessions.add(1);
            site.shared.of_doors.of(door).sessions.add(1);
        }
        Self { site, session, door, end: End::Failed }
    }

    fn ended(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if self.session.is_hidden {
            return;
        }
        let of_door = self.site.shared.of_doors.of(self.door);
        self.site.shared.sessions.add(-1);
        of_door.sessions.add(-1);
        self.site.shared.counters.ended.of(self.end).increment();
        of_door.ended.of(self.end).increment();
        let Session { observed, .. } = self.session;
        let node = Some(self.session.id());
        self.site.note(What::Ended, Some(self.door), node, *observed, self.end.word());
        debug!(
            node = %self.session.id(),
            reason = self.end.word(),
            seconds = self.session.since.elapsed().as_secs(),
            "peer disconnected"
        );
    }
}
