//! Who is reachable, and how: one table with an entry for each name.
//!
//! A [`Session`] is one connection of a peer with its bounded outbox; the [`Table`]
//! finds it, the UDP endpoint or the foreign server of an id. Nothing here knows a protocol's
//! bytes but the framing that a session was made with.

mod endpoints;
mod filled;
mod outbox;
mod session;
mod table;
pub mod testing;

use std::fmt;

use crate::ids::PublicKey;
use crate::wire::name::Name;

pub use crate::wire::cluster::Takeover;
pub use endpoints::{Endpoint, EndpointView};
pub use filled::Filled;
pub use outbox::{Arrival, Backlog, Limits, Overflow, Pushed, Record, Source};
pub use session::{DoorData, End, Link, Session, State};
pub use table::{
    Claimed, Delay, Destination, EndpointLook, Here, Kind, Look, MOST_KEPT_OUT, Neighbour,
    NotDelayed, Refused, Registration, SenderView, Table, TakeoverLook, TooManyKicks,
};

/// What a peer has proved to have: its key, or the SHA-256 of its token, certificate or secret.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Credential(pub [u8; 32]);

impl From<PublicKey> for Credential {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a short secret, the hash says as much as the secret.
        f.write_str("Credential(..)")
    }
}

/// What a peer can beyond what all of its door can: bits that mean what the door says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether all of `wanted` are among these.
    #[must_use]
    pub const fn contain(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// Who a session has proved to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Principal {
    /// Its name.
    pub name: Name,
    /// What it proved it with.
    pub credential: Credential,
}
