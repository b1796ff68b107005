//! What the bus is told.

use std::sync::Arc;

use crate::bus::{Desk, Party, Settings};
use crate::proto::bus::{Load, MailboxId, Message, Owner, Reading, Submission, Subscription};

/// Something to be done, and what to do when it is committed.
pub(in crate::bus) type Work = Box<dyn FnOnce(&mut Desk<'_>) -> Box<dyn FnOnce() + Send> + Send>;

/// What the bus is told.
pub(in crate::bus) enum Item {
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
    Settings(Box<Settings>),
    /// A sync has ended.
    Synced,
}

/// A message of a peer.
pub(in crate::bus) struct Submitted {
    pub(in crate::bus) party: Arc<dyn Party>,
    pub(in crate::bus) submission: Submission,
    pub(in crate::bus) wants_receipt: bool,
    /// How many messages it comes to.
    pub(in crate::bus) copies: usize,
}

impl Item {
    /// What it counts as, in bytes.
    pub(super) fn cost(&self) -> usize {
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
    pub(super) fn weight(&self) -> usize {
        let copies = if let Self::Submit(Submitted { copies, .. }) = self { *copies } else { 1 };
        self.cost().saturating_mul(copies)
    }

    /// Whether the thread of sessions may see to it: most turns with it are short.
    pub(super) const fn is_small(&self) -> bool {
        match self {
            Self::Submit(Submitted { copies, .. }) => *copies == 1,
            Self::Acknowledge { .. } | Self::AcknowledgeRecords { .. } | Self::Synced => true,
            Self::Ask(_)
            | Self::Open { .. }
            | Self::Close { .. }
            | Self::Subscribe { .. }
            | Self::Loaded { .. }
            | Self::Settings(_) => false,
        }
    }

    /// The session that said it, where that is held for saying too much.
    pub(super) fn speaker(&self) -> Option<u64> {
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
