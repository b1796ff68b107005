//! What a batch of inputs comes to: changes to commit, and effects once they are committed.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::types::{Change, Digest, Event, Found, MailboxId, Message, Seq};

/// What a batch of inputs comes to. Nothing of it may be told to anybody before `changes` and
/// `events` are committed, which is then done to the end.
#[derive(Debug, Default)]
pub struct Turn {
    /// What to commit.
    pub changes: Vec<Change>,
    /// What the audit log says of it, in this order, in the same commit.
    pub events: Vec<Event>,
    /// What to do when it is committed, in this order.
    pub effects: Vec<Effect>,
    /// What the messages that are appended count as, in bytes.
    pub appended_bytes: usize,
    pub(super) touched: BTreeSet<MailboxId>,
    pub(super) origins: Vec<Digest>,
    /// What is appended here, which the store does not find yet.
    pub(super) appended: HashMap<(MailboxId, Digest), Found, foldhash::fast::RandomState>,
    /// Dead letters.
    pub(super) buried: u64,
    /// What is removed here, which the store still finds.
    pub(super) removed: HashSet<(MailboxId, Seq), foldhash::fast::RandomState>,
}

impl Turn {
    /// Makes it that of the next batch, with the memory that it has.
    pub fn clear(&mut self) {
        let Self {
            changes,
            events,
            effects,
            appended_bytes,
            touched,
            origins,
            appended,
            buried,
            removed,
        } = self;
        changes.clear();
        events.clear();
        effects.clear();
        touched.clear();
        origins.clear();
        appended.clear();
        removed.clear();
        *buried = 0;
        *appended_bytes = 0;
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub const fn is_unchanged(&self) -> bool {
        self.changes.is_empty() && self.events.is_empty()
    }
}

/// What is done when a turn is committed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Hand a message to the recipient's session.
    Deliver {
        /// To whom.
        mailbox: MailboxId,
        /// To which of its sessions.
        generation: u64,
        /// Where it is in the mailbox.
        seq: Seq,
        /// What.
        message: Arc<Message>,
    },
    /// Hand a batch of records to the subscriber's session: all of it, or nothing.
    Records {
        /// To whom.
        mailbox: MailboxId,
        /// To which of its sessions.
        generation: u64,
        /// What it acknowledges the batch by; the same where it comes again.
        batch: u64,
        /// What.
        records: Vec<Arc<Message>>,
    },
    /// Read messages and bring them by [`super::Bus::loaded`].
    Load(Load),
    /// End a session.
    Withdraw {
        /// Of which mailbox.
        mailbox: MailboxId,
        /// Which of its sessions.
        generation: u64,
        /// Why.
        why: Withdrawn,
    },
}

/// Why a session is ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Withdrawn {
    /// The name that it has logged in under belongs to another owner.
    NotItsName,
    /// It subscribes more channels than one peer may, or has cursors in so many.
    ChannelsOfPeer,
    /// There are as many channels as there may be.
    Channels,
    /// There are as many cursors as there may be.
    Cursors,
}

/// A reading of messages from the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Load {
    /// Of which mailbox or channel.
    pub mailbox: MailboxId,
    /// From which position on.
    pub from: Seq,
    /// Messages, at most.
    pub messages: usize,
    /// What they count as, in bytes, at most; one message whatever it counts as.
    pub bytes: usize,
    pub(super) purpose: Purpose,
    /// The position of the next message when it was asked for: what came behind is not read.
    pub(super) next: Seq,
    /// How often messages were removed unseen when it was asked for: what was read before the next
    /// such removal may be gone.
    pub(super) removals: u64,
}

/// What a reading is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// To hand messages to the session of this generation.
    Deliver { generation: u64 },
    /// To hand late messages to it again.
    Repeat { generation: u64 },
    /// To remove what is too old, or purged.
    Sweep,
    /// To hand records of a channel to a session of a peer.
    Records { peer: MailboxId, generation: u64 },
    /// To remove records of a channel that are too old, or too many.
    Retain,
}
