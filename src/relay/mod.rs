//! Routes a batch of packets and carries it out, whatever protocol they came in.
//!
//! Doors hand over a whole read batch ([`Router::take`] for those over WebSocket). Packets
//! that follow each other to one destination are a [`Flow`]: looked up once, and queued under
//! one lock. What no session here takes goes to the relay that has the destination, or back to
//! the door where it has a way of its own. Whatever was filled is flushed once, at the end.

mod cluster;
mod departures;
mod frames;
mod routing;
mod switches;

use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use crate::cluster::{ChannelOwner, Cluster, Watch};
use crate::metrics::{Drop, EndpointEvent, Shard, Traffic};
use crate::net::udp::Datagrams;
use crate::peers::{Session, Table};
use crate::proto::limit::{Exceeded, SourceRates};
use crate::wire::name::{Name, Realm};

pub use departures::{Body, Departures, FlowNumber, MAX_HEAD, Target};
pub use frames::{Message, Turn};
pub use routing::{Flow, Own, Way};
pub use switches::{RELAY, Switch, SwitchKind, Switches};

/// What the router asks of the door whose packets it carries: how they look to who receives
/// them, and where those go that only the door has a way for.
pub trait Delivery: Send + Sync {
    /// What stands in front of each payload of a flow for a session.
    fn head(&self, flow: &Flow, session: &Session) -> Head;

    /// What a peer of the door may send in a second, where that is not what the relay's peers may.
    fn rates(&self) -> Option<SourceRates> {
        None
    }

    /// Payloads of so many bytes together, and their heads, are in a session's outbox.
    fn delivered(&self, _flow: &Flow, _session: &Session, _bytes: u64) {}

    /// Whether this can be a name of the door's; other relays send what they like.
    fn has(&self, _name: Name) -> bool {
        true
    }

    /// The socket that sends the door's datagrams of one source, always the same one, so that
    /// flows keep their order; `None` for a door that sends none.
    fn socket(&self, _number: u64) -> Option<&dyn Datagrams> {
        None
    }

    /// Sends the packets of a flow over the door's own way, or counts them as dropped: the router
    /// has no part in it.
    ///
    /// The table knows a way only where the door has said so ([`Table::claim`],
    /// [`Table::learn`]); a door that never does is never asked.
    fn depart(
        &self,
        _own: &Own,
        _flow: &Flow,
        _payload: Payloads<'_>,
        _out: &mut Departures,
        _now: Instant,
        _shard: &Shard,
    ) {
        unreachable!("the table has a way that no door has told it");
    }
}

/// Finds the payload of a packet of a batch, by its position.
pub type Payloads<'a> = &'a dyn Fn(usize) -> &'a [u8];

/// What stands in front of a payload for a session, of [`Head::MAX`] bytes at most.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; Self::MAX],
    length: u8,
}

impl Head {
    /// Longest of all: a name in place, and what marks it.
    pub const MAX: usize = 48;

    /// These bytes, one piece after the other.
    ///
    /// # Panics
    /// They are more than [`Self::MAX`].
    #[must_use]
    #[inline]
    pub fn new(pieces: &[&[u8]]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut length = 0;
        for piece in pieces {
            let place = bytes.get_mut(length..length + piece.len()).expect("no head is longer");
            place.copy_from_slice(piece);
            length += piece.len();
        }
        Self { bytes, length: u8::try_from(length).expect("48 at most") }
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).expect("no head is longer than its place")
    }
}

/// The router with all that it needs.
pub struct Router {
    table: Arc<Table>,
    traffic: Arc<Traffic>,
    /// The other relays, where there are some.
    cluster: Option<Arc<Cluster>>,
    /// What a peer may send in a second.
    rates: ArcSwap<SourceRates>,
    relaying: Arc<Switch>,
    doors: RwLock<Vec<(Realm, Weak<dyn Delivery>)>>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("rates", &self.rates).finish_non_exhaustive()
    }
}

impl Router {
    /// A router among these peers, and other relays where there are some. A peer may send as
    /// much as these rates say.
    #[must_use]
    pub fn new(
        table: Arc<Table>,
        traffic: Arc<Traffic>,
        rates: SourceRates,
        cluster: Option<Arc<Cluster>>,
    ) -> Arc<Self> {
        let router = Arc::new(Self {
            table,
            traffic,
            cluster,
            rates: ArcSwap::from_pointee(rates),
            relaying: Switch::new(&RELAY),
            doors: RwLock::default(),
        });
        if let Some(cluster) = &router.cluster {
            let weak = Arc::downgrade(&router);
            cluster.serve(weak);
        }
        router
    }

    /// Gives the door of a realm what other relays send for it, as long as the door is there.
    pub fn serve(&self, realm: Realm, door: Weak<dyn Delivery>) {
        let mut doors = self.doors.write();
        doors.retain(|(known, _)| *known != realm);
        doors.push((realm, door));
    }

    /// The door of a realm, if it is served here.
    fn door(&self, realm: Realm) -> Option<Arc<dyn Delivery>> {
        let doors = self.doors.read();
        doors.iter().find(|(known, _)| *known == realm).and_then(|(_, door)| door.upgrade())
    }

    /// Goes on by these rates, from the next batch on.
    pub fn update(&self, rates: SourceRates) {
        self.rates.store(Arc::new(rates));
    }

    /// Who is reachable.
    #[must_use]
    pub const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The accounts of packets.
    #[must_use]
    pub const fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Whether anything is relayed.
    #[must_use]
    pub const fn relaying(&self) -> &Arc<Switch> {
        &self.relaying
    }

    /// What a peer may send in a second.
    #[must_use]
    pub fn rates(&self) -> SourceRates {
        **self.rates.load()
    }

    /// Forgets the endpoints that were silent for too long.
    pub fn sweep(&self, now: Instant) {
        let expired = self.table.sweep(now);
        self.traffic.shard().endpoint(EndpointEvent::Expired, expired);
    }

    /// The watch of the door of a realm over its peers at other relays, where there are some.
    #[must_use]
    pub fn watch(&self, realm: Realm) -> Option<Watch> {
        self.cluster.as_ref().map(|cluster| cluster.watch(realm))
    }

    /// Has the door of a realm talk to the same door at other relays, where there are some.
    pub fn own_channels(&self, realm: Realm, owner: Weak<dyn ChannelOwner>) {
        if let Some(cluster) = &self.cluster {
            cluster.own_channels(realm, owner);
        }
    }

    /// Whether a peer has a session at another relay, as far as that is known.
    #[must_use]
    pub fn has_session_elsewhere(&self, peer: Name, now: Instant) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.has_session_elsewhere(peer, None, now))
    }
}

/// The reason that a packet over its source's rate is counted under.
#[must_use]
pub const fn limit_reason(exceeded: Exceeded) -> Drop {
    match exceeded {
        Exceeded::Packets => Drop::RATE_LIMITED,
        Exceeded::Bytes => Drop::BYTE_LIMITED,
    }
}

#[cfg(test)]
mod tests;
