//! What a broker wants delivered.

use std::ops::Range;

use beacon_wire::middleman::{Command, RelayMessage};

use super::{ConnectionId, Ended, LinkId, Refusal};

/// Messages for connections and for relays, each in order, and the requests that are over. It is meant to be
/// used again: what it has allocated stays.
#[derive(Debug, Default)]
pub struct Output {
    /// The messages one behind the other; one that many get is there once.
    pub(super) bytes: Vec<u8>,
    deliveries: Vec<Delivery>,
    forwards: Vec<(LinkId, Range<usize>)>,
    ended: Vec<Ended>,
}

/// A message for a connection.
#[derive(Clone, Debug)]
struct Delivery {
    to: ConnectionId,
    class: Class,
    message: Range<usize>,
}

/// What may become of a message whose receiver is slow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// It may be dropped; the oldest goes first.
    Publication,
    /// A request. If it is not queued, [`super::Broker::undelivered`] is to be told.
    Request {
        /// What the responder will answer to.
        rid: u64,
    },
    /// An answer, which is never dropped.
    Answer,
    /// An error, which is never dropped.
    Error,
}

impl Output {
    /// What is kept of the buffer, in bytes.
    const KEPT_BYTES: usize = 256 * 1024;

    /// What is kept of the list of deliveries.
    const KEPT_DELIVERIES: usize = 4_096;

    /// What is to be delivered, in order.
    pub fn deliveries(&self) -> impl ExactSizeIterator<Item = (ConnectionId, Class, &[u8])> {
        self.deliveries
            .iter()
            .map(|delivery| (delivery.to, delivery.class, &self.bytes[delivery.message.clone()]))
    }

    /// What is to be sent to other relays, in order: messages of
    /// [`beacon_wire::middleman::RelayMessage`].
    pub fn to_relays(&self) -> impl ExactSizeIterator<Item = (LinkId, &[u8])> {
        self.forwards.iter().map(|(link, message)| (*link, &self.bytes[message.clone()]))
    }

    /// What became of requests of connections here that are over.
    #[must_use]
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.forwards.is_empty() && self.ended.is_empty()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.deliveries.clear();
        self.forwards.clear();
        self.ended.clear();
        self.bytes.clear();
        self.bytes.shrink_to(Self::KEPT_BYTES);
        self.deliveries.shrink_to(Self::KEPT_DELIVERIES);
        self.ended.shrink_to(Self::KEPT_DELIVERIES);
    }

    /// Where the next message begins.
    pub(super) const fn mark(&self) -> usize {
        self.bytes.len()
    }

    /// Delivers what was written since `mark`.
    pub(super) fn deliver(&mut self, to: ConnectionId, class: Class, mark: usize) {
        let message = mark..self.bytes.len();
        self.deliveries.push(Delivery { to, class, message });
    }

    /// Sends a relay what was written since `mark`.
    pub(super) fn forward(&mut self, link: LinkId, mark: usize) {
        self.forwards.push((link, mark..self.bytes.len()));
    }

    /// Sends a relay a message.
    pub(super) fn tell(&mut self, link: LinkId, message: RelayMessage<'_>) {
        let mark = self.mark();
        message.encode(&mut self.bytes);
        self.forward(link, mark);
    }

    /// Tells a sender that its message had no effect.
    pub(super) fn error(
        &mut self,
        to: ConnectionId,
        refusal: Refusal,
        command: Command<'_>,
        target: &str,
        most: usize,
    ) {
        let mark = self.mark();
        refusal.encode(&mut self.bytes, command, target, most);
        self.deliver(to, Class::Error, mark);
    }

    /// Notes what became of a request.
    pub(super) fn has_ended(&mut self, ended: Ended) {
        self.ended.push(ended);
    }
}
