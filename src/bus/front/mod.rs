//! The message bus of a cluster, as each of its relays has it: a front for the doors here, and
//! while this relay leads, the bus itself behind a host for the fronts of all relays.
//!
//! What is decided is in [`crate::proto::front`]. Sessions talk to the leader over a channel to its
//! relay, or where that is this one, over a queue: both keep the order, and end nobody's wait.

mod actions;
mod channels;
mod lead;
mod links;
mod log;
mod meters;
mod outcome;
mod roles;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use self::lead::Lead;
use self::links::{Ear, LOOP, Links};
use self::meters::Meters;
use self::status::{Led, Waiting};
use super::{Bus, ClaimError, NotClaimed, PATIENCE, Party, Published, Settings, Unanswered};
use crate::ids::RelayId;
use crate::proto::bus::{Owner, Subscription, To};
use crate::proto::front::{self as proto, Action, Claim, Limits, LinkId};
use crate::store::Store;
use crate::wire::front::{ClaimOutcome, Message};
use crate::wire::name::Realm;

pub use log::Log;
pub use roles::follow;
pub(in crate::bus) use status::unled;
pub use status::{Role, Status};

/// The realm of the channels between relays of one message bus: no door has it.
pub const CHANNELS: Realm = Realm(255);

/// What sessions have said that has no answer: of one of them, and of all.
const UNANSWERED: Limits = Limits { of_one: 256 * 1_024, of_all: 64 << 20 };

/// Most claims and questions that wait for a leader.
const MOST_ASKED: usize = 1_024;

/// How often what is due is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Answers questions of relays, each some time. Does not wait.
pub type Answers = Box<dyn Fn(Vec<u8>, Answered) + Send + Sync>;

/// Takes an answer.
pub type Answered = Box<dyn FnOnce(Vec<u8>) + Send>;

/// What is told of the names that have a session at some relay. Nothing here may wait.
pub trait Names: Send + Sync {
    /// A name has one.
    fn came(&self, name: &Arc<str>);

    /// A name has none any more.
    fn went(&self, name: &Arc<str>);
}

/// The message bus of a cluster, at one relay.
pub struct Front {
    state: Mutex<State>,
    links: Arc<Links>,
    answers: Arc<OnceLock<Answers>>,
    lead: RwLock<Option<Arc<Lead>>>,
    /// What says who leads.
    log: Arc<dyn Log>,
    /// Numbers of claims and questions.
    requests: AtomicU64,
    /// What this relay has of what is stored.
    store: Arc<dyn Store>,
    /// Cancelled when what follows the log has ended.
    ended: CancellationToken,
    is_stopping: AtomicBool,
    /// What the bus of a leader is told of each realm's names.
    reserved: Mutex<BTreeMap<u8, Vec<String>>>,
    /// Settings that came since the start.
    settings: Mutex<Option<Settings>>,
    meters: Meters,
    /// This relay.
    relay: RelayId,
}

/// What is locked together: what the front decides is done before it decides anything else.
struct State {
    front: proto::Front,
    parties: BTreeMap<u64, Arc<dyn Party>>,
    claims: BTreeMap<u64, oneshot::Sender<ClaimOutcome>>,
    asked: BTreeMap<u64, oneshot::Sender<Option<Vec<u8>>>>,
    names: BTreeMap<u8, Weak<dyn Names>>,
    led: Led,
    waiting: Waiting,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Front {
    /// A front without links, at a relay that has this of what is stored, and of the log;
    /// [`Self::run`] has to run, and [`follow`].
    #[must_use]
    pub fn new(relay: RelayId, store: Arc<dyn Store>, log: Arc<dyn Log>) -> Arc<Self> {
        let mut front = proto::Front::new(UNANSWERED);
        front.link_up(LOOP);
        let state = State {
            front,
            parties: BTreeMap::new(),
            claims: BTreeMap::new(),
            asked: BTreeMap::new(),
            names: BTreeMap::new(),
            led: Led::nobody(Instant::now()),
            waiting: Waiting::nothing(Instant::now()),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            links: Arc::default(),
            answers: Arc::default(),
            lead: RwLock::default(),
            log,
            requests: AtomicU64::new(1),
            store,
            ended: CancellationToken::new(),
            is_stopping: AtomicBool::new(false),
            reserved: Mutex::default(),
            settings: Mutex::default(),
            meters: Meters::default(),
            relay,
        })
    }

