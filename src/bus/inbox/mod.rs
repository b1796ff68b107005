//! What sessions, readers and operators have for the bus, which thread is to see to it, and who is
//! held because of it.

mod item;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

pub(super) use self::item::{Item, Submitted};
use super::Party;
use crate::proto::bus::{Load, Reading};

/// Bytes of one peer that wait to be judged: then it is read no more.
const OF_ONE: usize = 256 * 1_024;

/// Bytes of all peers: from there on each is read no more with its next message.
const OF_ALL: usize = 64 << 20;

/// Bytes that were read for peers and wait for their turn: then nothing more is read.
const LOADED: usize = 16 << 20;

/// What one batch takes, in items and in bytes.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 8 << 20;

/// How long acknowledgements wait for company: nobody waits for them, and a turn for each would
/// cost as much as one for a message.
const NAP: Duration = Duration::from_millis(1);

/// The same where messages come all the time: after [`BRISK`] turns in a row that one began. It is
/// longer than the kernel's tick (4 ms), since a timer that ends before the next tick has to be
/// programmed for each wait, which is an exit of a virtual machine.
const LONG_NAP: Duration = Duration::from_millis(5);
const BRISK: u32 = 16;

/// Naps without a turn, after which the thread of sessions takes turns no more.
const CALM: u32 = 4;

/// Items that wait no longer for others, and that are too many for the thread of sessions,
const ENOUGH: usize = 64;

/// and bytes.
const ENOUGH_BYTES: usize = 256 << 10;

/// Turns in a row that were small enough for it, before it takes the next ones.
const SMALL: u32 = 16;

/// How long both threads share the work once it was too much for one.
const SHARED: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Something has come for the bus's thread,
    came: Condvar,
    /// and for that of the sessions.
    called: Notify,
    /// That one has had nothing to do for a moment.
    has_rested: AtomicBool,
    /// There is room for what was read.
    room: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Of what peers have said.
    bytes: usize,
    /// Of what was read for them.
    loaded: usize,
    /// Of each peer that has said something which is here, by its generation.
    speakers: HashMap<u64, Speaker>,
    /// Something is here that does not wait for others.
    is_urgent: bool,
    /// Turns in a row that something urgent began.
    brisk: u32,
    /// Turns in a row that were small.
    small: u32,
    /// What has come since the last turn is too much, or of another kind.
    is_large: bool,
    /// There is a thread of sessions that takes turns.
    has_sessions: bool,
    /// Two threads do more than one: there is a core for each, and one for peers.
    has_cores: bool,
    /// Both share the work until then.
    shared_until: Option<Instant>,
    taker: Taker,
    /// It has been called for the next one.
    is_called: bool,
    /// Turns that the thread of sessions took since the bus's thread looked.
    taken: u32,
    /// When there is something to do although it has no further turn.
    due: Option<Instant>,
    /// The bus's thread waits for anything, so that nothing has to wait.
    is_idle: bool,
    is_closed: bool,
}

/// Which thread takes the next turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Taker {
    #[default]
    Bus,
    Sessions,
}

impl State {
    /// Puts an item there; returns who has to be told.
    fn push(&mut self, item: Item) -> Option<Taker> {
        let may_wait = matches!(item, Item::Acknowledge { .. } | Item::AcknowledgeRecords { .. });
        let is_small = item.is_small();
        self.items.push_back(item);
        let is_enough = self.items.len() >= ENOUGH;
        if !is_small || is_enough || self.bytes >= ENOUGH_BYTES {
            self.is_large = true;
            self.taker = Taker::Bus;
        }
        if !may_wait || self.is_idle || is_enough {
            self.is_urgent = true;
        }
        let is_told = match self.taker {
            Taker::Bus => false,
            Taker::Sessions => self.is_urgent && std::mem::replace(&mut self.is_called, true),
        };
        (self.is_urgent && !is_told).then_some(self.taker)
    }

    /// How long acknowledgements wait for company.
    const fn nap(&self) -> Duration {
        if self.brisk < BRISK { NAP } else { LONG_NAP }
    }

