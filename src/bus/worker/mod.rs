//! The thread of the bus: judges a batch, commits what it comes to, and then tells.

mod crowded;
mod told;
mod untold;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tracing::{error, info};

use self::crowded::Crowded;
use self::told::Replies;
use self::untold::Untold;
use super::clock::system_now;
use super::health::Call;
use super::inbox::{Batch as Items, Item, Submitted as Incoming};
use super::keeper::Kept;
use super::parked::{GivenUp, Parked};
use super::{Desk, Outcome, Party, Receipt, Settings, Shared};
use crate::proto::bus::{
    Bus, Digest, Found, Load, MailboxId, Millis, Recovered, Refused, Submission, Submitted, Turn,
};
use crate::store::audit::Chain;
use crate::store::{Commit, Store, StoreError};

/// How often redeliveries and ages are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long what the last turn left waits for company: nobody waits for it.
const LEFTOVERS: Duration = Duration::from_millis(1);

/// How often messages that wait for room are judged again.
const PARKED: Duration = Duration::from_millis(50);

/// What a turn takes, in changes and in bytes of messages, a broadcast beyond that.
const TURN: usize = 2_048;
const TURN_BYTES: usize = 8 << 20;

/// The first and the longest wait before a commit that failed is repeated.
const RETRY: Duration = Duration::from_millis(50);
const MOST_RETRY: Duration = Duration::from_secs(2);

const GIVEN_UP: &str = "the message bus stops without its last messages, which nobody was told";

/// How long a bus that stops tries to commit what it has.
const LAST_TRIES: Duration = Duration::from_secs(3);

