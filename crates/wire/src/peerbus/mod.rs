//! The protocol of peerbus: what agents and their broker tell each other.
//!
//! One frame is one WebSocket message of text, a JSON object. The first is a [`Register`], and
//! then whatever [`Received`] knows; nothing is ever answered with an error. What a client reads
//! is [`FromBroker`]. Who may register, and where messages go, is decided elsewhere.

mod client;
mod envelope;
mod frames;
mod members;
mod refusal;
#[cfg(test)]
mod tests;
mod write;

pub use crate::json::{Body, MAX_DEPTH, Malformed};
pub use client::{FromBroker, ack, peers_request, register};
pub use envelope::Envelope;
pub use frames::{DropReason, Dropped, Received, Register};
pub use refusal::{CloseCode, Refusal};
pub use write::{
    DELIVER_OVERHEAD, ReceiptResult, audit_event, deliver, deliver_length, peers, receipt,
};

/// The one version of the protocol.
pub const VERSION: &str = "v1";

/// The recipient of a broadcast.
pub const EVERYBODY: &str = "*";

/// The kind of a broadcast.
pub const BROADCAST: &str = "broadcast";

/// The kind of a message to one peer; any but [`BROADCAST`] is one as well.
pub const DIRECT: &str = "msg";

/// Longest message in either direction, in bytes: clients of the original end the connection at
/// one byte more.
pub const MAX_MESSAGE: usize = 1_048_576;

/// Longest name of a peer, in bytes.
pub const MAX_NAME: usize = 1_024;
