//! The bus of messages: mailboxes that outlive connections and restarts, for every door that has
//! messages.
//!
//! One thread decides ([`crate::proto::bus`]), commits ([`crate::store`]) and only then tells
//! anybody; a second one reads what waits for a peer that has come back, a third keeps the store in
//! order, and others have the disk take what was committed ([`Durable`]). Doors hand over what their
//! sessions said and never wait: whose messages come faster than they are committed is held
//! ([`Party::hold`]), so that it is slowed by its own socket.
//!
//! Doors reach it by a [`Handle`]: in a cluster the bus is at the relay that leads ([`front`]).

mod alone;
mod clock;
pub mod front;
mod handle;
mod health;
mod inbox;
mod keeper;
mod meters;
mod parked;
mod party;
mod reader;
mod settings;
mod syncing;
#[cfg(test)]
mod tests;
mod turns;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::proto::bus::{self, MailboxId, Millis, NotClaimed, Owner, Turn};
use crate::store::{Store, StoreError};
use crate::wire::name::Realm;

use clock::Clock;
use inbox::{Inbox, Item, Submitted};
use meters::Meters;
use syncing::Syncing;
use worker::Worker;

pub use crate::proto::bus::{Submission, Subscription, To};
pub use alone::Alone;
pub use handle::{Address, Handle};
pub use health::{Health, Trouble};
pub use meters::Lag;
pub use party::{Batch, Outcome, Outgoing, Party, Published, Receipt};
pub use settings::{Durable, Settings};
pub use turns::Turns;

/// How often who waits for an answer looks whether the store can be used,
const LOOK: Duration = Duration::from_millis(500);

/// and for how long it waits where it can.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most questions that wait for a store which cannot be used; others are answered at once.
const MOST_ASKED: usize = 1_024;

/// What a bus is made of.
pub struct Parts {
    /// Where messages are durable.
    pub store: Arc<dyn Store>,
    /// What it is told.
    pub settings: Settings,
    /// What checkpoints are signed with.
    pub key: SigningKey,
    /// Where checkpoints are written to, as well as to the log.
    pub checkpoint_file: Option<PathBuf>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a turn works with, for who has it do something ([`Bus::ask`]).
pub struct Desk<'a> {
    /// Names and mailboxes.
    pub bus: &'a mut bus::Bus,
    /// What this turn comes to.
    pub turn: &'a mut Turn,
    /// Where messages are.
    pub store: &'a dyn Store,
    /// The time that messages age by.
    pub now: Millis,
}

impl std::fmt::Debug for Desk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Why the bus has not done what it was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unanswered {
    /// It has stopped.
    #[error("the message bus has stopped")]
    Stopped,
    /// The store cannot be used. What had begun is done once it can.
    #[error("messages cannot be stored: {0}")]
    Unavailable(Trouble),
}

