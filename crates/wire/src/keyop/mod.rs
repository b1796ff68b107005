//! The protocol of keyop-messenger: records of channels between federated hubs and their clients.
//!
//! A record is an [`Envelope`], JSON as Go writes it, which goes from hub to hub to the byte, except
//! that each appends its name to `route`. Peers up to v1.4.1 send [`websocket`] messages, later ones
//! call two methods of [`grpc`]; both answer a batch of records by the id of its last.
//!
//! Who may publish and subscribe, and where records go, is decided elsewhere.

mod audit;
pub mod channel;
mod draft;
mod envelope;
pub mod grpc;
mod members;
#[cfg(test)]
mod tests;
mod texts;
mod time;
pub mod websocket;

pub use audit::{Event, audit_line};
pub use draft::{Draft, id_at};
pub use envelope::{Envelope, InvalidEnvelope};
pub use texts::Texts;
pub use time::timestamp;

pub use crate::json::{Body, Malformed};

/// The one version of envelopes.
pub const ENVELOPE_VERSION: u8 = 1;

/// The version that both sides of a connection name; nobody checks it.
pub const VERSION: &str = "1";

/// The code of the close frame of a peer that is not on the allow list.
pub const NOT_ALLOWED_CODE: u16 = 4_403;

/// What a peer reads that is not on the allow list: the reason of the close frame, and the message
/// of the status.
pub const NOT_ALLOWED: &str = "not in allowlist";

/// Longest record that the original takes by default, in bytes.
pub const DEFAULT_MAX_RECORD: usize = 4 << 20;
