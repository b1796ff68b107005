//! The embedded store: a log-structured tree (fjall) in the state folder.
//!
//! A commit is one row of a log, or one batch of rows, which a crash leaves whole or not at all. A
//! write that failed makes fjall refuse all that follow; the store opens the database again as soon
//! as there is room, so that the caller has only to repeat its commit.
//!
//! Memory does not grow with the messages that wait: tables in memory are bounded
//! (`database::Sizes`), files are read through a cache of 32 MiB, and what is kept for each
//! mailbox is a number. Disk space comes back when rows are merged with their removal; where more
//! than half is of no use any more, the store merges all of it.

mod attempts;
mod chains;
mod channels;
pub(super) mod codec;
mod compaction;
mod database;
mod journal;
mod known;
mod letters;
mod lock;
mod pending;
mod reading;
mod removal;
pub(super) mod replica;
mod shared;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use fjall::{Guard, Keyspace, Readable as _, Slice};
use parking_lot::Mutex;

use self::codec::{DigestKey, key_numbers, read_accepted, read_audit, read_found, read_name};
use self::database::{Database, Sizes, damaged, failure, unavailable, unwritten};
use self::lock::lock;
use self::reading::Pile;
use self::shared::{Shared, free};
use super::{AuditEntry, ChainPage, Commit, DeadLetter, Handover, Most, Space, Store, StoreError};
use crate::ids::RelayId;
use crate::proto::bus::{Digest, Found, Level, MailboxId, Millis, Reading, Recovered, Seq};

/// Rows that are removed at once, where it may be many.
const PIECE: usize = 4096;

/// Most pieces of dead letters that one call removes.
const PIECES: usize = 16;

/// Where the store of a relay is.
#[must_use]
pub fn bus_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("bus")
}

/// The embedded store.
pub struct Embedded {
    shared: Arc<Shared>,
    /// Merges what is of no use, where it does.
    compaction: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as this is: the database is closed at times.
    _lock: File,
}

impl Embedded {
    /// Opens the store in this folder, or makes it there, for its owner alone.
    ///
    /// # Errors
    /// Another process has it, it cannot be read or written, or it is none.
    pub fn open(folder: &Path, handover: Handover) -> Result<Self, StoreError> {
        Self::open_sized(folder, handover, Sizes::USUAL)
    }

    fn open_sized(folder: &Path, handover: Handover, sizes: Sizes) -> Result<Self, StoreError> {
        let _lock = lock(folder)?;
        let shared = Shared::open(folder, handover, sizes)?;
        let store = Self { shared: Arc::new(shared), compaction: Mutex::new(None), _lock };
        match store.remove_cut(&*store.shared.to_read()?) {
            // It is of no use any more, whatever it was.
            Err(StoreError::Damaged(error)) => {
                tracing::warn!(error, "the rest of an old audit log is kept");
            }
            removed => removed?,
        }
        Ok(store)
    }

    /// Lets what is in memory become files, where it is enough.
    fn settle_if_full(&self, database: &Database) {
        if !self.shared.is_to_settle(database) {
            return;
        }
        // Nobody else waits for it: what is known is not locked meanwhile.
        let settling = self.shared.settling.lock();
        if !self.shared.is_to_settle(database) {
            return;
        }
        match database.wait_for_room_to_settle().and_then(|()| self.shared.settle(database)) {
            Ok(()) => {}
            // The commit before it is in the journal.
            Err(_) => self.shared.is_broken.store(true, Ordering::Release),
        }
        drop(settling);
        self.compact_if_worth_it(database);
    }

    /// Removes the dead letters that a mailbox has beyond a bound; how many.
    fn trim(&self, database: &Database, mailbox: MailboxId, most: Most) -> Result<u64, StoreError> {
        let surplus = database.surplus_letters(mailbox, most)?;
        for piece in surplus.chunks(PIECE) {
            let piece = piece.to_vec();
            let removed = database.remove_all(&self.shared.known, &database.letters, piece);
            self.shared.written(removed)?;
            self.settle_if_full(database);
        }
        Ok(surplus.len() as u64)
    }

    /// Removes what the audit log has before its head.
    fn remove_cut(&self, database: &Database) -> Result<(), StoreError> {
        while let Some(cut) = database.cut(&self.shared.known, PIECE)? {
            let writing = self.shared.writing.lock();
            let removed = database.remove_cut(&self.shared.known, cut);
            drop(writing);
            self.shared.written(removed)?;
            self.settle_if_full(database);
        }
        Ok(())
    }
}

