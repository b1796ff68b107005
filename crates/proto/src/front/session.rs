//! A session at its own relay: what it has said that the leader has not answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::bus::{Message, To};
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
        }
    }
}

impl Session {
    pub(super) const fn new(realm: u8, owner: [u8; 32], name: Arc<str>, opened: Instant) -> Self {
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
            is_held: false,
            is_held_by_leader: false,
        }
    }

    pub(super) fn claimant(&self) -> Claimant<'_> {
        Claimant { realm: self.realm, owner: self.owner, name: &self.name }
    }

    /// The leader is another, or none: what it has not answered is said again, first and in order.
    pub(super) fn lose_leader(&mut self) {
        self.state = State::Away;
        self.is_ready = false;
        for mut submitted in std::mem::take(&mut self.sent).into_iter().rev() {
            submitted.is_repeated = true;
            self.unsent.push_front(Said::Submitted(submitted));
        }
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
