//! The database of the embedded store: its key spaces, and when its memory goes into files.
//!
//! fjall is a log-structured tree: a write goes to a journal and to a table in memory, and a
//! worker of its own writes full tables to files and merges those. What it leaves to itself would
//! wait for that worker without an end where the worker is gone (a full disk), and fill the
//! worker's queue until it waits for itself. So tables never count as full for fjall, and go into
//! files when this says so, all at once ([`Database::settle`]); that also empties the journal.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::{CompressionType, Error, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode};

use super::codec::{
    Malformed, mailbox_key, message_key, read_level, read_message, read_number, shown, write_number,
};
use super::journal::{cut_torn_end, is_blank, journal, journals};
use crate::proto::bus::{Level, MailboxId, Message, Seq};
use crate::store::StoreError;

/// The form of a database: which key spaces there are, and what their keys mean.
const FORMAT: u64 = 1;

/// Row of `meta` with [`FORMAT`].
const FORMAT_ROW: &str = "format";

/// Blocks of files in memory, in bytes: the filters and the index of some million messages.
const CACHE: u64 = 32 * 1024 * 1024;

/// Size of a file, in bytes. A merge takes a few files; while it runs, no table leaves memory.
pub(super) const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Files that are kept open. A million messages of 300 bytes are some 30.
const OPEN_FILES: usize = 128;

/// Bytes of journals at which fjall would settle key spaces by itself. [`Database::settle`] is
/// always earlier: fjall begins a new journal at 64 MB, and drops the last when it has settled.
const JOURNAL_BYTES: u64 = 1024 * 1024 * 1024;

/// Tables of a key space that wait for the worker, at most one more where two threads settle. At
/// 4, fjall makes a commit wait for the worker without asking whether it is still there.
const MOST_WAITING: usize = 2;

/// Files of a key space that may wait to be merged. At 30, fjall makes a commit wait as above;
/// the tables that wait for the worker become files too.
const MOST_UNMERGED: usize = 24;

/// Free bytes below which a database that failed is not opened again.
pub(super) const LEAST_FREE: u64 = 2 * 1024 * 1024;

/// Between two looks at whether the worker got on.
const LOOK: Duration = Duration::from_millis(2);

/// What a table in memory costs beyond the bytes of its keys and values.
const ENTRY_OVERHEAD: u64 = 96;

/// What the store asks of memory and disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes of tables in memory that begin to go to files; waiting for the worker begins at twice
    /// as much. At most twice as much waits for the worker: 16 MiB are 64 MiB at worst.
    pub(super) settle_at: u64,
    /// Bytes of files that are not worth a merge however little of them is of use.
    pub(super) slack: u64,
}

impl Sizes {
    pub(super) const USUAL: Self = Self { settle_at: 16 * 1024 * 1024, slack: 64 * 1024 * 1024 };

    /// Free bytes that a database which failed with so much in memory is opened again with: that
    /// becomes files first.
    pub(super) fn needed_to_reopen(self, in_memory: u64) -> u64 {
        LEAST_FREE + in_memory.min(4 * self.settle_at)
    }
}

/// An open database.
pub(super) struct Database {
    pub(super) inner: fjall::Database,
    /// Realm and name → mailbox, owner.
    pub(super) names: Keyspace,
    /// Mailbox → what is known of it.
    pub(super) levels: Keyspace,
    /// Mailbox and position → message, or channel and position → record.
    pub(super) messages: Keyspace,
    /// Mailbox and delivery key → position.
    pub(super) keys: Keyspace,
    /// Mailbox and position → how often it was not acknowledged in time.
    pub(super) attempts: Keyspace,
    /// Number → what was accepted.
    pub(super) accepted: Keyspace,
    /// Mailbox, time and position → dead letter.
    pub(super) letters: Keyspace,
    /// Number of the first → entries of the audit log.
    pub(super) audit: Keyspace,
    /// Relay and number of the first → entries of that relay's audit log, in a replica.
    pub(super) chains: Keyspace,
    /// Name → value: what there is once, and what there is for each channel and cursor.
    pub(super) meta: Keyspace,
    /// Position → commit: those that the other rows do not have yet, and older ones.
    pub(super) log: Keyspace,
}