/// The key and the value of a row.
fn key_value(row: Guard) -> Result<(Slice, Slice), StoreError> {
    row.into_inner().map_err(failure)
}

/// The numbers of a key.
fn key_of<const N: usize>(space: &Keyspace, key: &[u8]) -> Result<[u64; N], StoreError> {
    key_numbers(key).map_err(|error| damaged(space, key, error))
}

impl Store for Embedded {
    fn recover(&self) -> Result<Recovered, StoreError> {
        let database = self.shared.to_read()?;
        let known = self.shared.known.lock();
        let pending = &known.pending;
        let mut names = BTreeMap::new();
        for row in database.names.iter() {
            let (key, value) = key_value(row)?;
            let named =
                read_name(&key, &value).map_err(|error| damaged(&database.names, &key, error))?;
            names.insert((named.realm, Arc::clone(&named.name)), Some(named));
        }
        names.extend(pending.names.iter().map(|(place, named)| (place.clone(), named.clone())));
        let mut recovered = Recovered { next_mailbox: known.next_mailbox, ..Recovered::default() };
        for named in names.into_values().flatten() {
            let level = match pending.levels.get(&named.mailbox) {
                Some(level) => *level,
                None => database.level(named.mailbox)?,
            };
            recovered.names.push((named, level.unwrap_or(Level::EMPTY)));
        }
        (recovered.channels, recovered.cursors) = database.channels_and_cursors(pending)?;
        for row in database.accepted.iter() {
            let (key, value) = key_value(row)?;
            let entries =
                read_accepted(&value).map_err(|error| damaged(&database.accepted, &key, error))?;
            recovered.accepted.extend(entries);
        }
        recovered.accepted.extend(pending.accepted.iter().cloned());
        recovered.accepted.retain(|(number, ..)| *number >= known.accepted_from);
        Ok(recovered)
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        if commit.is_empty() {
            return Ok(());
        }
        let database = self.shared.to_write()?;
        let writing = self.shared.writing.lock();
        let written = database.write(&self.shared.known, commit, None, self.shared.handover);
        drop(writing);
        self.shared.written(written)?;
        self.settle_if_full(&database);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let database = self.shared.to_write()?;
        if self.shared.is_reopened.swap(false, Ordering::AcqRel) {
            // Some of what was committed before may be gone with the journal that failed: it is
            // committed again, and some of it may be there.
            self.shared.known.lock().is_doubtful = true;
            return Err(unavailable("a write failed, and the database was opened again"));
        }
        let synced = self.shared.sync(&database).map_err(unwritten);
        self.shared.written(synced)
    }

    fn read(&self, mailbox: MailboxId, from: Seq, most: Most) -> Result<Reading, StoreError> {
        let database = self.shared.to_read()?;
        let known = self.shared.known.lock();
        // Of one moment: what becomes rows later is not looked for there.
        let pile = Pile::new(&database, known.pending.messages_from(mailbox, from), most);
        drop(known);
        let mut reading = pile.read(mailbox, from)?;
        let known = self.shared.known.lock();
        if known.attempts.has(mailbox) {
            for stored in &mut reading.stored {
                stored.attempts = known.attempts.of(mailbox, stored.seq);
            }
        }
        Ok(reading)
    }

    fn find(&self, mailbox: MailboxId, key: Digest) -> Result<Option<Found>, StoreError> {
        let database = self.shared.to_read()?;
        if let Some(row) = self.shared.known.lock().pending.keys.get(&(mailbox, key)) {
            return Ok(row.value);
        }
        let key = DigestKey::new(mailbox, key);
        let Some(value) = database.keys.get(&key).map_err(failure)? else { return Ok(None) };
        read_found(&value).map(Some).map_err(|error| damaged(&database.keys, key.as_ref(), error))
    }

    fn dead_letters(&self, mailbox: MailboxId, most: Most) -> Result<Vec<DeadLetter>, StoreError> {
        self.shared.to_read()?.dead_letters(&self.shared.known, mailbox, most)
    }

    fn drop_dead_letters(&self, before: Millis) -> Result<u64, StoreError> {
        let database = self.shared.to_write()?;
        let mut from = [0; 24];
        let mut dropped = self.shared.known.lock().pending.drop_letters(before);
        for _ in 0..PIECES {
            let old = database.old_letters(before, PIECE, &mut from)?;
            if old.is_empty() {
                break;
            }
            dropped += old.len() as u64;
            let removed = database.remove_all(&self.shared.known, &database.letters, old);
            self.shared.written(removed)?;
            self.settle_if_full(&database);
        }
        Ok(dropped)
    }

