//! Who is reachable, and how: one table with an entry for each name.
//!
//! A [`Session`] is one connection of a peer with its bounded outbox; the [`Table`]
//! finds it, the UDP endpoint or the beacon of an id. Nothing here knows a protocol's bytes
//! but the framing that a session was made with.

mod endpoints;
mod outbox;
mod session;
mod table;
pub mod testing;

use crate::ids::PublicKey;
use crate::wire::name::Name;

pub use endpoints::{Endpoint, EndpointView};
pub use outbox::{Arrival, Backlog, Limits, Overflow, Pushed, Record, Source};
pub use session::{End, Link, Session};
pub use table::{
    Claimed, Delay, Destination, EndpointLook, Here, Kind, Look, Neighbour, NotDelayed, Refused,
    Registration, SenderView, Table, Takeover, TakeoverLook,
};

/// Who a session has proved to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Principal {
    /// Its name.
    pub name: Name,
    /// The key that it proved to have.
    pub credential: PublicKey,
}
