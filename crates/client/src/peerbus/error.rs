//! Why a message was not sent, why a session ended, and why the client did.

use crate::wire::peerbus::Refusal;
use crate::{ConnectError, SessionError};

/// Why a message was not sent, or a question was not answered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It is longer than any broker takes, or than its recipient would take behind the broker.
    #[error("a message of {bytes} bytes is longer than {most} bytes")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// Length of the longest that can be sent.
        most: usize,
    },
    /// The body cannot be JSON.
    #[error("the body cannot be written as JSON: {0}")]
    Body(String),
    /// It is for nobody.
    #[error("a message needs a recipient")]
    NoRecipient,
    /// The broker has not stored it and will not.
    #[error("the broker refused the message: {reason}")]
    Refused {
        /// What the broker said.
        reason: String,
    },
    /// There is no randomness to make an id of.
    #[error("no randomness for the id of a message")]
    NoRandomness,
    /// The client has ended; [`Receiver::recv`](super::Receiver::recv) says why.
    #[error("the client has ended")]
    Ended,
    /// The broker did not answer in time, or the session ended meanwhile.
    #[error("no answer from the broker")]
    NoAnswer,
}

/// The broker does not let this client in, and will not the next time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the broker refused: {}", .0.reason())]
pub struct Refused(pub Refusal);

/// What ended a session or prevented it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker cannot let us in at the moment.
    #[error("the broker refused: {}", .0.reason())]
    Refused(Refusal),
    /// The broker took too long over the registration, or answered it with something else than who
    /// is connected.
    #[error("the server is no broker: it answered a registration with something else")]
    Unexpected,
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Whether trying again leads nowhere.
pub(super) const fn is_final(refusal: Refusal) -> bool {
    match refusal {
        Refusal::NotText
        | Refusal::Malformed
        | Refusal::NotRegister
        | Refusal::Version
        | Refusal::NoName
        | Refusal::LongName
        | Refusal::TooLarge
        | Refusal::Token
        | Refusal::Claimed => true,
        // A full disk passes, and sessions end.
        Refusal::TooMany | Refusal::NotStored | Refusal::NotBound => false,
    }
}
