//! Everything that is known of one id, for who asks about it; nothing here is for packets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Session, Table};
use crate::peers::EndpointView;
use crate::wire::name::Name;

/// What is known of an id.
#[derive(Clone, Debug)]
pub struct Look {
    /// Its session.
    pub session: Option<Arc<Session>>,
    /// How long ago its last session ended, where that is remembered.
    pub ended: Option<Duration>,
    /// Its UDP endpoint, whether or not a session goes before it.
    pub endpoint: Option<EndpointLook>,
    /// The foreign server that serves it.
    pub foreign: Option<SocketAddr>,
}

/// What is known of a UDP endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLook {
    /// As packets see it.
    pub view: EndpointView,
    /// How long it has been at its address.
    pub age: Duration,
    /// For how long nothing was heard of it.
    pub silence: Duration,
}

impl Table {
    /// What is known of an id; `None` where nothing is.
    #[must_use]
    pub fn look(&self, id: Name, now: Instant) -> Option<Look> {
        let uptime = self.uptime(now);
        let shard = self.shard(id).read();
        let entry = shard.get(&id)?;
        Some(Look {
            session: entry.session.clone().filter(|session| !session.is_hidden),
            ended: entry.last_session().map(|last| now.saturating_duration_since(last.ended)),
            endpoint: entry.endpoint.as_ref().map(|endpoint| EndpointLook {
                view: endpoint.view(uptime),
                age: now.saturating_duration_since(endpoint.moved),
                silence: endpoint.silence(uptime),
            }),
            foreign: entry.foreign.as_deref().copied(),
        })
    }

    /// Forgets the UDP endpoint of an id, until the id claims one again; false where there
    /// is none.
    pub fn forget(&self, id: Name) -> bool {
        self.forget_endpoint(id, |_| true)
    }
}
