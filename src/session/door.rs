//! What a protocol over WebSocket is to the session machinery: how a connection logs in, what its messages mean, and how an end reads on its wire.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use super::{Conversation, Outcome, PeerId, Session};
use crate::peers::{End, Overflow, Principal, Takeover};
use crate::wire::websocket::{CloseCode, Violation};
use crate::wire::{Frames, Framing};

/// What a door answers later, on the connection's own task.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A protocol that listeners speak. All connections share one value of it.
///
/// The session machinery does the rest once for all doors: the upgrade, the limits before the
/// login, framing, pings and timeouts, the bounded outbox, the drain.
pub trait Door: Send + Sync + 'static {
    /// The word for it in configuration, names and metrics, such as `pilot`.
    fn name(&self) -> &'static str;

    /// The subprotocol that is agreed to where a client offers it.
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    /// Whether pages of this origin may connect, beside those of the listener's own host.
    fn admits_origin(&self, _origin: &str) -> bool {
        false
    }

    /// Longest message of a login, in bytes.
    fn max_greeting(&self) -> usize;

    /// Longest message after the login, in bytes; at most [`super::MAX_MESSAGE`].
    fn max_message(&self) -> usize;

    /// Logs a connection in. Everything until the answer is under one deadline.
    ///
    /// # Errors
    /// Why the client is sent away.
    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>>;

    /// Whether a login that has waited for its turn is still good.
    ///
    /// # Errors
    /// Why it is not.
    fn greet_again<'a>(&'a self, _welcome: &'a Welcome) -> Answer<'a, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Judges a message of a client that waits for its turn.
    ///
    /// # Errors
    /// Why the client is sent away.
    fn while_waiting(&self, _kind: Kind, _message: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    /// Queues the acceptance. Nobody can find the session yet, so nothing precedes it.
    fn accept(&self, session: &Session);

    /// The session can be found from here on.
    fn opened(&self, _session: &Session) {}

    /// Whether the peer is known to have a session at another relay, from which a login here
    /// would take over.
    fn has_session_elsewhere(&self, _id: PeerId, _now: Instant) -> bool {
        false
    }

    /// Takes messages of one kind that one read brought. It runs on the session's own task and
    /// must not wait: meanwhile that peer is not read.
    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant);

    /// What a client is told that is sent away before it has a session; nothing where the
    /// connection is gone.
    fn refusal(&self, outcome: Outcome) -> Option<Close> {
        refusal(outcome)
    }

    /// What a peer is told when its session ends; nothing where the connection is gone.
    fn farewell(&self, end: End, violation: Option<Violation>) -> Option<Close> {
        farewell(end, violation)
    }
}

/// A close code and its reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Close {
    /// The code.
    pub code: CloseCode,
    /// The text behind it, which fits a control frame: 123 bytes.
    pub reason: &'static str,
}

impl Close {
    /// A close code and its reason.
    #[must_use]
    pub const fn new(code: CloseCode, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// A login that succeeded.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// Who the peer has proved to be.
    pub principal: Principal<PeerId>,
    /// What happens to an older session of the same peer.
    pub takeover: Takeover,
    /// How records are laid out.
    pub framing: Framing,
    /// What happens where a record does not fit the outbox.
    pub overflow: Overflow,
    /// Longest message that the peer takes, in bytes.
    pub takes: usize,
}

/// Why a client is sent away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What it counts as.
    pub outcome: Outcome,
    /// The door's own word for it, for log and events; the client is not told.
    pub reason: Option<&'static str>,
    /// What the client is told.
    pub close: Option<Close>,
    /// Who it said to be.
    pub id: Option<PeerId>,
}

impl Refusal {
    /// One that the client is told of as `close` says.
    #[must_use]
    pub const fn new(outcome: Outcome, close: Option<Close>) -> Self {
        Self { outcome, reason: None, close, id: None }
    }

    /// The connection is gone.
    #[must_use]
    pub const fn gone() -> Self {
        Self::new(Outcome::Gone, None)
    }

