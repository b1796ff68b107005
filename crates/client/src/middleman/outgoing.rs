//! What an application hands to the sessions.

use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::error::{RequestError, SendError};
use super::message::{Content, write};
use crate::wire::middleman::Command;

/// Who waits for the answer to a request.
pub(super) type Waiting = oneshot::Sender<Result<Content, RequestError>>;

/// What stays in force over all sessions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Declaration {
    pub(super) text: Utf8Bytes,
}

/// What the application hands to the sessions.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A subscription or a grant.
    Declare(Declaration),
    /// A publication.
    Publish(Utf8Bytes),
    /// A request, by the id that it is sent with.
    Request { rid: String, text: Utf8Bytes, waiting: Waiting },
    /// An answer to a request of this session.
    Answer { text: Utf8Bytes, session: u64 },
    /// The end.
    Close,
}

/// What is said for a subscription or a grant.
pub(super) fn declaration(command: Command<'_>, topic: &str) -> Result<Declaration, SendError> {
    let text = write(command, topic, None, &Content::default())?;
    Ok(Declaration { text })
}
