//! The store of one epoch, as the bus sees it.

use std::sync::Arc;

use bytes::Bytes;
use prometheus::proto::MetricFamily;

use super::JetStream;
use super::record::Entry;
use crate::ids::RelayId;
use crate::proto::bus::{Digest, Found, MailboxId, Millis, Reading, Recovered, Seq};
use crate::store::{AuditEntry, ChainPage, Commit, DeadLetter, Most, Space, Store, StoreError};

/// The store, for who writes in one epoch: it takes nothing once that is over, also where this
/// relay leads again.
pub(super) struct Tenure {
    log: Arc<JetStream>,
    epoch: u64,
}

impl Tenure {
    pub(super) const fn of(log: Arc<JetStream>, epoch: u64) -> Self {
        Self { log, epoch }
    }

    /// Has all replicas do something that is no commit.
    fn sweep(&self, entry: Entry) -> Result<u64, StoreError> {
        let shared = &self.log.shared;
        let record = shared.handle.block_on(shared.append_entry(self.epoch, entry))?;
        shared.replica.sweep(&record)
    }
}

impl Store for Tenure {
    fn recover(&self) -> Result<Recovered, StoreError> {
        self.log.shared.replica.embedded.recover()
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        self.log.shared.commit(self.epoch, commit)
    }

    fn sync(&self) -> Result<(), StoreError> {
        // What was committed was acknowledged.
        Ok(())
    }

    fn read(&self, mailbox: MailboxId, from: Seq, most: Most) -> Result<Reading, StoreError> {
        self.log.shared.replica.embedded.read(mailbox, from, most)
    }

    fn find(&self, mailbox: MailboxId, key: Digest) -> Result<Option<Found>, StoreError> {
        self.log.shared.replica.embedded.find(mailbox, key)
    }

    fn dead_letters(&self, mailbox: MailboxId, most: Most) -> Result<Vec<DeadLetter>, StoreError> {
        self.log.shared.replica.embedded.dead_letters(mailbox, most)
    }

    fn drop_dead_letters(&self, before: Millis) -> Result<u64, StoreError> {
        self.sweep(Entry::DropLetters(before))
    }

    fn trim_dead_letters(&self, most: Most) -> Result<u64, StoreError> {
        self.sweep(Entry::TrimLetters(most))
    }

    fn audit(&self, from: u64, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.log.shared.replica.embedded.audit(from, most)
    }

    fn last_audit(&self) -> Result<Option<AuditEntry>, StoreError> {
        self.log.shared.replica.embedded.last_audit()
    }

    fn audit_bytes(&self) -> Result<u64, StoreError> {
        self.log.shared.replica.embedded.audit_bytes()
    }

    fn cut_audit(&self, before: u64, head: &[u8]) -> Result<(), StoreError> {
        self.sweep(Entry::CutAudit { before, head: Bytes::copy_from_slice(head) }).map(drop)
    }

    fn audit_head(&self) -> Result<Option<Box<[u8]>>, StoreError> {
        self.log.shared.replica.embedded.audit_head()
    }

    fn chains(&self) -> Result<Vec<RelayId>, StoreError> {
        self.log.shared.replica.embedded.chains()
    }

    fn chain(&self, relay: RelayId, from: u64, most: usize) -> Result<ChainPage, StoreError> {
        self.log.shared.replica.embedded.chain(relay, from, most)
    }

    fn space(&self) -> Result<Space, StoreError> {
        self.log.shared.space()
    }

    fn close(&self) {
        self.log.resign();
    }

    fn families(&self, families: &mut Vec<MetricFamily>) {
        self.log.shared.families(families);
    }
}
