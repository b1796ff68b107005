//! The log in JetStream: its streams, and one append at a position.
//!
//! A stream of one subject is the log. An append names the position before it
//! (`Nats-Expected-Last-Sequence`), so that it is there once or never, however often it is sent,
//! and so that only one relay at a time can append.

use std::collections::HashMap;

use async_nats::jetstream::context::{CreateStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, StorageType, Stream,
};
use async_nats::jetstream::{Context, message::PublishMessage};
use bytes::Bytes;

use super::record::{Author, Record};
use crate::store::StoreError;

/// What a stream says of itself, so that another of the same name is told from it.
const LOG_ID: &str = "beacon-log-id";

/// The streams of a log.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// The stream of the log, and its one subject.
    pub(super) log: String,
    pub(super) log_subject: String,
    /// The stream of snapshots.
    pub(super) snapshots: String,
    /// The subject of what describes the newest snapshot.
    pub(super) manifest_subject: String,
    /// Prefix of the subjects of pages.
    pub(super) page_subject: String,
}

impl Streams {
    /// Those of the cluster of this name, a token of NATS' subjects.
    pub(super) fn of(name: &str) -> Self {
        Self {
            log: format!("{name}-bus"),
            log_subject: format!("{name}.bus.log"),
            snapshots: format!("{name}-bus-snapshots"),
            manifest_subject: format!("{name}.bus.manifest"),
            page_subject: format!("{name}.bus.page"),
        }
    }
}

/// What became of an append.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Appended {
    /// It is there.
    There,
    /// Another record of the same author is in its place, which it had sent before.
    Earlier,
    /// Another author's record is in its place.
    Foreign(Author),
    /// The log ends before: its servers have lost what they had acknowledged.
    Lost {
        /// The last position that they have.
        last: u64,
    },
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unavailable(error: impl ToString) -> StoreError {
    StoreError::Unavailable(format!("NATS: {}", error.to_string()))
}

/// Makes the streams where they are not there, or has them be as they are to be; the id of the log.
pub(super) async fn prepare(
    context: &Context,
    streams: &Streams,
    replicas: usize,
    max_bytes: Option<u64>,
) -> Result<[u8; 16], StoreError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(unavailable)?;
    let bytes = max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let config = |name: &str, subjects: Vec<String>| Config {
        name: name.to_owned(),
        subjects,
        max_bytes: bytes,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        metadata: HashMap::from([(LOG_ID.to_owned(), u128::from_be_bytes(id).to_string())]),
        ..Config::default()
    };
    let pages = format!("{}.*", streams.page_subject);
    let of_snapshots = vec![streams.manifest_subject.clone(), pages];
    ensure(context, config(&streams.snapshots, of_snapshots)).await?;
    let info = ensure(context, config(&streams.log, vec![streams.log_subject.clone()])).await?;
    let id = info.config.metadata.get(LOG_ID).and_then(|id| id.parse::<u128>().ok());
    let id = id.ok_or_else(|| {
        StoreError::Damaged(format!("the stream {} of NATS is not one of ours", streams.log))
    })?;
    Ok(id.to_be_bytes())
}

async fn ensure(context: &Context, wanted: Config) -> Result<Info, StoreError> {
    let found = context.get_stream(&wanted.name).await;
    let info = match found {
        Ok(stream) => stream.cached_info().clone(),
        Err(_) => match context.create_stream(&wanted).await {
            Ok(stream) => stream.cached_info().clone(),
            // Another relay may have made it meanwhile, with an id of its own.
            Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(_)) => {
                match context.get_stream(&wanted.name).await {
                    Ok(stream) => stream.cached_info().clone(),
                    Err(_) => return Err(unavailable(error)),
                }
            }
            Err(error) => return Err(unavailable(error)),
        },
    };
    let is_as_wanted = info.config.max_bytes == wanted.max_bytes
        && info.config.num_replicas == wanted.num_replicas;
    if is_as_wanted {
        return Ok(info);
    }
    let config = Config {
        max_bytes: wanted.max_bytes,
        num_replicas: wanted.num_replicas,
        ..info.config.clone()
    };
    match context.update_stream(&config).await {
        Ok(info) => {
            tracing::info!(stream = wanted.name, "the stream is as the settings say");
            Ok(info)
        }
        Err(error) => {
            tracing::warn!(stream = wanted.name, %error, "the stream stays as it was");
            Ok(info)
        }
    }
}

/// Appends a record behind a position.
///
/// # Errors
/// Nobody knows whether it is there: to be repeated as it is, at the same position.
pub(super) async fn append(
    context: &Context,
    streams: &Streams,
    record: &Bytes,
    after: u64,
) -> Result<Appended, StoreError> {
    let message = PublishMessage::build().payload(record.clone()).expected_last_sequence(after);
    let sent = context.send_publish(streams.log_subject.clone(), message).await;
    let acknowledged = match sent {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    match acknowledged {
        Ok(acknowledged) if acknowledged.sequence == after + 1 => Ok(Appended::There),
        Ok(acknowledged) => {
            // An append that names its position is nowhere else.
            let (sequence, stream) = (acknowledged.sequence, acknowledged.stream);
            Err(unavailable(format!("{stream} has put {} at {sequence}", after + 1)))
        }
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
            look(context, streams, record, after).await
        }
        Err(error) => Err(unavailable(error)),
    }
}

/// What is in the place of an append that was refused for what is there.
async fn look(
    context: &Context,
    streams: &Streams,
    record: &Bytes,
    after: u64,
) -> Result<Appended, StoreError> {
    let stream = context.get_stream(&streams.log).await.map_err(unavailable)?;
    match read(&stream, after + 1).await? {
        Some(found) if found == *record => Ok(Appended::There),
        Some(found) => {
            let malformed =
                |error: super::record::Malformed| StoreError::Damaged(error.to_string());
            let ours = Record::decode(record).map_err(malformed)?.author;
            let author = Record::decode(&found).map_err(malformed)?.author;
            Ok(if author == ours { Appended::Earlier } else { Appended::Foreign(author) })
        }
        None if stream.cached_info().state.last_sequence < after => {
            Ok(Appended::Lost { last: stream.cached_info().state.last_sequence })
        }
        // It is under way between the servers.
        None => Err(unavailable("the position is taken, and not yet to be read")),
    }
}

/// The record at a position, where there is one.
pub(super) async fn read<I>(stream: &Stream<I>, at: u64) -> Result<Option<Bytes>, StoreError> {
    match stream.get_raw_message(at).await {
        Ok(message) => Ok(Some(message.payload)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}
