//! What sessions are told of a turn, once it is committed.

use std::sync::Arc;
use std::time::Instant;

use super::Worker;
use crate::bus::{Batch, Outgoing, Party, Receipt};
use crate::proto::bus::{Effect, MailboxId};

/// What is told when a turn is committed.
#[derive(Default)]
pub(super) struct Replies {
    pub(super) asked: Vec<Box<dyn FnOnce() + Send>>,
    pub(super) receipts: Vec<(Arc<dyn Party>, Receipt)>,
}

impl Replies {
    pub(super) fn is_some(&self) -> bool {
        !self.asked.is_empty() || !self.receipts.is_empty()
    }
}

impl Worker {
    pub(super) fn reply(&self, replies: Replies) {
        let Replies { asked, receipts } = replies;
        asked.into_iter().for_each(|answer| answer());
        let now = Instant::now();
        let mut of_one: Vec<Receipt> = Vec::new();
        let mut receipts = receipts.into_iter().peekable();
        while let Some((party, receipt)) = receipts.next() {
            of_one.push(receipt);
            let is_same = |(next, _): &(Arc<dyn Party>, _)| next.generation() == party.generation();
            if !receipts.peek().is_some_and(is_same) {
                party.receipts(&of_one, now);
                of_one.clear();
            }
        }
    }

    pub(super) fn carry_out(&self, effects: &mut Vec<Effect>) {
        let now = Instant::now();
        let mut deliveries: Vec<(MailboxId, u64, Outgoing)> = Vec::with_capacity(effects.len());
        for effect in effects.drain(..) {
            match effect {
                Effect::Load(load) => {
                    // The reader ends with this thread.
                    let _ = self.readings.send(load);
                }
                Effect::Withdraw { mailbox, generation, why } => {
                    let peer = self.bus.name_of(mailbox).map_or("", |name| name);
                    self.crowded.note(peer, why, now);
                    let party = self.parties.get(&mailbox);
                    if let Some(party) = party.filter(|party| party.generation() == generation) {
                        party.withdraw();
                    }
                }
                Effect::Records { mailbox, generation, batch, records } => {
                    let party = self.parties.get(&mailbox);
                    if let Some(party) = party.filter(|party| party.generation() == generation) {
                        let outgoing = records.iter().map(|record| Outgoing {
                            key: Arc::clone(&record.key),
                            body: Arc::clone(&record.body),
                        });
                        party.records(&Batch { number: batch, records: outgoing.collect() }, now);
                    }
                }
                Effect::Deliver { mailbox, generation, message, .. } => {
                    let key = Arc::clone(&message.key);
                    let body = Arc::clone(&message.body);
                    deliveries.push((mailbox, generation, Outgoing { key, body }));
                }
            }
        }
        // Those of one mailbox in their order, and none to a session before the last.
        deliveries.sort_by_key(|(mailbox, ..)| *mailbox);
        let mut messages = Vec::new();
        let mut deliveries = deliveries.into_iter().peekable();
        while let Some((mailbox, generation, message)) = deliveries.next() {
            let party = self.parties.get(&mailbox);
            let party = party.filter(|party| party.generation() == generation);
            if party.is_some() {
                messages.push(message);
            }
            if deliveries.peek().is_some_and(|(next, ..)| *next == mailbox) {
                continue;
            }
            let last = self.parties.get(&mailbox).filter(|_| !messages.is_empty());
            if let Some(party) = last {
                let taken = party.deliver(&messages, now);
                self.shared.meters.delivered(taken, messages.len());
            }
            messages.clear();
        }
    }
}
