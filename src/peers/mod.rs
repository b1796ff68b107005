//! Who is reachable, and how: one table with an entry for each id.
//!
//! A [`Session`] is one connection of a peer with its bounded outbox; the [`Table`]
//! finds it, the UDP endpoint or the beacon of an id. Nothing here knows a protocol's bytes
//! but the framing that a session was made with.

mod endpoints;
mod outbox;
mod session;
mod table;
pub mod testing;

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::ids::{NodeId, PublicKey};

pub use endpoints::{Endpoint, EndpointView};
pub use outbox::{Arrival, Backlog, Limits, Overflow, Pushed, Record, Source};
pub use session::{End, Link, Session};
pub use table::{
    Claimed, Delay, Destination, EndpointLook, Here, Kind, Look, Neighbour, NotDelayed, Refused,
    Registration, SenderView, Table, Takeover, TakeoverLook,
};

/// What names a peer: a node id here; other doors have longer ones.
pub trait Id: Copy + Debug + Display + Eq + Hash + Ord + Send + Sync + 'static {}

impl Id for NodeId {}

/// Which of the doors' name spaces an id belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Realm {
    /// Nodes of the overlay, by u32 ids.
    Node = 0,
}

/// Who a session has proved to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Principal<I> {
    /// The name space of `name`.
    pub realm: Realm,
    /// The id.
    pub name: I,
    /// The key that it proved to have.
    pub credential: PublicKey,
}
