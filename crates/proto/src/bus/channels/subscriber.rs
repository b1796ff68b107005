//! A connected peer that is subscribed to channels: one batch in flight, over all of them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::types::{MailboxId, Message, Millis, Seq, Stored};
use super::reader::ReaderId;

/// A subscribed session.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) peer: MailboxId,
    pub(super) generation: u64,
    pub(super) name: Arc<str>,
    pub(super) is_ephemeral: bool,
    pub(super) channels: BTreeSet<MailboxId>,
    /// Channels with records that it has not been handed, each once, in turn.
    pub(super) waiting: VecDeque<MailboxId>,
    pub(super) batch: Option<InFlight>,
    pub(super) loading: Loading,
    batches: u64,
}

/// A batch that was handed over and is not acknowledged.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) number: u64,
    pub(super) parts: Vec<Part>,
    /// To be handed over again as they are: who acknowledges the first copy has the second.
    pub(super) records: Vec<Arc<Message>>,
    pub(super) bytes: usize,
    pub(super) at: Millis,
}

impl InFlight {
    /// Each part with its last record. The audit log has an entry for a part, under the id of that
    /// record: a cursor passes no record without those before it.
    pub(super) fn parts_with_last(&self) -> impl Iterator<Item = (&Part, &Message)> {
        self.parts.iter().scan(0, |before, part| {
            *before += part.records;
            Some((part, &*self.records[*before - 1]))
        })
    }
}

/// What a batch has of one channel.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) channel: MailboxId,
    /// Its name: the channel may be gone when the batch is acknowledged.
    pub(super) name: Arc<str>,
    /// The position behind its last record.
    pub(super) before: Seq,
    /// What all records up to there count as.
    pub(super) offset: u64,
    /// Its records, in the order of the batch; one at least.
    pub(super) records: usize,
}

/// What is read of the store for a session: one channel at a time.
#[derive(Debug)]
pub(super) enum Loading {
    No,
    /// Others are read first.
    Queued {
        channel: MailboxId,
    },
    Reading {
        channel: MailboxId,
        from: Seq,
    },
    Loaded {
        channel: MailboxId,
        stored: VecDeque<Stored>,
        since: Millis,
    },
}

impl Loading {
    /// The channel that it is about.
    pub(super) const fn channel(&self) -> Option<MailboxId> {
        match self {
            Self::No => None,
            Self::Queued { channel }
            | Self::Reading { channel, .. }
            | Self::Loaded { channel, .. } => Some(*channel),
        }
    }

    /// The first record of a channel from a position on that was read.
    pub(super) fn first(&mut self, of: MailboxId, from: Seq) -> Option<(Seq, Arc<Message>)> {
        let Self::Loaded { channel, stored, .. } = self else { return None };
        if *channel != of {
            return None;
        }
        while stored.front().is_some_and(|first| first.seq < from) {
            stored.pop_front();
        }
        stored.front().map(|first| (first.seq, Arc::clone(&first.message)))
    }

    /// Whether all that was read of a channel is used.
    pub(super) fn is_used_up(&self, of: MailboxId) -> bool {
        matches!(self, Self::Loaded { channel, stored, .. } if *channel == of && stored.is_empty())
    }
}

impl Subscriber {
    pub(super) const fn new(
        peer: MailboxId,
        generation: u64,
        name: Arc<str>,
        is_ephemeral: bool,
    ) -> Self {
        Self {
            peer,
            generation,
            name,
            is_ephemeral,
            channels: BTreeSet::new(),
            waiting: VecDeque::new(),
            batch: None,
            loading: Loading::No,
            batches: 0,
        }
    }

    /// What it is called where it reads.
    pub(super) const fn reader(&self) -> ReaderId {
        ReaderId { peer: self.peer, is_ephemeral: self.is_ephemeral }
    }

    /// The number of its next batch.
    pub(super) const fn next_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }
}
