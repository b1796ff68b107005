//! A peer of a simulation: it publishes until it has a receipt, remembers what it got, and
//! acknowledges batches in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::super::types::{MailboxId, Message, Seq};
use super::CHANNELS;
use crate::bus::Subscription;
use crate::simulated::Random;

/// What a peer tells the relay.
#[derive(Clone, Debug)]
pub(super) enum Upward {
    Open,
    Close,
    Subscribe(Subscription),
    Publish {
        number: u64,
        channel: usize,
    },
    /// What another has published, as a hub of a ring passes it on.
    Forward {
        id: Arc<str>,
        channel: usize,
    },
    Ack(u64),
}

/// What the relay tells a peer.
#[derive(Clone, Debug)]
pub(super) enum Downward {
    Receipt { number: u64 },
    Records(u64, Vec<Arc<Message>>),
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) index: usize,
    pub(super) mailbox: MailboxId,
    pub(super) generation: Option<u64>,
    /// What is under way, each with the session that it is of.
    pub(super) upward: VecDeque<(u64, Upward)>,
    pub(super) downward: VecDeque<Downward>,
    published: u64,
    /// What it has no receipt for, in order.
    pub(super) unsettled: Vec<(u64, usize)>,
    /// The ids that it got.
    pub(super) got: BTreeSet<Arc<str>>,
    /// The position of what it got first in each channel, lately.
    last: BTreeMap<MailboxId, Seq>,
    /// Batches that it has to acknowledge, in order.
    batches: VecDeque<(u64, Vec<Arc<Message>>)>,
    /// The last batch of this session.
    newest: Option<(u64, Vec<Arc<Message>>)>,
    /// It never acknowledges some records.
    has_poison: bool,
}

pub(super) fn name(index: usize) -> Arc<str> {
    format!("p{index}").into()
}

pub(super) fn channel_name(index: usize) -> Arc<str> {
    format!("c{index}").into()
}

/// Whether a peer with poison never acknowledges a record.
pub(super) fn is_poison(record: &Message) -> bool {
    record.key.ends_with("13")
}

impl Peer {
    pub(super) fn new(index: usize, mailbox: MailboxId, has_poison: bool) -> Self {
        Self {
            index,
            mailbox,
            generation: None,
            upward: VecDeque::new(),
            downward: VecDeque::new(),
            published: 0,
            unsettled: Vec::new(),
            got: BTreeSet::new(),
            last: BTreeMap::new(),
            batches: VecDeque::new(),
            newest: None,
            has_poison,
        }
    }

    /// The last keeps no cursors.
    pub(super) const fn is_ephemeral(&self) -> bool {
        self.index == super::PEERS - 1
    }

    pub(super) fn connect(&mut self, generation: u64, random: &mut Random, is_last: bool) {
        self.generation = Some(generation);
        self.say(Upward::Open);
        let all = (0..CHANNELS).filter(|_| is_last || random.percent(80));
        let channels = all.map(channel_name).collect();
        let is_ephemeral = self.is_ephemeral();
        self.say(Upward::Subscribe(Subscription { channels, is_ephemeral }));
        for (number, channel) in self.unsettled.clone() {
            self.say(Upward::Publish { number, channel });
        }
    }

    pub(super) fn disconnect(&mut self) {
        if self.generation.is_some() {
            // What was on its way may be lost, but not in between.
            self.say(Upward::Close);
        }
        self.forget_session();
    }

    pub(super) fn forget_session(&mut self) {
        self.generation = None;
        self.downward.clear();
        self.batches.clear();
        self.newest = None;
    }

    pub(super) fn say(&mut self, said: Upward) {
        if let Some(generation) = self.generation {
            self.upward.push_back((generation, said));
        }
    }

    pub(super) fn publish(&mut self, channel: usize) {
        self.published += 1;
        self.unsettled.push((self.published, channel));
        self.say(Upward::Publish { number: self.published, channel });
    }

    pub(super) fn id(&self, number: u64) -> Arc<str> {
        format!("{}-{number}", self.index).into()
    }

    /// A batch is delivered: the last one again, or a later one.
    pub(super) fn deliver(&mut self, number: u64, records: &[Arc<Message>]) {
        if let Some((last, before)) = &self.newest {
            assert!(number >= *last, "batch {number} comes behind {last}");
            assert!(number > *last || before == records, "batch {number} is another");
        }
        self.newest = Some((number, records.to_vec()));
        self.downward.push_back(Downward::Records(number, records.to_vec()));
    }

    /// Takes what the relay says.
    pub(super) fn take(&mut self, places: &BTreeMap<Arc<str>, (MailboxId, Seq)>) {
        match self.downward.pop_front() {
            None => {}
            Some(Downward::Receipt { number }) => {
                self.unsettled.retain(|(unsettled, _)| *unsettled != number);
            }
            Some(Downward::Records(number, records)) => {
                for record in &records {
                    if !self.got.insert(Arc::clone(&record.key)) {
                        continue;
                    }
                    let (channel, seq) = places[&record.key];
                    let last = self.last.insert(channel, seq).unwrap_or(Seq(0));
                    assert!(seq > last, "{record:?} came to {} behind {last:?}", self.index);
                }
                self.batches.push_back((number, records));
            }
        }
    }

    /// Acknowledges what came first, unless it never does.
    pub(super) fn acknowledge(&mut self) {
        let Some((number, records)) = self.batches.pop_front() else { return };
        let has_poison = self.has_poison && records.iter().any(|record| is_poison(record));
        if !has_poison {
            self.say(Upward::Ack(number));
        }
    }
}
