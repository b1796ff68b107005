//! What the threads of the store share: the database, which is opened again after a write that has
//! failed, and what is known of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::PersistMode;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

use super::database::{Database, Sizes, unavailable, unwritten};
use super::journal::{Newest, begin_new_journal};
use super::known::Known;
use crate::store::{Handover, StoreError};

/// Time between two attempts to open a database that failed.
const REOPEN: Duration = Duration::from_secs(1);

/// What the threads of the store share.
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    pub(super) handover: Handover,
    pub(super) sizes: Sizes,
    /// None where it could not be opened again.
    pub(super) database: RwLock<Option<Database>>,
    /// Locked inside `database`, where both are.
    pub(super) known: Mutex<Known>,
    /// Whether a write has failed, so that the database takes no more.
    pub(super) is_broken: AtomicBool,
    /// Whether it is not to be opened again.
    pub(super) is_closed: AtomicBool,
    /// Free bytes to open it again with.
    pub(super) needed: AtomicU64,
    /// When it was last opened again.
    pub(super) reopened: Mutex<Option<Instant>>,
    pub(super) is_compacting: AtomicBool,
    /// When the next merge of everything may begin.
    pub(super) next_compaction: Mutex<Instant>,
    /// Held by who hands what is in memory to the worker.
    pub(super) settling: Mutex<()>,
    /// Whether the database was opened again since the last sync.
    pub(super) is_reopened: AtomicBool,
    /// The newest journal.
    pub(super) journal: Newest,
    /// Held while a commit is written, and while tables leave memory behind a journal that is on
    /// the disk: no commit is between the two.
    pub(super) writing: Mutex<()>,
}

pub(super) type Opened<'a> = MappedRwLockReadGuard<'a, Database>;

impl Shared {
    pub(super) fn open(
        folder: &Path,
        handover: Handover,
        sizes: Sizes,
    ) -> Result<Self, StoreError> {
        let database = Database::open(folder)?;
        let known = Mutex::new(Known::read(&database)?);
        Ok(Self {
            folder: folder.to_owned(),
            handover,
            sizes,
            database: RwLock::new(Some(database)),
            known,
            is_broken: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            needed: AtomicU64::new(0),
            reopened: Mutex::new(None),
            is_compacting: AtomicBool::new(false),
            next_compaction: Mutex::new(Instant::now()),
            settling: Mutex::new(()),
            writing: Mutex::new(()),
            is_reopened: AtomicBool::new(false),
            journal: Newest::default(),
        })
    }

    /// The database, for one that reads.
    pub(super) fn to_read(&self) -> Result<Opened<'_>, StoreError> {
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        self.reopen()?;
        self.opened().ok_or_else(|| unavailable("it is closed"))
    }

    /// The database, for one that writes.
    pub(super) fn to_write(&self) -> Result<Opened<'_>, StoreError> {
        if self.is_broken.load(Ordering::Acquire) {
            self.reopen()?;
        }
        self.to_read()
    }

    pub(super) fn opened(&self) -> Option<Opened<'_>> {
        RwLockReadGuard::try_map(self.database.read(), Option::as_ref).ok()
    }

    /// Opens the database again after a write that failed.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut last = self.reopened.lock();
        if self.is_closed.load(Ordering::Acquire) {
            return Err(unavailable("it is closed"));
        }
        if last.is_some_and(|last| last.elapsed() < REOPEN) {
            return Err(unavailable("an earlier write failed, and so did the next"));
        }
        // It has the database, and those that read go on with it meanwhile.
        if self.is_compacting.load(Ordering::Acquire) {
            return Err(unavailable("an earlier write failed, and space is being freed"));
        }
        let free = free(&self.folder)?;
        let mut database = self.database.write();
        if let Some(database) = &*database {
            let needed = self.sizes.needed_to_reopen(database.in_memory());
            self.needed.store(needed, Ordering::Relaxed);
        }
        let needed = self.needed.load(Ordering::Relaxed);
        if free < needed {
            return Err(unavailable(format!("{free} bytes are free, {needed} are needed")));
        }
        *last = Some(Instant::now());
        // The old one first: fjall locks its folder.
        drop(database.take());
        begin_new_journal(&self.folder).map_err(unavailable)?;
        let opened = Database::open(&self.folder)?;
        let mut known = Known::read(&opened)?;
        known.is_doubtful = true;
        *self.known.lock() = known;
        self.is_reopened.store(true, Ordering::Release);
        // Nobody syncs the old journal any more: what it has becomes files, and those are synced.
        let settled = opened.wait_until_settled().map_err(unwritten);
        *database = Some(opened);
        settled?;
        self.is_broken.store(false, Ordering::Release);
        tracing::info!("the store of messages is open again");
        Ok(())
    }

    /// What a write came to; after one that failed, the next opens the database again. That does
    /// not repair what cannot be read.
    pub(super) fn written<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| {
            if !matches!(error, StoreError::Damaged(_)) {
                self.is_broken.store(true, Ordering::Release);
            }
        })
    }

    /// Whether so much is in memory that it should become files.
    pub(super) fn is_to_settle(&self, database: &Database) -> bool {
        let unsettled = self.known.lock().unsettled;
        let most = self.sizes.settle_at;
        unsettled >= 2 * most || (unsettled >= most && database.has_room_to_settle())
    }

    /// Has the disk take the journal, without what keeps commits from it meanwhile.
    pub(super) fn sync(&self, database: &Database) -> Result<(), fjall::Error> {
        database.inner.persist(PersistMode::Buffer)?;
        Ok(self.journal.sync(&self.folder)?)
    }

    /// Hands what is in memory to the worker.
    pub(super) fn settle(&self, database: &Database) -> Result<(), fjall::Error> {
        let _writing = self.writing.lock();
        let unsettled = self.known.lock().unsettled;
        database.settle()?;
        // What was committed meanwhile may be in memory yet.
        let mut known = self.known.lock();
        known.unsettled = known.unsettled.saturating_sub(unsettled);
        Ok(())
    }
}

/// What is free in the file system of a folder, in bytes.
pub(super) fn free(folder: &Path) -> Result<u64, StoreError> {
    let of = rustix::fs::statvfs(folder).map_err(unavailable)?;
    Ok(of.f_bavail.saturating_mul(of.f_frsize))
}
