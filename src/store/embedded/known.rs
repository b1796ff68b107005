//! What the writer keeps in memory of what the database has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::attempts::Attempts;
use super::codec::{
    commit_number, read_accepted, read_audit, read_commit, read_head, read_level, read_number,
};
use super::database::{Database, damaged, failure};
use super::pending::Pending;
use super::{key_of, key_value};
use crate::proto::bus::{Change, MailboxId, Seq};
use crate::store::{Commit, StoreError};

/// Row of `meta`: the number of the next mailbox.
pub(super) const NEXT_MAILBOX_ROW: &str = "next mailbox";

/// Row of `meta`: the first entry of the audit log that counts, and what stands before it.
pub(super) const HEAD_ROW: &str = "audit head";

/// Row of `meta`: the last commit of the log that the other rows have.
pub(super) const FOLDED_ROW: &str = "folded";

/// Row of `meta`: the number of the first of the accepted that counts.
pub(super) const ACCEPTED_ROW: &str = "accepted from";

/// Row of `meta`: what the rows of the audit log take.
pub(super) const AUDIT_BYTES_ROW: &str = "audit bytes";

/// What an entry of the audit log takes in a row beyond its event, in bytes: its time and its hash.
const ENTRY: u64 = 42;

/// What a row of the audit log counts as.
pub(super) const fn row_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

/// What the writer keeps in memory of what the database has.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What the log has and the other rows have not.
    pub(super) pending: Pending,
    /// The last row of the log, for the memory that it has.
    pub(super) buffer: Vec<u8>,
    /// Whether the next commit may be one that failed: the database was opened again.
    pub(super) is_doubtful: bool,
    /// Above all mailboxes that ever were.
    pub(super) next_mailbox: u64,
    /// The number of the first of the accepted that counts.
    pub(super) accepted_from: u64,
    /// No row of the accepted is before this one.
    pub(super) first_accepted: u64,
    pub(super) attempts: Attempts,
    /// Mailboxes that got dead letters since those were last counted.
    pub(super) buried: BTreeSet<MailboxId>,
    /// What the messages of each mailbox, and the records of each channel, count as, in bytes.
    bytes: HashMap<MailboxId, u64>,
    /// The sum of it.
    pub(super) live: u64,
    /// Bytes in memory that are not in files yet.
    pub(super) unsettled: u64,
    /// The first entry of the audit log that counts, and what stands before it.
    pub(super) head: Option<(u64, Box<[u8]>)>,
    /// What the rows of the audit log take, in bytes.
    pub(super) audit_bytes: u64,
    /// No row of the audit log is before this one.
    pub(super) cut_from: u64,
    /// Rows of the audit log that were removed and may still take room.
    pub(super) cut: u64,
}

impl Known {
    /// Reads it from the rows; none of the messages but those of the log.
    pub(super) fn read(database: &Database) -> Result<Self, StoreError> {
        let mut known = Self::default();
        let number = |row: &str| {
            let value = database.meta.get(row).map_err(failure)?;
            let number = value.map_or(Ok(0), |value| read_number(&value));
            number.map_err(|error| damaged(&database.meta, row.as_bytes(), error))
        };
        known.next_mailbox = number(NEXT_MAILBOX_ROW)?;
        known.accepted_from = number(ACCEPTED_ROW)?;
        if let Some(first) = database.accepted.first_key_value() {
            let (key, _) = key_value(first)?;
            [known.first_accepted] = key_of(&database.accepted, &key)?;
        }
        if let Some(value) = database.meta.get(HEAD_ROW).map_err(failure)? {
            let head = read_head(&value)
                .map_err(|error| damaged(&database.meta, HEAD_ROW.as_bytes(), error))?;
            known.head = Some(head);
        }
        if let Some(Ok((key, value))) = database.audit.last_key_value().map(key_value) {
            // Who reads the audit log is told of one that makes no sense.
            let last = read_audit(&key, &value).ok().and_then(|mut entries| entries.pop());
            known.pending.last_audit = last.map(|entry| entry.seq);
        }
        known.audit_bytes = number(AUDIT_BYTES_ROW)?;
        if let Some(Ok((_, value))) = database.accepted.last_key_value().map(key_value) {
            let last = read_accepted(&value).ok().and_then(|mut entries| entries.pop());
            known.pending.last_accepted = last.map(|(number, ..)| number);
        }
        for row in database.levels.iter() {
            let (key, value) = key_value(row)?;
            let [mailbox] = key_of(&database.levels, &key)?;
            let level =
                read_level(&value).map_err(|error| damaged(&database.levels, &key, error))?;
            known.set_bytes(MailboxId(mailbox), level.bytes);
        }
        for state in database.channel_rows()? {
            known.set_bytes(state.channel, state.bytes);
        }
        for row in database.attempts.iter() {
            let (key, value) = key_value(row)?;
            let [mailbox, seq] = key_of(&database.attempts, &key)?;
            let attempts =
                read_number(&value).map_err(|error| damaged(&database.attempts, &key, error))?;
            known.attempts.set(MailboxId(mailbox), Seq(seq), attempts);
        }
        // A store whose dead letters cannot be read is one all the same.
        known.buried = database.mailboxes_of_letters().unwrap_or_default();
        known.read_log(database, number(FOLDED_ROW)?)?;
        Ok(known)
    }