/// What the thread has.
pub(super) struct Worker {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    readings: Sender<Load>,
    bus: Bus,
    /// The time of the turn.
    now: Millis,
    chain: Chain,
    /// The turn and its commit, for the memory that they have.
    turn: Turn,
    commit: Commit,
    settings: Settings,
    kept: Kept,
    parties: BTreeMap<MailboxId, Arc<dyn Party>>,
    parked: Parked,
    /// What a batch had beyond what a turn takes.
    rest: VecDeque<Item>,
    /// The number of the last commit.
    committed: u64,
    /// Since when something is committed that nobody has had the disk take.
    unsynced: Option<Instant>,
    /// What waits until the disk has its commit, in order.
    untold: VecDeque<Untold>,
    untold_bytes: usize,
    /// Failures of the disk that were answered.
    failures: u64,
    crowded: Crowded,
    next_tick: Instant,
    next_retry: Instant,
    /// When the last turn began.
    turned: Instant,
    /// No turn has failed for good.
    is_whole: bool,
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    /// The next when something has come, or then.
    Wait(Instant),
    /// The next at once: it has left something.
    Rest,
    /// The end of the bus.
    End,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        recovered: Recovered,
        settings: Settings,
        readings: Sender<Load>,
        kept: Kept,
    ) -> Result<Self, StoreError> {
        let store = Arc::clone(&shared.store);
        let last = store.last_audit()?;
        let bus = Bus::new(settings.limits, recovered);
        let totals = bus.totals();
        info!(
            names = bus.names().count(),
            messages = totals.waiting,
            bytes = totals.bytes,
            "the message bus is open"
        );
        let now = Instant::now();
        Ok(Self {
            now: shared.clock.now(),
            shared,
            store,
            readings,
            bus,
            chain: Chain::after(last.as_ref()),
            turn: Turn::default(),
            commit: Commit::default(),
            settings,
            kept,
            parties: BTreeMap::new(),
            parked: Parked::default(),
            rest: VecDeque::new(),
            committed: 0,
            unsynced: None,
            untold: VecDeque::new(),
            untold_bytes: 0,
            failures: 0,
            crowded: Crowded::default(),
            next_tick: now,
            next_retry: now,
            turned: now,
            is_whole: true,
        })
    }

    /// Has a turn with what is taken into an empty queue, unless the turn before left something of
    /// its own; none where that is given back.
    pub(super) fn take_turn(
        &mut self,
        take: impl FnOnce(VecDeque<Item>) -> Result<Items, VecDeque<Item>>,
    ) -> After {
        let batch = if self.rest.is_empty() {
            match take(std::mem::take(&mut self.rest)) {
                Ok(batch) => batch,
                Err(spare) => {
                    self.rest = spare;
                    return After::Wait(self.next_deadline());
                }
            }
        } else {
            Items::default()
        };
        let is_last = batch.is_last;
        self.is_whole = self.tell_durable() && self.wait_for_disk() && self.turn(batch);
        if !self.is_whole {
            // Nothing may follow what the store has not taken.
            return After::End;
        }
        self.want_sync_if_due(Instant::now());
        self.shared.meters.turns.end();
        if !self.rest.is_empty() {
            return After::Rest;
        }
        if is_last { After::End } else { After::Wait(self.next_deadline()) }
    }

    /// Whether the turn before left something of its own.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Whether no turn has failed for good.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// When there is something to do although nothing comes.
    fn next_deadline(&self) -> Instant {
        let mut next = self.next_tick;
        if self.bus.has_leftovers() {
            next = next.min(self.turned + LEFTOVERS);
        }
        next = self.next_sync().map_or(next, |at| next.min(at));
        if !self.parked.is_empty() {
            next = next.min(self.next_retry);
        }
        next
    }

    /// False where the bus stops and the store takes nothing.
    fn turn(&mut self, batch: Items) -> bool {
        let now = Instant::now();
        self.shared.meters.turns.begin(now);
        self.turned = now;
        self.now = self.shared.clock.now();
        let mut turn = std::mem::take(&mut self.turn);
        let mut replies = Replies::default();
        let Items { items, held, .. } = batch;
        self.bus.set_full(self.kept.room.is_full());
        // A batch is taken once nothing is left of the one before.
        if self.rest.is_empty() {
            self.rest = items;
        }
        while turn.changes.len() < TURN && turn.appended_bytes < TURN_BYTES {
            let Some(item) = self.rest.pop_front() else { break };
            self.take(item, now, &mut turn, &mut replies);
        }
        let mut released = held;
        released.extend(self.retry_parked(now, &mut turn, &mut replies.receipts));
        self.tick_if_due(now, &mut turn);
        self.bus.finish(self.now, &mut turn);
        let Some(commit) = self.commit(&mut turn) else {
            // The bus stops, and what nobody was told about is as if it had never come.
            return false;
        };
        self.kept.room.take(turn.appended_bytes);
        for party in released {
            if !self.parked.has(party.generation()) {
                self.shared.inbox.release(&party);
            }
        }
        self.tell_when_durable(commit, replies, &mut turn);
        turn.clear();
        self.turn = turn;
        true
    }

    fn take(&mut self, item: Item, now: Instant, turn: &mut Turn, replies: &mut Replies) {
        match item {
            Item::Ask(work) => {
                let store = &*self.store;
                let mut desk = Desk { bus: &mut self.bus, turn, store, now: self.now };
                replies.asked.push(work(&mut desk));
            }
            Item::Open { mailbox, owner, party } if self.bus.owner(mailbox) != Some(owner) => {
                party.withdraw();
            }
            Item::Open { mailbox, party, .. } => {
                self.bus.open(mailbox, party.generation(), self.now, turn);
                let is_newer = |known: &Arc<dyn Party>| known.generation() < party.generation();
                if self.parties.get(&mailbox).is_none_or(is_newer) {
                    self.parties.insert(mailbox, party);
                }
            }
            Item::Close { mailbox, generation } => {
                self.bus.close(mailbox, generation, self.now, turn);
                let is_it = |party: &Arc<dyn Party>| party.generation() == generation;
                if self.parties.get(&mailbox).is_some_and(is_it) {
                    self.parties.remove(&mailbox);
                }
                let lost = self.parked.close(generation);
                self.give_up(lost, &mut replies.receipts);
            }
            Item::Submit(incoming) => self.submit(incoming, now, turn, replies),
            Item::Acknowledge { mailbox, generation, key } => {
                let store = Arc::clone(&self.store);
                let shared = Arc::clone(&self.shared);
                let find = |mailbox, key| find(&*store, &shared, mailbox, key);
                let known = self.bus.acknowledge(mailbox, generation, &key, self.now, turn, find);
                if let Ok(false) = known {
                    self.shared.meters.unknown_ack();
                }
            }
            Item::Subscribe { mailbox, generation, subscription } => {
                self.bus.subscribe(mailbox, generation, &subscription, self.now, turn);
            }
            Item::AcknowledgeRecords { mailbox, generation, batch } => {
                if !self.bus.acknowledge_records(mailbox, generation, batch, turn) {
                    self.shared.meters.unknown_ack();
                }
            }
            Item::Loaded { load, reading } => self.bus.loaded(&load, reading, self.now, turn),
            // A turn begins with it.
            Item::Synced => {}
            Item::Settings(settings) => {
                self.bus.set_limits(settings.limits);
                // It ends after this thread.
                let _ = self.kept.settings.send((*settings).clone());
                // The threads that sync are as many as at the start.
                let durable = self.settings.durable;
                self.settings = Settings { durable, ..*settings };
            }
        }
    }

    fn submit(&mut self, incoming: Incoming, now: Instant, turn: &mut Turn, replies: &mut Replies) {
        let Incoming { party, submission, wants_receipt, .. } = &incoming;
        if self.parked.has(party.generation()) {
            self.parked.park(incoming, now, self.settings.patience);
            return;
        }
        let Some(submitted) = self.judge(submission, turn) else { return };
        if submitted.is_for_want_of_room() && !wants_receipt {
            self.parked.park(incoming, now, self.settings.patience);
            return;
        }
        let outcome = Outcome::from(submitted);
        self.shared.meters.submitted(outcome);
        if *wants_receipt || party.is_answered() {
            let receipt = Receipt { id: Arc::clone(&submission.id), outcome };
            replies.receipts.push((Arc::clone(party), receipt));
        }
    }

    /// What becomes of a message; nothing where the bus stops before the store can tell.
    fn judge(&mut self, submission: &Submission, turn: &mut Turn) -> Option<Submitted> {
        let store = Arc::clone(&self.store);
        let shared = Arc::clone(&self.shared);
        let find = |mailbox, key| find(&*store, &shared, mailbox, key);
        self.bus.submit(submission, self.now, turn, find).ok()
    }

    /// Judges what waits for room; returns the peers that wait for it no more.
    fn retry_parked(
        &mut self,
        now: Instant,
        turn: &mut Turn,
        receipts: &mut Vec<(Arc<dyn Party>, Receipt)>,
    ) -> Vec<Arc<dyn Party>> {
        if self.parked.is_empty() || now < self.next_retry {
            return Vec::new();
        }
        self.next_retry = now + PARKED;
        let mut parked = std::mem::take(&mut self.parked);
        let patience = self.settings.patience;
        let (given_up, released) = parked.retry(now, patience, |party, submission| {
            let submitted = self.judge(submission, turn);
            let Some(submitted) = submitted.filter(|submitted| !submitted.is_for_want_of_room())
            else {
                return false;
            };
            let outcome = submitted.into();
            self.shared.meters.submitted(outcome);
            if party.is_answered() {
                let id = Arc::clone(&submission.id);
                receipts.push((Arc::clone(party), Receipt { id, outcome }));
            }
            true
        });
        self.give_up(given_up, receipts);
        self.parked = parked;
        released
    }

    /// Messages for which there was no room for too long, or whose sender has left.
    fn give_up(&self, given_up: Vec<GivenUp>, receipts: &mut Vec<(Arc<dyn Party>, Receipt)>) {
        self.shared.meters.given_up(given_up.len() as u64);
        let outcome = Outcome::Refused(Refused::Quota);
        let answered = given_up.into_iter().filter(|(party, _)| party.is_answered());
        receipts.extend(answered.map(|(party, id)| (party, Receipt { id, outcome })));
    }

    fn tick_if_due(&mut self, now: Instant, turn: &mut Turn) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.bus.tick(self.now, turn);
        self.shared.meters.note(&self.bus, self.now);
        self.shared.meters.note_clock(self.shared.clock.watch());
    }

    /// Commits a turn; nothing where the bus stops and the store takes nothing.
    fn commit(&mut self, turn: &mut Turn) -> Option<Commit> {
        let mut commit = std::mem::take(&mut self.commit);
        if turn.is_unchanged() {
            return Some(commit);
        }
        let at = system_now();
        std::mem::swap(&mut commit.changes, &mut turn.changes);
        let audit = turn.events.iter().map(|event| self.chain.append(event, at));
        commit.audit.extend(audit);
        let began = Instant::now();
        if !self.write(&commit) {
            return None;
        }
        self.shared.meters.committed(began.elapsed());
        self.committed += 1;
        self.unsynced = self.unsynced.or(Some(began));
        Some(commit)
    }

    /// Writes a commit, as often as it takes: from the second time on with all that nobody was told
    /// about, since nobody knows what of it is there. In one piece, or a store that ends between two
    /// would have later changes without the earlier. False where the bus stops and the store takes
    /// nothing, or takes nothing more for this relay.
    fn write(&self, commit: &Commit) -> bool {
        let is_repeated = commit.is_empty();
        let mut joined = is_repeated.then(|| self.joined(commit));
        let mut wait = RETRY;
        let mut gives_up: Option<Instant> = None;
        while let Err(error) = self.store.commit(joined.as_ref().unwrap_or(commit)) {
            joined.get_or_insert_with(|| self.joined(commit));
            self.shared.meters.failed(Call::Commit, &error);
            if matches!(error, StoreError::Fenced) {
                info!("another relay leads: this one's message bus ends");
                return false;
            }
            if wait == RETRY {
                error!(%error, "messages cannot be committed: all wait until they can");
            }
            if self.shared.inbox.is_closed() {
                let until = *gives_up.get_or_insert_with(|| Instant::now() + LAST_TRIES);
                if Instant::now() >= until {
                    error!("{GIVEN_UP}");
                    return false;
                }
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(MOST_RETRY);
        }
        if wait != RETRY {
            info!("messages are committed again");
        }
        true
    }

    /// A commit behind all that nobody was told about.
    fn joined(&self, last: &Commit) -> Commit {
        let mut joined = Commit::default();
        for commit in self.untold.iter().map(|untold| &untold.commit).chain([last]) {
            joined.changes.extend_from_slice(&commit.changes);
            joined.audit.extend_from_slice(&commit.audit);
        }
        joined
    }
}

/// The message that waits under a key. The store is asked until it can tell, or the bus stops.
fn find(
    store: &dyn Store,
    shared: &Shared,
    mailbox: MailboxId,
    key: Digest,
) -> Result<Option<Found>, StoreError> {
    let mut has_failed = false;
    loop {
        match store.find(mailbox, key) {
            Err(error @ StoreError::Damaged(_)) => {
                if shared.meters.damaged(&error) {
                    error!(%error, "a message that waits cannot be looked up");
                }
                return Ok(None);
            }
            Err(error) => {
                shared.meters.failed(Call::Find, &error);
                if shared.inbox.is_closed() {
                    return Err(error);
                }
                has_failed = true;
                std::thread::sleep(RETRY);
            }
            found => {
                if has_failed {
                    shared.meters.succeeded(Call::Find);
                }
                return found;
            }
        }
    }
}
