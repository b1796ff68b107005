//! Other hubs that this relay is a client of: it publishes records of its channels to them, and
//! takes what they have on theirs.
//!
//! Towards the bus each is a peer of its own: its cursors say what it has, so that nothing is lost
//! over an outage of either. A record does not go back to the hub that it came from, nor in a ring,
//! since routes name all hubs that it has passed. In a cluster the relay that leads has the
//! connections.

mod inward;
mod outward;
mod party;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use prometheus::proto::MetricFamily;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{REALM, Shared, owner};
use crate::bus::{Address, Subscription};
use crate::client::keyop::{Client, HubName, Identity, Options, State as ClientState, Transport};
use crate::config::{Config, HubFiles, KeyopHub, KeyopTransport, MOST_KEYOP_RECORD};
use crate::peers::Table;
use crate::proto::bus::Owner;

use self::party::{FromBus, Party};
use self::status::{Meters, State};

/// Wait before a hub that has refused us is asked again: a person has to do something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// Wait before another attempt where the bus has no room, or does not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two looks at who leads.
const LOOK: Duration = Duration::from_secs(1);

/// Batches of the bus that wait: one is under way, and may have come again.
const BATCHES: usize = 4;

/// All of them.
pub(super) struct Hubs {
    hubs: Vec<Hub>,
    meters: Arc<Meters>,
}

/// One of them.
struct Hub {
    settings: KeyopHub,
    options: Options,
    shared: Arc<Shared>,
    table: Arc<Table>,
    meters: Arc<Meters>,
    /// Where it stands in the meters.
    number: usize,
}

/// Why the connections to a hub are given up for a while.
enum Over {
    /// Another relay leads.
    Deposed,
    /// The hub has refused us.
    Refused(String),
    /// Something that another attempt may mend.
    Failed(&'static str),
}

impl Hubs {
    /// Those of the configuration.
    pub(super) fn new(config: &Config, shared: &Arc<Shared>, table: &Arc<Table>) -> Arc<Self> {
        let settings = config.keyop.as_ref().map_or(&[][..], |keyop| &keyop.hubs);
        let meters = Arc::new(Meters::new(settings.len()));
        let hub = |(number, settings): (usize, &KeyopHub)| Hub {
            options: options(config, settings, &shared.hub),
            settings: settings.clone(),
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            meters: Arc::clone(&meters),
            number,
        };
        let hubs = settings.iter().enumerate().map(hub).collect();
        Arc::new(Self { hubs, meters })
    }

    /// Whether there is one.
    pub(super) const fn are_some(&self) -> bool {
        !self.hubs.is_empty()
    }

    /// Keeps up the connections, for good.
    pub(super) async fn run(self: Arc<Self>) {
        join_all(self.hubs.iter().map(Hub::run)).await;
    }

    /// Appends the families of a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        if self.are_some() {
            self.meters.families(families);
        }
    }
}

/// What the client of a hub is told.
fn options(config: &Config, hub: &KeyopHub, own_name: &str) -> Options {
    let files = config.keyop_hub_files(hub);
    let files = files.expect("they were found when the configuration was read");
    let HubFiles { pair, authorities } = files;
    let KeyopHub { name, address, transport, subscribe, publish, .. } = hub;
    let identity = Identity::new(&pair.cert, &pair.key);
    Options::new(address, own_name, identity, authorities)
        .transport(match transport {
            KeyopTransport::Grpc => Transport::Grpc,
            KeyopTransport::WebSocket => Transport::WebSocket,
        })
        .hub_name(HubName::Is(name.clone()))
        .subscribe(subscribe.iter().cloned().collect::<Vec<_>>())
        .publish(publish.iter().cloned().collect::<Vec<_>>())
        .max_record(MOST_KEYOP_RECORD)
}

