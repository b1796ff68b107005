//! From a commit to rows.

use fjall::{Keyspace, PersistMode, Slice};
use parking_lot::Mutex;

use super::codec::{
    DigestKey, chain_key, channel_key, cursor_key, letter_key, mailbox_key, message_key, name_key,
    write_accepted, write_audit, write_channel, write_commit, write_cursor, write_found,
    write_letter, write_level, write_message, write_name, write_number,
};
use super::database::{Database, failure, memory_of, unwritten};
use super::key_of;
use super::known::{ACCEPTED_ROW, AUDIT_BYTES_ROW, FOLDED_ROW, Known, NEXT_MAILBOX_ROW, row_bytes};
use super::pending::{Letter, Pending};
use crate::proto::bus::{Change, ChannelState, MailboxId, Millis, Named, Seq};
use crate::store::{AuditEntry, Commit, Handover, StoreError};

/// Entries of the audit log in one row: what a reader takes at once.
const ROW_ENTRIES: usize = 256;

/// Rows of what was accepted that are removed at once; the others go with the next.
const MOST_FORGOTTEN: usize = 4096;

/// Longest key that fjall takes, in bytes.
const MOST_KEY: usize = 65_535;

/// Bytes of a commit from which on it becomes rows without the log: it would be written twice, and
/// a row of the log takes its room for long.
const MOST_LOGGED: usize = 64 * 1024;

/// What a change, or an entry of the audit log, takes in the log beyond what is as long as a peer
/// has made it, in bytes, at most.
const CHANGE: usize = 96;

/// What each record that a change removes counts as, in bytes: it is a row that goes, however
/// little the log says of it.
const TRIMMED: u64 = 24;

/// The place of a commit in the log that a replica follows.
pub(super) struct Place<'a> {
    /// Its position.
    pub(super) at: u64,
    /// Entries of another relay's chain that were written with it.
    pub(super) chain: Option<(&'a [u8; 32], &'a [AuditEntry])>,
}

/// The rows of one commit, before they are written.
struct Rows<'a> {
    database: &'a Database,
    batch: fjall::OwnedWriteBatch,
    memory: u64,
    /// What its rows of the audit log take, in bytes.
    audited: u64,
}

impl<'a> Rows<'a> {
    fn new(database: &'a Database, most: usize) -> Self {
        let batch = fjall::OwnedWriteBatch::with_capacity(database.inner.clone(), most);
        Self { database, batch, memory: 0, audited: 0 }
    }

    fn insert(&mut self, space: &Keyspace, key: &[u8], value: impl Into<Slice>) {
        let value = value.into();
        self.memory += memory_of(key.len(), value.len());
        self.batch.insert(space, key, value);
    }

    fn remove(&mut self, space: &Keyspace, key: &[u8]) {
        self.memory += memory_of(key.len(), 0);
        self.batch.remove(space, key);
    }

