//! Why a record was not published, why a session ended, and why the client did.

use std::time::Duration;

use crate::wire::keyop::grpc::Code;
use crate::{ConnectError, SessionError};

/// Why a record was not published.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It is longer than a hub takes.
    #[error("a record of {bytes} bytes is longer than {most} bytes")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// Length of the longest that can be published.
        most: usize,
    },
    /// The payload cannot be JSON.
    #[error("the payload cannot be written as JSON: {0}")]
    Payload(String),
    /// No hub has a channel of this name that peers publish to.
    #[error("{0:?} is no channel that can be published to")]
    Channel(String),
    /// There is no randomness to make an id of.
    #[error("no randomness for the id of a record")]
    NoRandomness,
    /// The client has ended; [`Receiver::recv`](super::Receiver::recv) says why.
    #[error("the client has ended")]
    Ended,
}

/// The hub does not let this client in, and will not the next time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the hub refused: {reason}")]
pub struct Refused {
    /// What the hub said.
    pub reason: String,
}

/// What ended a session or prevented it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The hub ended a call.
    #[error("the hub ended the call: {message} (gRPC status {})", code.number())]
    Status {
        /// The status code.
        code: Code,
        /// What the hub said.
        message: String,
    },
    /// HTTP/2 broke, or the connection below it.
    #[cfg(feature = "grpc")]
    #[error("the connection broke: {0}")]
    Http2(#[from] h2::Error),
    /// The hub does not speak the protocol.
    #[error("the server is no hub: {0}")]
    NoHub(&'static str),
    /// The hub did not acknowledge what was published.
    #[error("the hub acknowledged nothing within {0:?}")]
    Unacknowledged(Duration),
}

/// Why there will be no session, or no other.
#[derive(Debug)]
pub(super) enum Over {
    /// A redial may help.
    Interrupted(Interruption),
    /// It would not.
    Refused(Refused),
}

impl<T: Into<Interruption>> From<T> for Over {
    fn from(cause: T) -> Self {
        Self::Interrupted(cause.into())
    }
}

#[cfg(feature = "grpc")]
impl Over {
    /// What a status comes to.
    pub(super) fn of_status(code: Code, message: String) -> Self {
        if code.is_permanent() {
            return Self::Refused(Refused { reason: message });
        }
        Self::Interrupted(Interruption::Status { code, message })
    }
}
