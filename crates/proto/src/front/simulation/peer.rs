//! A peer that sends, acknowledges and roams.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::Claim;
use super::{PEERS, REALM};
use crate::bus::{Subscription, To};
use crate::simulated::Random;
use beacon_wire::front::Outcome;

pub(super) fn name(index: usize) -> Arc<str> {
    format!("peer-{index}").into()
}

pub(super) fn owner(index: usize) -> [u8; 32] {
    [u8::try_from(index + 1).unwrap(); 32]
}

/// Whose a message is, and which.
pub(super) fn sent(body: &[u8]) -> (usize, u64) {
    let (sender, number) = str::from_utf8(body).unwrap().split_once('-').unwrap();
    (sender.parse().unwrap(), number.parse().unwrap())
}

/// The channel that all peers read.
pub(super) const CHANNEL: &str = "channel";

pub(super) fn subscription() -> Subscription {
    Subscription { channels: vec![CHANNEL.into()], is_ephemeral: false }
}

pub(super) struct Peer {
    index: usize,
    /// Its session, and at which relay that is.
    pub(super) session: Option<(u64, usize)>,
    sent: u64,
    /// What it has sent and has no receipt for, in order.
    pub(super) unreceipted: Vec<(u64, To)>,
    /// What it got and has not acknowledged in this session.
    unacknowledged: Vec<Arc<str>>,
    got: BTreeSet<(usize, u64)>,
    /// The last number that it got first from each sender.
    last: BTreeMap<usize, u64>,
    /// The last record that it got first from each sender.
    last_records: BTreeMap<usize, u64>,
    /// Batches of this session that it has not looked at, and the last one that came.
    batches: VecDeque<Batch>,
    newest: Option<Batch>,
}

/// The number of a batch; of each record its sender and number.
type Batch = (u64, Vec<(usize, u64)>);

impl Peer {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            session: None,
            sent: 0,
            unreceipted: Vec::new(),
            unacknowledged: Vec::new(),
            got: BTreeSet::new(),
            last: BTreeMap::new(),
            last_records: BTreeMap::new(),
            batches: VecDeque::new(),
            newest: None,
        }
    }

    pub(super) fn claim(&self) -> Claim {
        Claim { realm: REALM, owner: owner(self.index), name: name(self.index) }
    }

    pub(super) fn disconnect(&mut self) {
        self.session = None;
        self.unacknowledged.clear();
        self.batches.clear();
        self.newest = None;
    }

    /// The number of its next message.
    pub(super) fn next(&mut self, to: To) -> u64 {
        self.sent += 1;
        self.unreceipted.push((self.sent, to));
        self.sent
    }

    pub(super) fn message(&self, number: u64, to: To) -> (To, Arc<str>, Arc<[u8]>) {
        let id = format!("{}-{number}", self.index);
        let body = id.clone().into_bytes();
        (to, id.into(), body.into())
    }

    /// It gets a message of a sender, which may come out of order where that was refused.
    pub(super) fn got(
        &mut self,
        key: &Arc<str>,
        (sender, number): (usize, u64),
        was_refused: bool,
    ) {
        if self.got.insert((sender, number)) && !was_refused {
            let last = self.last.insert(sender, number).unwrap_or(0);
            assert!(
                number > last,
                "message {number} of {sender} came to {} behind {last}",
                self.index
            );
        }
        self.unacknowledged.push(Arc::clone(key));
    }

    /// A batch comes: a later one than the last, or that again.
    pub(super) fn got_batch(&mut self, number: u64, records: Vec<(usize, u64)>) {
        if let Some((last, before)) = &self.newest {
            assert!(number >= *last, "batch {number} comes behind {last}");
            assert!(number > *last || *before == records, "batch {number} is another");
        }
        self.newest = Some((number, records.clone()));
        self.batches.push_back((number, records));
    }

    /// It looks at the batch that came first; returns its number, to acknowledge it.
    pub(super) fn take_batch(&mut self) -> Option<u64> {
        let (number, records) = self.batches.pop_front()?;
        for (sender, record) in records {
            if self.got.insert((sender, record)) {
                let last = self.last_records.insert(sender, record).unwrap_or(0);
                assert!(record > last, "record {record} of {sender} comes behind {last}");
            }
        }
        Some(number)
    }

    pub(super) fn has(&self, sender: usize, number: u64) -> bool {
        self.got.contains(&(sender, number))
    }

    /// Some of what it has, which it acknowledges.
    pub(super) fn acknowledged(&mut self, random: &mut Random) -> Vec<Arc<str>> {
        let count = random.index(self.unacknowledged.len() + 1);
        self.unacknowledged.drain(..count).collect()
    }

    /// It gets a receipt; returns what it may rely on: to whom which message comes.
    pub(super) fn told(&mut self, id: &str, outcome: Outcome) -> Vec<(u64, usize)> {
        let number: u64 = id.split_once('-').unwrap().1.parse().unwrap();
        // One that was sent twice has two receipts.
        let at = self.unreceipted.iter().position(|(of, _)| *of == number);
        let Some((_, to)) = at.map(|at| self.unreceipted.remove(at)) else { return Vec::new() };
        let is_stored = matches!(outcome, Outcome::Stored | Outcome::Duplicate);
        match to {
            To::Name(to) if is_stored => {
                vec![(number, to.strip_prefix("peer-").unwrap().parse().unwrap())]
            }
            To::Channel(_) if is_stored => (0..PEERS).map(|to| (number, to)).collect(),
            To::Name(_) | To::Channel(_) => panic!("message {number} is refused: {outcome:?}"),
            To::Everybody | To::Dropped { .. } => Vec::new(),
        }
    }
}
