//! What happens by the clock, beside the packets: sweeps, gossip, the registry's beacons, and
//! the start of what watches keys.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::withdrawals;
use crate::config::{Config, HostPort};
use crate::directory::{Directory, RegistryError};
use crate::ids::{BeaconId, NodeId};
use crate::peers::Table;
use crate::proto::endpoint::SWEEP_INTERVAL;
use crate::proto::gossip::SYNC_INTERVAL;
use crate::relay::{GrantQueue, Relay};

/// How often beacons are registered, listed and resolved (SPEC §8.3).
const BEACON_INTERVAL: Duration = Duration::from_secs(30);

/// How often silent gossip sources are looked for: several times in their 90 s.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn start(
    tasks: &mut JoinSet<()>,
    stopping: &CancellationToken,
    config: watch::Receiver<Arc<Config>>,
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
    let has_registry = config.borrow().registry.is_some();
    let beacons = BeaconList {
        relay: Arc::clone(relay),
        directory: directory.clone(),
        config,
        registered: Vec::new(),
        resolved: HashMap::new(),
        complained: false,
    };
    spawn(Box::pin(beacons.keep()));
    spawn(Box::pin(withdrawals::end_sessions(Arc::clone(table), directory.clone())));
    if has_registry {
        spawn(Box::pin(withdrawals::recheck(Arc::clone(table), directory.clone())));
        spawn(Box::pin(withdrawals::judge(Arc::clone(table), directory.clone())));
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
    config: watch::Receiver<Arc<Config>>,
    /// What the registry named last.
    registered: Vec<String>,
    /// The addresses of each name, those of a name that cannot be resolved at the moment
    /// among them.
    resolved: HashMap<String, Vec<SocketAddr>>,
    complained: bool,
}

impl BeaconList {
    async fn keep(mut self) {
        let mut ticks = interval(BEACON_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Where nobody can change it any more, the relay is about to end.
                Ok(()) = self.config.changed() => {}
            }
            self.refresh().await;
        }
    }

    async fn refresh(&mut self) {
        let config = Arc::clone(&self.config.borrow_and_update());
        if config.registry.is_some() && config.beacon_id != BeaconId(0) {
            match self.register(config.advertise_addr.as_ref()).await {
                Ok(registered) => {
                    self.registered = registered;
                    if std::mem::take(&mut self.complained) {
                        info!("registered as a beacon again");
                    }
                }
                Err(error) => {
                    // The beacons that were registered stay listed until the registry answers.
                    if !std::mem::replace(&mut self.complained, true) {
                        warn!(%error, "cannot register as a beacon: trying again every 30 s");
                    }
                }
            }
        }
        let configured = config.peers.iter().map(HostPort::to_string);
        let mut resolved = HashMap::new();
        for name in configured.chain(self.registered.iter().cloned()) {
            let addresses = match lookup_host(&name).await {
                Ok(found) => found.collect(),
                Err(error) => {
                    debug!(server = %name, %error, "cannot resolve a beacon");
                    self.resolved.remove(&name).unwrap_or_default()
                }
            };
            resolved.insert(name, addresses);
        }
        self.resolved = resolved;
        self.relay.beacons().list(self.resolved.values().flatten().copied());
    }

    /// Registers this beacon, and returns the addresses of the others.
    async fn register(&self, advertised: Option<&HostPort>) -> Result<Vec<String>, RegistryError> {
        let id = self.relay.beacon_id();
        if let Some(address) = advertised {
            self.directory.register_beacon(id, &address.to_string()).await?;
        }
        let beacons = self.directory.beacons().await?;
        Ok(beacons.into_iter().filter(|beacon| beacon.id != id).map(|b| b.address).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Layers, PunchAllow, Surroundings};
    use crate::directory::{RegistrySettings, Settings};
    use crate::proto::limit::{Rate, SourceRates};
    use crate::relay::{Beacons, PunchRules, Rules};

    fn directory(registry: Option<&str>) -> (Directory, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry.map(|address| RegistrySettings {
            address: address.to_owned(),
            tls: None,
            admin_token: None,
        });
        let settings = Settings { keys: None, registry, state_dir: folder.path().to_owned() };
        (Directory::open(settings).unwrap(), folder)
    }

    fn relay(directory: &Directory) -> Arc<Relay> {
        let none = SourceRates { packets: Rate::NONE, bytes: Rate::NONE };
        let rules = Rules {
            source: none,
            beacon: none,
            observed_senders_only: false,
            loopback: true,
            own: Vec::new(),
            beacon_id: BeaconId(7),
            punch: PunchRules {
                rate: Rate::NONE,
                allow: PunchAllow::Everyone,
                require_grant: false,
            },
        };
        let sockets = crate::udp::open(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let (table, beacons) = (Arc::new(Table::new(1, 1)), Beacons::new(false));
        Relay::new(table, Arc::default(), directory.clone(), sockets, rules, beacons, None).0
    }

    #[tokio::test(start_paused = true)]
    async fn configured_beacons_are_listed_while_the_registry_is_down() {
        let (directory, folder) = directory(Some("127.0.0.1:1"));
        let mut flags = Flags::state_dir(Some(folder.path().display().to_string()));
        for (key, text) in [
            ("registry", "127.0.0.1:1"),
            ("beacon_id", "7"),
            ("advertise_addr", "192.0.2.9:9001"),
            ("peers", "192.0.2.1:9001"),
        ] {
            flags.add(key, text.to_owned());
        }
        let layers = Layers::collect(flags, &Surroundings::of_this_process()).unwrap();
        let config = Config::new(&layers).unwrap();
        let mut beacons = BeaconList {
            relay: relay(&directory),
            directory,
            config: watch::channel(Arc::new(config)).1,
            registered: Vec::new(),
            resolved: HashMap::new(),
            complained: false,
        };
        beacons.refresh().await;
        assert!(beacons.complained);
        assert_eq!(beacons.relay.beacons().listed(), ["192.0.2.1:9001".parse().unwrap()]);
    }
}