impl Database {
    /// Opens the database of a folder that nobody else uses, or makes one.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        clear_unfinished(folder).map_err(unavailable)?;
        let database = match Self::open_spaces(folder) {
            Err(Error::JournalRecovery(error)) => {
                let cut = cut_torn_end(folder).map_err(unavailable)?;
                let Some((kept, bytes)) = cut else {
                    return Err(failure(Error::JournalRecovery(error)));
                };
                let file = kept.display();
                tracing::warn!(bytes, %file, "the end of the journal of messages was torn: cut off");
                Self::open_spaces(folder)
            }
            opened => opened,
        };
        let database = database.map_err(failure)?;
        database.check_format()?;
        Ok(database)
    }

    fn open_spaces(folder: &Path) -> Result<Self, Error> {
        // fjall panics on some of what it does not expect in its folder.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_trusting(folder)));
        opened.unwrap_or(Err(Error::Unrecoverable))
    }

    fn open_trusting(folder: &Path) -> Result<Self, Error> {
        let inner = fjall::Database::builder(folder)
            .cache_size(CACHE)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(JOURNAL_BYTES)
            // Bodies are small, and the processor is what a message costs most of.
            .journal_compression(CompressionType::None)
            // Each commit says itself how durable it is.
            .manual_journal_persist(true)
            // Of several, the first keeps putting back merges that the others are to do.
            .worker_threads(1)
            .open()?;
        let space = |name| {
            let merges = Leveled::default().with_table_target_size(FILE_BYTES);
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(u64::MAX)
                    .compaction_strategy(Arc::new(merges))
            };
            inner.keyspace(name, options)
        };
        Ok(Self {
            names: space("names")?,
            levels: space("levels")?,
            messages: space("messages")?,
            keys: space("keys")?,
            attempts: space("attempts")?,
            accepted: space("accepted")?,
            letters: space("letters")?,
            audit: space("audit")?,
            chains: space("chains")?,
            meta: space("meta")?,
            log: space("log")?,
            inner,
        })
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let Some(value) = self.meta.get(FORMAT_ROW).map_err(failure)? else {
            let mut batch = self.inner.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&self.meta, FORMAT_ROW, write_number(FORMAT));
            return batch.commit().map_err(unwritten);
        };
        match read_number(&value) {
            Ok(FORMAT) => Ok(()),
            Ok(other) => {
                Err(StoreError::Damaged(format!("its format is {other}, this relay's {FORMAT}")))
            }
            Err(error) => Err(damaged(&self.meta, FORMAT_ROW.as_bytes(), error)),
        }
    }

    pub(super) fn spaces(&self) -> [&Keyspace; 11] {
        [
            &self.names,
            &self.levels,
            &self.messages,
            &self.keys,
            &self.attempts,
            &self.accepted,
            &self.letters,
            &self.audit,
            &self.chains,
            &self.meta,
            &self.log,
        ]
    }

    /// What a row says of a mailbox.
    pub(super) fn level(&self, mailbox: MailboxId) -> Result<Option<Level>, StoreError> {
        let key = mailbox_key(mailbox);
        let Some(value) = self.levels.get(key).map_err(failure)? else { return Ok(None) };
        read_level(&value).map(Some).map_err(|error| damaged(&self.levels, &key, error))
    }

    /// The message that a row has.
    pub(super) fn message(
        &self,
        mailbox: MailboxId,
        seq: Seq,
    ) -> Result<Option<Message>, StoreError> {
        let key = message_key(mailbox, seq);
        let Some(value) = self.messages.get(key).map_err(failure)? else { return Ok(None) };
        read_message(&value).map(Some).map_err(|error| damaged(&self.messages, &key, error))
    }

    /// Whether the worker can take what is in memory.
    pub(super) fn has_room_to_settle(&self) -> bool {
        self.spaces().iter().all(|space| {
            space.sealed_memtable_count() < MOST_WAITING && space.l0_table_count() < MOST_UNMERGED
        })
    }

    /// Waits until the worker can take what is in memory.
    ///
    /// # Errors
    /// The worker has failed: the database has to be opened again.
    pub(super) fn wait_for_room_to_settle(&self) -> Result<(), Error> {
        while !self.has_room_to_settle() {
            // Writes nothing that is not to be written anyway, and tells of the worker.
            self.inner.persist(PersistMode::Buffer)?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What is in memory and not in files, in bytes.
    pub(super) fn in_memory(&self) -> u64 {
        self.inner.write_buffer_size()
    }

    /// Hands what is in memory to the worker, to write it to files. The journal is on the disk
    /// before: the worker writes one key space after the other, and whatever it has written when
    /// the power fails, the journal has the rest.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.inner.persist(PersistMode::SyncData)?;
        self.spaces().into_iter().try_for_each(|space| space.rotate_memtable().map(drop))
    }

    /// Waits until what was handed to the worker is in files.
    ///
    /// # Errors
    /// The worker has failed: the database has to be opened again.
    pub(super) fn wait_until_settled(&self) -> Result<(), Error> {
        while self.spaces().iter().any(|space| space.sealed_memtable_count() > 0) {
            self.inner.persist(PersistMode::Buffer)?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What it takes on the disk, in bytes.
    pub(super) fn used(&self, folder: &Path) -> Result<u64, StoreError> {
        let files: u64 = self.spaces().iter().map(|space| space.disk_space()).sum();
        let journals = journals(folder).map_err(unavailable)?;
        // A journal is as long as it may get from its beginning; what it takes are its blocks.
        let blocks = journals.iter().filter_map(|(_, path)| fs::metadata(path).ok());
        Ok(files + blocks.map(|data| data.blocks() * 512).sum::<u64>())
    }
}

/// What a row costs in memory until it is in a file.
pub(super) const fn memory_of(key: usize, value: usize) -> u64 {
    (key + value) as u64 + ENTRY_OVERHEAD
}

/// Removes what a process left that ended while it made the database: fjall takes it neither for
/// a database nor for an empty folder. Nothing was ever stored in it.
fn clear_unfinished(folder: &Path) -> std::io::Result<()> {
    let version = folder.join("version");
    let is_finished = fs::metadata(&version).is_ok_and(|version| version.len() > 0);
    let first = journal(folder, 0);
    if is_finished || !is_blank(&first)? {
        return Ok(());
    }
    for file in [version, first] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What an error means for who asked.
pub(super) fn failure(error: Error) -> StoreError {
    if let Error::Io(error) | Error::Storage(LsmError::Io(error)) = error {
        return unavailable(error);
    }
    if matches!(error, Error::Locked) {
        return StoreError::Locked;
    }
    if matches!(error, Error::Poisoned) {
        return unavailable("an earlier write failed");
    }
    StoreError::Damaged(error.to_string())
}

/// Why a write has failed, which has to be repeated.
pub(super) fn unwritten(error: Error) -> StoreError {
    if matches!(error, Error::Poisoned) {
        // Those are its worker's, which does not say why it has ended.
        return unavailable("an earlier write failed, or files cannot be merged");
    }
    unavailable(error)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unavailable(error: impl ToString) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// What is said of a row that cannot be read.
pub(super) fn damaged(space: &Keyspace, key: &[u8], error: Malformed) -> StoreError {
    let name: &str = space.name();
    StoreError::Damaged(format!("{name} {}: {error}", shown(key)))
}
