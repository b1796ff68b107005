//! What happens by the clock, beside the packets: sweeps, gossip, the registry, and keys
//! that change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::{Config, HostPort};
use crate::directory::{Change, Directory, Lookup};
use crate::ids::{BeaconId, NodeId};
use crate::peers::{End, Table};
use crate::proto::endpoint::SWEEP_INTERVAL;
use crate::proto::gossip::SYNC_INTERVAL;
use crate::relay::{GrantQueue, Relay};
use crate::wss::Session;

/// How often beacons are registered, listed and resolved (SPEC §8.4).
const BEACON_INTERVAL: Duration = Duration::from_secs(30);

/// How often silent gossip sources are looked for: several times in their 90 s.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(10);

/// In this time each connected node's key is looked up once more, so that one that the
/// registry has withdrawn ends its session: the time for which a cached key is fresh.
const RECHECK_INTERVAL: Duration = Duration::from_secs(300);

pub(super) fn start(
    tasks: &mut JoinSet<()>,
    stopping: &CancellationToken,
    config: &Config,
    relay: &Arc<Relay>,
    table: &Arc<Table<NodeId>>,
    directory: &Directory,
    grants: GrantQueue,
) {
    let mut spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stopping = stopping.clone();
        tasks.spawn(async move {
            let _stopped = stopping.run_until_cancelled(task).await;
        });
    };
    spawn(Box::pin(Arc::clone(relay).verify_grants(grants)));
    spawn(Box::pin(sweep(Arc::clone(relay))));
    spawn(Box::pin(publish(Arc::clone(relay))));
    let beacons = BeaconList {
        relay: Arc::clone(relay),
        directory: directory.clone(),
        configured: config.peers.clone(),
        advertised: config.advertise_addr.clone(),
        registering: config.registry.is_some() && config.beacon_id != BeaconId(0),
        registered: Vec::new(),
        complained: false,
    };
    spawn(Box::pin(beacons.keep()));
    spawn(Box::pin(withdraw_keys(Arc::clone(table), directory.clone())));
    if config.registry.is_some() {
        spawn(Box::pin(recheck_keys(Arc::clone(table), directory.clone())));
    }
}

async fn sweep(relay: Arc<Relay>) {
    let mut ticks = interval(EXPIRE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        relay.expire_beacons(now);
        if now >= swept + SWEEP_INTERVAL {
            relay.sweep(now);
            swept = now;
        }
    }
}

async fn publish(relay: Arc<Relay>) {
    let mut ticks = interval(SYNC_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        relay.publish();
    }
}

/// Keeps the list of beacons: those of the configuration, and those of the registry.
struct BeaconList {
    relay: Arc<Relay>,
    directory: Directory,
    configured: Vec<HostPort>,
    advertised: Option<HostPort>,
    registering: bool,
    /// What the registry said last.
    registered: Vec<String>,
    complained: bool,
}

impl BeaconList {
    async fn keep(mut self) {
        let mut ticks = interval(BEACON_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.refresh().await;
        }
    }

    async fn refresh(&mut self) {
        if self.registering {
            match self.register().await {
                Ok(registered) => {
                    self.registered = registered;
                    if std::mem::take(&mut self.complained) {
                        info!("registered as a beacon again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        warn!(%error, "cannot register as a beacon: trying again every 30 s");
                    }
                }
            }
        }
        let configured = self.configured.iter().map(HostPort::to_string);
        let mut addresses = Vec::new();
        for name in configured.chain(self.registered.iter().cloned()) {
            match lookup_host(&name).await {
                Ok(found) => addresses.extend(found),
                Err(error) => debug!(server = %name, %error, "cannot resolve a beacon"),
            }
        }
        self.relay.beacons().list(addresses);
    }

    /// Registers this beacon, and returns the addresses of the others.
    async fn register(&self) -> Result<Vec<String>, crate::directory::RegistryError> {
        let id = self.relay.beacon_id();
        if let Some(address) = &self.advertised {
            self.directory.register_beacon(id, &address.to_string()).await?;
        }
        let beacons = self.directory.beacons().await?;
        Ok(beacons.into_iter().filter(|beacon| beacon.id != id).map(|b| b.address).collect())
    }
}

/// Ends the sessions of nodes whose key was removed or changed.
async fn withdraw_keys(table: Arc<Table<NodeId>>, directory: Directory) {
    loop {
        let sessions = match directory.next_change().await {
            Change::Node(node) => table.session(node).into_iter().collect(),
            Change::Any => table.all_sessions(),
        };
        for session in sessions {
            end_if_withdrawn(&session, &directory).await;
        }
    }
}

/// Looks the keys of connected nodes up once more, spread over the interval.
async fn recheck_keys(table: Arc<Table<NodeId>>, directory: Directory) {
    loop {
        let sessions = table.all_sessions();
        let pause = RECHECK_INTERVAL / u32::try_from(sessions.len() + 1).unwrap_or(u32::MAX);
        for session in sessions {
            sleep(pause).await;
            end_if_withdrawn(&session, &directory).await;
        }
        sleep(pause).await;
    }
}

async fn end_if_withdrawn(session: &Session, directory: &Directory) {
    let withdrawn = match directory.lookup(session.id()).await {
        Lookup::Key(key) => key != session.principal.credential,
        Lookup::Unknown => true,
        // A registry that is down disconnects nobody.
        Lookup::Unavailable => false,
    };
    if withdrawn && session.is_open() {
        info!(node = %session.id(), "ended a session: the node's key was removed or changed");
        session.end(End::KeyWithdrawn);
    }
}
