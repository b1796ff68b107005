//! The message bus of a relay without a cluster, whose log is in NATS: it begins when this relay
//! leads that, which may be long after the start. Sessions reach it without a front between.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::front::{Log, Role, Status, unled};
use super::{Bus, Health, PATIENCE, Settings, Trouble, Unanswered};
use crate::ids::RelayId;
use crate::store::{Leadership, Store};
use crate::wire::name::Realm;

/// The message bus of a relay alone.
pub struct Alone {
    relay: RelayId,
    log: Arc<dyn Log>,
    /// What this relay has of what is stored, as long as there is no bus.
    store: Arc<dyn Store>,
    /// The bus, and since when there is one.
    bus: OnceLock<(Arc<Bus>, Instant)>,
    /// There is a bus.
    began: Notify,
    /// Since when this waits for one.
    waits_since: Instant,
    ended: CancellationToken,
    /// What a bus is told that begins later.
    told: Mutex<Told>,
}

/// What a bus is told when it begins.
#[derive(Default)]
struct Told {
    settings: Option<Settings>,
    reserved: BTreeMap<u8, Vec<String>>,
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alone").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Alone {
    /// A relay with this log, and with this of what is stored; [`Self::run`] has to run.
    #[must_use]
    pub fn new(relay: RelayId, store: Arc<dyn Store>, log: Arc<dyn Log>) -> Arc<Self> {
        Arc::new(Self {
            relay,
            log,
            store,
            bus: OnceLock::new(),
            began: Notify::new(),
            waits_since: Instant::now(),
            ended: CancellationToken::new(),
            told: Mutex::default(),
        })
    }

    /// Starts the bus once this relay leads; until that ends. A relay that was replaced has to be
    /// started again.
    pub async fn run(self: Arc<Self>) {
        let _ended = self.ended.clone().drop_guard();
        let mut leadership = self.log.leadership();
        let epoch = loop {
            if let Leadership::Here { epoch } = *leadership.borrow_and_update() {
                break epoch;
            }
            if leadership.changed().await.is_err() {
                return;
            }
        };
        let log = Arc::clone(&self.log);
        let started = spawn_blocking(move || log.start(epoch)).await;
        match started.expect("starting does not panic") {
            Ok(bus) => {
                self.begin(&bus);
                bus.ended().await;
            }
            Err(error) => error!(%error, epoch, "the message bus cannot start"),
        }
    }

    fn begin(&self, bus: &Arc<Bus>) {
        let told = self.told.lock();
        if let Some(settings) = &told.settings {
            bus.update(settings.clone());
        }
        for (realm, names) in &told.reserved {
            bus.reserve(Realm(*realm), names.clone());
        }
        self.bus.get_or_init(|| (Arc::clone(bus), Instant::now()));
        drop(told);
        self.began.notify_waiters();
    }

    /// The bus, where it has begun.
    #[must_use]
    pub fn bus(&self) -> Option<&Arc<Bus>> {
        self.bus.get().map(|(bus, _)| bus)
    }

    /// The bus, once it has begun.
    ///
    /// # Errors
    /// It does not within 10 s.
    pub async fn begun(&self) -> Result<&Arc<Bus>, Unanswered> {
        let begun = async {
            loop {
                let began = self.began.notified();
                if let Some(bus) = self.bus() {
                    return bus;
                }
                began.await;
            }
        };
        timeout(PATIENCE, begun).await.map_err(|_| Unanswered::Unavailable(self.waits()))
    }

    /// Why there is no bus.
    fn waits(&self) -> Trouble {
        let known = *self.log.leadership().borrow();
        let reason = match (known, self.log.outage()) {
            (Leadership::There { relay, .. }, None) => format!(
                "relay {relay} leads the messages in NATS, and this one is not of its cluster"
            ),
            _ => unled(&*self.log),
        };
        Trouble { reason, since: self.waits_since }
    }

    /// Goes on by these settings.
    pub fn update(&self, settings: Settings) {
        let mut told = self.told.lock();
        match self.bus() {
            Some(bus) => bus.update(settings),
            None => told.settings = Some(settings),
        }
    }

    /// Has these names of a realm, and no others, be known although their owners have not come yet.
    pub fn reserve(&self, realm: Realm, names: Vec<String>) {
        let mut told = self.told.lock();
        match self.bus() {
            Some(bus) => bus.reserve(realm, names),
            None => drop(told.reserved.insert(realm.0, names)),
        }
    }

    /// What is stored, as far as this relay has it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        self.bus().map_or_else(|| Arc::clone(&self.store), |bus| bus.store())
    }

    /// Waits until the bus, or what waits for it, has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Commits what has come so far, and ends.
    pub async fn stop(&self) {
        if let Some(bus) = self.bus() {
            bus.stop().await;
        }
    }

    /// Whether messages are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        let Some(bus) = self.bus() else { return Health::Unavailable(self.waits()) };
        match (bus.health(), self.log.outage()) {
            // A bus that has nothing to commit does not notice.
            (Health::Serving, Some(outage)) if !self.log.may_serve() => {
                Health::Unavailable(outage.into())
            }
            (health, _) => health,
        }
    }

    /// The bus at this moment; nothing is counted that lies between relays.
    #[must_use]
    pub fn status(&self) -> Status {
        let health = self.health();
        let (role, leader, epoch) = match *self.log.leadership().borrow() {
            Leadership::Here { epoch } if self.bus().is_some() => {
                (Role::Leads, Some(self.relay), Some(epoch))
            }
            Leadership::There { relay, .. } => (Role::Waits, Some(relay), None),
            Leadership::Here { .. } | Leadership::Nobody => (Role::Waits, None, None),
        };
        let since = self.bus.get().map_or(self.waits_since, |(_, since)| *since);
        Status {
            role,
            leader: leader.map(|relay| relay.to_string()),
            epoch,
            seconds: since.elapsed().as_secs(),
            unanswered_bytes: 0,
            unanswered_seconds: 0,
            sessions: 0,
            names: 0,
            trouble: (health != Health::Serving).then(|| health.to_string()),
        }
    }
}
