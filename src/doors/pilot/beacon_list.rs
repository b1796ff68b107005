//! The list of beacons: those of the configuration and those of the registry, registered,
//! listed and resolved every 30 s.
//!
//! Nothing waits for anything else: each name is listed as soon as it resolves, whatever the
//! others and the registry do. Configured names and the registry's have a resolver each, so
//! that a registry that lists names which hang delays no configured beacon.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::Overlay;
use crate::config::{Config, HostPort};
use crate::doors::pilot::directory::{Directory, RegistryError};
use crate::ids::BeaconId;
use crate::net::resolve::Resolver;

/// How often beacons are registered, listed and resolved (SPEC §8.3).
const BEACON_INTERVAL: Duration = Duration::from_secs(30);

/// Beacons of the registry that are resolved at most, the first in its order.
const MAX_REGISTERED: usize = 1_024;

type Owned<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Keeps the list of beacons.
pub(super) struct BeaconList {
    overlay: Arc<Overlay>,
    directory: Directory,
    config: watch::Receiver<Arc<Config>>,
    configured: Names,
    registered: Names,
    /// The registration that is under way: one at most.
    registration: FuturesUnordered<Owned<Result<Vec<String>, RegistryError>>>,
    complained: bool,
    too_many: bool,
}

impl BeaconList {
    pub(super) fn new(
        overlay: Arc<Overlay>,
        directory: Directory,
        config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        Self {
            overlay,
            directory,
            config,
            configured: Names::new(Resolver::system()),
            registered: Names::new(Resolver::system()),
            registration: FuturesUnordered::new(),
            complained: false,
            too_many: false,
        }
    }

    pub(super) async fn keep(&mut self) {
        let mut ticks = interval(BEACON_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.refresh(),
                // Where nobody can change it any more, the relay is about to end.
                Ok(()) = self.config.changed() => self.refresh(),
                Some(registered) = self.registration.next() => self.has_registered(registered),
                Some(()) = self.configured.next_answer() => {}
                Some(()) = self.registered.next_answer() => {}
            }
            let names = self.configured.addresses().chain(self.registered.addresses());
            self.overlay.beacons().list(names);
        }
    }

    /// Starts to register, and to resolve all names.
    fn refresh(&mut self) {
        let config = Arc::clone(&self.config.borrow_and_update());
        self.configured.are(config.peers.iter().map(HostPort::to_string));
        self.registered.ask_all();
        let id = self.overlay.beacon_id();
        let registers = config.registry.is_some() && config.beacon_id != BeaconId(0);
        if registers && self.registration.is_empty() {
            let advertised = config.advertise_addr.as_ref().map(HostPort::to_string);
            self.registration.push(Box::pin(register(self.directory.clone(), id, advertised)));
        }
    }

    fn has_registered(&mut self, registered: Result<Vec<String>, RegistryError>) {
        match registered {
            Ok(mut registered) => {
                if mem::take(&mut self.complained) {
                    info!("registered as a beacon again");
                }
                let beacons = registered.len();
                let too_many = beacons > MAX_REGISTERED;
                if too_many && !mem::replace(&mut self.too_many, too_many) {
                    warn!(beacons, limit = MAX_REGISTERED, "the registry lists too many beacons");
                }
                self.too_many = too_many;
                registered.truncate(MAX_REGISTERED);
                self.registered.are(registered);
            }
            Err(error) => {
                // The beacons that were registered stay listed until the registry answers.
                if !mem::replace(&mut self.complained, true) {
                    warn!(%error, "cannot register as a beacon: trying again every 30 s");
                }
            }
        }
    }
}

/// Registers this beacon, and returns the addresses of the others.
async fn register(
    directory: Directory,
    id: BeaconId,
    advertised: Option<String>,
) -> Result<Vec<String>, RegistryError> {
    if let Some(address) = advertised {
        directory.register_beacon(id, &address).await?;
    }
    let beacons = directory.beacons().await?;
    Ok(beacons.into_iter().filter(|beacon| beacon.id != id).map(|b| b.address).collect())
}

/// Names, and what each last resolved to.
struct Names {
    resolver: Resolver,
    /// A name that cannot be resolved keeps what it had.
    known: HashMap<String, Vec<SocketAddr>>,
    look_ups: FuturesUnordered<Owned<(String, io::Result<Vec<SocketAddr>>)>>,
    /// The names of `look_ups`.
    asked: HashSet<String>,
}

impl Names {
    fn new(resolver: Resolver) -> Self {
        let (known, look_ups, asked) = (HashMap::new(), FuturesUnordered::new(), HashSet::new());
        Self { resolver, known, look_ups, asked }
    }

    /// Forgets all other names, and starts to resolve these.
    fn are(&mut self, names: impl IntoIterator<Item = String>) {
        let mut known = mem::take(&mut self.known);
        for name in names {
            let addresses = known.remove(&name).unwrap_or_default();
            self.known.insert(name, addresses);
        }
        self.ask_all();
    }

    /// Starts a look-up of each name that has none under way.
    fn ask_all(&mut self) {
        for name in self.known.keys() {
            // Names that were forgotten since count until their look-ups end, so that a list
            // that changes each time has no more of them.
            let full = self.asked.len() >= self.known.len().max(MAX_REGISTERED);
            if full || self.asked.contains(name) {
                continue;
            }
            self.asked.insert(name.clone());
            let (resolver, name) = (self.resolver.clone(), name.clone());
            self.look_ups.push(Box::pin(async move {
                let found = resolver.resolve_authority(&name).await;
                (name, found)
            }));
        }
    }

