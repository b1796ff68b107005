//! The way to an id: its session, then its UDP endpoint, then the foreign server that serves
//! it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Entry, Table};
use crate::peers::{EndpointView, Session};
use crate::wire::name::Name;

/// What kind of neighbour a packet came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Neighbour {
    /// A peer of this relay.
    Peer,
    /// A foreign server.
    Foreign,
    /// Another relay of the cluster.
    Relay,
}

/// Where a packet for an id goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// To the outbox of this session.
    Session(Arc<Session>),
    /// To this endpoint.
    Endpoint(EndpointView),
    /// To the foreign server at this address.
    Foreign(SocketAddr),
    /// Only back to the kind of neighbour that the packet came from, where it could go in
    /// circles.
    Loop,
    /// Nobody has the id.
    Unknown,
}

impl Table {
    /// The way to an id for a packet that came from such a neighbour.
    #[must_use]
    pub fn route(&self, id: Name, from: Neighbour, now: Instant) -> Destination {
        let shard = self.shard(id).read();
        let Some(entry) = shard.get(&id) else { return Destination::Unknown };
        match (entry, from) {
            (Entry { session: Some(session), .. }, _) => Destination::Session(Arc::clone(session)),
            (Entry { endpoint: Some(endpoint), .. }, _) => {
                Destination::Endpoint(endpoint.view(self.uptime(now)))
            }
            (Entry { foreign: Some(_), .. }, Neighbour::Foreign) => Destination::Loop,
            (Entry { foreign: Some(address), .. }, Neighbour::Peer | Neighbour::Relay) => {
                Destination::Foreign(**address)
            }
            (Entry { session: None, endpoint: None, foreign: None, .. }, _) => Destination::Unknown,
        }
    }
}
