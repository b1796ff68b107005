//! What a front decides: what its relay is to do, and what it says to the leader of a claim.

use std::sync::Arc;

use super::LinkId;
use beacon_wire::front::{ClaimOutcome, Claimant, Message, Outcome};

/// A credential that claims a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The name space.
    pub realm: u8,
    /// The credential.
    pub owner: [u8; 32],
    /// The name.
    pub name: Arc<str>,
}

/// What the relay is to do, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Say something over a link.
    Say {
        /// The link.
        link: LinkId,
        /// The message.
        message: Vec<u8>,
    },
    /// Hand messages to a session.
    Deliver {
        /// The session.
        session: u64,
        /// Their keys and bodies.
        letters: Vec<(Arc<str>, Arc<[u8]>)>,
    },
    /// Hand a batch of records to a session: all of it, or nothing.
    Records {
        /// The session.
        session: u64,
        /// What it acknowledges the batch by; the same where it comes again.
        batch: u64,
        /// The ids and bodies of the records.
        records: Vec<(Arc<str>, Arc<[u8]>)>,
    },
    /// Tell a session what became of a message for which it wants a receipt.
    Receipt {
        /// The session.
        session: u64,
        /// The message's id.
        id: Arc<str>,
        /// What became of it.
        outcome: Outcome,
    },
    /// Read no more of a session, or go on.
    Hold {
        /// The session.
        session: u64,
        /// Whether it is held.
        is_held: bool,
    },
    /// End a session: its name belongs to another credential.
    Withdraw {
        /// The session.
        session: u64,
    },
    /// End a session: a younger one has its name.
    Replace {
        /// The session.
        session: u64,
    },
    /// A claim is answered.
    Claimed {
        /// The claim.
        request: u64,
        /// What became of it.
        outcome: ClaimOutcome,
    },
    /// A question is answered; with nothing where the leader is lost.
    Answered {
        /// The question.
        request: u64,
        /// The answer.
        answer: Option<Vec<u8>>,
    },
    /// A name has a session at some relay, or no more.
    Name {
        /// Whether it has one.
        is_here: bool,
        /// The name space.
        realm: u8,
        /// The name.
        name: Arc<str>,
    },
}

impl Claim {
    /// The claim, under its number, as the leader hears it.
    pub(super) fn message(&self, request: u64) -> Message<'_> {
        let Self { realm, owner, name } = self;
        Message::Claim { request, claimant: Claimant { realm: *realm, owner: *owner, name } }
    }
}
