//! Messages that move between a store on one machine and the log in NATS.
//!
//! To NATS: the rows of the embedded store become a snapshot of a log that has no messages. Its
//! manifest is the step that counts. From NATS: the rows of the replica fill an embedded store, and
//! then the streams go.

use std::fmt;
use std::fs::File;
use std::path::Path;

use super::log::unavailable;
use super::record::Entry;
use super::{JetStream, Shared};
use crate::store::{Embedded, Handover, Store as _, StoreError};

/// What has moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moved {
    /// Names with their mailboxes.
    pub names: usize,
    /// Messages that wait in them.
    pub messages: u64,
    /// What those count as, in bytes.
    pub bytes: u64,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, messages, bytes } = self;
        write!(f, "{names} names and {messages} messages of {bytes} bytes")
    }
}

/// Why messages have not moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// There are messages where they were to go.
    #[error("there are messages already: {0}")]
    NotEmpty(Moved),
    /// One of the stores cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a store has.
fn count(store: &Embedded) -> Result<Moved, StoreError> {
    let recovered = store.recover()?;
    let levels = || recovered.names.iter().map(|(_, level)| level);
    Ok(Moved {
        names: recovered.names.len(),
        messages: levels().map(|level| level.messages).sum(),
        bytes: levels().map(|level| level.bytes).sum(),
    })
}

impl JetStream {
    /// Has the log have what an embedded store has. This relay leads in this epoch. Blocks.
    ///
    /// # Errors
    /// The log has messages, or one of the stores cannot be used: then it has none.
    pub fn take_in(&self, epoch: u64, from: &Embedded) -> Result<Moved, MoveError> {
        let shared = &self.shared;
        let there = count(&shared.replica.embedded)?;
        if there.names > 0 {
            return Err(MoveError::NotEmpty(there));
        }
        let moved = count(from)?;
        shared.handle.block_on(shared.take_in(epoch, from))?;
        Ok(moved)
    }

    /// Has an embedded store in this folder have what the log has, and removes the log. This relay
    /// leads in this epoch. Blocks.
    ///
    /// # Errors
    /// The folder has messages, or one of the stores cannot be used: then the log has them all.
    pub fn give_out(&self, epoch: u64, to: &Path) -> Result<Moved, MoveError> {
        let shared = &self.shared;
        let target = Embedded::open(to, Handover::Kernel)?;
        let there = count(&target)?;
        if there.names > 0 {
            return Err(MoveError::NotEmpty(there));
        }
        let moved = count(&shared.replica.embedded)?;
        shared.handle.block_on(shared.give_out(epoch, &target, to))?;
        Ok(moved)
    }
}

impl Shared {
    async fn take_in(&self, epoch: u64, from: &Embedded) -> Result<(), StoreError> {
        let context = self.connection.wait().await;
        let mut writer = self.writer.lock().await;
        let position = writer.settled(epoch)?;
        let note = self.replica.note()?.unwrap_or_default();
        let view = from.view(self.relay.0.0)?.moved_to(position, &note.to_bytes());
        self.put_snapshot(&context, &view, note).await?;
        self.fill_replica(&context, note.log).await?;
        writer.moved_to(position);
        drop(writer);
        // Who follows meanwhile fills its replica as well.
        self.append_entry(epoch, Entry::Filled).await.map(drop)
    }

    async fn give_out(&self, epoch: u64, target: &Embedded, to: &Path) -> Result<(), StoreError> {
        let context = self.connection.wait().await;
        let mut writer = self.writer.lock().await;
        writer.settled(epoch)?;
        let view = self.replica.embedded.view(self.relay.0.0)?;
        let mut filling = target.begin_filling(self.relay.0.0)?;
        let mut rows = view.rows().peekable();
        while rows.peek().is_some() {
            let page: Result<Vec<_>, _> = rows.by_ref().take(256).collect();
            filling.add(page?)?;
        }
        target.take_over(filling)?;
        target.sync()?;
        let unwritten = |error: std::io::Error| StoreError::Unavailable(error.to_string());
        File::open(to).and_then(|folder| folder.sync_all()).map_err(unwritten)?;
        context.delete_stream(&self.streams.log).await.map_err(unavailable)?;
        context.delete_stream(&self.streams.snapshots).await.map_err(unavailable)?;
        self.step_down(&mut writer);
        Ok(())
    }
}
