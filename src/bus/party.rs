//! A connected peer, as the bus sees it, and what the two tell each other.

use std::sync::Arc;
use std::time::Instant;

use crate::proto::bus::{Refused, Submitted, To};

/// A connected peer, as the bus sees it. Nothing here may wait: it is a turn of the bus that calls.
pub trait Party: Send + Sync + 'static {
    /// Tells this connection from all others of the process; that of a later one is higher.
    fn generation(&self) -> u64;

    /// Queues messages in this order and sends what the kernel takes; returns how many were queued.
    fn deliver(&self, messages: &[Outgoing], now: Instant) -> usize;

    /// Queues a batch of records of channels, all of it or nothing, and sends what the kernel takes.
    /// The next one comes once it was acknowledged ([`super::Handle::acknowledge_records`]), or the same
    /// again. A peer without subscriptions gets none.
    fn records(&self, _batch: &Batch, _now: Instant) {}

    /// Tells what became of messages that the peer has sent.
    fn receipts(&self, receipts: &[Receipt], now: Instant);

    /// Whether it is told what becomes of each message, also of one without a receipt.
    fn is_answered(&self) -> bool {
        false
    }

    /// Has nothing more be read from the peer, or goes on.
    fn hold(&self, held: bool);

    /// Ends the connection: its name belongs to another owner.
    fn withdraw(&self);

    /// Ends the connection: a younger one at another relay has its name.
    fn replace(&self);
}

/// A message on its way to a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outgoing {
    /// What the peer acknowledges it by.
    pub key: Arc<str>,
    /// What its door made of it.
    pub body: Arc<[u8]>,
}

/// A record that a peer publishes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Published {
    /// A channel, or nobody.
    pub to: To,
    /// Its id.
    pub id: Arc<str>,
    /// What subscribers get.
    pub body: Arc<[u8]>,
}

/// Records of channels on their way to a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// What it is acknowledged by; the same where it comes again, and no other has it in the same
    /// session.
    pub number: u64,
    /// The records, each with its id: of each channel in order.
    pub records: Vec<Outgoing>,
}

/// What became of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// Its sender's id.
    pub id: Arc<str>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a message, in the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It waits for its recipient, as safely as the durability says.
    Stored,
    /// A broadcast of which some recipients get no copy: their mailbox is full.
    Partly {
        /// Copies that wait.
        stored: usize,
        /// Recipients.
        of: usize,
    },
    /// It was stored before.
    Duplicate,
    /// It is not stored.
    Refused(Refused),
}

impl From<Submitted> for Outcome {
    fn from(submitted: Submitted) -> Self {
        match submitted {
            Submitted::Stored(_) => Self::Stored,
            Submitted::Partly { stored, of } => Self::Partly { stored, of },
            Submitted::Duplicate => Self::Duplicate,
            Submitted::Refused(reason) => Self::Refused(reason),
        }
    }
}
