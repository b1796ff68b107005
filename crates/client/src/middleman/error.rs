//! Why a message was not sent, a request not answered, a session ended, or the client.

use crate::{ConnectError, SessionError};

/// Why a message was not sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A topic, or a header, that is of more than one line, or a name of a header that is none.
    #[error("a topic or header that no message can have: {0:?}")]
    Form(String),
    /// It is longer than any broker takes.
    #[error("a message of {bytes} bytes is longer than {most} bytes")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// Length of the longest that can be sent.
        most: usize,
    },
    /// The client has ended; [`Receiver::recv`](super::Receiver::recv) says why.
    #[error("the client has ended")]
    Ended,
}

/// Why a request has no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The broker says that it has failed: nobody answers there, or no more.
    #[error("the request has failed: {reason}")]
    Failed {
        /// What the broker said.
        reason: String,
    },
    /// The session ended while it was under way: whether it was carried out is not known.
    #[error("the session ended before the answer came")]
    Interrupted,
    /// No answer came in time.
    #[error("no answer in time")]
    Late,
}

/// The broker does not know the key, and will not the next time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the broker does not know the key")]
pub struct Refused;

/// What ended a session or prevented it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server answered the key with something else than its welcome.
    #[error("the server is no broker: it answered a key with something else")]
    Unexpected,
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}
