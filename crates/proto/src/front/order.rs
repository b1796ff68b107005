//! What a relay that leads has its bus do, and what it says over links.

use std::collections::VecDeque;
use std::sync::Arc;

use super::LinkId;
use super::action::Claim;
use crate::bus::{MailboxId, Owner, Submission};

/// What the bus is to do. Each is done after all before it.
#[derive(Clone, Debug)]
pub enum Order {
    /// Claim a name, and say what became of it (`Host::claimed`).
    Claim {
        /// Who asks.
        link: LinkId,
        /// What it calls the claim.
        request: u64,
        /// The claim.
        claim: Claim,
    },
    /// Claim a name for a session, and say what became of it (`Host::entered`).
    Enter {
        /// The seat of the session.
        generation: u64,
        /// The claim.
        claim: Claim,
    },
    /// Deliver messages to a seat.
    Open {
        /// The seat.
        generation: u64,
        /// Its mailbox.
        mailbox: MailboxId,
        /// Its credential.
        owner: Owner,
    },
    /// Deliver no more to a seat.
    Close {
        /// The seat.
        generation: u64,
        /// Its mailbox.
        mailbox: MailboxId,
    },
    /// Judge a message.
    Submit {
        /// Whose seat it comes from.
        generation: u64,
        /// The message.
        submission: Submission,
        /// Whether its sender is told what becomes of it.
        wants_receipt: bool,
    },
    /// A message was acknowledged.
    Acknowledge {
        /// By which seat.
        generation: u64,
        /// Its mailbox.
        mailbox: MailboxId,
        /// The key of the message.
        key: Box<str>,
    },
    /// A seat is subscribed to channels.
    Subscribe {
        /// The seat.
        generation: u64,
        /// Its mailbox.
        mailbox: MailboxId,
        /// The channels, and no others.
        channels: Vec<Arc<str>>,
        /// Whether it keeps no cursors.
        is_ephemeral: bool,
    },
    /// The records of a batch were acknowledged.
    AcknowledgeRecords {
        /// By which seat.
        generation: u64,
        /// Its mailbox.
        mailbox: MailboxId,
        /// The batch.
        batch: u64,
    },
    /// Answer an operator's question (`Host::answer`).
    Ask {
        /// Who asks.
        link: LinkId,
        /// What it calls the question.
        request: u64,
        /// The question.
        question: Vec<u8>,
    },
}

/// What the relay is to do.
#[derive(Debug, Default)]
pub struct Output {
    /// What to say over links, in this order.
    pub says: Vec<(LinkId, Vec<u8>)>,
    /// What the bus is to do, in this order.
    pub orders: VecDeque<Order>,
}
