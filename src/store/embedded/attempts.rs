//! How often messages were delivered in vain.

use std::collections::{BTreeMap, HashMap};

use crate::proto::bus::{MailboxId, Seq};

/// How often messages were not acknowledged in time, by mailbox and position: at most two windows for
/// each mailbox.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<MailboxId, BTreeMap<Seq, u16>>);

impl Attempts {
    pub(super) fn of(&self, mailbox: MailboxId, seq: Seq) -> u16 {
        self.0.get(&mailbox).and_then(|of| of.get(&seq)).copied().unwrap_or(0)
    }

    pub(super) fn has(&self, mailbox: MailboxId) -> bool {
        self.0.contains_key(&mailbox)
    }

    pub(super) fn set(&mut self, mailbox: MailboxId, seq: Seq, attempts: u16) {
        self.0.entry(mailbox).or_default().insert(seq, attempts);
    }

    pub(super) fn forget(&mut self, mailbox: MailboxId, seq: Seq) {
        if let Some(of) = self.0.get_mut(&mailbox) {
            of.remove(&seq);
            if of.is_empty() {
                self.0.remove(&mailbox);
            }
        }
    }

    pub(super) fn forget_all(&mut self, mailbox: MailboxId) {
        self.0.remove(&mailbox);
    }
}