    /// Notes what a turn of the bus's thread begins with.
    const fn note_turn(&mut self) {
        self.brisk = if self.is_urgent { self.brisk.saturating_add(1) } else { 0 };
        let is_small = self.is_urgent && !self.is_large;
        self.small = if is_small { self.small.saturating_add(1) } else { 0 };
    }

    /// Whether the next turns are for the thread of sessions.
    fn may_leave_to_sessions(&self) -> bool {
        self.has_sessions
            && self.small >= SMALL
            && self.shared_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Each thread does its own work for a while.
    fn share(&mut self, time: Duration) {
        self.shared_until = Some(Instant::now() + time);
        self.hand_over();
    }

    /// The thread of sessions takes the next turns no more.
    const fn hand_over(&mut self) {
        self.taker = Taker::Bus;
        self.small = 0;
    }
}

#[derive(Default)]
struct Speaker {
    bytes: usize,
    held: Option<Arc<dyn Party>>,
}

/// What a turn begins with.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: VecDeque<Item>,
    /// Peers of whom nothing more is here, and that were held.
    pub(super) held: Vec<Arc<dyn Party>>,
    /// Nothing more will come.
    pub(super) is_last: bool,
}

impl Inbox {
    pub(super) fn put(&self, item: Item) {
        let mut state = self.state.lock();
        if !state.is_closed {
            let told = state.push(item);
            drop(state);
            self.tell(told);
        }
    }

    fn tell(&self, taker: Option<Taker>) {
        match taker {
            Some(Taker::Bus) => drop(self.came.notify_one()),
            Some(Taker::Sessions) => self.called.notify_one(),
            None => {}
        }
    }

    /// Puts there what was read, once there is room for it.
    pub(super) fn put_loaded(&self, load: Load, reading: Reading) {
        let item = Item::Loaded { load, reading };
        let mut state = self.state.lock();
        while state.loaded > LOADED && !state.is_closed {
            self.room.wait(&mut state);
        }
        if !state.is_closed {
            state.loaded += item.cost();
            let told = state.push(item);
            drop(state);
            self.tell(told);
        }
    }

    /// Puts there what a peer says, which is held if that was too much.
    pub(super) fn say(&self, party: &Arc<dyn Party>, item: Item) {
        self.say_all(party, std::iter::once(item));
    }

