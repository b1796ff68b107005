//! The thread that follows the log, leads when nobody does, and shows that it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::select;
use tokio::time;

use super::election::{Lease, RENEW, Reign};
use super::log::{self, Appended, unavailable};
use super::record::{Author, Entry, Record};
use super::replica::{Following, Note, is_of_replica, malformed};
use super::{Leadership, Outage, Shared};
use crate::store::StoreError;

/// How often a relay that leads looks whether it has something to append.
const LOOK: Duration = Duration::from_millis(250);

/// How often a relay that leads looks at the streams.
const SURVEY: Duration = Duration::from_secs(1);

/// The first and the longest wait before the log is looked at again after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a relay that ends waits for its resignation.
const RESIGN: Duration = Duration::from_secs(2);

/// Follows the log until the store is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    shared.handle.block_on(async {
        let mut wait = FIRST_PAUSE;
        while !shared.closing.is_cancelled() {
            let began = Instant::now();
            let session = async {
                let context = shared.connection.wait().await;
                session(shared, &context).await
            };
            let Some(ended) = shared.closing.run_until_cancelled(session).await else { break };
            if let Err(error) = ended {
                shared.meters.failures.increment();
                let outage = Outage { reason: error.to_string(), since: Instant::now() };
                shared.stumble.lock().get_or_insert(outage);
                let is_first = wait == FIRST_PAUSE || began.elapsed() > LONGEST_PAUSE;
                if is_first {
                    tracing::warn!(%error, "the log of messages cannot be followed");
                }
                wait = if is_first { 2 * FIRST_PAUSE } else { (2 * wait).min(LONGEST_PAUSE) };
                shared.closing.run_until_cancelled(time::sleep(wait)).await;
            } else {
                wait = FIRST_PAUSE;
            }
        }
        if let Err(error) = time::timeout(RESIGN, shared.resign_lead()).await.unwrap_or(Ok(())) {
            tracing::info!(%error, "other relays find out by themselves that this one has ended");
        }
    });
}

/// Leads, or follows until this relay leads.
async fn session(shared: &Arc<Shared>, context: &Context) -> Result<(), StoreError> {
    if !shared.writer.lock().await.leads() {
        follow(shared, context).await?;
    }
    lead(shared, context).await
}

/// Shows that this relay leads, as long as it does.
async fn lead(shared: &Arc<Shared>, context: &Context) -> Result<(), StoreError> {
    let mut next_survey = Instant::now();
    loop {
        let is_due = || {
            let lease = *shared.lease.lock();
            lease.is_some_and(|lease| lease.is_due(Instant::now()))
        };
        match shared.renew(is_due).await {
            Ok(()) => *shared.stumble.lock() = None,
            Err(StoreError::Fenced) => return Ok(()),
            Err(error) => return Err(error),
        }
        if !shared.writer.lock().await.leads() {
            return Ok(());
        }
        if Instant::now() >= next_survey {
            next_survey = Instant::now() + SURVEY;
            // A server that is slow to tell of its streams may take appends all the same.
            match time::timeout(RENEW, shared.survey(context)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => shared.meters.failures.increment(),
            }
        }
        time::sleep(LOOK).await;
    }
}

