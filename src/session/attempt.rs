//! A login until it has become a session, and what a session leaves behind: the same for all
//! connections, whatever carries them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tracing::{debug, info, warn};

use super::counters::Handshake;
use super::gate::Place;
use super::turn::Turn;
use super::{Conversation, Door, Outcome, Refusal, Session, Settings, Site, Welcome};
use crate::metrics::{Event, Transport, What, Word};
use crate::net::tls::Certified;
use crate::net::{Shown, Stream};
use crate::peers::{End, Limits, Link, Refused, Registration};
use crate::wire::Framing;
use crate::wire::name::Name;

/// A session that is in the table.
pub(super) type Admitted = (Arc<Session>, Registration);

/// What carries a session.
pub(super) struct Carrier {
    pub(super) stream: Box<dyn Stream>,
    pub(super) transport: Transport,
    pub(super) framing: Framing,
    pub(super) client: SocketAddr,
    /// What carried it so far proved who the peer is.
    pub(super) certified: Option<Arc<Certified>>,
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
    /// Has a door judge the login of a client, which waits for its turn after that where it has
    /// to. Returns as well how long the login took.
    pub(super) async fn settle(
        self,
        door: &dyn Door,
        conversation: &mut Conversation<'_>,
        place: Option<Place>,
        settings: &Settings,
        deadline: tokio::time::Instant,
    ) -> Result<(Welcome, Duration), Refusal> {
        let login = door.greet(conversation);
        let welcome = within(login, door, place.as_ref(), deadline).await?;
        let since_accepted = self.turn.accepted.elapsed();
        // It has proved who it is, and takes no room from those that have not.
        drop(place);
        let name = welcome.principal.name;
        if self.site.shared.table.kept_out(name, Instant::now()).is_some() {
            let refusal = Refusal::new(Outcome::Kicked, door.refusal(Outcome::Kicked));
            return Err(refusal.of(name));
        }
        self.await_turn(door, conversation, &welcome, settings).await?;
        // What began before the drain ends in it.
        if self.site.shared.gate.draining().is_some() {
            return Err(Refusal::new(Outcome::Draining, door.refusal(Outcome::Draining)));
        }
        Ok((welcome, since_accepted))
    }

    /// Notes that a login was refused.
    pub(super) fn refused(self, refusal: &Refusal, client: SocketAddr) {
        self.count(refusal.outcome);
        let reason = refusal.reason.unwrap_or_else(|| refusal.outcome.word());
        self.note(What::Refused, refusal.id, client, reason);
        debug!(
            remote_addr = %Shown(client),
            node = refusal.id.map(tracing::field::display),
            outcome = refusal.outcome.word(),
            reason = refusal.reason,
            "refused a login"
        );
    }

    /// Notes that a session found no place in the table; what that counts as.
    pub(super) fn not_registered(self, session: &Session, refused: Refused) -> Outcome {
        let outcome = match refused {
            Refused::Full => Outcome::AtCapacity,
            Refused::Taken => Outcome::Superseded,
        };
        self.count(outcome);
        self.note(What::Refused, Some(session.id()), session.observed, outcome.word());
        outcome
    }

    /// Makes a session of an accepted login: its acceptance is queued, the session
    /// published, and only then flushed, so that nothing precedes the acceptance.
    pub(super) fn admit(
        self,
        door: &dyn Door,
        carrier: Carrier,
        welcome: &Welcome,
        took: Duration,
        outbox: Limits,
    ) -> Result<Admitted, (Arc<Session>, Refused)> {
        let Carrier { stream, transport, framing, client, certified } = carrier;
        let Turn { generation, accepted, is_probe } = self.turn;
        let shared = &self.site.shared;
        let link = Link {
            stream,
            transport,
            framing,
            overflow: welcome.overflow,
            limits: Limits {
                message: welcome.takes,
                bytes: welcome.outbox_bytes.unwrap_or(outbox.bytes),
                ..outbox
            },
            traffic: Arc::clone(if is_probe { &shared.probed } else { &shared.traffic }),
        };
        let session = Session::new(welcome.principal, generation, client, link, Instant::now());
        let mut session = session.accepted_at(accepted);
        session.takeover = welcome.takeover;
        session.data.clone_from(&welcome.data);
        session.is_hidden = is_probe;
        session.is_patient = welcome.is_patient;
        session.certified = certified;
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
            debug!(%node, remote_addr = %Shown(client), door = door.name(), "peer connected");
        }
        if !is_probe {
            shared.counters.login_time.observe(took);
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
    /// Notes that the task of a connection has ended.
    pub(super) fn note_end(&self, ended: Result<(), tokio::task::JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.shared.counters.panics.increment();
            warn!("a connection ended by a panic: this is a bug of the relay");
        }
    }

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
pub(super) async fn evicted(place: Option<&Place>) {
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
pub(super) struct CountedHandshake<'a> {
    pub(super) attempt: Attempt<'a>,
    pub(super) outcome: Handshake,
}

impl Drop for CountedHandshake<'_> {
    fn drop(&mut self) {
        if !self.attempt.turn.is_probe {
            self.attempt.site.shared.counters.handshakes.of(self.outcome).increment();
        }
    }
}

/// A session that can be found until this is dropped, even by a panic; then its door is told.
pub(super) struct Found<'a> {
    pub(super) registration: &'a Registration,
    pub(super) door: &'a dyn Door,
    pub(super) session: &'a Arc<Session>,
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        self.registration.withdraw();
        self.door.closed(self.session);
    }
}

/// Counts a session while it lives, and its end even where that is a panic.
pub(super) struct Alive<'a> {
    site: &'a Site,
    session: &'a Session,
    door: &'static str,
    end: End,
}

impl<'a> Alive<'a> {
    pub(super) fn new(site: &'a Site, session: &'a Session, door: &'static str) -> Self {
        if !session.is_hidden {
            site.shared.sessions.add(1);
            site.shared.of_doors.of(door).sessions.add(1);
        }
        Self { site, session, door, end: End::Failed }
    }

    pub(super) fn ended(mut self, end: End) {
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
