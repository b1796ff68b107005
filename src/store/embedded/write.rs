//! From a commit to rows.

use std::collections::{BTreeMap, HashMap};

use fjall::{Keyspace, PersistMode};
use parking_lot::Mutex;

use super::codec::{
    DigestKey, letter_key, mailbox_key, message_key, name_key, read_head, read_level, read_number,
    write_accepted, write_audit, write_found, write_letter, write_level, write_message, write_name,
    write_number,
};
use super::database::{Database, damaged, failure, memory_of, unavailable};
use super::{key_of, key_value};
use crate::proto::bus::{
    Cause, Change, Digest, Found, Level, MailboxId, Message, Millis, Named, Seq,
};
use crate::store::{AuditEntry, Commit, Durability, StoreError};

/// Row of `meta`: the number of the next mailbox.
const NEXT_MAILBOX_ROW: &str = "next mailbox";

/// Row of `meta`: the first entry of the audit log that counts, and what stands before it.
pub(super) const HEAD_ROW: &str = "audit head";

/// Entries of the audit log in one row: what a reader takes at once.
const ROW_ENTRIES: usize = 256;

/// Entries that are forgotten in one commit; the others go with the next.
const MOST_FORGOTTEN: u64 = 4096;

/// Longest key that fjall takes, in bytes.
const MOST_KEY: usize = 65_535;

/// What the writer keeps in memory of what is in the rows.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Above all mailboxes that ever were.
    pub(super) next_mailbox: u64,
    /// The first of the accepted that may still be there.
    first_accepted: u64,
    /// Messages that were not acknowledged in time, by mailbox and position: at most a window for
    /// each mailbox.
    pub(super) attempts: HashMap<MailboxId, BTreeMap<Seq, u16>>,
    /// What the messages of each mailbox count as, in bytes.
    bytes: HashMap<MailboxId, u64>,
    /// The sum of it.
    pub(super) live: u64,
    /// Bytes in memory that are not in files yet.
    pub(super) unsettled: u64,
    /// The first entry of the audit log that counts, and what stands before it.
    pub(super) head: Option<(u64, Box<[u8]>)>,
    /// No row of the audit log is before this one.
    pub(super) cut_from: u64,
    /// Rows of the audit log that were removed and may still take room.
    pub(super) cut: u64,
}

impl Known {
    /// Reads it from the rows; none of the messages.
    pub(super) fn read(database: &Database) -> Result<Self, StoreError> {
        let mut known = Self::default();
        let meta = |row: &str| database.meta.get(row).map_err(failure);
        if let Some(value) = meta(NEXT_MAILBOX_ROW)? {
            known.next_mailbox = read_number(&value)
                .map_err(|error| damaged(&database.meta, NEXT_MAILBOX_ROW.as_bytes(), error))?;
        }
        if let Some(value) = meta(HEAD_ROW)? {
            let head = read_head(&value)
                .map_err(|error| damaged(&database.meta, HEAD_ROW.as_bytes(), error))?;
            known.head = Some(head);
        }
        if let Some(first) = database.accepted.first_key_value() {
            let (key, _) = key_value(first)?;
            let [number] = key_of(&database.accepted, &key)?;
            known.first_accepted = number;
        }
        for row in database.levels.iter() {
            let (key, value) = key_value(row)?;
            let [mailbox] = key_of(&database.levels, &key)?;
            let level =
                read_level(&value).map_err(|error| damaged(&database.levels, &key, error))?;
            known.set_bytes(MailboxId(mailbox), level.bytes);
        }
        for row in database.attempts.iter() {
            let (key, value) = key_value(row)?;
            let [mailbox, seq] = key_of(&database.attempts, &key)?;
            let attempts =
                read_number(&value).map_err(|error| damaged(&database.attempts, &key, error))?;
            known.attempts.entry(MailboxId(mailbox)).or_default().insert(Seq(seq), attempts);
        }
        Ok(known)
    }