    /// Inserts a row, or removes it where it has no value.
    fn put(&mut self, space: &Keyspace, key: &[u8], value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.insert(space, key, value),
            None => self.remove(space, key),
        }
    }

    /// Has the rows be as they are to be.
    fn pending(&mut self, pending: &Pending, known: &Known) -> Result<(), StoreError> {
        let database = self.database;
        // Before the messages that they are made of are removed.
        for ((mailbox, at, seq), letter) in &pending.letters {
            match letter {
                Some(letter) => self.letter(*mailbox, *at, *seq, letter)?,
                None => self.remove(&database.letters, &letter_key(*mailbox, *at, *seq)),
            }
        }
        for ((mailbox, seq), row) in &pending.messages {
            let value = row.value.as_ref().map(|message| write_message(message));
            self.put(&database.messages, &message_key(*mailbox, *seq), value);
        }
        for ((mailbox, key), row) in &pending.keys {
            let key = DigestKey::new(*mailbox, *key);
            self.put(&database.keys, key.as_ref(), row.value.map(write_found));
        }
        for ((mailbox, seq), attempts) in &pending.attempts {
            let value = (*attempts > 0).then(|| write_number((*attempts).into()));
            self.put(&database.attempts, &message_key(*mailbox, *seq), value);
        }
        for (mailbox, level) in &pending.levels {
            self.put(&database.levels, &mailbox_key(*mailbox), level.as_ref().map(write_level));
        }
        for (channel, state) in &pending.channels {
            let value = state.as_ref().map(write_channel);
            self.put(&database.meta, &channel_key(*channel), value);
        }
        for ((channel, peer), cursor) in &pending.cursors {
            let value = cursor.as_ref().map(write_cursor);
            self.put(&database.meta, &cursor_key(*channel, *peer), value);
        }
        for ((realm, name), named) in &pending.names {
            self.put(&database.names, &name_key(*realm, name), named.as_ref().map(write_name));
        }
        if pending.next_mailbox > 0 {
            self.meta(NEXT_MAILBOX_ROW, pending.next_mailbox.max(known.next_mailbox));
        }
        if let [(first, ..), ..] = &pending.accepted[..] {
            let value = write_accepted(&pending.accepted);
            self.insert(&database.accepted, &first.to_be_bytes(), value);
        }
        if pending.accepted_from > 0 {
            self.meta(ACCEPTED_ROW, pending.accepted_from.max(known.accepted_from));
        }
        self.audit(&pending.audit);
        Ok(())
    }

    fn meta(&mut self, row: &str, number: u64) {
        self.insert(&self.database.meta, row.as_bytes(), write_number(number));
    }

    /// Keeps a message as a dead letter.
    fn letter(
        &mut self,
        mailbox: MailboxId,
        at: Millis,
        seq: Seq,
        letter: &Letter,
    ) -> Result<(), StoreError> {
        let Letter { cause, attempts, message } = letter;
        let message = match message {
            Some(message) => Some(write_message(message).into()),
            None => self.stored_message(mailbox, seq)?,
        };
        if let Some(message) = message {
            let value = write_letter(*cause, *attempts, &message);
            self.insert(&self.database.letters, &letter_key(mailbox, at, seq), value);
        }
        Ok(())
    }

    /// The value of a message that a row has; none where a commit is repeated.
    fn stored_message(&self, mailbox: MailboxId, seq: Seq) -> Result<Option<Slice>, StoreError> {
        let message = self.database.messages.get(message_key(mailbox, seq)).map_err(failure);
        if let Err(StoreError::Damaged(error)) = message {
            // The bus goes on without a message that nobody can read any more.
            tracing::warn!(mailbox = mailbox.0, seq = seq.0, %error, "lost a dead letter");
            return Ok(None);
        }
        message
    }

    /// Removes rows of what was accepted that count no more, some of them, and says which is the
    /// first from then on. What cannot be read stays, and has no commit fail.
    fn forget_accepted(&mut self, known: &Known) -> u64 {
        let database = self.database;
        let old = known.first_accepted.to_be_bytes()..known.accepted_from.to_be_bytes();
        let keys =
            database.accepted.range(old).take(MOST_FORGOTTEN).map_while(|row| row.key().ok());
        let mut first = None;
        for key in keys {
            // The last of them may reach over the first that counts, and stays.
            if let Some(before) = first.replace(key) {
                self.remove(&database.accepted, &before);
            }
        }
        let first = first.and_then(|key| key_of(&database.accepted, &key).ok());
        first.map_or(known.first_accepted, |[first]| first)
    }

    fn audit(&mut self, entries: &[AuditEntry]) {
        let follow = entries.chunk_by(|one, next| one.seq.checked_add(1) == Some(next.seq));
        for row in follow.flat_map(|entries| entries.chunks(ROW_ENTRIES)) {
            if let [first, ..] = row {
                let key = first.seq.to_be_bytes();
                let value = write_audit(row);
                self.audited += row_bytes(&key, &value);
                self.insert(&self.database.audit, &key, value);
            }
        }
    }

    /// Keeps the entries of another relay's chain.
    fn chain(&mut self, place: Option<&Place<'_>>) {
        let Some(Place { chain: Some((relay, entries)), .. }) = place else { return };
        if let [first, ..] = entries {
            let key = chain_key(relay, first.seq);
            self.insert(&self.database.chains, &key, write_audit(entries));
        }
    }

    /// Writes down what the audit log takes with its rows that are here; what those take.
    fn sum_audit(&mut self, known: &Known) -> u64 {
        if self.audited > 0 {
            self.meta(AUDIT_BYTES_ROW, known.audit_bytes + self.audited);
        }
        self.audited
    }

    /// Writes them; what they cost in memory.
    fn commit(self, mode: Option<PersistMode>) -> Result<u64, StoreError> {
        self.batch.durability(mode).commit().map_err(unwritten)?;
        Ok(self.memory)
    }
}

