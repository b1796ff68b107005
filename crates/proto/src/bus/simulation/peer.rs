//! A peer of a simulation: it sends with receipts, sends again what has none, remembers what it
//! got, and acknowledges most of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::{MailboxId, Message, Submission, To};
use crate::simulated::Random;

/// What a peer tells the relay.
#[derive(Clone, Debug)]
pub(super) enum Upward {
    Open,
    Send { number: u64, to: To },
    Ack { key: Arc<str> },
}

/// What the relay tells a peer.
#[derive(Clone, Debug)]
pub(super) enum Downward {
    Receipt { number: u64 },
    Deliver(Arc<Message>),
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) index: usize,
    pub(super) mailbox: MailboxId,
    pub(super) generation: Option<u64>,
    /// What is under way, lost with the connection.
    pub(super) upward: VecDeque<Upward>,
    pub(super) downward: VecDeque<Downward>,
    next: u64,
    /// What it has no receipt for, in order.
    pub(super) unsettled: VecDeque<(u64, To)>,
    /// What it got, by sender: each number once.
    pub(super) got: BTreeSet<(usize, u64)>,
    last: BTreeMap<usize, u64>,
    /// What it got and has not acknowledged yet.
    unacknowledged: Vec<Arc<str>>,
    /// It never acknowledges some messages.
    has_poison: bool,
}

pub(super) fn name(index: usize) -> Arc<str> {
    format!("p{index}").into()
}

/// Who has sent a message, and its number.
pub(super) fn sent(message: &Message) -> (usize, u64) {
    let text = std::str::from_utf8(&message.body).unwrap();
    let (sender, number) = text.split_once(' ').unwrap();
    (sender.parse().unwrap(), number.parse().unwrap())
}

impl Peer {
    pub(super) fn new(index: usize, mailbox: MailboxId, has_poison: bool) -> Self {
        Self {
            index,
            mailbox,
            generation: None,
            upward: VecDeque::new(),
            downward: VecDeque::new(),
            next: 1,
            unsettled: VecDeque::new(),
            got: BTreeSet::new(),
            last: BTreeMap::new(),
            unacknowledged: Vec::new(),
            has_poison,
        }
    }

    pub(super) fn connect(&mut self, generation: u64) {
        self.generation = Some(generation);
        self.upward.push_back(Upward::Open);
        let again = self.unsettled.iter();
        self.upward
            .extend(again.map(|(number, to)| Upward::Send { number: *number, to: to.clone() }));
    }

    pub(super) fn disconnect(&mut self) {
        self.generation = None;
        self.upward.clear();
        self.downward.clear();
    }

    pub(super) fn send(&mut self, to: To) {
        let number = self.next;
        self.next += 1;
        self.unsettled.push_back((number, to.clone()));
        if self.generation.is_some() {
            self.upward.push_back(Upward::Send { number, to });
        }
    }

    pub(super) fn submission(&self, number: u64, to: To) -> Submission {
        Submission {
            from: self.mailbox,
            to,
            // Some senders have the same ids.
            id: if number.is_multiple_of(5) {
                format!("shared{number}").into()
            } else {
                format!("{}-{number}", self.index).into()
            },
            body: format!("{} {number}", self.index).into_bytes().into(),
        }
    }

    /// Takes what the relay says; returns which message of a sender came for the first time out of
    /// order.
    pub(super) fn take(&mut self, random: &mut Random) -> Option<(usize, u64)> {
        match self.downward.pop_front()? {
            Downward::Receipt { number } => {
                self.unsettled.retain(|(unsettled, _)| *unsettled != number);
                None
            }
            Downward::Deliver(message) => {
                let (sender, number) = sent(&message);
                let is_poison = self.has_poison && number % 3 == 1;
                if !is_poison && !self.unacknowledged.contains(&message.key) {
                    self.unacknowledged.push(Arc::clone(&message.key));
                }
                if random.percent(80) {
                    self.acknowledge(random);
                }
                if !self.got.insert((sender, number)) {
                    return None;
                }
                let last = self.last.insert(sender, number).unwrap_or(0);
                (number <= last).then_some((sender, number))
            }
        }
    }

    /// Acknowledges something that it got: the oldest most often.
    pub(super) fn acknowledge(&mut self, random: &mut Random) {
        if self.unacknowledged.is_empty() || self.generation.is_none() {
            return;
        }
        let at = if random.percent(80) { 0 } else { random.index(self.unacknowledged.len()) };
        let key = self.unacknowledged.remove(at);
        self.upward.push_back(Upward::Ack { key });
    }
}
