//! The other beacons of the fleet: whom we believe, what they serve, and what we tell them
//! (SPEC §7).

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::super::PilotDrop;
use super::Overlay;
use crate::ids::BeaconId;
use crate::metrics::{Drop, Origin, Transport};
use crate::net::udp::{Run, canonical};
use crate::peers::Table;
use crate::proto::gossip::{Gossip, Refused, Taken};
use crate::proto::translators::Translators;
use crate::wire::beacon::{MAX_SYNC_NODES, Sync, encode_sync};
use crate::wire::name::Name;

type Addresses = HashSet<SocketAddr, RandomState>;

/// Which addresses are beacons', and what each has published.
#[derive(Debug)]
pub struct Beacons {
    open: AtomicBool,
    listed: ArcSwap<Listed>,
    /// Where accepted Syncs came from: a beacon may send from another port than the listed.
    sources: ArcSwap<Addresses>,
    gossip: Mutex<Gossip>,
    truncated: AtomicBool,
}

#[derive(Debug, Default)]
struct Listed {
    addresses: Addresses,
    ips: HashSet<IpAddr, RandomState>,
}

impl Beacons {
    /// No beacon is listed yet; `open` believes a Sync from anybody. Those that send may come
    /// through these translators.
    #[must_use]
    pub fn new(open: bool, translators: Translators) -> Self {
        Self {
            open: AtomicBool::new(open),
            listed: ArcSwap::default(),
            sources: ArcSwap::default(),
            gossip: Mutex::new(Gossip::new(translators)),
            truncated: AtomicBool::new(false),
        }
    }

    /// Whether to believe a Sync from anybody, from here on.
    pub fn believe_all(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// Replaces the beacons that are configured or registered.
    pub fn list(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let addresses: Addresses = addresses.into_iter().map(canonical).collect();
        let ips = addresses.iter().map(SocketAddr::ip).collect();
        self.listed.store(Listed { addresses, ips }.into());
    }

    /// The beacons that are configured or registered.
    #[must_use]
    pub fn listed(&self) -> Vec<SocketAddr> {
        self.listed.load().addresses.iter().copied().collect()
    }

    /// Whether this very address, port included, is configured or registered.
    pub(super) fn is_listed(&self, address: SocketAddr) -> bool {
        let listed = self.listed.load();
        !listed.addresses.is_empty() && listed.addresses.contains(&address)
    }

    /// Whether accepted Syncs came from this address.
    pub(super) fn is_source(&self, address: SocketAddr) -> bool {
        let sources = self.sources.load();
        !sources.is_empty() && sources.contains(&address)
    }

    /// How many beacons have published nodes.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.load().len()
    }

    /// Takes in what a beacon serves, if we believe it; an error where the Sync is dropped.
    pub(super) fn sync(
        &self,
        sync: &Sync<'_>,
        from: SocketAddr,
        is_admitted: impl FnOnce() -> bool,
        table: &Table,
        now: Instant,
    ) -> Result<(), Drop> {
        // The port is not compared: beacons behind one address may send from any.
        if !self.open.load(Ordering::Relaxed) && !self.listed.load().ips.contains(&from.ip()) {
            return Err(PilotDrop::SYNC_FROM_STRANGER);
        }
        if !is_admitted() {
            return Err(PilotDrop::SYNC_LIMITED);
        }
        let mut gossip = self.gossip.lock();
        match gossip.receive(from, self.is_listed(from), sync.nodes(), now) {
            Ok(Taken { evicted, gone, nodes }) => {
                // Within the lock, or two Syncs of one source could be told out of order.
                if let Some((evicted, nodes)) = &evicted {
                    table.unlearn(nodes.iter().map(|node| (*node).into()), *evicted);
                }
                table.unlearn(gone.iter().map(|node| (*node).into()), from);
                table.learn(nodes.iter().map(|node| (*node).into()), from);
                if !self.sources.load().contains(&from) {
                    let mut sources = Addresses::clone(&self.sources.load());
                    if let Some((evicted, _)) = evicted {
                        sources.remove(&evicted);
                    }
                    sources.insert(from);
                    self.sources.store(sources.into());
                }
                Ok(())
            }
            Err(Refused::TooSoon | Refused::TooMany) => Err(PilotDrop::SYNC_LIMITED),
        }
    }

    /// Forgets the beacons that have been silent for too long.
    pub(super) fn expire(&self, table: &Table, now: Instant) {
        let mut gossip = self.gossip.lock();
        let expired = gossip.expire(now);
        if expired.is_empty() {
            return;
        }
        let mut sources = Addresses::clone(&self.sources.load());
        for (source, nodes) in &expired {
            table.unlearn(nodes.iter().map(|node| (*node).into()), *source);
            sources.remove(source);
        }
        self.sources.store(sources.into());
    }
}

impl Overlay {
    /// Tells each listed beacon which nodes are served here, over WSS or UDP; none that we
    /// learnt ourselves.
    pub fn publish(&self) {
        let beacons = self.beacons.listed();
        if beacons.is_empty() {
            return;
        }
        let nodes: Vec<_> = self.table.served().iter().filter_map(Name::node_id).collect();
        let mut packet = Vec::new();
        let published = encode_sync(self.beacon_id(), &nodes, &mut packet);
        let truncated = published < nodes.len();
        if truncated && !self.beacons.truncated.swap(truncated, Ordering::Relaxed) {
            tracing::warn!(
                nodes = nodes.len(),
                published,
                most = MAX_SYNC_NODES,
                "more nodes than one Sync can hold: peer beacons do not learn of all"
            );
        }
        if !truncated {
            self.beacons.truncated.store(false, Ordering::Relaxed);
        }
        let runs: Vec<_> = beacons
            .iter()
            .map(|to| Run { to: *to, from: None, bytes: &packet, segment: packet.len() })
            .collect();
        let shard = self.traffic.shard();
        self.socket_of(0).send(&runs, &mut |_, packets, result| match result {
            Ok(()) => {
                let bytes = packet.len() as u64;
                shard.went_out(Transport::Foreign, Origin::Ours, packets as u64, bytes);
            }
            Err(_) => shard.ours_dropped(packets as u64),
        });
    }

    /// Our id among the beacons; 0 stands alone.
    #[must_use]
    pub fn beacon_id(&self) -> BeaconId {
        self.rules.load().beacon_id
    }
}
