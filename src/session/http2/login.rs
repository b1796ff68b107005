//! The login of a connection over HTTP/2, and its session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{timeout, timeout_at};
use tracing::debug;

use super::super::attempt::{Alive, Attempt, Carrier, Found, evicted};
use super::super::gate::Place;
use super::super::keepalive::Keepalive;
use super::super::{Client, Conversation, Door, Outcome, Session, Settings, Site};
use super::outgoing::{Outgoing, Sink};
use super::{Connection, Driver, PING};
use crate::metrics::{Transport, What, Word as _};
use crate::net::Stream;
use crate::net::tls::Certified;
use crate::net::udp::canonical;
use crate::peers::{Refused, Registration};
use crate::wire::Framing;

/// Time for a client that is not let in to hear why in each of its calls.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// A connection that has logged in.
pub(in crate::session) struct LoggedIn {
    door: Arc<dyn Door>,
    connection: Connection,
    outgoing: Arc<Outgoing>,
    session: Arc<Session>,
    registration: Registration,
}

/// What a connection has shown before it was known to be HTTP/2.
pub(in crate::session) struct Opened {
    pub(in crate::session) stream: Box<dyn Stream>,
    pub(in crate::session) early: Vec<u8>,
    pub(in crate::session) certified: Option<Arc<Certified>>,
    pub(in crate::session) remote: SocketAddr,
}

impl Site {
    /// The door whose clients call methods.
    pub(in crate::session) fn door_of_calls(&self) -> Option<&Arc<dyn Door>> {
        self.doors.iter().find(|door| door.calls().is_some())
    }

    /// Serves a session.
    pub(in crate::session) async fn serve_calls(&self, logged_in: LoggedIn) {
        let LoggedIn { door, connection, outgoing, session, registration } = logged_in;
        let handler = door.calls().expect("it is the door that has calls");
        let guard = Alive::new(self, &session, door.name());
        let found = Found { registration: &registration, door: &*door, session: &session };
        let times = Keepalive::new(Arc::clone(&session), &*door, &self.settings).with_ping(PING);
        let mut driver = Driver::new(times, handler, connection, outgoing);
        let end = driver.run().await;
        // First nobody finds the session any more, then the peer hears of it.
        drop(found);
        driver.close(end).await;
        guard.ended(end);
        drop(registration);
    }

    /// Whether somebody from there may connect; an upgrade over HTTP/1.1 is asked the same.
    fn admits_calls(&self, client: &Client, settings: &Settings) -> Result<(), Outcome> {
        let gate = &self.shared.gate;
        if client.is_probe {
            Ok(())
        } else if gate.draining().is_some() {
            Err(Outcome::Draining)
        } else if !gate.admits(client.address.ip(), settings, Instant::now()) {
            Err(Outcome::RateLimited)
        } else if gate.is_full() {
            Err(Outcome::AtCapacity)
        } else {
            Ok(())
        }
    }

    /// Logs a connection in whose first bytes are those of HTTP/2.
    pub(in crate::session) async fn log_in_over_http2(
        &self,
        attempt: Attempt<'_>,
        opened: Opened,
        place: Option<Place>,
        settings: &Settings,
    ) -> Option<LoggedIn> {
        let Opened { stream, early, certified, remote } = opened;
        let door = Arc::clone(self.door_of_calls().expect("the caller has looked for it"));
        let handler = door.calls().expect("it is the door that has calls");
        let client = Client { address: canonical(remote), is_probe: attempt.turn.is_probe };
        let refuse = |outcome: Outcome| {
            attempt.count(outcome);
            attempt.note(What::Refused, None, client.address, outcome.word());
            debug!(remote_addr = %remote, outcome = outcome.word(), "refused a connection over HTTP/2");
        };
        if let Err(outcome) = self.admits_calls(&client, settings) {
            refuse(outcome);
            return None;
        }
        let attempt = Attempt { door: Some(door.name()), ..attempt };
        let deadline = (attempt.turn.accepted + settings.timing.auth_timeout).into();
        let connected = tokio::select! {
            connected = timeout_at(deadline, Connection::open(stream, early)) => {
                connected.map_or(Err(Outcome::AuthTimeout), |opened| {
                    opened.map_err(|refusal| refusal.outcome)
                })
            }
            () = evicted(place.as_ref()) => Err(Outcome::CrowdedOut),
        };
        let mut connection = match connected {
            Ok(connection) => connection,
            Err(outcome) => {
                refuse(outcome);
                return None;
            }
        };
        let conversation = Conversation::over_http2(&mut connection, client);
        let mut conversation = conversation.of(certified.clone());
        let settled = attempt.settle(&*door, &mut conversation, place, settings, deadline).await;
        let (welcome, took) = match settled {
            Ok(settled) => settled,
            Err(refusal) => {
                attempt.refused(&refusal, client.address);
                let refused = connection.refuse_calls(|path| handler.refuse(path, refusal.outcome));
                let _expired = timeout(REFUSAL_TIME, refused).await;
                let _expired = timeout(REFUSAL_TIME, connection.end()).await;
                return None;
            }
        };
        let outgoing = Arc::<Outgoing>::default();
        let carrier = Carrier {
            stream: Box::new(Sink(Arc::clone(&outgoing))),
            transport: Transport::Wss,
            framing: Framing::Datagram,
            client: client.address,
            certified,
        };
        match attempt.admit(&*door, carrier, &welcome, took, settings.outbox) {
            Ok((session, registration)) => {
                session.flush(Instant::now());
                Some(LoggedIn { door, connection, outgoing, session, registration })
            }
            Err((session, refused)) => {
                self.not_admitted(attempt, &session, refused, connection).await;
                None
            }
        }
    }

    async fn not_admitted(
        &self,
        attempt: Attempt<'_>,
        session: &Session,
        refused: Refused,
        connection: Connection,
    ) {
        attempt.not_registered(session, refused);
        let _expired = timeout(REFUSAL_TIME, connection.end()).await;
    }
}
