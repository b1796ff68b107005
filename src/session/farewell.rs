//! What clients that are sent away and peers whose session ends are told.

use super::Outcome;
use crate::peers::End;
use crate::wire::name::Name;
use crate::wire::websocket::{CloseCode, Violation};

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
    pub id: Option<Name>,
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
    pub const fn of(self, id: Name) -> Self {
        Self { id: Some(id), ..self }
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        let close = Close::new(violation.close_code(), "protocol violation");
        Self::new(Outcome::Violation, Some(close))
    }
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
        Outcome::Kicked => Close::new(CloseCode::Policy, "kicked"),
        Outcome::Draining => Close::new(CloseCode::GoingAway, "shutting down"),
        Outcome::Violation => Close::new(CloseCode::Protocol, "protocol violation"),
        // Answered in HTTP, or by nobody.
        Outcome::AuthOk
        | Outcome::RateLimited
        | Outcome::OriginRefused
        | Outcome::BadUpgrade
        | Outcome::NotFound
        | Outcome::TlsFailed
        | Outcome::AcmeChallenge
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
        End::NotStored => Close::new(CloseCode::TryAgain, "not stored"),
        End::Failed => Close::new(CloseCode::Internal, "internal error"),
    };
    Some(close)
}
