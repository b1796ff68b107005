//! Appends of the relay that leads, one at a time.
//!
//! An append whose answer does not come is sent again as it is, at its position, until the log
//! says what is there. What was begun so comes before anything else.

use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use bytes::Bytes;

use super::log::{self, Appended, append};
use super::record::{Author, Entry, Record, parts};
use super::replica::{Applied, Following};
use super::{Leadership, Shared};
use crate::store::embedded::codec::{read_commit, write_commit};
use crate::store::{Commit, StoreError};

/// How long an append waits for a connection. With the wait for an acknowledgement it is less than
/// what counts as a store that hangs.
const CONNECTION: Duration = Duration::from_millis(500);

/// What the relay that leads is at.
#[derive(Default)]
pub(super) struct Writer {
    /// None where this relay does not lead.
    author: Option<Author>,
    /// The last position of the log.
    last: u64,
    /// The position of the last commit, which the replica has.
    position: u64,
    /// A commit that is not whole in the log, or not in the replica.
    unfinished: Option<Unfinished>,
}

struct Unfinished {
    /// As it is written.
    commit: Bytes,
    parts: Vec<Bytes>,
    /// Parts that the log has.
    appended: usize,
}

impl Writer {
    /// Who appends in this epoch, as long as it lasts.
    fn author(&self, epoch: u64) -> Result<Author, StoreError> {
        self.author.filter(|author| author.epoch == epoch).ok_or(StoreError::Fenced)
    }

    /// Leads from here on: the log ends with the author's epoch at `last`.
    pub(super) fn lead(&mut self, author: Author, last: u64, position: u64) {
        *self = Self { author: Some(author), last, position, unfinished: None };
    }

    /// The last position of the log, where nothing waits to be appended in this epoch.
    pub(super) fn settled(&self, epoch: u64) -> Result<u64, StoreError> {
        self.author(epoch)?;
        match self.unfinished {
            None => Ok(self.last),
            Some(_) => Err(log::unavailable("a commit waits to be appended")),
        }
    }

    /// The replica was filled with what it has at this position.
    pub(super) const fn moved_to(&mut self, position: u64) {
        self.position = position;
    }

    pub(super) const fn leads(&self) -> bool {
        self.author.is_some()
    }
}

impl Shared {
    /// Writes a commit to the log and to the replica.
    ///
    /// # Errors
    /// To be repeated, but for a relay that leads no more.
    pub(super) fn commit(&self, epoch: u64, commit: &Commit) -> Result<(), StoreError> {
        if commit.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(write_commit(0, commit, Vec::new()));
        self.handle.block_on(async {
            let mut writer = self.writer.lock().await;
            let author = writer.author(epoch)?;
            if writer.unfinished.as_ref().is_some_and(|unfinished| unfinished.commit != bytes) {
                self.finish(&mut writer, None).await?;
            }
            if writer.unfinished.is_none() {
                let parts = parts(author, &bytes, self.longest).ok_or_else(|| {
                    StoreError::Damaged(format!("a commit of {} bytes", bytes.len()))
                })?;
                writer.unfinished = Some(Unfinished { commit: bytes, parts, appended: 0 });
            }
            self.finish(&mut writer, Some(commit)).await
        })
    }

    /// Appends what there is yet to append of a commit, and has the replica take it.
    async fn finish(&self, writer: &mut Writer, commit: Option<&Commit>) -> Result<(), StoreError> {
        self.append_unfinished(writer).await?;
        let (Some(author), Some(unfinished)) = (writer.author, &writer.unfinished) else {
            return Ok(());
        };
        let (after, at) = (writer.position, writer.last);
        let applied = match commit {
            Some(commit) => self.replica.commit(author.relay, after, at, commit)?,
            None => {
                let commit = read_commit(&unfinished.commit)
                    .map_err(|error| StoreError::Damaged(error.to_string()))?;
                self.replica.commit(author.relay, after, at, &commit)?
            }
        };
        if let Applied::Behind(_) = applied {
            self.catch_up(writer.last).await?;
        }
        writer.position = at;
        writer.unfinished = None;
        Ok(())
    }