    /// The same of several things, all of which one turn finds.
    pub(super) fn say_all(&self, party: &Arc<dyn Party>, items: impl Iterator<Item = Item>) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        let mut told = None;
        for item in items {
            state.bytes += item.cost();
            let is_much = state.bytes > OF_ALL;
            let speaker = state.speakers.entry(party.generation()).or_default();
            speaker.bytes += item.weight();
            if is_much || speaker.bytes > OF_ONE {
                speaker.held = Some(Arc::clone(party));
                // Under the lock, or a turn might release it before.
                party.hold(true);
            }
            // Who is told last takes the turn.
            told = state.push(item).or(told);
        }
        drop(state);
        self.tell(told);
    }

    /// Releases a peer that was held, unless it has said too much again.
    pub(super) fn release(&self, party: &Arc<dyn Party>) {
        let state = self.state.lock();
        let speaker = state.speakers.get(&party.generation());
        if speaker.is_none_or(|speaker| speaker.held.is_none()) {
            party.hold(false);
        }
    }

    /// Waits until there is a turn for the bus's thread, or until then.
    pub(super) fn wait(&self, until: Instant) {
        let mut state = self.state.lock();
        if !state.is_urgent && state.may_leave_to_sessions() {
            state.taker = Taker::Sessions;
            state.is_called = false;
            self.stand_by(&mut state);
            return;
        }
        let nap = until.min(Instant::now() + state.nap());
        while !state.is_urgent && !state.is_closed {
            if self.came.wait_until(&mut state, nap).timed_out() {
                break;
            }
        }
        state.note_turn();
        state.is_idle = true;
        while state.items.is_empty() && !state.is_closed {
            if self.came.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.is_idle = false;
    }

    /// Waits while the thread of sessions takes the turns, until something is due and was not done in
    /// one.
    fn stand_by(&self, state: &mut MutexGuard<'_, State>) {
        let mut calm = 0;
        while state.taker == Taker::Sessions && !state.is_closed && calm < CALM {
            let is_over = self.came.wait_for(state, LONG_NAP).timed_out();
            let has_rested = !is_over || self.has_rested.swap(false, Ordering::Relaxed);
            if std::mem::take(&mut state.taken) > 0 {
                calm = 0;
                if !has_rested && state.has_cores {
                    state.share(SHARED);
                }
            } else if is_over {
                if state.due.is_some_and(|due| Instant::now() >= due) {
                    state.due = None;
                    return;
                }
                // Nothing comes, or a turn does not end. Acknowledgements have waited enough.
                calm = if state.items.is_empty() { calm + 1 } else { CALM };
            }
        }
        state.hand_over();
    }

    /// Takes what is there into `spare`, which is empty.
    pub(super) fn take(&self, spare: VecDeque<Item>) -> Batch {
        self.take_from(self.state.lock(), spare)
    }

    /// The same for the thread of sessions; gives the queue back where the turn is not its own.
    pub(super) fn take_small(&self, spare: VecDeque<Item>) -> Result<Batch, VecDeque<Item>> {
        let mut state = self.state.lock();
        state.is_called = false;
        if state.taker == Taker::Bus || state.is_closed || state.items.is_empty() {
            return Err(spare);
        }
        state.taken += 1;
        Ok(self.take_from(state, spare))
    }

    /// What the last turn of the thread of sessions left is due then.
    pub(super) fn note_due(&self, due: Instant) {
        self.state.lock().due = Some(due);
    }

    fn take_from(&self, mut state: MutexGuard<'_, State>, spare: VecDeque<Item>) -> Batch {
        let mut batch = Batch { items: spare, ..Batch::default() };
        let mut bytes = 0;
        while batch.items.len() < BATCH && bytes < BATCH_BYTES {
            let Some(item) = state.items.pop_front() else { break };
            let cost = item.cost();
            bytes += cost;
            if let Item::Loaded { .. } = &item {
                state.loaded -= cost;
            }
            if let Some(generation) = item.speaker() {
                state.bytes -= cost;
                let speaker = state.speakers.get_mut(&generation).expect("it said what is here");
                speaker.bytes -= item.weight();
                if speaker.bytes == 0 {
                    let speaker = state.speakers.remove(&generation);
                    batch.held.extend(speaker.and_then(|speaker| speaker.held));
                }
            }
            batch.items.push_back(item);
        }
        state.is_urgent = !state.items.is_empty();
        state.is_large = state.is_urgent;
        batch.is_last = state.is_closed && state.items.is_empty();
        drop(state);
        self.room.notify_all();
        batch
    }

    /// From here on small turns are for a thread of sessions, on a machine of so many cores; or no
    /// more.
    pub(super) fn set_sessions(&self, cores: Option<usize>) {
        let mut state = self.state.lock();
        state.has_sessions = cores.is_some();
        state.has_cores = cores.is_some_and(|cores| cores > 2);
        state.hand_over();
        self.came.notify_one();
    }

    /// The thread of sessions has nothing to do at this moment.
    pub(super) fn rest(&self) {
        self.has_rested.store(true, Ordering::Relaxed);
    }

    /// Has the bus's thread take the next turns, of which the thread of sessions has been told.
    pub(super) fn hand_over(&self) {
        let mut state = self.state.lock();
        state.hand_over();
        state.is_urgent = true;
        self.came.notify_one();
    }

    /// Has each thread do its own work for this time.
    pub(super) fn share(&self, time: Duration) {
        self.state.lock().share(time);
    }

    /// Waits for a small turn.
    pub(super) async fn called(&self) {
        self.called.notified().await;
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.came.notify_all();
        self.room.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }
}
