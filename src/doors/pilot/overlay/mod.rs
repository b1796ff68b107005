//! What the nodes and beacons of the Pilot overlay send, and what the relay answers: packets
//! over WebSocket and UDP, Discover, punches and gossip.
//!
//! Relay packets go to the router. Discover, punch and Sync packets are meant for the relay, and
//! answered here. Datagrams leave here as well: to the endpoints of nodes, and to beacons.

mod beacons;
mod buckets;
mod datagrams;
mod depart;
mod discover;
mod frames;
mod notify;
mod punch;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use super::PilotDrop;
use crate::doors::pilot::directory::Directory;
use crate::ids::{BeaconId, PublicKey};
use crate::metrics::{Drop, Shard, Sharded, Traffic, family};
use crate::net::local::LocalAddresses;
use crate::net::udp::Datagrams;
use crate::peers::{Capabilities, Credential, Table};
use crate::proto::endpoint::QUIET_RATE;
use crate::proto::limit::{Bucket, Places, Rate, SourceRates};
use crate::proto::translators::Translators;
use crate::relay::{Delivery, Router, Switch, SwitchKind};
use crate::wire::beacon::DecodeError;
use crate::wire::name::Realm;
use crate::words;

pub use beacons::Beacons;
pub use buckets::Buckets;
pub use notify::NotNotified;
pub use punch::{GrantQueue, PunchRules};

/// Deliveries to the session or the endpoint name their destination (0x09 instead of 0x06).
const NAMES_DESTINATION: Capabilities = Capabilities(1);

/// The key that a node has shown: what its endpoint has for a credential.
const fn shown_key(Credential(key): Credential) -> PublicKey {
    PublicKey(key)
}

/// Quiet endpoints that have a bucket at a time: those that a flood can keep busy.
const QUIET_PLACES: usize = 4_096;

/// Punches are arranged.
pub const PUNCH: SwitchKind = SwitchKind { name: "punch", on: "punch_on", off: "punch_off" };

/// Discovers are answered, and endpoints made and moved.
pub const DISCOVER: SwitchKind =
    SwitchKind { name: "discover", on: "discover_on", off: "discover_off" };

words! {
    /// What packets for the relay itself were.
    enum Handled {
        /// A Discover was answered.
        Discover => "discover",
        /// A punch was arranged.
        Punch => "punch",
        /// A beacon's nodes were taken in.
        Sync => "sync",
    }
}

/// What the overlay is told to do.
#[derive(Debug)]
pub struct Rules {
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

/// The overlay, with all that it needs.
pub struct Overlay {
    router: Arc<Router>,
    table: Arc<Table>,
    traffic: Arc<Traffic>,
    directory: Directory,
    sockets: Vec<Arc<dyn Datagrams>>,
    rules: ArcSwap<Rules>,
    beacons: Beacons,
    punches: punch::Punches,
    handled: Sharded<Handled>,
    quiet: Mutex<Places<Bucket>>,
    notices: notify::Notices,
    local: Arc<LocalAddresses>,
    punching: Arc<Switch>,
    discovering: Arc<Switch>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Overlay {
    /// An overlay that sends over these sockets, of which there is at least one; what they receive
    /// is handed to it as a [`DatagramSink`](crate::udp::DatagramSink). The router gives it what
    /// other relays send for its nodes.
    #[must_use]
    pub fn new(
        router: Arc<Router>,
        directory: Directory,
        sockets: Vec<Arc<dyn Datagrams>>,
        rules: Rules,
        beacons: Beacons,
    ) -> (Arc<Self>, GrantQueue) {
        let (punches, grants) = punch::Punches::new();
        let local = Arc::<LocalAddresses>::default();
        sockets.iter().for_each(|socket| socket.use_local(&local));
        let overlay = Arc::new(Self {
            table: Arc::clone(router.table()),
            traffic: Arc::clone(router.traffic()),
            router,
            directory,
            sockets,
            rules: ArcSwap::from_pointee(rules),
            beacons,
            punches,
            handled: Sharded::default(),
            quiet: Mutex::new(Places::new(QUIET_PLACES)),
            notices: notify::Notices::default(),
            local,
            punching: Switch::new(&PUNCH),
            discovering: Switch::new(&DISCOVER),
        });
        let door: Weak<dyn Delivery> = Arc::downgrade(&(Arc::clone(&overlay) as Arc<dyn Delivery>));
        overlay.router.serve(Realm::PILOT, door);
        overlay.traffic.register(PilotDrop::REASONS);
        (overlay, grants)
    }

    /// Goes on by these rules, from the next batch on.
    pub fn update(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Whether punches are arranged, and whether Discovers are answered.
    #[must_use]
    pub const fn switches(&self) -> [&Arc<Switch>; 2] {
        [&self.punching, &self.discovering]
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

    /// Appends its families to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::sharded(
            "pilot_beacon_packets_handled_total",
            "Packets that were meant for the relay itself.",
            "kind",
            &self.handled,
        ));
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let sources = self.beacons.sources() as f64;
        families.push(family::gauge_value(
            "pilot_beacon_gossip_sources",
            "Beacons that have published nodes.",
            sources,
        ));
    }

    /// Forgets what beacons that were silent for too long have published.
    pub fn expire_beacons(&self, now: Instant) {
        self.beacons.expire(&self.table, now);
    }

    /// The socket with a number, or the one that sends for a session: always the same one, so
    /// that flows keep their order.
    fn socket_of(&self, number: u64) -> &dyn Datagrams {
        let count = self.sockets.len().max(1) as u64;
        #[allow(clippy::cast_possible_truncation)] // below the number of sockets
        let index = (number % count) as usize;
        &**self.sockets.get(index).expect("there is at least one socket")
    }

    /// Counts a packet that was for the relay itself.
    fn count_handled(&self, what: Handled, shard: &Shard) {
        self.handled.add(what, 1);
        shard.handled(1);
    }

    /// Takes from the cap towards an endpoint that has been silent for two heartbeats.
    fn may_disturb(&self, endpoint: SocketAddr, now: Instant) -> bool {
        self.quiet.lock().of(&endpoint, now).take(Rate::per_second(QUIET_RATE), 1, now)
    }
}

/// The reason that a packet which cannot be decoded is counted under.
const fn decode_reason(error: DecodeError) -> Drop {
    match error {
        DecodeError::Empty => PilotDrop::EMPTY,
        DecodeError::UnknownType(_) => PilotDrop::UNKNOWN_TYPE,
        DecodeError::Truncated { .. } | DecodeError::AddressLength(_) => PilotDrop::TRUNCATED,
        DecodeError::ZeroId => PilotDrop::ZERO_ID,
    }
}

#[cfg(test)]
mod tests;
