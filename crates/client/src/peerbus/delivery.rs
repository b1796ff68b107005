//! A message that was delivered, until it is acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::seen::Origin;
use crate::wire::peerbus::{EVERYBODY, Envelope};

/// A message of another peer.
///
/// One that is dropped without an acknowledgement is delivered again: when the broker does so after
/// a while, or to the next session.
#[derive(Debug)]
pub struct Delivery {
    from: String,
    to: String,
    id: String,
    ts: String,
    source: String,
    kind: String,
    body: Bytes,
    held: Held,
    acks: mpsc::Sender<Acked>,
}

/// A message that has not been acknowledged, as the broker calls it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: String,
    pub(super) origin: Origin,
    /// As long as anybody has this, another delivery of the message is none.
    pub(super) _alive: Arc<()>,
}

/// A message that the application has acknowledged.
#[derive(Debug)]
pub(super) struct Acked(pub(super) Held);

impl Delivery {
    pub(super) fn new(envelope: &Envelope<'_>, held: Held, acks: mpsc::Sender<Acked>) -> Self {
        let Envelope { protocol_version: _, id, from, to, ts, source, kind, body, hmac: _ } =
            envelope;
        Self {
            from: from.clone().into_owned(),
            to: to.clone().into_owned(),
            id: id.clone().into_owned(),
            ts: ts.clone().into_owned(),
            source: source.clone().into_owned(),
            kind: kind.clone().into_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            held,
            acks,
        }
    }

    /// Who sent it: as the message says, which is signed where the bus has a secret.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// What its sender calls it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it was sent, as its sender says.
    #[must_use]
    pub fn ts(&self) -> &str {
        &self.ts
    }

    /// What kind of program sent it, as it says.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its kind, as its sender says.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Whether it went to all who were connected.
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        self.to == EVERYBODY
    }

    /// What it says, as JSON.
    #[must_use]
    pub fn body(&self) -> &str {
        // Messages come as text.
        str::from_utf8(&self.body).unwrap_or_default()
    }

    /// What it says, read.
    ///
    /// # Errors
    /// It says something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// Tells the broker that it has arrived and need not come again.
    ///
    /// It waits while many acknowledgements do. What the connection loses of them is said again
    /// when the message is delivered again.
    pub async fn ack(self) {
        // A client that has ended acknowledges nothing: the message comes again.
        let _ = self.acks.send(Acked(self.held)).await;
    }
}