    fn trim_dead_letters(&self, most: Most) -> Result<u64, StoreError> {
        let database = self.shared.to_write()?;
        let buried = self.shared.known.lock().buried.clone();
        let mut dropped = 0;
        let mut failed = None;
        for mailbox in buried {
            // A letter that comes meanwhile puts it back.
            self.shared.known.lock().buried.remove(&mailbox);
            let trimmed = self.trim(&database, mailbox, most);
            let mut known = self.shared.known.lock();
            // Those that are no rows yet are counted when they are.
            if trimmed.is_err() || known.pending.letters_of(mailbox).next().is_some() {
                known.buried.insert(mailbox);
            }
            drop(known);
            match trimmed {
                Ok(count) => dropped += count,
                // The next will not be written either.
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(dropped), Err)
    }

    fn audit(&self, from: u64, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let database = self.shared.to_read()?;
        let known = self.shared.known.lock();
        let from = from.max(known.head.as_ref().map_or(0, |(before, _)| *before));
        let pending = known.pending.audit.iter().filter(|entry| entry.seq >= from);
        let pending: Vec<_> = pending.take(most).cloned().collect();
        let snapshot = database.inner.snapshot();
        drop(known);
        let row_of_it = snapshot.range(&database.audit, ..=from.to_be_bytes()).next_back();
        let begin = match row_of_it {
            Some(row) => row.key().map_err(failure)?,
            None => from.to_be_bytes().into(),
        };
        let mut read = Vec::new();
        for row in snapshot.range(&database.audit, begin..) {
            if read.len() >= most {
                return Ok(read);
            }
            let (key, value) = key_value(row)?;
            let entries =
                read_audit(&key, &value).map_err(|error| damaged(&database.audit, &key, error))?;
            let of_them = entries.into_iter().filter(|entry| entry.seq >= from);
            read.extend(of_them.take(most - read.len()));
        }
        let rest = most - read.len();
        read.extend(pending.into_iter().take(rest));
        Ok(read)
    }

    fn last_audit(&self) -> Result<Option<AuditEntry>, StoreError> {
        let database = self.shared.to_read()?;
        let known = self.shared.known.lock();
        if let Some(last) = known.pending.audit.last() {
            return Ok(Some(last.clone()));
        }
        let Some(row) = database.audit.last_key_value() else { return Ok(None) };
        let (key, value) = key_value(row)?;
        let mut entries =
            read_audit(&key, &value).map_err(|error| damaged(&database.audit, &key, error))?;
        Ok(entries.pop())
    }

    fn audit_bytes(&self) -> Result<u64, StoreError> {
        let _database = self.shared.to_read()?;
        Ok(self.shared.known.lock().audit_size())
    }

    fn cut_audit(&self, before: u64, head: &[u8]) -> Result<(), StoreError> {
        let database = self.shared.to_write()?;
        let set = database.set_head(&self.shared.known, before, head);
        self.shared.written(set)?;
        self.remove_cut(&database)
    }

    fn audit_head(&self) -> Result<Option<Box<[u8]>>, StoreError> {
        // What stands before the log is read with the database.
        let _database = self.shared.to_read()?;
        Ok(self.shared.known.lock().head.as_ref().map(|(_, head)| head.clone()))
    }

    fn chains(&self) -> Result<Vec<RelayId>, StoreError> {
        self.relays_of_chains()
    }

    fn chain(&self, relay: RelayId, from: u64, most: usize) -> Result<ChainPage, StoreError> {
        self.page_of_chain(relay, from, most)
    }

    fn space(&self) -> Result<Space, StoreError> {
        let database = self.shared.to_read()?;
        self.compact_if_worth_it(&database);
        let used = database.used(&self.shared.folder)?;
        // What is in memory takes as much again once it is in files.
        let free = free(&self.shared.folder)?.saturating_sub(database.in_memory());
        Ok(Space { used, free })
    }

    fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        // Ends a merge of everything behind the key space that it is at.
        self.shared.is_broken.store(true, Ordering::Release);
        let merging = self.compaction.lock().take();
        // It has nothing to tell.
        merging.map(JoinHandle::join);
        drop(self.shared.database.write().take());
    }
}
