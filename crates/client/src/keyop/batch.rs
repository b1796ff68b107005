//! Records that were received together, until they are acknowledged.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::wire::keyop::{Envelope, InvalidEnvelope};

/// Records of any of the subscribed channels; those of one channel in its order.
///
/// A batch that is dropped without an acknowledgement comes again: when the hub loses patience, or
/// in the next session. Meanwhile nothing else comes.
#[derive(Debug)]
pub struct Batch {
    records: Vec<Bytes>,
    acked: Acked,
    acks: mpsc::Sender<Acked>,
    /// As long as anybody has this, the same batch is not handed out again.
    alive: Arc<()>,
}

/// A batch that the application has dealt with.
#[derive(Debug)]
pub(super) struct Acked {
    /// In which session it came: another would not know it.
    pub(super) session: u64,
    /// The id of its last record.
    pub(super) last_id: String,
}

impl Batch {
    pub(super) fn new(records: Vec<Bytes>, session: u64, acks: mpsc::Sender<Acked>) -> Self {
        // A record that cannot be read has no id.
        let last = records.iter().rev().find_map(|record| Envelope::parse(record).ok());
        let last_id = last.map(|envelope| envelope.id.into_owned()).unwrap_or_default();
        Self { records, acked: Acked { session, last_id }, acks, alive: Arc::default() }
    }

    /// Tells whether somebody has it.
    pub(super) fn life(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }

    /// The records, as the hub sent them.
    #[must_use]
    pub fn records(&self) -> &[Bytes] {
        &self.records
    }

    /// The records, read; an error where one cannot be.
    pub fn envelopes(&self) -> impl Iterator<Item = Result<Envelope<'_>, InvalidEnvelope>> {
        self.records.iter().map(|record| Envelope::parse(record))
    }

    /// Tells the hub that the records need not come again.
    pub async fn ack(self) {
        // A client that has ended acknowledges nothing: the batch comes again.
        let _ = self.acks.send(self.acked).await;
    }
}