    /// Takes in the next answer; `None` while no look-up is under way. Cancel-safe.
    async fn next_answer(&mut self) -> Option<()> {
        let (name, found) = self.look_ups.next().await?;
        self.asked.remove(&name);
        match found {
            Ok(found) => {
                if let Some(addresses) = self.known.get_mut(&name) {
                    *addresses = found;
                }
            }
            Err(error) => debug!(server = %name, %error, "cannot resolve a beacon"),
        }
        Some(())
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.known.values().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::sync::mpsc;

    use tempfile::TempDir;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::config::{Flags, Layers, PunchAllow, Surroundings};
    use crate::doors::pilot::directory::{RegistrySettings, Settings};
    use crate::doors::pilot::{Beacons, PunchRules, Rules};
    use crate::net::bind::FreeBind;
    use crate::peers::Table;
    use crate::proto::limit::{Rate, SourceRates};
    use crate::proto::translators::Translators;
    use crate::relay::Router;

    fn overlay(directory: &Directory) -> Arc<Overlay> {
        let none = SourceRates { packets: Rate::NONE, bytes: Rate::NONE };
        let rules = Rules {
            beacon: none,
            discover: Rate::NONE,
            translators: Translators::default(),
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
        let sockets = crate::udp::open(([127, 0, 0, 1], 0).into(), 1, FreeBind::Off).unwrap();
        let (table, beacons) =
            (Arc::new(Table::new(1, 1)), Beacons::new(false, Translators::default()));
        let router = Router::new(table, Arc::default(), none, None);
        Overlay::new(router, directory.clone(), sockets, rules, beacons).0
    }

    /// The list of a relay with this registry and these `--peers`.
    fn list(registry: &str, peers: &str) -> (BeaconList, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().to_owned();
        let mut flags = Flags::state_dir(Some(state_dir.display().to_string()));
        for (key, text) in [
            ("registry", registry),
            ("beacon_id", "7"),
            ("advertise_addr", "192.0.2.9:9001"),
            ("peers", peers),
        ] {
            flags.add(key, text.to_owned());
        }
        let layers = Layers::collect(flags, &Surroundings::of_this_process()).unwrap();
        let config = watch::channel(Arc::new(Config::new(&layers).unwrap())).1;
        let address = registry.to_owned();
        let registry = Some(RegistrySettings::new(address));
        let directory = Directory::open(Settings { keys: None, registry, state_dir }).unwrap();
        (BeaconList::new(overlay(&directory), directory, config), folder)
    }

    /// Keeps the list until exactly these addresses are on it.
    async fn keep_until_listed(beacons: &mut BeaconList, expected: &[&str]) {
        let overlay = Arc::clone(&beacons.overlay);
        let listed = async || {
            loop {
                let mut listed: Vec<_> =
                    overlay.beacons().listed().iter().map(SocketAddr::to_string).collect();
                listed.sort();
                if listed == expected {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = beacons.keep() => unreachable!("it is kept until the end"),
            listed = timeout(Duration::from_secs(10), listed()) => listed.unwrap(),
        }
    }

    /// A resolver whose names that begin with `dead` hang until the sender is dropped.
    fn resolver() -> (Resolver, mpsc::Sender<()>) {
        let (release, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let resolver = Resolver::new(32, move |host| {
            if host.starts_with("dead") {
                let _released = hang.lock().unwrap().recv();
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(vec![([192, 0, 2, 1], 0).into()])
        });
        (resolver, release)
    }

    #[tokio::test]
    async fn configured_beacons_are_listed_while_the_registry_is_down() {
        let (mut beacons, _folder) = list("127.0.0.1:1", "192.0.2.1:9001");
        keep_until_listed(&mut beacons, &["192.0.2.1:9001"]).await;
        while !beacons.complained {
            let registered = beacons.registration.next().await.unwrap();
            beacons.has_registered(registered);
        }
        assert_eq!(beacons.overlay.beacons().listed().len(), 1);
    }

    #[tokio::test]
    async fn dead_names_and_a_silent_registry_delay_no_good_beacon() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = (0..6).map(|n| format!("dead{n}.test:9001")).collect::<Vec<_>>().join(",");
        let registry = silent.local_addr().unwrap().to_string();
        let (mut beacons, _folder) = list(&registry, &format!("{dead},good.test:9001"));
        let (resolver, _hang) = resolver();
        beacons.configured.resolver = resolver;
        keep_until_listed(&mut beacons, &["192.0.2.1:9001"]).await;
        assert_eq!(beacons.configured.asked.len(), 6, "those that hang are asked for once");
        assert_eq!(beacons.registration.len(), 1);
        beacons.refresh();
        assert_eq!(beacons.configured.look_ups.len(), 7, "and are not asked for again");
        assert_eq!(beacons.registration.len(), 1);
    }

    #[tokio::test]
    async fn name_that_fails_keeps_its_addresses_until_it_is_forgotten() {
        let (resolver, release) = resolver();
        drop(release);
        let mut names = Names::new(resolver);
        names.known.insert("dead.test:1".to_owned(), vec![([192, 0, 2, 7], 1).into()]);
        names.are(["dead.test:1".to_owned(), "good.test:1".to_owned()]);
        while names.next_answer().await.is_some() {}
        assert_eq!(names.addresses().count(), 2);
        names.are(["good.test:1".to_owned()]);
        assert_eq!(names.addresses().collect::<Vec<_>>(), [([192, 0, 2, 1], 1).into()]);
        assert!(names.asked.len() == names.look_ups.len());
    }
}
