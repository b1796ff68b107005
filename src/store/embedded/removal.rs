//! Removal of what is old: dead letters, and entries of the audit log.
//!
//! What is known is locked for moments only: a commit needs it, and waits neither for rows that
//! are looked for nor for a disk that syncs.

use std::collections::BTreeSet;

use fjall::{Keyspace, PersistMode};
use parking_lot::Mutex;

use super::codec::{letter_key, write_head, write_number};
use super::database::{Database, failure, memory_of, unwritten};
use super::known::{AUDIT_BYTES_ROW, HEAD_ROW, Known, row_bytes};
use super::{key_of, key_value};
use crate::proto::bus::{MailboxId, Millis, Seq};
use crate::store::{Most, StoreError};

/// Rows of the audit log that do not count.
pub(super) struct Cut {
    keys: Vec<Vec<u8>>,
    /// What they take.
    bytes: u64,
    /// No row that stays is before this one.
    from: u64,
}

impl Database {
    /// The keys of some of the dead letters of before a time, from this key on, which it moves
    /// behind them; none where there are no more.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn old_letters(
        &self,
        before: Millis,
        most: usize,
        from: &mut [u8; 24],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut found = Vec::new();
        while found.len() < most {
            let Some(first) = self.letters.range(&from[..]..).next() else { break };
            let (key, _) = key_value(first)?;
            let [mailbox, ..] = key_of::<3>(&self.letters, &key)?;
            // They are in the order of their times: none behind the first that is young.
            let young = letter_key(MailboxId(mailbox), before, Seq(0));
            if key[..] < young[..] {
                let old = self.letters.range(&key[..]..&young[..]);
                for row in old.take(most - found.len()) {
                    found.push(row.key().map_err(failure)?.to_vec());
                }
            }
            if found.len() < most {
                *from = letter_key(MailboxId(mailbox.saturating_add(1)), Millis(0), Seq(0));
            }
        }
        Ok(found)
    }

    /// The mailboxes that have dead letters.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn mailboxes_of_letters(&self) -> Result<BTreeSet<MailboxId>, StoreError> {
        let mut mailboxes = BTreeSet::new();
        let mut from = Some(0);
        while let Some(mailbox) = from {
            let first = letter_key(MailboxId(mailbox), Millis(0), Seq(0));
            let Some(row) = self.letters.range(&first[..]..).next() else { break };
            let [mailbox, ..] = key_of::<3>(&self.letters, &row.key().map_err(failure)?)?;
            mailboxes.insert(MailboxId(mailbox));
            from = mailbox.checked_add(1);
        }
        Ok(mailboxes)
    }

    /// The keys of the oldest dead letters of a mailbox, where it has more than this.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn surplus_letters(
        &self,
        mailbox: MailboxId,
        most: Most,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let of = |number| letter_key(mailbox, Millis(number), Seq(number));
        let mut surplus = Vec::new();
        let mut messages = 0;
        let mut bytes = 0;
        for row in self.letters.range(&of(0)[..]..=&of(u64::MAX)[..]).rev() {
            let (key, value) = key_value(row)?;
            messages += 1;
            bytes += value.len();
            if messages > most.messages || bytes > most.bytes {
                surplus.push(key.to_vec());
            }
        }
        Ok(surplus)
    }

    /// Removes rows, all of them or none.
    ///
    /// # Errors
    /// The database has to be opened again.
    pub(super) fn remove_all(
        &self,
        known: &Mutex<Known>,
        space: &Keyspace,
        keys: Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let mut batch = self.inner.batch().durability(Some(PersistMode::Buffer));
        let mut memory = 0;
        for key in keys {
            memory += memory_of(key.len(), 0);
            batch.remove(space, key);
        }
        batch.commit().map_err(unwritten)?;
        known.lock().unsettled += memory;
        Ok(())
    }

    /// Has the audit log begin at an entry, and says what stands before it. What is before does
    /// not count from here on, and [`Self::remove_cut`] removes it.
    ///
    /// # Errors
    /// The database has to be opened again.
    pub(super) fn set_head(
        &self,
        known: &Mutex<Known>,
        before: u64,
        head: &[u8],
    ) -> Result<(), StoreError> {
        let mut batch = self.inner.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.meta, HEAD_ROW, write_head(before, head));
        batch.commit().map_err(unwritten)?;
        known.lock().head = Some((before, head.into()));
        Ok(())
    }

    /// Some rows of the audit log that do not count, nothing where there are no more. The last of
    /// them may reach over the first entry that counts, and stays.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn cut(&self, known: &Mutex<Known>, most: usize) -> Result<Option<Cut>, StoreError> {
        let old = {
            let known = known.lock();
            let Some((before, _)) = &known.head else { return Ok(None) };
            known.cut_from.to_be_bytes()..=before.to_be_bytes()
        };
        let mut keys = Vec::new();
        let mut bytes = 0;
        let mut of_last = 0;
        for row in self.audit.range(old).take(most + 1) {
            let (key, value) = key_value(row)?;
            of_last = row_bytes(&key, &value);
            bytes += of_last;
            keys.push(key.to_vec());
        }
        bytes -= of_last;
        let Some(first_kept) = keys.pop() else { return Ok(None) };
        let [from] = key_of(&self.audit, &first_kept)?;
        Ok(Some(Cut { keys, bytes, from }).filter(|cut| !cut.keys.is_empty()))
    }

    /// Removes these rows.
    ///
    /// # Errors
    /// The database has to be opened again.
    pub(super) fn remove_cut(&self, known: &Mutex<Known>, cut: Cut) -> Result<(), StoreError> {
        let removed = cut.keys.len() as u64;
        let left = known.lock().audit_bytes.saturating_sub(cut.bytes);
        let mut batch = self.inner.batch().durability(Some(PersistMode::Buffer));
        let mut memory = 0;
        for key in cut.keys {
            memory += memory_of(key.len(), 0);
            batch.remove(&self.audit, key);
        }
        batch.insert(&self.meta, AUDIT_BYTES_ROW, write_number(left));
        batch.commit().map_err(unwritten)?;
        let mut known = known.lock();
        known.unsettled += memory;
        known.audit_bytes = known.audit_bytes.saturating_sub(cut.bytes);
        known.cut_from = cut.from;
        known.cut += removed;
        Ok(())
    }
}
