//! Merges of everything, which give disk space back.
//!
//! One runs in a thread of its own, and has the database until it ends: a failed database is opened
//! again behind it. So none begins another key space once a write has failed, nor one that the disk
//! has no room for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fjall::Keyspace;

use super::database::{Database, FILE_BYTES, LEAST_FREE, failure};
use super::{Embedded, PIECE, Shared, free};
use crate::store::StoreError;

/// Least time between two merges of everything.
const COMPACT: Duration = Duration::from_secs(60);

/// Least time to the next after one that met what cannot be read.
const DAMAGED: Duration = Duration::from_hours(1);

impl Embedded {
    /// Merges what is of no use any more, in a thread of its own, where that is most of it.
    pub(super) fn compact_if_worth_it(&self, database: &Database) {
        let mut next = self.shared.next_compaction.lock();
        let now = Instant::now();
        if now < *next
            || !self.shared.is_worth_compacting(database)
            || self.shared.is_compacting.swap(true, Ordering::AcqRel)
        {
            return;
        }
        *next = now + COMPACT;
        drop(next);
        let running = Running(Arc::clone(&self.shared));
        let thread = thread::Builder::new().name("bus-compact".to_owned());
        match thread.spawn(move || running.0.compact()) {
            Ok(started) => *self.compaction.lock() = Some(started),
            Err(error) => {
                tracing::warn!(%error, "cannot start a thread that frees space of the store");
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let running = self.compaction.lock().take();
        // It has nothing to tell.
        running.map(JoinHandle::join);
    }
}

/// A merge of everything, until this is dropped.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_compacting.store(false, Ordering::Release);
    }
}

impl Shared {
    fn is_worth_compacting(&self, database: &Database) -> bool {
        let known = self.known.lock();
        let most = self.sizes.slack + 2 * known.live;
        database.messages.disk_space() + database.keys.disk_space() > most
            // What was cut counts twice there: the row, and that it was removed.
            || (known.cut > PIECE as u64 && 3 * known.cut > database.audit.approximate_len() as u64)
    }

    pub(super) fn compact(&self) {
        let Some(database) = self.opened() else { return };
        match self.compact_all(&database).map_err(failure) {
            Ok(()) => {}
            Err(error @ StoreError::Damaged(_)) => {
                *self.next_compaction.lock() = Instant::now() + DAMAGED;
                tracing::warn!(%error, "cannot free space of the store");
            }
            Err(error) => tracing::warn!(%error, "cannot free space of the store"),
        }
    }

    fn compact_all(&self, database: &Database) -> Result<(), fjall::Error> {
        if self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let (live, cut) = {
            let known = self.known.lock();
            (known.live, known.cut)
        };
        {
            let _settling = self.settling.lock();
            database.wait_for_room_to_settle()?;
            self.settle(database)?;
        }
        database.wait_until_settled()?;
        // Of messages and their keys, what is of use is known.
        let most = 2 * live + FILE_BYTES;
        self.merge(&database.messages, most)?;
        self.merge(&database.keys, most)?;
        self.merge(&database.letters, u64::MAX)?;
        if cut > 0 && self.merge(&database.audit, u64::MAX)? {
            let mut known = self.known.lock();
            known.cut = known.cut.saturating_sub(cut);
        }
        Ok(())
    }

    /// Writes a key space anew without what was removed from it, at most so many bytes; false where
    /// the disk has no room for both, or a write has failed.
    fn merge(&self, space: &Keyspace, most: u64) -> Result<bool, fjall::Error> {
        let needed = space.disk_space().min(most).saturating_add(LEAST_FREE);
        let has_room = free(&self.folder).is_ok_and(|free| free >= needed);
        if self.is_broken.load(Ordering::Acquire) || !has_room {
            return Ok(false);
        }
        space.major_compact()?;
        Ok(true)
    }
}
