//! A hub as the bus sees it: somebody to deliver to, behind a queue.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::bus::{self, Batch, Outcome, Outgoing, Receipt};

/// One session with a hub.
pub(super) struct Party {
    generation: u64,
    to_hub: mpsc::Sender<FromBus>,
    /// To hand itself over.
    own: Weak<Self>,
    submitted: Mutex<Submitted>,
    /// Something of `submitted` has changed.
    changed: Notify,
}

/// What the bus has for a hub.
pub(super) enum FromBus {
    /// Records, for the session of this party.
    Batch(Arc<Party>, Batch),
    /// It does not want this session any more.
    Over,
}

/// What the bus says of records that came from the hub.
#[derive(Debug, Default)]
struct Submitted {
    /// Records that it has said nothing of.
    waiting: usize,
    /// It could not keep one.
    is_refused: bool,
    /// Nothing more is to come for a while.
    is_held: bool,
    /// It does not want this session any more.
    is_over: bool,
}

/// The bus has not kept what came from a hub: it has to come again.
#[derive(Debug)]
pub(super) struct NotKept;

impl Party {
    pub(super) fn new(generation: u64, to_hub: mpsc::Sender<FromBus>) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            generation,
            to_hub,
            own: own.clone(),
            submitted: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// The number of the session.
    pub(super) const fn number(&self) -> u64 {
        self.generation
    }

    /// So many records will be submitted: before they are, since the bus may answer at once.
    pub(super) fn expect(&self, records: usize) {
        self.submitted.lock().waiting += records;
    }

    /// Waits until all records that were submitted are kept, and the bus wants more.
    pub(super) async fn kept(&self) -> Result<(), NotKept> {
        loop {
            let changed = self.changed.notified();
            {
                let submitted = self.submitted.lock();
                if submitted.is_refused || submitted.is_over {
                    return Err(NotKept);
                }
                if submitted.waiting == 0 && !submitted.is_held {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    fn end(&self) {
        self.change(|submitted| submitted.is_over = true);
        // Where it is full, batches are under way whose acknowledgements come to nothing.
        let _ = self.to_hub.try_send(FromBus::Over);
    }

    fn change(&self, change: impl FnOnce(&mut Submitted)) {
        change(&mut self.submitted.lock());
        // One task waits at most; the permit stays for it.
        self.changed.notify_one();
    }
}

impl bus::Party for Party {
    fn generation(&self) -> u64 {
        self.generation
    }

    /// Nothing waits in the mailboxes of hubs.
    fn deliver(&self, _: &[Outgoing], _: Instant) -> usize {
        0
    }

    fn records(&self, batch: &Batch, _: Instant) {
        if let Some(own) = self.own.upgrade() {
            // The one before is on its way: this one comes again.
            let _ = self.to_hub.try_send(FromBus::Batch(own, batch.clone()));
        }
    }

    fn receipts(&self, receipts: &[Receipt], _: Instant) {
        let is_refused =
            receipts.iter().any(|receipt| matches!(receipt.outcome, Outcome::Refused(_)));
        self.change(|submitted| {
            submitted.waiting = submitted.waiting.saturating_sub(receipts.len());
            submitted.is_refused |= is_refused;
        });
    }

    fn hold(&self, is_held: bool) {
        self.change(|submitted| submitted.is_held = is_held);
    }

    fn withdraw(&self) {
        tracing::error!("the bus has no room for the channels of a hub: raise its limits");
        self.end();
    }

    fn replace(&self) {
        self.end();
    }
}