/// Follows the log until this relay leads it.
async fn follow(shared: &Shared, context: &Context) -> Result<(), StoreError> {
    let streams = &shared.streams;
    let id = log::prepare(context, streams, shared.replicas, shared.max_bytes).await?;
    let stream = context.get_stream(&streams.log).await.map_err(unavailable)?;
    let note = shared.fit_replica(context, &stream, id).await?;
    // It may have been mended meanwhile.
    let last = stream.get_info().await.map_err(unavailable)?.state.last_sequence;
    shared.meters.log_ends(last);
    let mut following = Following::new(&shared.replica, note, last)?;
    let mut reign = Reign::default();
    if last > 0
        && let Some(record) = log::read(&stream, last).await?
    {
        let record = Record::decode(&record).map_err(malformed)?;
        reign.note(record.author, &record.entry);
    }
    let config = OrderedConfig {
        deliver_subject: context.client().new_inbox(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: following.seen + 1 },
        replay_policy: ReplayPolicy::Instant,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
    let mut messages = consumer.messages().await.map_err(unavailable)?;

    let mut silent_since = Instant::now();
    loop {
        let is_behind = following.seen < last;
        let vacant_at = reign.vacant_at(shared.relay, silent_since);
        let message = select! {
            biased;
            message = messages.next() => message,
            () = time::sleep_until(vacant_at.into()), if !is_behind => {
                if claim(shared, context, &reign, &following).await? {
                    return Ok(());
                }
                // Somebody was faster, whose record comes.
                silent_since = Instant::now() + LOOK;
                continue;
            }
        };
        let Some(message) = message else { return Err(unavailable("the log ended")) };
        let message = message.map_err(unavailable)?;
        let at = message.info().map_err(unavailable)?.stream_sequence;
        let record = following.take(at, &message.payload)?;
        shared.meters.applied(at);
        if at >= last {
            reign.note(record.author, &record.entry);
            silent_since = Instant::now();
        }
        if following.seen >= last {
            tell(shared, &reign);
        }
    }
}

/// Says who leads, as the log has it.
fn tell(shared: &Shared, reign: &Reign) {
    let leadership = match reign.last {
        Some(Author { epoch, relay, .. }) if !reign.is_over && relay != shared.relay => {
            Leadership::There { epoch, relay }
        }
        _ => Leadership::Nobody,
    };
    *shared.stumble.lock() = None;
    shared.leadership.send_if_modified(|known| std::mem::replace(known, leadership) != leadership);
}

/// Tries to lead; false where another relay has appended something meanwhile.
async fn claim(
    shared: &Shared,
    context: &Context,
    reign: &Reign,
    following: &Following<'_>,
) -> Result<bool, StoreError> {
    let mut writer = shared.writer.lock().await;
    let Shared { relay, process, .. } = *shared;
    let author = Author { epoch: reign.next_epoch().max(following.note.epoch + 1), relay, process };
    let record = Record { author, entry: Entry::Epoch }.encode();
    let sent = Instant::now();
    match log::append(context, &shared.streams, &record, following.seen).await? {
        Appended::There => {}
        Appended::Earlier | Appended::Foreign(_) => return Ok(false),
        Appended::Lost { last } => {
            let lost = following.seen - last;
            tracing::error!(lost, last, "NATS has lost records that it had acknowledged");
            shared.meters.lost.add(lost);
            return Err(unavailable("the log is shorter than it was"));
        }
    }
    let began = following.seen + 1;
    shared.replica.keep(Note { epoch: author.epoch, began, ..following.note })?;
    writer.lead(author, began, following.position);
    shared.meters.log_ends(began);
    *shared.lease.lock() = Some(Lease::since(sent));
    shared.leadership.send_replace(Leadership::Here { epoch: author.epoch });
    tracing::info!(epoch = author.epoch, "this relay leads the log of messages");
    Ok(true)
}

impl Shared {
    /// Gives the log back what its servers have lost and the replica has: as a snapshot, behind
    /// which the log goes on.
    async fn mend_log(
        &self,
        context: &Context,
        stream: &Stream,
        position: u64,
        note: Note,
    ) -> Result<(), StoreError> {
        let view = self.replica.embedded.view(self.relay.0.0)?;
        self.put_snapshot(context, &view, note).await?;
        // A log that is cut behind its end goes on there.
        stream.purge().sequence(position + 1).await.map_err(unavailable)?;
        tracing::warn!(position, "the log of messages is mended from the replica of this relay");
        Ok(())
    }

    /// Has the replica be one that can go on from what the log has, and says what it knows.
    async fn fit_replica(
        &self,
        context: &Context,
        stream: &Stream,
        id: [u8; 16],
    ) -> Result<Note, StoreError> {
        let state = &stream.cached_info().state;
        let position = self.replica.position()?;
        let note = self.replica.note()?;
        if let Some(note) = note.filter(|note| note.log != id) {
            let log = u128::from_be_bytes(note.log);
            return Err(StoreError::Damaged(format!(
                "the replica is of another log, {log:x}: the stream was made anew. Move the \
                 replica's folder away to begin with what the stream has"
            )));
        }
        let mut note = note.unwrap_or(Note { log: id, epoch: 0, began: 0 });
        let last = state.last_sequence;
        let why = if position > last {
            let lost = position - last;
            tracing::error!(lost, "NATS has lost records that it had acknowledged");
            self.meters.lost.add(lost);
            let end = if last > 0 { log::read(stream, last).await? } else { None };
            let end = end.as_ref().map(author).transpose()?;
            if end.is_none_or(|end| end.epoch <= note.epoch) {
                self.mend_log(context, stream, position, note).await?;
                return Ok(note);
            }
            Some("the log is shorter, and goes on")
        } else if self.snapshot_position(context, id).await? > position {
            Some("a snapshot has more")
        } else if position + 1 < state.first_sequence {
            Some("the log begins behind it")
        } else if position > 0
            && position >= state.first_sequence
            && let Some(record) = log::read(stream, position).await?
            && !is_of_replica(note, position, author(&record)?)
        {
            Some("the log has other records")
        } else {
            None
        };
        if let Some(why) = why {
            tracing::warn!(position, why, "the replica of the log of messages is filled again");
            note = self.fill_replica(context, id).await?;
        }
        self.replica.keep(note)?;
        Ok(note)
    }
}

fn author(record: &Bytes) -> Result<Author, StoreError> {
    Ok(Record::decode(record).map_err(malformed)?.author)
}