    /// Appends the parts of a commit that the log does not have.
    async fn append_unfinished(&self, writer: &mut Writer) -> Result<(), StoreError> {
        while let Some(unfinished) = &writer.unfinished {
            let Some(part) = unfinished.parts.get(unfinished.appended).cloned() else { break };
            self.append(writer, &part).await?;
            if let Some(unfinished) = &mut writer.unfinished {
                unfinished.appended += 1;
            }
        }
        Ok(())
    }

    /// Appends a record, which is there when this returns.
    async fn append(&self, writer: &mut Writer, record: &Bytes) -> Result<(), StoreError> {
        let context = self.connected().await?;
        loop {
            let sent = Instant::now();
            let appended = append(&context, &self.streams, record, writer.last).await;
            let appended = appended.inspect_err(|_| self.meters.failures.increment())?;
            match appended {
                Appended::There | Appended::Earlier => {
                    writer.last += 1;
                    let now = Instant::now();
                    self.meters.appended(now.saturating_duration_since(sent), writer.last);
                    if let Some(lease) = &mut *self.lease.lock() {
                        lease.renew(sent);
                    }
                    if appended == Appended::There {
                        return Ok(());
                    }
                }
                Appended::Foreign(author) => {
                    tracing::warn!(relay = %author.relay, epoch = author.epoch, "another relay leads");
                    self.step_down(writer);
                    return Err(StoreError::Fenced);
                }
                Appended::Lost { last } => {
                    let lost = writer.last - last;
                    tracing::error!(lost, last, "NATS has lost records that it had acknowledged");
                    self.meters.lost.add(lost);
                    self.step_down(writer);
                    return Err(StoreError::Fenced);
                }
            }
        }
    }

    async fn connected(&self) -> Result<Context, StoreError> {
        let connected = self.connection.within(CONNECTION).await;
        connected.map_err(|refusal| StoreError::Unavailable(refusal.to_string()))
    }

    /// Leads no more.
    pub(super) fn step_down(&self, writer: &mut Writer) {
        *writer = Writer::default();
        *self.lease.lock() = None;
        self.leadership.send_replace(Leadership::Nobody);
    }

    /// Appends something that is no commit.
    pub(super) async fn append_entry(
        &self,
        epoch: u64,
        entry: Entry,
    ) -> Result<Record, StoreError> {
        let mut writer = self.writer.lock().await;
        let author = writer.author(epoch)?;
        self.append_unfinished(&mut writer).await?;
        if writer.unfinished.is_some() {
            // Its position is the last of the log until the replica has it.
            return Err(log::unavailable("a commit waits for the replica"));
        }
        let record = Record { author, entry };
        self.append(&mut writer, &record.encode()).await?;
        Ok(record)
    }

    /// Shows that this relay leads, where it has not for a while: by what waits to be appended, or
    /// by a record that says nothing else.
    pub(super) async fn renew(&self, is_due: impl Fn() -> bool) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        if !is_due() {
            return Ok(());
        }
        let Some(author) = writer.author else { return Err(StoreError::Fenced) };
        if writer.unfinished.is_some() {
            return self.append_unfinished(&mut writer).await;
        }
        let record = Record { author, entry: Entry::Renewal };
        self.append(&mut writer, &record.encode()).await
    }

    /// Says that this relay leads no more, so that nobody waits.
    pub(super) async fn resign_lead(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let Some(author) = writer.author else { return Ok(()) };
        let record = Record { author, entry: Entry::Resignation };
        let appended = self.append(&mut writer, &record.encode()).await;
        self.step_down(&mut writer);
        appended
    }

    /// Has a replica that lost commits which it had take them again, up to a position.
    async fn catch_up(&self, up_to: u64) -> Result<(), StoreError> {
        let context = self.connected().await?;
        let stream = context.get_stream(&self.streams.log).await.map_err(log::unavailable)?;
        let note = self.replica.note()?.unwrap_or_default();
        let mut following = Following::new(&self.replica, note, up_to)?;
        for at in following.position + 1..=up_to {
            let record = log::read(&stream, at).await?;
            let record = record.ok_or_else(|| {
                StoreError::Damaged(format!("the log has no record {at}, which the replica lacks"))
            })?;
            following.take(at, &record)?;
        }
        Ok(())
    }
}
