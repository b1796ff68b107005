//! A peer that sends, acknowledges and roams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::Claim;
use super::REALM;
use crate::bus::To;
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
}

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
        }
    }

    pub(super) fn claim(&self) -> Claim {
        Claim { realm: REALM, owner: owner(self.index), name: name(self.index) }
    }

    pub(super) fn disconnect(&mut self) {
        self.session = None;
        self.unacknowledged.clear();
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

    pub(super) fn has(&self, sender: usize, number: u64) -> bool {
        self.got.contains(&(sender, number))
    }

    /// Some of what it has, which it acknowledges.
    pub(super) fn acknowledged(&mut self, random: &mut Random) -> Vec<Arc<str>> {
        let count = random.index(self.unacknowledged.len() + 1);
        self.unacknowledged.drain(..count).collect()
    }

    /// It gets a receipt; returns what it may rely on.
    pub(super) fn told(&mut self, id: &str, outcome: Outcome) -> Option<(u64, usize)> {
        let number: u64 = id.split_once('-').unwrap().1.parse().unwrap();
        // One that was sent twice has two receipts.
        let at = self.unreceipted.iter().position(|(of, _)| *of == number)?;
        let (_, to) = self.unreceipted.remove(at);
        let is_stored = matches!(outcome, Outcome::Stored | Outcome::Duplicate);
        match to {
            To::Name(to) if is_stored => {
                let to = to.strip_prefix("peer-").unwrap().parse().unwrap();
                Some((number, to))
            }
            To::Name(_) => panic!("message {number} is refused: {outcome:?}"),
            To::Everybody | To::Channel(_) => None,
        }
    }
}