impl Hub {
    async fn run(&self) {
        loop {
            self.note(State::Standby);
            while self.shared.bus.leading().is_none() {
                sleep(LOOK).await;
            }
            self.note(State::Connecting);
            match self.serve().await {
                Over::Deposed => {}
                Over::Failed(reason) => {
                    self.note(State::Waiting);
                    tracing::debug!(hub = %self.settings.name, reason, "a hub is tried again");
                    sleep(PAUSE).await;
                }
                Over::Refused(reason) => {
                    self.note(State::Refused);
                    tracing::warn!(
                        hub = %self.settings.name,
                        reason,
                        retry_s = REFUSED_PAUSE.as_secs(),
                        "a hub refuses this one"
                    );
                    sleep(REFUSED_PAUSE).await;
                }
            }
        }
    }

    fn note(&self, state: State) {
        self.meters.note(self.number, state);
    }

    /// Has one client until something ends it.
    async fn serve(&self) -> Over {
        // No certificate has a control character in its name.
        let name: Arc<str> = format!("hub\u{1f}{}", self.settings.name).into();
        let claimed = self.shared.bus.claim(REALM, Arc::clone(&name), Owner(owner(&name))).await;
        let Ok(address) = claimed else { return Over::Failed("the bus does not know its name") };
        let client = match Client::start(self.options.clone()) {
            Ok(client) => client,
            Err(error) => return Over::Refused(error.to_string()),
        };
        let (publisher, mut receiver, state) = client.split();
        let (to_hub, mut from_bus) = mpsc::channel(BATCHES);
        let (party, current) = watch::channel(None);
        let link = Link { hub: self, address: &address, to_hub, party };
        tokio::select! {
            over = self.deposed() => over,
            over = link.follow(state) => over,
            over = self.take(&mut receiver, &address, current) => over,
            over = self.publish(&publisher, &address, &mut from_bus) => over,
        }
    }

    /// Waits until another relay leads.
    async fn deposed(&self) -> Over {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.shared.bus.leading().is_some() {
            looks.tick().await;
        }
        Over::Deposed
    }
}

/// A hub as the bus sees it, while there is a session with it.
struct Link<'a> {
    hub: &'a Hub,
    address: &'a Address,
    to_hub: mpsc::Sender<FromBus>,
    party: watch::Sender<Option<Arc<Party>>>,
}

impl Link<'_> {
    /// Has the bus deliver as long as there is a session.
    async fn follow(self, mut state: watch::Receiver<ClientState>) -> Over {
        loop {
            let now = state.borrow_and_update().clone();
            let is_away = self.hub.meters.state(self.hub.number) == State::Waiting;
            match now {
                ClientState::Connected => self.open(),
                // A hub that is dialed again is away until it is there.
                ClientState::Connecting if is_away => {}
                ClientState::Connecting => self.close(State::Connecting),
                ClientState::Waiting { delay, cause } => {
                    self.close(State::Waiting);
                    let (hub, retry_ms) = (&self.hub.settings.name, delay.as_millis());
                    if is_away {
                        tracing::debug!(%hub, %cause, retry_ms, "a hub cannot be reached");
                    } else {
                        tracing::warn!(%hub, %cause, retry_ms, "a hub cannot be reached");
                    }
                }
            }
            if state.changed().await.is_err() {
                // The receiving half says why.
                return std::future::pending().await;
            }
        }
    }

    fn open(&self) {
        let Hub { shared, table, settings, .. } = self.hub;
        let party = Party::new(table.generation(), self.to_hub.clone());
        let as_seen: Arc<dyn crate::bus::Party> = Arc::clone(&party) as _;
        shared.bus.open(self.address, &as_seen);
        let channels = settings.publish.iter().map(|name| Arc::from(name.as_str())).collect();
        let subscription = Subscription { channels, is_ephemeral: false };
        shared.bus.subscribe(self.address, &as_seen, subscription);
        self.hub.note(State::Connected);
        tracing::info!(hub = %settings.name, "connected to a hub");
        self.party.send_replace(Some(party));
    }

    fn close(&self, state: State) {
        self.hub.note(state);
        if let Some(party) = self.party.send_replace(None) {
            self.hub.shared.bus.close(self.address, party.number());
        }
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        self.close(State::Standby);
    }
}
