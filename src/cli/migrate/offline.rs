//! A bus on the store of a relay that does not run, for what is brought into it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::proto::bus::{Bus, Limits, Millis, Refused, Submission, Submitted, Turn};
use crate::store::audit::Chain;
use crate::store::{Commit, Embedded, Handover, Store as _, StoreError, bus_folder};

/// Inputs are collected in `turn`, and written together.
pub(super) struct Offline {
    store: Embedded,
    pub(super) bus: Bus,
    chain: Chain,
    pub(super) turn: Turn,
    pub(super) now: Millis,
}

impl Offline {
    /// Opens the store of a state folder.
    ///
    /// # Errors
    /// A relay runs there, or the store cannot be read.
    pub(super) fn open(state_dir: &Path, limits: Limits) -> anyhow::Result<Self> {
        let folder = bus_folder(state_dir);
        let opened = Embedded::open(&folder, Handover::Kernel);
        let store =
            opened.with_context(|| format!("{}: does a relay run there?", folder.display()))?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            bus: Bus::new(limits, store.recover()?),
            chain: Chain::after(store.last_audit()?.as_ref()),
            store,
            turn: Turn::default(),
            now: Millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// What becomes of a message.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn submit(&mut self, submission: &Submission) -> Result<Submitted, StoreError> {
        let Self { bus, turn, now, store, .. } = self;
        bus.submit(submission, *now, turn, |mailbox, key| store.find(mailbox, key))
    }

    /// Writes what was taken so far.
    ///
    /// # Errors
    /// It is not written.
    pub(super) fn commit(&mut self) -> anyhow::Result<()> {
        let mut turn = std::mem::take(&mut self.turn);
        self.bus.finish(self.now, &mut turn);
        let entries = turn.events.iter().map(|event| self.chain.append(event, self.now));
        let audit = entries.collect();
        self.store.commit(&Commit { changes: turn.changes, audit })?;
        Ok(())
    }

    /// Writes the rest, and has the disk take all of it.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.commit()?;
        Ok(self.store.sync()?)
    }
}

/// Why the message bus did not take a message of another program's, for people.
pub(super) const fn why(refused: Refused) -> &'static str {
    match refused {
        Refused::UnknownRecipient => "nobody has the recipient's name; leave it out",
        Refused::Quota => {
            "the recipient's mailbox is full; raise --bus-quota-messages or --bus-quota-bytes"
        }
        Refused::StoreFull => "the disk of the state folder is full; make room",
        Refused::NoRecipients => "it is for all others, and there is nobody else; leave it out",
        Refused::RecipientsFull => {
            "the mailboxes of all recipients are full; raise --bus-quota-messages"
        }
        Refused::TooManyCopies => "it is for too many at a time; leave it out",
        Refused::KeyTaken => "its mailbox has no room for its id; raise --bus-quota-messages",
    }
}
