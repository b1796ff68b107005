//! Where messages are durable.
//!
//! A [`Store`] writes what belongs together in one [`Commit`]: all of it is there after a crash, or
//! none. It decides nothing: which message waits where is the bus's (the room above), whose one
//! thread makes all commits; any thread may read.

pub mod audit;
mod embedded;
mod jetstream;
#[cfg(test)]
mod suite;

pub use embedded::{Embedded, bus_folder};
pub use jetstream::{
    JetStream, Leadership, MoveError, Moved, OpenError, Outage, Probe, ProbedAccount, ProbedLog,
    Settings as JetStreamSettings, replica_folder,
};

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use crate::ids::RelayId;
use crate::proto::bus::{
    Cause, Change, Digest, Found, MailboxId, Millis, Reading, Recovered, Seq, Stored,
};

/// One entry of the audit log, at its place in the chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditEntry {
    /// Its number: 0 for the first that ever was, then one more for each.
    pub seq: u64,
    /// When it was written.
    pub at: Millis,
    /// BLAKE3 of the hash before it, as hexadecimal text, and of `event`.
    pub hash: [u8; 32],
    /// The event as JSON.
    pub event: Arc<[u8]>,
}

/// A part of the audit log of a relay.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ChainPage {
    /// What stands in the place of entries that were removed.
    pub head: Option<Box<[u8]>>,
    /// The number of the last entry of all.
    pub last: Option<u64>,
    /// Its entries.
    pub entries: Vec<AuditEntry>,
}

/// What is written together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Commit {
    /// What changes, in this order.
    pub changes: Vec<Change>,
    /// What the audit log says of it, in the order of the chain.
    pub audit: Vec<AuditEntry>,
}

impl Commit {
    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.audit.is_empty()
    }

    /// Whether somebody is told that something of it is safe.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let is_promised = |change: &Change| {
            matches!(
                change,
                Change::Name(_)
                    | Change::Forget { .. }
                    | Change::Append { .. }
                    | Change::Requeue { .. }
                    | Change::Record { .. }
            )
        };
        self.changes.iter().any(is_promised)
    }
}

/// Who has a commit when [`Store::commit`] returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handover {
    /// The kernel: a process that is killed loses nothing. The disk has it after [`Store::sync`].
    Kernel,
    /// The process, which hands it on as its buffers fill.
    Process,
}

/// How much [`Store::read`] and [`Store::dead_letters`] return at most; one message whatever it costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Most {
    /// In messages.
    pub messages: usize,
    /// In bytes, as [`crate::proto::bus::Message::cost`] counts them.
    pub bytes: usize,
}

/// A message that is kept although nobody will get it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeadLetter {
    /// The message, at its former position.
    pub stored: Stored,
    /// Why it is here.
    pub cause: Cause,
    /// Since when.
    pub at: Millis,
}

/// The space of a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Space {
    /// What it takes, in bytes.
    pub used: u64,
    /// What is free for it, in bytes, less what it is yet to write of what it has.
    pub free: u64,
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full, or broken: what was asked may succeed later. A commit that failed so is
    /// not there, or is there as a whole after a restart.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// What is stored makes no sense: somebody else wrote it, or the disk has lost some of it.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Another process uses it.
    #[error("another relay uses the store")]
    Locked,
    /// Another relay leads: nothing more is written for this one, whatever it repeats.
    #[error("another relay leads")]
    Fenced,
}

/// Where messages are durable.
pub trait Store: Send + Sync + 'static {
    /// What is there.
    ///
    /// # Errors
    /// It cannot be read.
    fn recover(&self) -> Result<Recovered, StoreError>;

    /// Writes all of it, or nothing. One thread calls it. A caller whose commit failed may repeat
    /// it as it is; it does nothing twice.
    ///
    /// # Errors
    /// Nobody can read it, and it has to be repeated: a crash before that may leave all of it.
    fn commit(&self, commit: &Commit) -> Result<(), StoreError>;

    /// Has the disk take what was committed before. Several threads may call it at a time, while
    /// another one commits.
    ///
    /// # Errors
    /// It did not.
    fn sync(&self) -> Result<(), StoreError>;

    /// Messages of a mailbox, or records of a channel, from this position on, in the order of their
    /// positions. Those that make
    /// no sense are told as such, and the ones behind them are read.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&self, mailbox: MailboxId, from: Seq, most: Most) -> Result<Reading, StoreError>;

    /// The message that waits under this delivery key.
    ///
    /// # Errors
    /// It cannot be read.
    fn find(&self, mailbox: MailboxId, key: Digest) -> Result<Option<Found>, StoreError>;

    /// The dead letters of a mailbox, the oldest first; the last of them may be beyond the bytes.
    ///
    /// # Errors
    /// They cannot be read.
    fn dead_letters(&self, mailbox: MailboxId, most: Most) -> Result<Vec<DeadLetter>, StoreError>;

    /// Removes dead letters, of all mailboxes, that are older than this, and says how many. Where
    /// there are very many, some stay for the next call.
    ///
    /// # Errors
    /// They are still there.
    fn drop_dead_letters(&self, before: Millis) -> Result<u64, StoreError>;

    /// Removes the oldest dead letters of each mailbox that has more than this, and says how many.
    /// Those that have just come may stay for the next call.
    ///
    /// # Errors
    /// Some are still there.
    fn trim_dead_letters(&self, most: Most) -> Result<u64, StoreError>;

    /// Entries of the audit log from this number on, at most so many.
    ///
    /// # Errors
    /// They cannot be read.
    fn audit(&self, from: u64, most: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// The last entry of the audit log.
    ///
    /// # Errors
    /// It cannot be read.
    fn last_audit(&self) -> Result<Option<AuditEntry>, StoreError>;

    /// What the audit log takes, in bytes.
    ///
    /// # Errors
    /// Nobody knows.
    fn audit_bytes(&self) -> Result<u64, StoreError>;

    /// Removes the entries before this number, and keeps `head` as what stands in their place.
    ///
    /// # Errors
    /// They are still there.
    fn cut_audit(&self, before: u64, head: &[u8]) -> Result<(), StoreError>;

    /// What stands in the place of entries that were removed.
    ///
    /// # Errors
    /// It cannot be read.
    fn audit_head(&self) -> Result<Option<Box<[u8]>>, StoreError>;

    /// The other relays whose audit logs it has beside this one's.
    ///
    /// # Errors
    /// They cannot be read.
    fn chains(&self) -> Result<Vec<RelayId>, StoreError> {
        Ok(Vec::new())
    }

    /// Entries of another relay's audit log from this number on, at most so many.
    ///
    /// # Errors
    /// They cannot be read.
    fn chain(&self, _relay: RelayId, _from: u64, _most: usize) -> Result<ChainPage, StoreError> {
        Ok(ChainPage::default())
    }

    /// How much there is, and how much there may be.
    ///
    /// # Errors
    /// Nobody knows.
    fn space(&self) -> Result<Space, StoreError>;

    /// Appends what it counts to the families of a scrape.
    fn families(&self, _families: &mut Vec<MetricFamily>) {}

    /// Closes it, for a process that ends: everything fails from here on. Waits for what runs in
    /// the background, which may be long; a process that ends before loses nothing.
    fn close(&self) {}
}
