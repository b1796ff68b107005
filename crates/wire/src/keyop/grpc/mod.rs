//! What peers from v1.5.0 on say over gRPC: `federation.v1.FederationService`.
//!
//! Of each method both sides send streams of messages, each behind a prefix of five bytes. The
//! messages are those of `proto3`, read here as Go reads them: what is unknown is passed over, and
//! the last of two fields of one number counts.

mod fields;
mod messages;
mod refusal;

use bytes::{Buf as _, Bytes, BytesMut};

pub use fields::InvalidMessage;
pub use messages::{
    FromHub, Records, SubscribeFrame, SubscribeRequest, Subscriptions, close_notice, hub_batch,
    publish_ack, publish_batch, read_publish_ack, read_publish_batch, subscribe_ack,
    subscribe_request,
};
pub use refusal::{Code, Refusal, decode_message, encode_message};

/// The service.
pub const SERVICE: &str = "federation.v1.FederationService";

/// What requests and responses say that they contain.
pub const CONTENT_TYPE: &str = "application/grpc";

/// The header in which a client calls itself something. Under TLS nobody believes it.
pub const INSTANCE_HEADER: &str = "x-federation-instance";

/// The header of a durable client's Publish, once for each channel that it publishes to.
pub const PUBLISH_CHANNELS_HEADER: &str = "x-federation-publish-channels";

/// Length of what is in front of each message, in bytes.
pub const PREFIX: usize = 5;

/// The longest message that a hub takes, in bytes, where records have at most so many: 1 MiB more
/// than the larger of 10 MiB and a record.
#[must_use]
pub const fn max_message(max_record: usize) -> usize {
    const LEAST: usize = 10 << 20;
    let record = if max_record > LEAST { max_record } else { LEAST };
    record.saturating_add(1 << 20)
}

/// A method of the service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Method {
    /// Batches of records from the client, each acknowledged by the hub.
    Publish,
    /// The client subscribes, and acknowledges batches of the hub.
    Subscribe,
}

impl Method {
    /// Its path in requests.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Publish => "/federation.v1.FederationService/Publish",
            Self::Subscribe => "/federation.v1.FederationService/Subscribe",
        }
    }

    /// The method that a request of this path calls.
    ///
    /// # Errors
    /// What the caller is told.
    pub fn of(path: &str) -> Result<Self, Refusal<'_>> {
        let called = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
        match called {
            Some((SERVICE, "Publish")) => Ok(Self::Publish),
            Some((SERVICE, "Subscribe")) => Ok(Self::Subscribe),
            Some((SERVICE, method)) => Err(Refusal::UnknownMethod(method)),
            Some((service, _)) => Err(Refusal::UnknownService(service)),
            None => Err(Refusal::BadPath(path)),
        }
    }
}

/// Takes the first whole message, without its prefix, from what has arrived of a stream.
///
/// # Errors
/// A message that is longer than `longest` bytes, as soon as its prefix is there; one that is
/// compressed, which nobody announced.
pub fn take_message(
    received: &mut BytesMut,
    longest: usize,
) -> Result<Option<Bytes>, Refusal<'static>> {
    let Some(prefix) = received.first_chunk::<PREFIX>() else { return Ok(None) };
    let [format, length @ ..] = *prefix;
    match format {
        0 => {}
        1 => return Err(Refusal::Compressed),
        other => return Err(Refusal::Format(other)),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > longest {
        return Err(Refusal::TooLong { bytes: length, longest });
    }
    if received.len() - PREFIX < length {
        return Ok(None);
    }
    received.advance(PREFIX);
    Ok(Some(received.split_to(length).freeze()))
}