    /// The client has closed, or said goodbye.
    #[must_use]
    pub const fn goodbye() -> Self {
        Self::new(Outcome::Gone, Some(Close::new(CloseCode::Normal, "bye")))
    }

    /// The same, of a client that said to be this one.
    #[must_use]
    pub const fn of(self, id: PeerId) -> Self {
        Self { id: Some(id), ..self }
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        let close = Close::new(violation.close_code(), "protocol violation");
        Self::new(Outcome::Violation, Some(close))
    }
}

/// Whether a message is text.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// It is not.
    #[default]
    Binary,
    /// It is, and nobody has looked whether it is UTF-8.
    Text,
}

/// Messages of one kind that came one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    /// Which.
    pub kind: Kind,
    /// Their bytes.
    pub frames: Frames<'a>,
}

/// A client, as a door sees it during the login.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Where it is seen at: by the word of a trusted proxy, if it came by one.
    pub address: SocketAddr,
    /// It is the relay's own client, which looks whether peers are served: see
    /// [`super::Server::expect`].
    pub is_probe: bool,
}

/// What clients that are sent away are told unless their door says otherwise (SPEC §3.8).
#[must_use]
pub const fn refusal(outcome: Outcome) -> Option<Close> {
    let close = match outcome {
        Outcome::AuthTimeout => Close::new(CloseCode::Policy, "auth timeout"),
        Outcome::AuthFail | Outcome::Unavailable => Close::new(CloseCode::Policy, "auth failed"),
        Outcome::CrowdedOut => Close::new(CloseCode::TryAgain, "too many logins"),
        Outcome::AtCapacity => Close::new(CloseCode::TryAgain, "at capacity"),
        Outcome::Superseded => Close::new(CloseCode::Normal, "replaced"),
        Outcome::Draining => Close::new(CloseCode::GoingAway, "shutting down"),
        Outcome::Violation => Close::new(CloseCode::Protocol, "protocol violation"),
        // Answered in HTTP, or by nobody.
        Outcome::AuthOk
        | Outcome::RateLimited
        | Outcome::OriginRefused
        | Outcome::BadUpgrade
        | Outcome::NotFound
        | Outcome::BadRequest
        | Outcome::Gone => return None,
    };
    Some(close)
}

/// What peers are told at the end of their session unless their door says otherwise (SPEC §3.8).
#[must_use]
pub fn farewell(end: End, violation: Option<Violation>) -> Option<Close> {
    let close = match end {
        End::ConnectionLost => return None,
        End::PeerLeft | End::PeerClosed => Close::new(CloseCode::Normal, "bye"),
        End::Replaced => Close::new(CloseCode::Normal, "replaced"),
        End::ShuttingDown => Close::new(CloseCode::GoingAway, "shutting down"),
        End::KeyWithdrawn => Close::new(CloseCode::Policy, "key withdrawn"),
        End::Violation => {
            let code = violation.map_or(CloseCode::Protocol, |violation| violation.close_code());
            Close::new(code, "protocol violation")
        }
        End::Idle => Close::new(CloseCode::Policy, "idle"),
        End::WriteTimeout | End::Overflow => Close::new(CloseCode::Policy, "too slow"),
        End::Kicked => Close::new(CloseCode::Policy, "kicked"),
        End::Failed => Close::new(CloseCode::Internal, "internal error"),
    };
    Some(close)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A door that waits for one message and lets nobody in.
    pub(in crate::session) struct Deaf;

    impl Door for Deaf {
        fn name(&self) -> &'static str {
            "deaf"
        }
        fn max_greeting(&self) -> usize {
            1_024
        }
        fn max_message(&self) -> usize {
            crate::session::MAX_MESSAGE
        }
        fn greet<'a>(
            &'a self,
            conversation: &'a mut Conversation<'_>,
        ) -> Answer<'a, Result<Welcome, Refusal>> {
            Box::pin(async {
                conversation.receive().await?;
                Err(Refusal::goodbye())
            })
        }
        fn accept(&self, _: &Session) {}
        fn messages(&self, _: &Arc<Session>, _: Messages<'_>, _: Instant) {}
    }
}