    fn set_bytes(&mut self, mailbox: MailboxId, bytes: u64) {
        let before = if bytes == 0 {
            self.bytes.remove(&mailbox)
        } else {
            self.bytes.insert(mailbox, bytes)
        };
        self.live = (self.live + bytes).saturating_sub(before.unwrap_or(0));
    }

    pub(super) fn attempts_of(&self, mailbox: MailboxId, seq: Seq) -> u16 {
        self.attempts.get(&mailbox).and_then(|of| of.get(&seq)).copied().unwrap_or(0)
    }

    /// Takes over what a commit that succeeded has changed.
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Name(named) => {
                self.next_mailbox = self.next_mailbox.max(named.mailbox.0 + 1);
            }
            Change::Forget { mailbox, .. } => {
                self.set_bytes(*mailbox, 0);
                self.attempts.remove(mailbox);
            }
            Change::Remove { mailbox, seq, .. } | Change::Bury { mailbox, seq, .. } => {
                if let Some(of) = self.attempts.get_mut(mailbox) {
                    of.remove(seq);
                    if of.is_empty() {
                        self.attempts.remove(mailbox);
                    }
                }
            }
            Change::Attempt { mailbox, seq, attempts } => {
                self.attempts.entry(*mailbox).or_default().insert(*seq, *attempts);
            }
            Change::Level { mailbox, level } => self.set_bytes(*mailbox, level.bytes),
            Change::ForgetAccepted { before } => {
                self.first_accepted = self.forgotten(*before).end;
            }
            Change::Append { .. } | Change::Accepted { .. } => {}
        }
    }

    /// The accepted that a commit forgets.
    fn forgotten(&self, before: u64) -> std::ops::Range<u64> {
        let most = self.first_accepted.saturating_add(MOST_FORGOTTEN);
        self.first_accepted..before.clamp(self.first_accepted, most)
    }
}

/// The rows of one commit, before they are written.
struct Rows<'a> {
    database: &'a Database,
    known: &'a Known,
    batch: fjall::OwnedWriteBatch,
    memory: u64,
}

impl<'a> Rows<'a> {
    fn new(database: &'a Database, known: &'a Known, most: usize) -> Self {
        let batch = fjall::OwnedWriteBatch::with_capacity(database.inner.clone(), most);
        Self { database, known, batch, memory: 0 }
    }

    fn insert(&mut self, space: &Keyspace, key: &[u8], value: Vec<u8>) {
        self.memory += memory_of(key.len(), value.len());
        self.batch.insert(space, key, value);
    }

    fn remove(&mut self, space: &Keyspace, key: &[u8]) {
        self.memory += memory_of(key.len(), 0);
        self.batch.remove(space, key);
    }