/// What a commit takes in the log, in bytes, at most.
fn logged(commit: &Commit) -> usize {
    let of_change = |change: &Change| match change {
        Change::Append { message, .. } | Change::Record { record: message, .. } => message.cost(),
        Change::Trim { from, before, .. } => {
            usize::try_from(TRIMMED * (before.0 - from.0)).unwrap_or(usize::MAX)
        }
        Change::Channel(ChannelState { name, .. }) => name.len(),
        Change::Accepted { origins, .. } => 16 * origins.len(),
        Change::Name(Named { name, .. }) | Change::Forget { name, .. } => name.len(),
        Change::Remove { .. }
        | Change::Bury { .. }
        | Change::Requeue { .. }
        | Change::Attempt { .. }
        | Change::Level { .. }
        | Change::DropChannel { .. }
        | Change::Cursor { .. }
        | Change::ForgetAccepted { .. } => 0,
    };
    let changes = commit.changes.iter().map(|change| CHANGE + of_change(change));
    let audit = commit.audit.iter().map(|entry| CHANGE + entry.event.len());
    changes.chain(audit).sum()
}

/// Whether fjall takes the keys of a commit.
fn check(changes: &[Change]) -> Result<(), StoreError> {
    let is_long =
        |change: &&Change| matches!(change, Change::Name(named) if named.name.len() >= MOST_KEY);
    match changes.iter().find(is_long) {
        Some(Change::Name(named)) => {
            Err(StoreError::Damaged(format!("a name of {} bytes", named.name.len())))
        }
        _ => Ok(()),
    }
}

impl Database {
    /// Writes a commit, all of it or nothing. On success what is known follows. Who reads does not
    /// wait for the disk: one thread calls this.
    ///
    /// # Errors
    /// The database has to be opened again, but for a commit that makes no sense.
    pub(super) fn write(
        &self,
        known: &Mutex<Known>,
        commit: &Commit,
        place: Option<&Place<'_>>,
        handover: Handover,
    ) -> Result<(), StoreError> {
        check(&commit.changes)?;
        let mode = match handover {
            Handover::Kernel => Some(PersistMode::Buffer),
            Handover::Process => None,
        };
        let bytes = logged(commit);
        // One that may be repeated puts in rows what is in rows, whatever of it is there.
        if bytes > MOST_LOGGED || known.lock().is_doubtful {
            return self.write_rows(known, commit, place, mode);
        }
        let mut before = known.lock();
        if !before.pending.has_room(bytes) {
            self.fold(&mut before)?;
        }
        let number = place.map_or(before.pending.number + 1, |place| place.at);
        let row = before.pending.rows.to_be_bytes();
        let buffer = std::mem::take(&mut before.buffer);
        drop(before);
        let value = write_commit(number, commit, buffer);
        let bytes = value.len();
        let mut rows = Rows::new(self, 1);
        rows.insert(&self.log, &row, &value[..]);
        rows.chain(place);
        let memory = rows.commit(mode)?;
        let mut known = known.lock();
        known.buffer = value;
        known.unsettled += memory;
        known.log(number, commit, bytes);
        Ok(())
    }

    /// Writes a commit that is not worth a row of the log.
    fn write_rows(
        &self,
        known: &Mutex<Known>,
        commit: &Commit,
        place: Option<&Place<'_>>,
        mode: Option<PersistMode>,
    ) -> Result<(), StoreError> {
        let Commit { changes, audit } = commit;
        let mut before = known.lock();
        self.fold(&mut before)?;
        let mut pending = before.pending.behind();
        changes.iter().for_each(|change| pending.apply(change, &before.attempts));
        pending.note(audit);
        let mut rows = Rows::new(self, 2 * changes.len());
        rows.pending(&pending, &before)?;
        rows.chain(place);
        if let Some(place) = place {
            rows.meta(FOLDED_ROW, place.at);
        }
        let audited = rows.sum_audit(&before);
        drop(before);
        let memory = rows.commit(mode)?;
        let mut known = known.lock();
        known.unsettled += memory;
        known.is_doubtful = false;
        if let Some(place) = place {
            known.pending.number = place.at;
        }
        known.pending.last_audit = pending.last_audit;
        known.pending.last_accepted = pending.last_accepted;
        known.audit_bytes += audited;
        changes.iter().for_each(|change| known.apply(change));
        Ok(())
    }

    /// Has the rows be as the log says, which has room again. It does not wait for the disk: in the
    /// journal the rows are before what takes the place of the log's.
    pub(super) fn fold(&self, known: &mut Known) -> Result<(), StoreError> {
        let pending = &known.pending;
        let mut rows = Rows::new(self, 2 * pending.messages.len() + 64);
        if pending.rows > 0 {
            rows.pending(pending, known)?;
            rows.meta(FOLDED_ROW, pending.number);
        }
        let audited = rows.sum_audit(known);
        let first_accepted = rows.forget_accepted(known);
        known.unsettled += rows.commit(None)?;
        known.audit_bytes += audited;
        known.first_accepted = first_accepted;
        known.pending.clear();
        Ok(())
    }
}
