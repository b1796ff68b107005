//! Records as they are written, and how their publishers hear of them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::PublishError;
use super::options::Options;
use crate::wire::keyop::{Body, Draft, channel, id_at, timestamp};

/// What is published.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a, T: ?Sized> {
    /// The channel.
    pub channel: &'a str,
    /// What reads the payload: programs of the original know payloads by it.
    pub payload_type: &'a str,
    /// What it carries.
    pub payload: &'a T,
    /// What it belongs to; may be empty.
    pub correlation_id: &'a str,
    /// The service that publishes it; may be empty.
    pub service_name: &'a str,
}

impl<'a, T: ?Sized> Publication<'a, T> {
    /// A publication that belongs to nothing and comes from no service.
    #[must_use]
    pub const fn new(channel: &'a str, payload_type: &'a str, payload: &'a T) -> Self {
        Self { channel, payload_type, payload, correlation_id: "", service_name: "" }
    }
}

/// What became of a record. The hub speaks of batches: records that were acknowledged together have
/// the same answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// The hub has dealt with the batch: it has stored the records, or dropped those that this client
    /// may not publish.
    Acknowledged,
    /// The hub had nothing new to store: it had the records before, as after a connection that broke
    /// between that and its acknowledgement, or could read none.
    NothingNew,
}

/// A record on its way to the hub.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) record: Bytes,
    pub(super) answer: oneshot::Sender<Published>,
    /// Its part of what may wait.
    pub(super) _room: OwnedSemaphorePermit,
}

/// A record that is queued, and will be published whether anybody waits for it or not.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Published>);

impl Pending {
    pub(super) const fn new(answer: oneshot::Receiver<Published>) -> Self {
        Self(answer)
    }

    /// Waits until the hub has acknowledged it.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn published(self) -> Result<Published, PublishError> {
        self.0.await.map_err(|_| PublishError::Ended)
    }
}

/// Writes records.
pub(super) struct Pen {
    name: String,
    max_record: usize,
}

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pen").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Pen {
    pub(super) fn of(options: &Options) -> Self {
        Self { name: options.name.clone(), max_record: options.max_record }
    }

    /// Writes a record that this client is the first to publish.
    pub(super) fn write<T: Serialize + ?Sized>(
        &self,
        publication: &Publication<'_, T>,
    ) -> Result<Bytes, PublishError> {
        let Publication { channel, payload_type, payload, correlation_id, service_name } =
            *publication;
        if !channel::is_name(channel) || channel::is_dead_letter(channel) {
            return Err(PublishError::Channel(channel.to_owned()));
        }
        let payload = serde_json::to_vec(payload);
        let payload = payload.map_err(|error| PublishError::Payload(error.to_string()))?;
        let payload = Body::parse(&payload);
        let payload = payload.map_err(|error| PublishError::Payload(error.to_string()))?;
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|_| PublishError::NoRandomness)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let draft = Draft {
            id: &id_at(unix_ms, random),
            ts: &timestamp(now.as_secs(), now.subsec_nanos()),
            channel,
            origin: &self.name,
            payload_type,
            correlation_id,
            service_name,
            route: &[&self.name],
            payload,
        };
        Ok(draft.encode().into())
    }

    /// Whether a record is short enough.
    pub(super) const fn measure(&self, record: &Bytes) -> Result<(), PublishError> {
        if record.len() > self.max_record {
            return Err(PublishError::TooLarge { bytes: record.len(), most: self.max_record });
        }
        Ok(())
    }
}
