//! Snapshots of the replica, which bound the log.
//!
//! Whoever leads writes the rows of its replica as pages, then a manifest, which is the snapshot
//! from then on, and only then removes what the log has before it and what was the snapshot before.
//! A crash between any two of these leaves one that is whole. The manifest names the one that it
//! replaces, as an append does: who was replaced meanwhile does not put an older one there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;

use super::Shared;
use super::connection::UNACKNOWLEDGED;
use super::log::unavailable;
use super::replica::Note;
use crate::store::embedded::replica::{Row, View};
use crate::store::{Space, Store as _, StoreError};

/// A page ends behind the row that makes it as long, in bytes.
const PAGE: usize = 256 * 1024;

/// Bytes that the log may have beyond twice what waits.
const SLACK: u64 = 64 << 20;

/// Wait after a snapshot that failed.
const RETRY: Duration = Duration::from_secs(10);

/// The form of manifests and pages so far.
const VERSION: u8 = 1;

/// What a snapshot is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Manifest {
    /// Names its pages.
    id: u64,
    /// The last commit that it has.
    position: u64,
    pages: u64,
    note: Note,
    /// BLAKE3 of its pages, one behind the other.
    hash: [u8; 32],
}

impl Manifest {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(VERSION);
        bytes.put_u64(self.id);
        bytes.put_u64(self.position);
        bytes.put_u64(self.pages);
        bytes.put_slice(&self.note.to_bytes());
        bytes.put_slice(&self.hash);
        bytes.freeze()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION], rest) = bytes.split_first_chunk()? else { return None };
        let (id, rest) = rest.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (pages, rest) = rest.split_first_chunk()?;
        let (note, hash) = rest.split_at_checked(32)?;
        let [id, position, pages] = [id, position, pages].map(|n| u64::from_be_bytes(*n));
        Some(Self { id, position, pages, note: Note::read(note)?, hash: hash.try_into().ok()? })
    }
}

fn encode(rows: &[Row]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PAGE + PAGE / 8);
    bytes.put_u8(VERSION);
    for Row { space, key, value } in rows {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a row fits a message");
        bytes.put_u8(*space);
        bytes.put_u32(length(key));
        bytes.put_slice(key);
        bytes.put_u32(length(value));
        bytes.put_slice(value);
    }
    bytes.freeze()
}

fn decode(page: &[u8]) -> Option<Vec<Row>> {
    let (&[VERSION], mut rest) = page.split_first_chunk()? else { return None };
    let mut rows = Vec::new();
    while let Some((&space, fields)) = rest.split_first() {
        let (key, fields) = field(fields)?;
        let (value, fields) = field(fields)?;
        rows.push(Row { space, key, value });
        rest = fields;
    }
    Some(rows)
}

fn field(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((field.to_vec(), rest))
}

/// After which step a test has the writer end, as a crash would.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    Pages,
    Manifest,
    Log,
}

impl Shared {
    fn page_subject(&self, id: u64) -> String {
        format!("{}.{id:016x}", self.streams.page_subject)
    }

