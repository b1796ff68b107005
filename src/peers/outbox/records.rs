//! What comes into an outbox, under which bounds, and what becomes of it.

use std::time::{Duration, Instant};

use super::Source;
use crate::metrics::Origin;
use crate::wire::name::Name;

/// The bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Framed bytes and their bookkeeping, in bytes, pending and in flight together.
    pub bytes: usize,
    /// How long a record may be pending, in an outbox that drops the oldest.
    pub age: Duration,
    /// Longest record that the peer takes, in bytes before it is framed.
    pub message: usize,
}

/// What happens to a record that does not fit into an outbox; each lost one is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overflow {
    /// The oldest records make room for it, unless its source itself holds more than half of
    /// the outbox. For packets, which are worth less the older they are.
    DropOldest,
    /// The oldest records make room for it, of any sender, and none is too old. For
    /// publications, which are to come in order, and late rather than never.
    EvictOldest,
    /// It is refused, with those that are pushed behind it. For messages that are kept
    /// elsewhere until the peer has them.
    Refuse,
    /// It is refused, and the session ends: for records of which none may be missing.
    EndSession,
}

/// What became of records that were pushed together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pushed {
    /// Records that wait in the outbox.
    pub queued: u64,
    /// Records that do not, each counted with the reason why.
    pub refused: u64,
    /// Records that had waited and made room for them, each counted.
    pub evicted: u64,
    /// Whether one of them did not fit.
    pub overflowed: bool,
}

/// A packet for a peer, in two parts: it is copied only into the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What the relay puts in front.
    pub head: &'a [u8],
    /// What it carries.
    pub body: &'a [u8],
}

/// What records that are pushed together have in common.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Where they came from.
    pub source: Source,
    /// Whether they are relayed or made here.
    pub origin: Origin,
    /// Who sent them, for what is remembered of those that are dropped.
    pub sender: Option<Name>,
    /// When their batch came.
    pub at: Instant,
}

impl Arrival {
    /// What the relay, or who embeds it, has to say itself.
    #[must_use]
    pub const fn ours(at: Instant) -> Self {
        Self { source: Source::Ours, origin: Origin::Ours, sender: None, at }
    }
}
