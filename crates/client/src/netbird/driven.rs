//! What came of waiting for a carrier.

use bytes::Bytes;

/// What a carrier came to.
pub(super) enum Driven {
    /// A message has come.
    Message(Bytes),
    /// What was fed has left.
    Flushed,
    /// The other side has ended the connection; why, where it says so.
    Ended(Option<Reason>),
    /// Something that is no message of the protocol.
    Nothing,
}

/// Why the other side says that it ended a connection.
#[derive(Debug)]
pub(super) struct Reason {
    pub(super) code: u64,
    pub(super) text: String,
}
