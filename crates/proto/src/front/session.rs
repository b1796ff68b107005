//! A session at its own relay: what it has said that the leader has not answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::bus::{Message, Subscription, To};
use beacon_wire::front::Claimant;

/// Bounds of what waits for the leader's answer, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one session: beyond that it is held.
    pub of_one: usize,
    /// Of all: beyond that each is held with its next message.
    pub of_all: usize,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) realm: u8,
    pub(super) owner: [u8; 32],
    pub(super) name: Arc<str>,
    pub(super) opened: Instant,
    pub(super) state: State,
    /// It is over, once what it has said is.
    pub(super) is_closing: bool,
    /// It is among those whose turn comes.
    pub(super) is_ready: bool,
    /// What the leader has and has not answered, in order.
    pub(super) sent: VecDeque<Submitted>,
    /// What it is to get behind that.
    pub(super) unsent: VecDeque<Said>,
    /// What both count as.
    pub(super) bytes: usize,
    /// What it is subscribed to.
    pub(super) subscription: Subscription,
    /// The leader does not know that.
    pub(super) is_subscribing: bool,
    /// What it has of channels and has not acknowledged.
    pub(super) batch: Batch,
    /// It has said too much, here or at the leader.
    is_held: bool,
    pub(super) is_held_by_leader: bool,
}

/// How far the leader knows of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// It does not.
    Away,
    /// It was told.
    Opening,
    /// It takes what the session says.
    Open,
}

/// Something that a session has said.
#[derive(Debug)]
pub(super) enum Said {
    Submitted(Submitted),
    Acknowledged(Box<str>),
    /// A batch, by the leader's number.
    HasRecords(u64),
}

/// Records, each with its id.
type Records = Vec<(Arc<str>, Arc<[u8]>)>;

/// The batch that a session has, and the one that is on its way.
///
/// Each leader, and each seat there, counts from 1: a session is told numbers of its own.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The last number that it was told, and whose number that is at the leader.
    told: u64,
    of_leader: Option<u64>,
    /// Records that have come of one that is not whole.
    coming: Records,
}

impl Batch {
    /// Takes a part of a batch; returns all of it with the number for the session, where that was
    /// the last part.
    pub(super) fn take<'a>(
        &mut self,
        batch: u64,
        records: impl Iterator<Item = (&'a str, &'a [u8])>,
        is_last: bool,
    ) -> Option<(u64, Records)> {
        self.coming.extend(records.map(|(id, body)| (id.into(), body.into())));
        if !is_last {
            return None;
        }
        if self.of_leader != Some(batch) {
            self.told += 1;
            self.of_leader = Some(batch);
        }
        Some((self.told, std::mem::take(&mut self.coming)))
    }

    /// The leader's number of a batch that the session acknowledges, where it is the last one.
    pub(super) fn acknowledged(&mut self, number: u64) -> Option<u64> {
        if number == self.told { self.of_leader } else { None }
    }

    /// Another leader counts, or another seat.
    fn lose(&mut self) {
        self.of_leader = None;
        self.coming = Vec::new();
    }
}

/// A message of a session.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) to: To,
    pub(super) id: Arc<str>,
    pub(super) body: Arc<[u8]>,
    pub(super) wants_receipt: bool,
    /// A leader may have stored it, which has not said so.
    pub(super) is_repeated: bool,
}

impl Submitted {
    pub(super) fn cost(&self) -> usize {
        Message::OVERHEAD + self.id.len() + self.body.len()
    }
}

impl Said {
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Submitted(submitted) => submitted.cost(),
            Self::Acknowledged(key) => Message::OVERHEAD + key.len(),
            Self::HasRecords(_) => Message::OVERHEAD,
        }
    }
}

impl Session {
    pub(super) fn new(realm: u8, owner: [u8; 32], name: Arc<str>, opened: Instant) -> Self {
        Self {
            realm,
            owner,
            name,
            opened,
            state: State::Away,
            is_closing: false,
            is_ready: false,
            sent: VecDeque::new(),
            unsent: VecDeque::new(),
            bytes: 0,
            subscription: Subscription::default(),
            is_subscribing: false,
            batch: Batch::default(),
            is_held: false,
            is_held_by_leader: false,
        }
    }

    pub(super) fn claimant(&self) -> Claimant<'_> {
        Claimant { realm: self.realm, owner: self.owner, name: &self.name }
    }

    /// The leader is another, or none: what it has not answered is said again, first and in order.
    pub(super) fn lose_leader(&mut self) -> usize {
        self.is_ready = false;
        for mut submitted in std::mem::take(&mut self.sent).into_iter().rev() {
            submitted.is_repeated = true;
            self.unsent.push_front(Said::Submitted(submitted));
        }
        self.lose_seat()
    }

    /// The session gets another seat: it subscribes again, and what it has of channels is delivered
    /// again. Returns what it no longer says, in bytes.
    pub(super) fn lose_seat(&mut self) -> usize {
        self.state = State::Away;
        self.is_subscribing = !self.subscription.channels.is_empty();
        self.batch.lose();
        let before = self.bytes;
        self.unsent.retain(|said| {
            let is_kept = !matches!(said, Said::HasRecords(_));
            self.bytes -= if is_kept { 0 } else { said.cost() };
            is_kept
        });
        before - self.bytes
    }

    /// Whether the session is to be held where it has just said something, or something of it was
    /// answered; `None` where that stays as it was.
    pub(super) fn judge_hold(
        &mut self,
        is_much: bool,
        by_leader: bool,
        limits: &Limits,
    ) -> Option<bool> {
        let was_held = self.is_held || self.is_held_by_leader;
        self.is_held_by_leader = by_leader;
        if is_much || self.bytes > limits.of_one {
            self.is_held = true;
        } else if self.bytes <= limits.of_one / 2 {
            self.is_held = false;
        }
        let is_held = self.is_held || self.is_held_by_leader;
        (is_held != was_held).then_some(is_held)
    }
}