    /// Takes over the commits of the log behind the last that the other rows have.
    fn read_log(&mut self, database: &Database, folded: u64) -> Result<(), StoreError> {
        let mut commits = BTreeMap::new();
        for row in database.log.iter() {
            let (key, value) = key_value(row)?;
            let malformed = |error| damaged(&database.log, &key, error);
            // Of those that the other rows have, nothing else is looked at.
            let number = commit_number(&value).map_err(malformed)?;
            if number > folded {
                let commit = read_commit(&value).map_err(malformed)?;
                commits.insert(number, (commit, value.len()));
            }
        }
        self.pending.number = folded;
        for (number, (commit, bytes)) in commits {
            self.log(number, &commit, bytes);
        }
        Ok(())
    }

    /// What the audit log takes, in bytes: in rows, and until it is in rows.
    pub(super) fn audit_size(&self) -> u64 {
        let pending = self.pending.audit.iter().map(|entry| entry.event.len() as u64 + ENTRY);
        self.audit_bytes + pending.sum::<u64>()
    }

    /// Takes over a commit that the log has, in a row of so many bytes.
    pub(super) fn log(&mut self, number: u64, commit: &Commit, bytes: usize) {
        self.pending.log(number, bytes);
        self.pending.note(&commit.audit);
        for change in &commit.changes {
            self.pending.apply(change, &self.attempts);
            self.apply(change);
        }
    }

    /// Takes over a change of a commit that succeeded.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Name(named) => {
                self.next_mailbox = self.next_mailbox.max(named.mailbox.0 + 1);
            }
            Change::Forget { mailbox, .. } => {
                self.set_bytes(*mailbox, 0);
                self.attempts.forget_all(*mailbox);
            }
            Change::Remove { mailbox, seq, .. } | Change::Bury { mailbox, seq, .. } => {
                self.attempts.forget(*mailbox, *seq);
                if let Change::Bury { .. } = change {
                    self.buried.insert(*mailbox);
                }
            }
            Change::Attempt { mailbox, seq, attempts } => {
                self.attempts.set(*mailbox, *seq, *attempts);
            }
            Change::Level { mailbox, level } => self.set_bytes(*mailbox, level.bytes),
            Change::ForgetAccepted { before } => {
                self.accepted_from = self.accepted_from.max(*before);
            }
            Change::Channel(state) => {
                self.next_mailbox = self.next_mailbox.max(state.channel.0 + 1);
                self.set_bytes(state.channel, state.bytes);
            }
            Change::DropChannel { channel } => self.set_bytes(*channel, 0),
            Change::Append { .. }
            | Change::Requeue { .. }
            | Change::Accepted { .. }
            | Change::Record { .. }
            | Change::Trim { .. }
            | Change::Cursor { .. } => {}
        }
    }

    fn set_bytes(&mut self, mailbox: MailboxId, bytes: u64) {
        let before = if bytes == 0 {
            self.bytes.remove(&mailbox)
        } else {
            self.bytes.insert(mailbox, bytes)
        };
        self.live = (self.live + bytes).saturating_sub(before.unwrap_or(0));
    }
}
