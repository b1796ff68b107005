//! What sessions, readers and operators have for the bus's thread, and who is held because of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use parking_lot::{Condvar, Mutex};

use super::{Desk, Party};
use crate::proto::bus::{Load, MailboxId, Message, Owner, Reading, Submission, Subscription};

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

/// Items that wait no longer for others.
const ENOUGH: usize = 64;

/// Something to be done, and what to do when it is committed.
pub(super) type Work = Box<dyn FnOnce(&mut Desk<'_>) -> Box<dyn FnOnce() + Send> + Send>;

/// What the bus's thread is told.
pub(super) enum Item {
    Ask(Work),
    Open {
        mailbox: MailboxId,
        owner: Owner,
        party: Arc<dyn Party>,
    },
    Close {
        mailbox: MailboxId,
        generation: u64,
    },
    Submit(Submitted),
    Acknowledge {
        mailbox: MailboxId,
        generation: u64,
        key: Box<str>,
    },
    Subscribe {
        mailbox: MailboxId,
        generation: u64,
        subscription: Subscription,
    },
    AcknowledgeRecords {
        mailbox: MailboxId,
        generation: u64,
        batch: u64,
    },
    Loaded {
        load: Load,
        reading: Reading,
    },
    Settings(Box<super::Settings>),
    /// A sync has ended.
    Synced,
}

/// A message of a peer.
pub(super) struct Submitted {
    pub(super) party: Arc<dyn Party>,
    pub(super) submission: Submission,
    pub(super) wants_receipt: bool,
    /// How many messages it comes to.
    pub(super) copies: usize,
}

impl Item {
    /// What it counts as, in bytes.
    fn cost(&self) -> usize {
        let more = match self {
            Self::Submit(Submitted { submission, .. }) => {
                submission.id.len() + submission.body.len()
            }
            Self::Acknowledge { key, .. } => key.len(),
            Self::Loaded { reading, .. } => {
                reading.stored.iter().map(|one| one.message.cost()).sum()
            }
            Self::Ask(_)
            | Self::Open { .. }
            | Self::Close { .. }
            | Self::Subscribe { .. }
            | Self::AcknowledgeRecords { .. }
            | Self::Settings(_)
            | Self::Synced => 0,
        };
        Message::OVERHEAD + more
    }

    /// What it counts as of all that its peer may have here: a broadcast is work for each of its
    /// copies, which others' messages wait behind.
    fn weight(&self) -> usize {
        let copies = if let Self::Submit(Submitted { copies, .. }) = self { *copies } else { 1 };
        self.cost().saturating_mul(copies)
    }

    /// The session that said it, where that is held for saying too much.
    fn speaker(&self) -> Option<u64> {
        match self {
            Self::Submit(Submitted { party, .. }) => Some(party.generation()),
            Self::Acknowledge { generation, .. } | Self::AcknowledgeRecords { generation, .. } => {
                Some(*generation)
            }
            Self::Ask(_)
            | Self::Open { .. }
            | Self::Close { .. }
            | Self::Subscribe { .. }
            | Self::Loaded { .. }
            | Self::Settings(_)
            | Self::Synced => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Something has come.
    came: Condvar,
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
    /// The bus's thread waits for anything, so that nothing has to wait.
    is_idle: bool,
    is_closed: bool,
}

impl State {
    /// Puts an item there; whether the bus's thread has to be told.
    fn push(&mut self, item: Item) -> bool {
        let may_wait = matches!(item, Item::Acknowledge { .. } | Item::AcknowledgeRecords { .. });
        self.items.push_back(item);
        if !may_wait || self.is_idle || self.items.len() >= ENOUGH {
            self.is_urgent = true;
        }
        self.is_urgent
    }

    /// How long acknowledgements wait for company.
    const fn nap(&self) -> Duration {
        if self.brisk < BRISK { NAP } else { LONG_NAP }
    }

    /// Notes what a turn begins with.
    const fn note_turn(&mut self) {
        self.brisk = if self.is_urgent { self.brisk.saturating_add(1) } else { 0 };
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
            state.push(item);
            drop(state);
            self.came.notify_one();
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
            state.push(item);
            drop(state);
            self.came.notify_one();
        }
    }

    /// Puts there what a peer says, which is held if that was too much.
    pub(super) fn say(&self, party: &Arc<dyn Party>, item: Item) {
        self.say_all(party, std::iter::once(item));
    }

    /// The same of several things, which the bus's thread finds all at once.
    pub(super) fn say_all(&self, party: &Arc<dyn Party>, items: impl Iterator<Item = Item>) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        let mut is_urgent = false;
        for item in items {
            state.bytes += item.cost();
            let is_much = state.bytes > OF_ALL;
            let speaker = state.speakers.entry(party.generation()).or_default();
            speaker.bytes += item.weight();
            if is_much || speaker.bytes > OF_ONE {
                speaker.held = Some(Arc::clone(party));
                // Under the lock, or the bus's thread might release it before.
                party.hold(true);
            }
            is_urgent |= state.push(item);
        }
        drop(state);
        if is_urgent {
            self.came.notify_one();
        }
    }

    /// Releases a peer that was held, unless it has said too much again.
    pub(super) fn release(&self, party: &Arc<dyn Party>) {
        let state = self.state.lock();
        let speaker = state.speakers.get(&party.generation());
        if speaker.is_none_or(|speaker| speaker.held.is_none()) {
            party.hold(false);
        }
    }

    /// Takes what is there; waits for something until then. What is taken goes into `spare`, which
    /// is empty.
    pub(super) fn take(&self, until: Instant, spare: VecDeque<Item>) -> Batch {
        let mut state = self.state.lock();
        if !state.is_urgent {
            let nap = until.min(Instant::now() + state.nap());
            while !state.is_urgent && !state.is_closed {
                if self.came.wait_until(&mut state, nap).timed_out() {
                    break;
                }
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
        batch.is_last = state.is_closed && state.items.is_empty();
        drop(state);
        self.room.notify_all();
        batch
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_wait_longer_only_while_messages_come_all_the_time() {
        let mut state = State { is_urgent: true, ..State::default() };
        assert_eq!(state.nap(), NAP);
        (0..BRISK).for_each(|_| state.note_turn());
        assert_eq!(state.nap(), LONG_NAP);
        state.is_urgent = false;
        state.note_turn();
        assert_eq!(state.nap(), NAP);
    }
}