    fn change(&mut self, change: &Change) -> Result<(), StoreError> {
        let database = self.database;
        match change {
            Change::Name(named) => self.name(named)?,
            Change::Forget { realm, name, mailbox } => {
                self.remove(&database.names, &name_key(*realm, name));
                self.remove(&database.levels, &mailbox_key(*mailbox));
            }
            Change::Append { mailbox, seq, message } => self.append(*mailbox, *seq, message),
            Change::Remove { mailbox, seq, key } => self.no_more(*mailbox, *seq, *key),
            Change::Bury { mailbox, seq, key, cause, at } => {
                self.bury(*mailbox, *seq, *cause, *at)?;
                self.no_more(*mailbox, *seq, *key);
            }
            Change::Attempt { mailbox, seq, attempts } => {
                let value = write_number((*attempts).into());
                self.insert(&database.attempts, &message_key(*mailbox, *seq), value);
            }
            Change::Level { mailbox, level } => self.level(*mailbox, level),
            Change::Accepted { number, at, origins } => {
                let value = write_accepted(*at, origins);
                self.insert(&database.accepted, &number.to_be_bytes(), value);
            }
            Change::ForgetAccepted { before } => {
                for number in self.known.forgotten(*before) {
                    self.remove(&database.accepted, &number.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, named: &Named) -> Result<(), StoreError> {
        let key = name_key(named.realm, &named.name);
        if key.len() > MOST_KEY {
            return Err(StoreError::Damaged(format!("a name of {} bytes", named.name.len())));
        }
        self.insert(&self.database.names, &key, write_name(named));
        if named.mailbox.0 >= self.known.next_mailbox {
            let value = write_number(named.mailbox.0 + 1);
            self.insert(&self.database.meta, NEXT_MAILBOX_ROW.as_bytes(), value);
        }
        Ok(())
    }

    fn append(&mut self, mailbox: MailboxId, seq: Seq, message: &Message) {
        let key = Digest::of_key(&message.key);
        let found = Found { seq, origin: message.origin, cost: message.cost() };
        let database = self.database;
        self.insert(&database.messages, &message_key(mailbox, seq), write_message(message));
        self.insert(&database.keys, DigestKey::new(mailbox, key).as_ref(), write_found(found));
    }

    fn no_more(&mut self, mailbox: MailboxId, seq: Seq, key: Digest) {
        let database = self.database;
        self.remove(&database.messages, &message_key(mailbox, seq));
        self.remove(&database.keys, DigestKey::new(mailbox, key).as_ref());
        if self.known.attempts_of(mailbox, seq) > 0 {
            self.remove(&database.attempts, &message_key(mailbox, seq));
        }
    }

    /// Keeps a message of an earlier commit as a dead letter.
    fn bury(
        &mut self,
        mailbox: MailboxId,
        seq: Seq,
        cause: Cause,
        at: Millis,
    ) -> Result<(), StoreError> {
        let message = match self.database.messages.get(message_key(mailbox, seq)).map_err(failure) {
            Ok(Some(message)) => message,
            // Where a commit is repeated.
            Ok(None) => return Ok(()),
            // The bus goes on without a message that nobody can read any more.
            Err(StoreError::Damaged(error)) => {
                tracing::warn!(mailbox = mailbox.0, seq = seq.0, %error, "lost a dead letter");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let letter = write_letter(cause, self.known.attempts_of(mailbox, seq), &message);
        self.insert(&self.database.letters, &letter_key(mailbox, at, seq), letter);
        Ok(())
    }

    fn level(&mut self, mailbox: MailboxId, level: &Level) {
        self.insert(&self.database.levels, &mailbox_key(mailbox), write_level(level));
    }

    fn audit(&mut self, entries: &[AuditEntry]) {
        let follow = entries.chunk_by(|one, next| one.seq.checked_add(1) == Some(next.seq));
        for row in follow.flat_map(|entries| entries.chunks(ROW_ENTRIES)) {
            if let [first, ..] = row {
                self.insert(&self.database.audit, &first.seq.to_be_bytes(), write_audit(row));
            }
        }
    }
}

impl Database {
    /// Writes a commit, all of it or nothing. On success what is known follows. Who reads waits for
    /// neither: one thread calls this.
    ///
    /// # Errors
    /// The database has to be opened again, but for a commit that makes no sense.
    pub(super) fn write(
        &self,
        known: &Mutex<Known>,
        commit: &Commit,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let (batch, memory) = self.rows_of(&known.lock(), commit)?;
        let mode = match durability {
            Durability::Always if commit.is_awaited() => Some(PersistMode::SyncData),
            Durability::Always | Durability::Interval => Some(PersistMode::Buffer),
            Durability::None => None,
        };
        batch.durability(mode).commit().map_err(unavailable)?;
        let mut known = known.lock();
        known.unsettled += memory;
        commit.changes.iter().for_each(|change| known.apply(change));
        Ok(())
    }

    /// The rows of a commit, and what they cost in memory.
    fn rows_of(
        &self,
        known: &Known,
        commit: &Commit,
    ) -> Result<(fjall::OwnedWriteBatch, u64), StoreError> {
        let mut rows = Rows::new(self, known, 2 * commit.changes.len() + 2);
        commit.changes.iter().try_for_each(|change| rows.change(change))?;
        rows.audit(&commit.audit);
        Ok((rows.batch, rows.memory))
    }
}
