//! Routes a batch of packets and carries it out.
//!
//! Ways in hand over a whole read batch. Runs of packets for the same destination are
//! looked up once and queued under one lock; whatever was filled is flushed once, at the
//! end. Discover, punch and Sync packets are meant for the relay and answered here.

mod beacons;
mod buckets;
mod canary;
mod cluster;
mod departures;
mod discover;
mod notify;
mod punch;
mod routing;
mod switches;
mod udp;
mod wss;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::directory::Directory;
use crate::ids::{BeaconId, PublicKey};
use crate::metrics::{Drop, Traffic};
use crate::net::local::LocalAddresses;
use crate::net::udp::Datagrams;
use crate::peers::{Capabilities, Credential, Table};
use crate::proto::endpoint::QUIET_RATE;
use crate::proto::limit::{Bucket, Exceeded, Places, Rate, SourceRates};
use crate::proto::translators::Translators;
use crate::wire::beacon::DecodeError;

pub use beacons::Beacons;
pub use buckets::Buckets;
pub use canary::script as canary_script;
pub use notify::{NotNotified, Notified};
pub use punch::{GrantQueue, PunchRules};
pub use switches::{NoSwitch, Switch, Switches};

/// A node's session here.
pub type Session = crate::peers::Session;

/// Deliveries to the session or the endpoint name their destination (0x09 instead of 0x06).
const NAMES_DESTINATION: Capabilities = Capabilities(1);

/// The key that a node has shown: what its endpoint has for a credential.
const fn shown_key(Credential(key): Credential) -> PublicKey {
    PublicKey(key)
}

/// Quiet endpoints that have a bucket at a time: those that a flood can keep busy.
const QUIET_PLACES: usize = 4_096;

/// What the relay is told to do.
#[derive(Debug)]
pub struct Rules {
    /// What a node may send in a second.
    pub source: SourceRates,
    /// What a listed beacon may send in a second.
    pub beacon: SourceRates,
    /// Discovers and punches of one client address over UDP, where nobody proves who he is.
    pub discover: Rate,
    /// Those that clients may come through, for what counts client addresses.
    pub translators: Translators,
    /// Whether a packet over UDP must come from its sender's own endpoint.
    pub observed_senders_only: bool,
    /// Whether loopback addresses can be endpoints: the relay is bound there.
    pub loopback: bool,
    /// Addresses of the relay itself, as others see them.
    pub own: Vec<SocketAddr>,
    /// Our id in gossip.
    pub beacon_id: BeaconId,
    /// Who may ask for a punch.
    pub punch: PunchRules,
}

/// The router with all that it needs.
pub struct Relay {
    table: Arc<Table>,
    traffic: Arc<Traffic>,
    directory: Directory,
    sockets: Vec<Arc<dyn Datagrams>>,
    rules: ArcSwap<Rules>,
    beacons: Beacons,
    /// The other relays, where there are some.
    cluster: Option<Arc<Cluster>>,
    punches: punch::Punches,
    quiet: Mutex<Places<Bucket>>,
    notices: notify::Notices,
    local: Arc<LocalAddresses>,
    switches: Arc<Switches>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Relay {
    /// A router that sends over these sockets, of which there is at least one; what they receive
    /// is handed to it as a [`DatagramSink`](crate::udp::DatagramSink).
    #[must_use]
    pub fn new(
        table: Arc<Table>,
        traffic: Arc<Traffic>,
        directory: Directory,
        sockets: Vec<Arc<dyn Datagrams>>,
        rules: Rules,
        beacons: Beacons,
        cluster: Option<Arc<Cluster>>,
    ) -> (Arc<Self>, GrantQueue) {
        let (punches, grants) = punch::Punches::new();
        let (rules, quiet) = (ArcSwap::from_pointee(rules), Mutex::new(Places::new(QUIET_PLACES)));
        let local = Arc::<LocalAddresses>::default();
        sockets.iter().for_each(|socket| socket.use_local(&local));
        let relay = Arc::new(Self {
            table,
            traffic,
            directory,
            sockets,
            rules,
            beacons,
            cluster,
            punches,
            quiet,
            notices: notify::Notices::default(),
            local,
            switches: Arc::default(),
        });
        if let Some(cluster) = &relay.cluster {
            let weak = Arc::downgrade(&relay);
            cluster.serve(weak);
        }
        (relay, grants)
    }

    /// Goes on by these rules, from the next batch on.
    pub fn update(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// What operators can switch off.
    #[must_use]
    pub const fn switches(&self) -> &Arc<Switches> {
        &self.switches
    }

    /// The beacons that this relay knows.
    #[must_use]
    pub const fn beacons(&self) -> &Beacons {
        &self.beacons
    }

    /// The addresses of this machine, which somebody has to read again and again.
    #[must_use]
    pub const fn local_addresses(&self) -> &Arc<LocalAddresses> {
        &self.local
    }

    /// Forgets the endpoints that were silent for too long.
    pub fn sweep(&self, now: std::time::Instant) {
        let expired = self.table.sweep(now);
        self.traffic.shard().endpoint(crate::metrics::EndpointEvent::Expired, expired);
    }

    /// Forgets what beacons that were silent for too long have published.
    pub fn expire_beacons(&self, now: std::time::Instant) {
        self.beacons.expire(&self.table, now);
    }

    /// The socket with a number, or the one that sends for a session: always the same one, so
    /// that flows keep their order.
    fn socket_of(&self, number: u64) -> &dyn Datagrams {
        let count = self.sockets.len().max(1) as u64;
        #[allow(clippy::cast_possible_truncation)] // below the number of sockets
        let index = (number % count) as usize;
        &**self.sockets.get(index).expect("a relay has at least one socket")
    }

    /// Takes from the cap towards an endpoint that has been silent for two heartbeats.
    fn may_disturb(&self, endpoint: SocketAddr, now: std::time::Instant) -> bool {
        self.quiet.lock().of(&endpoint, now).take(Rate::per_second(QUIET_RATE), 1, now)
    }
}

/// The reason that a packet which cannot be decoded is counted under.
const fn decode_reason(error: DecodeError) -> Drop {
    match error {
        DecodeError::Empty => Drop::Empty,
        DecodeError::UnknownType(_) => Drop::UnknownType,
        DecodeError::Truncated { .. } | DecodeError::AddressLength(_) => Drop::Truncated,
        DecodeError::ZeroId => Drop::ZeroId,
    }
}

/// The reason that a packet over its source's rate is counted under.
const fn limit_reason(exceeded: Exceeded) -> Drop {
    match exceeded {
        Exceeded::Packets => Drop::RateLimited,
        Exceeded::Bytes => Drop::ByteLimited,
    }
}

#[cfg(test)]
mod tests;