/// Why a peer does not get its name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClaimError {
    /// The bus says so.
    #[error(transparent)]
    NotClaimed(#[from] NotClaimed),
    /// The bus does not say.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

/// Why a bus does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is stored cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room for a thread.
    #[error("no thread for the message bus: {0}")]
    Thread(#[from] io::Error),
}

/// The bus of a relay.
pub struct Bus {
    shared: Arc<Shared>,
    turns: Arc<Turns>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    ended: CancellationToken,
}

/// What the threads and the doors share.
pub(super) struct Shared {
    inbox: Inbox,
    syncing: Syncing,
    meters: Meters,
    clock: Clock,
    store: Arc<dyn Store>,
    /// Questions that wait for a turn.
    asked: AtomicUsize,
    /// Peers that can be reached: each gets a copy of a broadcast.
    open: AtomicUsize,
}

/// A question, as long as it waits for a turn.
struct Asking(Arc<Shared>);

impl Asking {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.asked.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Starts with what the store has.
    ///
    /// # Errors
    /// That cannot be read, or there is no room for a thread.
    pub fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let Parts { store, settings, key, checkpoint_file } = parts;
        let recovered = store.recover()?;
        let shared = Arc::new(Shared {
            inbox: Inbox::default(),
            syncing: Syncing::default(),
            meters: Meters::new(),
            clock: Clock::start(recovered.newest(), settings.limits.retention),
            store,
            open: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        });
        // Cancelled by the first thread that ends, whatever ends it: the bus is none without it.
        let ended = CancellationToken::new();
        let (readings, reader) = reader::start(Arc::clone(&shared), ended.clone())?;
        let (kept, keeper) =
            keeper::start(Arc::clone(&shared), &settings, key, checkpoint_file, ended.clone())?;
        let mut threads = syncing::start(&shared, settings.durable, &ended)?;
        let worker = Worker::new(Arc::clone(&shared), recovered, settings, readings, kept)?;
        let turns = Turns::new(Arc::clone(&shared), worker);
        let (ending, taken) = (ended.clone(), Arc::clone(&turns));
        let thread = std::thread::Builder::new().name("bus".to_owned()).spawn(move || {
            let _ending = ending.drop_guard();
            taken.run();
        })?;
        threads.extend([thread, reader, keeper]);
        Ok(Arc::new(Self { shared, turns, threads: Mutex::new(threads), ended }))
    }

    /// For a thread of sessions that takes turns.
    #[must_use]
    pub fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }

    /// Has a turn do something; the answer comes when what it changes is committed.
    ///
    /// # Errors
    /// The bus has stopped, or its store cannot be used: that is said within 3 s. What has not
    /// begun by then never does.
    pub async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk<'_>) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        if let Health::Unavailable(trouble) = self.health()
            && self.shared.asked.load(Ordering::Relaxed) >= MOST_ASKED
        {
            return Err(Unanswered::Unavailable(trouble));
        }
        let (sender, mut answer) = oneshot::channel();
        let asking = Asking::new(&self.shared);
        self.shared.inbox.put(Item::Ask(Box::new(move |desk| {
            drop(asking);
            if sender.is_closed() {
                return Box::new(|| {});
            }
            let answer = work(desk);
            Box::new(move || {
                // Who asked may have gone away.
                let _ = sender.send(answer);
            })
        })));
        let asked = Instant::now();
        loop {
            if let Ok(answered) = timeout(LOOK, &mut answer).await {
                return answered.map_err(|_| Unanswered::Stopped);
            }
            if let Health::Unavailable(trouble) = self.health() {
                return Err(Unanswered::Unavailable(trouble));
            }
            if asked.elapsed() >= PATIENCE {
                let reason = "the disk is too slow".to_owned();
                return Err(Unanswered::Unavailable(Trouble { reason, since: asked }));
            }
        }
    }

    /// Has a turn do something, and then something else with what that came to, when what it changes
    /// is committed. Neither is done where the bus stops.
    fn order<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk<'_>) -> T + Send + 'static,
        then: impl FnOnce(T) + Send + 'static,
    ) {
        self.shared.inbox.put(Item::Ask(Box::new(move |desk| {
            let answer = work(desk);
            Box::new(move || then(answer))
        })));
    }

    /// The mailbox of a name, which belongs to who was first to claim it, also while that is
    /// offline and after a restart.
    ///
    /// # Errors
    /// It is another's, there are too many, or the bus does not say ([`Self::ask`]).
    pub async fn claim(
        &self,
        realm: Realm,
        name: &str,
        owner: Owner,
    ) -> Result<MailboxId, ClaimError> {
        let name = name.to_owned();
        let claimed = self
            .ask(move |desk| desk.bus.claim(realm.0, &name, owner, desk.now, desk.turn))
            .await?;
        Ok(claimed?)
    }

    /// Has these names of a realm, and no others, be known although their owners have not come yet,
    /// or are away for very long. Those that are too many are left out.
    pub fn reserve(&self, realm: Realm, names: Vec<String>) {
        self.shared.inbox.put(Item::Ask(Box::new(move |desk| {
            desk.bus.unreserve(realm.0);
            for name in names {
                let reserved = desk.bus.reserve(realm.0, &name, desk.now, desk.turn);
                if reserved.is_err() {
                    tracing::warn!(
                        name,
                        "a name of the tokens file is not reserved: there are too many names"
                    );
                }
            }
            Box::new(|| {})
        })));
    }

    /// A peer of this credential can be reached: what waits for it is delivered from here on. Where
    /// the name was given to another meanwhile, its connection ends.
    pub fn open(&self, mailbox: MailboxId, owner: Owner, party: Arc<dyn Party>) {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        self.shared.inbox.put(Item::Open { mailbox, owner, party });
    }

    /// A peer that was open is gone.
    pub fn close(&self, mailbox: MailboxId, generation: u64) {
        let one_less = |open: usize| open.checked_sub(1);
        let _ = self.shared.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        self.shared.inbox.put(Item::Close { mailbox, generation });
    }

    /// Takes a message of a peer. It is answered, where it wants that, when it is committed or
    /// refused.
    pub fn submit(&self, from: &Arc<dyn Party>, submission: Submission, wants_receipt: bool) {
        let copies = match &submission.to {
            To::Name(_) | To::Channel(_) | To::Dropped { .. } => 1,
            To::Everybody => self.shared.open.load(Ordering::Relaxed).max(1),
        };
        let submitted = Submitted { party: Arc::clone(from), submission, wants_receipt, copies };
        self.shared.inbox.say(from, Item::Submit(submitted));
    }

    /// Takes records of a peer for channels, each of which is answered. One turn finds all of them.
    pub fn publish(&self, from: &Arc<dyn Party>, mailbox: MailboxId, records: Vec<Published>) {
        let items = records.into_iter().map(|Published { to, id, body }| {
            let submission = Submission { from: mailbox, to, id, body };
            let party = Arc::clone(from);
            Item::Submit(Submitted { party, submission, wants_receipt: true, copies: 1 })
        });
        self.shared.inbox.say_all(from, items);
    }

    /// A peer has a message, it says.
    pub fn acknowledge(&self, from: &Arc<dyn Party>, mailbox: MailboxId, key: &str) {
        let generation = from.generation();
        let item = Item::Acknowledge { mailbox, generation, key: key.into() };
        self.shared.inbox.say(from, item);
    }

    /// A peer's session is subscribed to these channels, and to no others.
    pub fn subscribe(&self, mailbox: MailboxId, generation: u64, subscription: Subscription) {
        self.shared.inbox.put(Item::Subscribe { mailbox, generation, subscription });
    }

    /// A peer has the records of a batch, it says.
    pub fn acknowledge_records(&self, from: &Arc<dyn Party>, mailbox: MailboxId, batch: u64) {
        let generation = from.generation();
        self.shared.inbox.say(from, Item::AcknowledgeRecords { mailbox, generation, batch });
    }

    /// Goes on by these settings.
    pub fn update(&self, settings: Settings) {
        self.shared.inbox.put(Item::Settings(Box::new(settings)));
    }

    /// Where messages are.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.shared.store)
    }

    /// Whether messages are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.meters.health()
    }

    /// The peers that are furthest behind in channels; nothing where there is no channel.
    #[must_use]
    pub fn behind(&self, most: usize) -> Option<Vec<Lag>> {
        self.shared.meters.behind(most)
    }

    /// Appends the families of a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        self.shared.meters.families(families);
        self.shared.store.families(families);
    }

    /// Waits until a thread of the bus has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Commits what has come so far, writes a checkpoint, and ends. What comes later is dropped.
    pub async fn stop(&self) {
        self.shared.inbox.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(|| {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        drop(joined.await);
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}
