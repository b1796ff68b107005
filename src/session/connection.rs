//! One connection: accepted, upgraded, logged in, served, closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::attempt::{Alive, Attempt, Carrier, CountedHandshake, Found, evicted};
use super::conversation::{self, Conversation};
use super::counters::Handshake;
use super::driver::Driver;
use super::keepalive::Keepalive;
use super::turn::Turn;
use super::upgrade::{Front, NotUpgraded, Upgraded};
use super::{Door, MAX_MESSAGE, Outcome, Session, Site, http2};
use crate::metrics::{Transport, What, Word};
use crate::net::Stream;
use crate::net::listener::{Accepted, Listener};
use crate::net::tls::{Acceptor, Certified, Failure};
use crate::peers::{Refused, Registration};
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

/// A connection that has logged in.
enum LoggedIn {
    WebSocket(OverWebSocket),
    Http2(Box<http2::LoggedIn>),
}

/// What a connection speaks.
enum Spoken {
    WebSocket { stream: Box<dyn Stream>, certified: Option<Arc<Certified>>, upgraded: Upgraded },
    Http2(http2::Opened),
}

/// A connection that has logged in over WebSocket.
struct OverWebSocket {
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

    async fn connection(self: Arc<Self>, accepted: Accepted, turn: Turn) {
        // Boxed, so that what only the login needs is given back while the session lives.
        let (stream, remote): (Box<dyn Stream>, _) = match accepted {
            Accepted::Tcp(stream, remote) => (Box::new(stream), remote),
            Accepted::Unix(stream) => (Box::new(stream), UNIX_CLIENT),
        };
        let logged_in = Box::pin(self.log_in(stream, remote, turn)).await;
        let logged_in = match logged_in {
            Some(LoggedIn::WebSocket(logged_in)) => logged_in,
            // Boxed, so that a session over WebSocket has no room for it in its task.
            Some(LoggedIn::Http2(logged_in)) => {
                return Box::pin(self.serve_calls(*logged_in)).await;
            }
            None => return,
        };
        let OverWebSocket { door, session, registration, decoder, early } = logged_in;
        let guard = Alive::new(&self, &session, door.name());
        let found = Found { registration: &registration, door: &*door, session: &session };
        let times = Keepalive::new(Arc::clone(&session), &*door, &self.settings);
        let mut driver = Driver::new(times, decoder, early);
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
            let (stream, certified) = match &self.tls {
                Some(tls) => attempt.secure(tls, stream).await?,
                None => (stream, None),
            };
            let mut early = Vec::new();
            if self.door_of_calls().is_some() {
                let gone = |_| Some(attempt.counted(Outcome::Gone));
                let (is_http2, read) = http2::opening(&*stream).await.map_err(gone)?;
                if is_http2 {
                    let opened = http2::Opened { stream, early: read, certified, remote };
                    return Ok::<_, NotUpgraded>(Spoken::Http2(opened));
                }
                early = read;
            }
            let upgraded = front.upgrade(&*stream, early, remote).await?;
            Ok(Spoken::WebSocket { stream, certified, upgraded })
        };
        let upgraded = tokio::select! {
            upgraded = timeout_at(deadline, upgrade) => upgraded,
            () = evicted(place.as_ref()) => {
                attempt.count(Outcome::CrowdedOut);
                attempt.note(What::Refused, None, remote, Outcome::CrowdedOut.word());
                return None;
            }
        };
        let (stream, certified, upgraded) = match upgraded {
            Ok(Ok(Spoken::WebSocket { stream, certified, upgraded })) => {
                (stream, certified, upgraded)
            }
            Ok(Ok(Spoken::Http2(opened))) => {
                let logged_in = self.log_in_over_http2(attempt, opened, place, &settings).await;
                return logged_in.map(|logged_in| LoggedIn::Http2(Box::new(logged_in)));
            }
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
        let Upgraded { response, early, client, door } = upgraded;
        let attempt = Attempt { door: Some(door.name()), ..attempt };
        if let Some(place) = &place {
            place.belongs_to(client.address.ip(), &settings);
        }
        let terms = (door.max_greeting(), door.dialect());
        let conversation = Conversation::new(&*stream, client, terms, response, &early);
        let mut conversation = conversation.of(certified.clone());
        let settled = attempt.settle(&*door, &mut conversation, place, &settings, deadline).await;
        let longest = door.max_message().min(MAX_MESSAGE);
        let (early, decoder) = conversation.into_rest(longest).expect("it is over WebSocket");
        let (welcome, took) = match settled {
            Ok(settled) => settled,
            Err(refusal) => {
                attempt.refused(&refusal, client.address);
                if let Some(close) = refusal.close {
                    let close = conversation::close(&*stream, close);
                    let _expired = tokio::time::timeout(CLOSE_TIME, close).await;
                }
                return None;
            }
        };
        let (transport, framing) = (Transport::Wss, welcome.framing);
        let client = client.address;
        if welcome.is_patient {
            // Nothing else notices a peer whose machine is gone.
            stream.keep_alive();
        }
        let carrier = Carrier { stream, transport, framing, client, certified };
        match attempt.admit(&*door, carrier, &welcome, took, settings.outbox) {
            Ok((session, registration)) => {
                session.flush(Instant::now());
                let logged_in = OverWebSocket { door, session, registration, decoder, early };
                Some(LoggedIn::WebSocket(logged_in))
            }
            Err((session, refused)) => {
                attempt.turn_away(&*door, &session, refused).await;
                None
            }
        }
    }
}

impl Attempt<'_> {
    /// Makes the TLS handshake.
    async fn secure(
        self,
        tls: &Acceptor,
        stream: Box<dyn Stream>,
    ) -> Result<(Box<dyn Stream>, Option<Arc<Certified>>), NotUpgraded> {
        // Counted even where it is given up.
        let mut handshake = CountedHandshake { attempt: self, outcome: Handshake::NotDone };
        match tls.accept(stream).await {
            Ok(stream) => {
                handshake.outcome = stream.kind().into();
                let certified = stream.certified().cloned();
                Ok((Box::new(stream), certified))
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

    /// The same outcome, which is counted now.
    fn counted(self, outcome: Outcome) -> Outcome {
        self.count(outcome);
        outcome
    }

    /// Closes a session that found no place in the table.
    async fn turn_away(self, door: &dyn Door, session: &Session, refused: Refused) {
        let outcome = self.not_registered(session, refused);
        if let Some(close) = door.refusal(outcome) {
            let close = conversation::close(session.stream(), close);
            let _expired = tokio::time::timeout(CLOSE_TIME, close).await;
        }
    }
}