    /// Carries what this relay says to itself where nobody else does, and does what is due; for ever.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        loop {
            tokio::select! {
                () = self.links.left() => {}
                _ = ticks.tick() => {
                    self.with(|front, now, actions| front.tick(now, actions));
                }
            }
            self.carry(Ear::Leader);
            self.carry(Ear::Front);
        }
    }

    /// Carries what this relay says to itself, with nothing locked.
    fn carry(&self, ear: Ear) {
        self.links.carry(ear, |message| {
            let is_valid = self.hear(LOOP, message, Instant::now());
            debug_assert!(is_valid, "a relay breaks no rules to itself");
        });
    }

    /// Has the door of a realm hear of the names that have a session at some relay.
    pub fn watch_names(&self, realm: Realm, names: Weak<dyn Names>) {
        self.state.lock().names.insert(realm.0, names);
    }

    /// Has a name belong to a credential, which may be the leader's to say.
    ///
    /// # Errors
    /// It is another's, there are too many, or nobody says within 10 s.
    pub async fn claim(
        &self,
        realm: Realm,
        name: &Arc<str>,
        owner: Owner,
    ) -> Result<(), ClaimError> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.claims.len() >= MOST_ASKED {
                return Err(self.unanswered(&state).into());
            }
            state.claims.insert(request, sender);
            let claim = Claim { realm: realm.0, owner: owner.0, name: Arc::clone(name) };
            self.decide(&mut state, |front, _, actions| front.claim(request, claim, actions));
        }
        self.carry(Ear::Leader);
        let answered = timeout(PATIENCE, answer).await;
        let Ok(Ok(outcome)) = answered else {
            let mut state = self.state.lock();
            state.claims.remove(&request);
            state.front.forget_claim(request);
            return Err(self.unanswered(&state).into());
        };
        match outcome {
            ClaimOutcome::Claimed => Ok(()),
            ClaimOutcome::Taken => Err(NotClaimed::Taken.into()),
            ClaimOutcome::Full => Err(NotClaimed::Full.into()),
        }
    }

    /// Has questions of relays be answered so, while this one leads; the first call counts.
    pub fn answer_by(&self, answers: Answers) {
        self.answers.get_or_init(|| answers);
    }

    /// Asks the relay that leads ([`Self::answer_by`]).
    ///
    /// # Errors
    /// Nobody leads, or not long enough.
    pub async fn ask(&self, question: &[u8]) -> Result<Vec<u8>, Unanswered> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let mut is_asked = false;
            if state.asked.len() < MOST_ASKED {
                self.decide(&mut state, |front, _, actions| {
                    is_asked = front.ask(request, question, actions);
                });
            }
            if !is_asked {
                return Err(self.unanswered(&state));
            }
            state.asked.insert(request, sender);
        }
        self.carry(Ear::Leader);
        let answered = timeout(PATIENCE, answer).await;
        if let Ok(Ok(Some(answer))) = answered {
            return Ok(answer);
        }
        let mut state = self.state.lock();
        state.asked.remove(&request);
        Err(self.unanswered(&state))
    }

    /// A session that has claimed its name can be reached.
    pub fn open(&self, realm: Realm, name: &Arc<str>, owner: Owner, party: &Arc<dyn Party>) {
        let session = party.generation();
        let claim = Claim { realm: realm.0, owner: owner.0, name: Arc::clone(name) };
        self.state.lock().parties.insert(session, Arc::clone(party));
        self.with(|front, now, actions| front.open(session, claim, now, actions));
    }

    /// A session is over.
    pub fn close(&self, session: u64) {
        self.state.lock().parties.remove(&session);
        self.with(|front, now, actions| front.close(session, now, actions));
    }

    /// A session sends a message.
    pub fn submit(&self, session: u64, message: (To, Arc<str>, Arc<[u8]>), wants_receipt: bool) {
        self.with(|front, now, actions| {
            front.submit(session, message, wants_receipt, now, actions);
        });
    }

    /// A session has a message.
    pub fn acknowledge(&self, session: u64, key: &str) {
        self.with(|front, now, actions| front.acknowledge(session, key, now, actions));
    }

    /// A session publishes records to channels.
    pub fn publish(&self, session: u64, records: Vec<Published>) {
        self.with(|front, now, actions| {
            for Published { to, id, body } in records {
                front.submit(session, (to, id, body), true, now, actions);
            }
        });
    }

    /// A session is subscribed to these channels, and to no others.
    pub fn subscribe(&self, session: u64, subscription: Subscription) {
        self.with(|front, now, actions| front.subscribe(session, subscription, now, actions));
    }

    /// A session has the records of a batch.
    pub fn acknowledge_records(&self, session: u64, batch: u64) {
        self.with(|front, now, actions| front.acknowledge_records(session, batch, now, actions));
    }

    /// Has these names of a realm, and no others, be known while this relay leads.
    pub fn reserve(&self, realm: Realm, names: Vec<String>) {
        self.reserved.lock().insert(realm.0, names.clone());
        if let Some(bus) = self.leading() {
            bus.reserve(realm, names);
        }
    }

    /// Goes on by these settings.
    pub fn update(&self, settings: Settings) {
        *self.settings.lock() = Some(settings.clone());
        if let Some(bus) = self.leading() {
            bus.update(settings);
        }
    }

    /// What this relay has of what is stored. It takes nothing.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Waits until what follows the log has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Leads no more: what has come is committed, where this relay leads. The log is to be given up
    /// behind that.
    pub async fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        let bus = self.leading();
        if let Some(bus) = bus {
            bus.stop().await;
        }
        self.end();
    }

    /// The bus, where this relay leads.
    #[must_use]
    pub fn leading(&self) -> Option<Arc<Bus>> {
        self.lead.read().as_ref().map(|lead| Arc::clone(lead.bus()))
    }

    /// Appends the families of a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        let lead = self.lead.read().clone();
        let state = self.state.lock();
        let seen = meters::Seen {
            epoch: state.front.epoch().unwrap_or_default(),
            unanswered: state.front.bytes(),
            sessions: state.front.sessions(),
            names: state.front.names(),
            seats: lead.as_ref().map_or(0, |lead| lead.sessions()),
            is_leading: lead.is_some(),
            leaders: state.front.leaders(),
            unanswered_for: state.waiting.time(Instant::now()),
        };
        drop(state);
        self.meters.families(seen, families);
        match lead {
            Some(lead) => lead.bus().families(families),
            None => self.store.families(families),
        }
    }

    /// Whether the process ends.
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// This relay leads from here on, by this bus.
    fn begin(&self, lead: &Arc<Lead>) {
        *self.lead.write() = Some(Arc::clone(lead));
        // One that comes up meanwhile is told of twice.
        for link in self.links.ids() {
            lead.link_up(link);
        }
        if let Some(settings) = &*self.settings.lock() {
            lead.bus().update(settings.clone());
        }
        for (realm, names) in &*self.reserved.lock() {
            lead.bus().reserve(Realm(*realm), names.clone());
        }
        self.meters.led.increment();
    }

    /// This relay leads no more; returns the bus, which has to be stopped.
    fn end(&self) -> Option<Arc<Bus>> {
        let lead = self.lead.write().take()?;
        lead.end();
        Some(Arc::clone(lead.bus()))
    }

    /// The log knows of an epoch.
    fn know(&self, epoch: u64) {
        self.with(|front, now, actions| front.know(epoch, now, actions));
    }

    fn with(&self, decide: impl FnOnce(&mut proto::Front, Instant, &mut Vec<Action>)) {
        self.decide(&mut self.state.lock(), decide);
        self.carry(Ear::Leader);
    }

    /// Takes what came over a link; false where it breaks the rules.
    fn hear(&self, link: LinkId, bytes: &[u8], now: Instant) -> bool {
        let Ok(message) = Message::parse(bytes) else { return false };
        if message.is_for_leader() {
            let lead = self.lead.read().clone();
            return lead.is_none_or(|lead| lead.hear(link, &message, bytes.len(), now));
        }
        let mut result = Ok(());
        self.with(|front, now, actions| {
            result = front.heard(link, &message, bytes.len(), now, actions);
        });
        result.is_ok()
    }
}
