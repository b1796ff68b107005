//! A message bus: names with mailboxes, what waits in them, and what becomes of it.
//!
//! [`types`] is what its decisions read and write.

mod types;

pub use types::{
    Cause, Change, Digest, Event, EventKind, Found, Level, MailboxId, Message, Millis, Named,
    Owner, Recovered, Seq, Stored,
};
