//! What sessions, readers and operators have for the bus's thread, and who is held because of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use foldhash::HashMap;
use parking_lot::{Condvar, Mutex};

use super::{Desk, Party};
use crate::proto::bus::{Load, MailboxId, Message, Stored, Submission};

/// Bytes of one peer that wait to be judged: then it is read no more.
const OF_ONE: usize = 256 * 1_024;

/// Bytes of all peers: from there on each is read no more with its next message.
const OF_ALL: usize = 64 << 20;

/// What one turn takes, in items and in bytes of messages.
const TURN: usize = 1_024;
const TURN_BYTES: usize = 8 << 20;

/// Something to be done, and what to do when it is committed.
pub(super) type Work = Box<dyn FnOnce(&mut Desk<'_>) -> Box<dyn FnOnce() + Send> + Send>;

/// What the bus's thread is told.
pub(super) enum Item {
    Ask(Work),
    Open { mailbox: MailboxId, party: Arc<dyn Party> },
    Close { mailbox: MailboxId, generation: u64 },
    Submit(Submitted),
    Acknowledge { mailbox: MailboxId, generation: u64, key: Box<str> },
    Loaded { load: Load, stored: Vec<Stored> },
    Settings(Box<super::Settings>),
}

/// A message of a peer.
pub(super) struct Submitted {
    pub(super) party: Arc<dyn Party>,
    pub(super) submission: Submission,
    pub(super) wants_receipt: bool,
}

impl Submitted {
    fn cost(&self) -> usize {
        self.submission.body.len() + Message::OVERHEAD
    }
}

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Something has come.
    came: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Of each peer with messages here, by its generation.
    senders: HashMap<u64, Sender>,
    is_closed: bool,
}

#[derive(Default)]
struct Sender {
    bytes: usize,
    held: Option<Arc<dyn Party>>,
}

/// What a turn begins with.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    /// Peers all of whose messages are in it, and that were held.
    pub(super) held: Vec<Arc<dyn Party>>,
    /// Nothing more will come.
    pub(super) is_last: bool,
}

impl Inbox {
    pub(super) fn put(&self, item: Item) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.items.push_back(item);
            drop(state);
            self.came.notify_one();
        }
    }

    /// Puts a message there; its sender is held if it has put too many.
    pub(super) fn submit(
        &self,
        party: &Arc<dyn Party>,
        submission: Submission,
        wants_receipt: bool,
    ) {
        let submitted = Submitted { party: Arc::clone(party), submission, wants_receipt };
        let cost = submitted.cost();
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        state.bytes += cost;
        let is_much = state.bytes > OF_ALL;
        let sender = state.senders.entry(party.generation()).or_default();
        sender.bytes += cost;
        if sender.held.is_none() && (is_much || sender.bytes > OF_ONE) {
            sender.held = Some(Arc::clone(party));
            // Under the lock, or the thread might release it before.
            party.hold(true);
        }
        state.items.push_back(Item::Submit(submitted));
        drop(state);
        self.came.notify_one();
    }

    /// Takes what is there; waits for something until then.
    pub(super) fn take(&self, until: Instant) -> Batch {
        let mut state = self.state.lock();
        while state.items.is_empty() && !state.is_closed {
            if self.came.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.items.len() < TURN && bytes < TURN_BYTES {
            let Some(item) = state.items.pop_front() else { break };
            if let Item::Submit(submitted) = &item {
                let cost = submitted.cost();
                bytes += cost;
                state.bytes -= cost;
                let generation = submitted.party.generation();
                let sender = state.senders.get_mut(&generation).expect("it has messages here");
                sender.bytes -= cost;
                if sender.bytes == 0 {
                    let sender = state.senders.remove(&generation);
                    batch.held.extend(sender.and_then(|sender| sender.held));
                }
            }
            batch.items.push(item);
        }
        batch.is_last = state.is_closed && state.items.is_empty();
        batch
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.came.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }
}
