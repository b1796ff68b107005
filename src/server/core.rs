//! What every part of a running relay knows.

use std::sync::Arc;

use super::settings;
use crate::bus::Handle;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::doors::pilot::directory::Directory;
use crate::doors::pilot::{Beacons, GrantQueue, Overlay};
use crate::metrics::Traffic;
use crate::net::udp::Datagrams;
use crate::peers::Table;
use crate::relay::{Router, Switches};

/// Who is reachable, who may be, what is counted, and what routes. Made once, before anybody
/// comes.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) table: Arc<Table>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) directory: Directory,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) router: Arc<Router>,
    /// What keeps messages, where a listener has a door with some.
    pub(super) bus: Option<Handle>,
    /// What the Pilot door's nodes and beacons send.
    pub(super) overlay: Arc<Overlay>,
}

impl Core {
    /// The core of a relay that sends over these sockets.
    pub(super) fn new(
        config: &Config,
        directory: Directory,
        traffic: Arc<Traffic>,
        cluster: Option<Arc<Cluster>>,
        sockets: &[Arc<dyn Datagrams>],
        bus: Option<Handle>,
    ) -> (Arc<Self>, GrantQueue) {
        let udp_address = sockets.first().expect("at least one was opened").address();
        let table = Table::new(config.max_peers, config.max_nodes);
        let table = Arc::new(table.with_translators(config.translators.clone()));
        if cluster.is_some() {
            // Before anybody comes.
            table.watch();
        }
        let beacons = Beacons::new(config.open_gossip, config.translators.clone());
        // Before the first packet: what is a beacon's is no node's. Names follow in the background.
        beacons.list(settings::beacons(config));
        let rates = settings::rates(config, 1);
        let router = Router::new(Arc::clone(&table), Arc::clone(&traffic), rates, cluster.clone());
        let (overlay, grants) = Overlay::new(
            Arc::clone(&router),
            directory.clone(),
            sockets.to_vec(),
            settings::rules(config, udp_address),
            beacons,
        );
        (Arc::new(Self { table, traffic, directory, cluster, router, bus, overlay }), grants)
    }

    /// What operators can switch off.
    pub(super) fn switches(&self) -> Switches {
        let [punching, discovering] = self.overlay.switches();
        let relaying = self.router.relaying();
        Switches([punching, relaying, discovering].map(Arc::clone).to_vec())
    }
}