    /// The newest snapshot, and the position of its manifest; 0 where there is none.
    async fn manifest(&self, snapshots: &Stream) -> Result<(u64, Option<Manifest>), StoreError> {
        let subject = &self.streams.manifest_subject;
        match snapshots.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                let manifest = Manifest::decode(&message.payload);
                let manifest = manifest.ok_or_else(|| malformed("a manifest"))?;
                Ok((message.sequence, Some(manifest)))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok((0, None)),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// The last commit that the newest snapshot of a log has; 0 where there is none.
    pub(super) async fn snapshot_position(
        &self,
        context: &Context,
        log: [u8; 16],
    ) -> Result<u64, StoreError> {
        let snapshots = self.snapshots(context).await?;
        let (_, manifest) = self.manifest(&snapshots).await?;
        if manifest.is_some_and(|manifest| manifest.note.log != log) {
            let stream = &self.streams.snapshots;
            return Err(StoreError::Damaged(format!(
                "the snapshots of {stream} are of another log: the stream of the log was made \
                 anew. Remove {stream} as well to begin with an empty one"
            )));
        }
        Ok(manifest.map_or(0, |manifest| manifest.position))
    }

    async fn snapshots(&self, context: &Context) -> Result<Stream, StoreError> {
        context.get_stream(&self.streams.snapshots).await.map_err(unavailable)
    }

    /// Writes a snapshot of what the replica has, and removes what it makes of no use. Blocks.
    pub(super) fn write_snapshot(&self) -> Result<(), StoreError> {
        self.handle.block_on(self.write_snapshot_up_to(
            #[cfg(test)]
            None,
        ))
    }

    pub(super) async fn write_snapshot_up_to(
        &self,
        #[cfg(test)] stop: Option<Stop>,
    ) -> Result<(), StoreError> {
        let began = Instant::now();
        let context = self.connection.wait().await;
        let view = self.replica.embedded.view(self.relay.0.0)?;
        let note = self.replica.note()?.unwrap_or_default();
        #[cfg(test)]
        if stop == Some(Stop::Pages) {
            return self.write_pages(&context, &view, note, 7).await.map(drop);
        }
        let (manifest, first) = self.put_snapshot(&context, &view, note).await?;
        drop(view);
        #[cfg(test)]
        if stop == Some(Stop::Manifest) {
            return Ok(());
        }
        // The record at the position stays: it tells a replica whether it is of this log.
        let log = context.get_stream(&self.streams.log).await.map_err(unavailable)?;
        log.purge().sequence(manifest.position).await.map_err(unavailable)?;
        #[cfg(test)]
        if stop == Some(Stop::Log) {
            return Ok(());
        }
        let snapshots = self.snapshots(&context).await?;
        snapshots.purge().sequence(first).await.map_err(unavailable)?;
        self.meters.snapshots.increment();
        let (position, pages) = (manifest.position, manifest.pages);
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(position, pages, seconds, "wrote a snapshot of the messages");
        Ok(())
    }

    /// Has the rows of a view be the newest snapshot; what it is, and the position of its first
    /// page.
    pub(super) async fn put_snapshot(
        &self,
        context: &Context,
        view: &View,
        note: Note,
    ) -> Result<(Manifest, u64), StoreError> {
        let snapshots = self.snapshots(context).await?;
        let (before, _) = self.manifest(&snapshots).await?;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(unavailable)?;
        let id = u64::from_be_bytes(id);
        let put = async {
            let (manifest, first) = self.write_pages(context, view, note, id).await?;
            let message = PublishMessage::build()
                .payload(manifest.encode())
                .expected_last_subject_sequence(before);
            let subject = self.streams.manifest_subject.clone();
            let acknowledged = match context.send_publish(subject, message).await {
                Ok(acknowledgement) => acknowledgement.await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = acknowledged {
                // It may be there all the same.
                let (_, found) = self.manifest(&snapshots).await?;
                if found != Some(manifest) {
                    return Err(unavailable(error));
                }
            }
            Ok((manifest, first))
        };
        let put = put.await;
        if put.is_err() && self.manifest(&snapshots).await.is_ok_and(|(last, _)| last == before) {
            // Where they stay, they take room until the next snapshot.
            let _ = snapshots.purge().filter(self.page_subject(id)).await;
        }
        put
    }

    /// Writes the rows of a view; the snapshot that they are, and the position of the first page.
    async fn write_pages(
        &self,
        context: &Context,
        view: &View,
        note: Note,
        id: u64,
    ) -> Result<(Manifest, u64), StoreError> {
        let mut hash = blake3::Hasher::new();
        let mut pages = 0;
        let mut first = 0;
        let mut under_way: VecDeque<PublishAckFuture> = VecDeque::new();
        let mut page = Vec::new();
        let mut bytes = 0;
        let mut rows = view.rows();
        loop {
            let row = rows.next().transpose()?;
            let is_last = row.is_none();
            if let Some(row) = row {
                bytes += row.key.len() + row.value.len() + 9;
                page.push(row);
            }
            if bytes >= PAGE || (is_last && !page.is_empty()) {
                let encoded = encode(&page);
                hash.update(&encoded);
                page.clear();
                bytes = 0;
                pages += 1;
                let sent = context.publish(self.page_subject(id), encoded).await;
                under_way.push_back(sent.map_err(unavailable)?);
            }
            while under_way.len() >= UNACKNOWLEDGED / 2 || (is_last && !under_way.is_empty()) {
                let Some(next) = under_way.pop_front() else { break };
                let acknowledged = next.await.map_err(unavailable)?;
                first = if first == 0 { acknowledged.sequence } else { first };
            }
            if is_last {
                break;
            }
        }
        let hash = hash.finalize().into();
        Ok((Manifest { id, position: view.position, pages, note, hash }, first))
    }

    /// Fills the replica with the newest snapshot, or empties it where the log begins at its first
    /// record; what it knows of the log then.
    pub(super) async fn fill_replica(
        &self,
        context: &Context,
        log: [u8; 16],
    ) -> Result<Note, StoreError> {
        self.meters.fills.increment();
        let snapshots = self.snapshots(context).await?;
        let (_, manifest) = self.manifest(&snapshots).await?;
        let mut filling = self.replica.embedded.begin_filling(self.relay.0.0)?;
        let Some(manifest) = manifest else {
            let stream = context.get_stream(&self.streams.log).await.map_err(unavailable)?;
            let first = stream.cached_info().state.first_sequence;
            if first > 1 {
                let what = format!("the log begins at {first}, and there is no snapshot");
                return Err(StoreError::Damaged(what));
            }
            self.replica.embedded.take_over(filling)?;
            return Ok(Note { log, epoch: 0, began: 0 });
        };
        let config = OrderedConfig {
            deliver_subject: context.client().new_inbox(),
            filter_subject: self.page_subject(manifest.id),
            ..OrderedConfig::default()
        };
        let consumer = snapshots.create_consumer(config).await.map_err(unavailable)?;
        let mut messages = consumer.messages().await.map_err(unavailable)?;
        let mut hash = blake3::Hasher::new();
        for _ in 0..manifest.pages {
            let Some(message) = messages.next().await else { return Err(unavailable("no page")) };
            let page = message.map_err(unavailable)?.message.payload;
            hash.update(&page);
            filling.add(decode(&page).ok_or_else(|| malformed("a page"))?)?;
        }
        if <[u8; 32]>::from(hash.finalize()) != manifest.hash {
            return Err(malformed("the pages"));
        }
        self.replica.embedded.take_over(filling)?;
        let position = manifest.position;
        tracing::info!(position, "the replica is filled from the newest snapshot");
        Ok(Note { log, ..manifest.note })
    }

    /// Looks at the streams, and has a snapshot be written where the log is long.
    pub(super) async fn survey(self: &Arc<Self>, context: &Context) -> Result<(), StoreError> {
        let log = context.get_stream(&self.streams.log).await.map_err(unavailable)?;
        let snapshots = self.snapshots(context).await?;
        let bytes = log.cached_info().state.bytes;
        self.meters.log_bytes.store(bytes, Ordering::Relaxed);
        let of_snapshots = snapshots.cached_info().state.bytes;
        self.meters.snapshot_bytes.store(of_snapshots, Ordering::Relaxed);
        let live = self.replica.embedded.live_bytes()?;
        if bytes > self.longest_log(live) {
            self.begin_snapshot();
        }
        Ok(())
    }

    /// Bytes of the log at which a snapshot is worth it, where so much is of use.
    fn longest_log(&self, live: u64) -> u64 {
        let most = 2 * live + SLACK;
        self.max_bytes.map_or(most, |max| most.min(max / 2))
    }

    /// Has a thread of its own write a snapshot, where none does.
    fn begin_snapshot(self: &Arc<Self>) {
        let mut next = self.meters.next_snapshot.lock();
        if next.is_none_or(|next| next > Instant::now()) {
            return;
        }
        *next = None;
        drop(next);
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("bus-snapshot".to_owned());
        let started = thread.spawn(move || {
            let written = shared.write_snapshot();
            let wait = if let Err(error) = written {
                shared.meters.failures.increment();
                tracing::warn!(%error, "no snapshot of the messages");
                RETRY
            } else {
                Duration::ZERO
            };
            *shared.meters.next_snapshot.lock() = Some(Instant::now() + wait);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a snapshot of the messages");
            *self.meters.next_snapshot.lock() = Some(Instant::now() + RETRY);
        }
    }

    /// The space of the log, of two snapshots, and of the replica: whichever is the least.
    pub(super) fn space(&self) -> Result<Space, StoreError> {
        let local = self.replica.embedded.space()?;
        let used = self.meters.log_bytes.load(Ordering::Relaxed)
            + self.meters.snapshot_bytes.load(Ordering::Relaxed);
        let Some(max) = self.max_bytes else {
            return Ok(Space { used, free: local.free });
        };
        let live = self.replica.embedded.live_bytes()?;
        // While one snapshot is written, the one before is there.
        let of_snapshots = (max / 2).saturating_sub(live);
        let of_log = max.saturating_sub(self.meters.log_bytes.load(Ordering::Relaxed));
        Ok(Space { used, free: local.free.min(of_snapshots).min(of_log) })
    }
}

fn malformed(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} of the snapshot of the log cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_and_page_are_read_as_they_were_written() {
        let note = Note { log: [1; 16], epoch: 2, began: 3 };
        let manifest = Manifest { id: 4, position: 5, pages: 6, note, hash: [7; 32] };
        assert_eq!(Manifest::decode(&manifest.encode()), Some(manifest));
        assert_eq!(Manifest::decode(&manifest.encode()[1..]), None);

        let row = |space, value: &[u8]| Row { space, key: vec![space; 3], value: value.to_vec() };
        let rows = vec![row(1, b"one"), row(9, b"")];
        let page = encode(&rows);
        assert_eq!(decode(&page), Some(rows));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
        for end in 1..page.len() {
            assert!(decode(&page[..end]).is_none_or(|rows| rows.len() < 2), "{end}");
        }
    }
}
