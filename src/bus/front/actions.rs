//! Does what the front decides: tells parties, relays, and who waits for an answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::links::Ear;
use super::{Front, State};
use crate::bus::{Batch, Outgoing, Party, Receipt};
use crate::proto::front::{self as proto, Action};

impl Front {
    /// Decides, and does what that comes to.
    pub(super) fn decide(
        &self,
        state: &mut State,
        decide: impl FnOnce(&mut proto::Front, Instant, &mut Vec<Action>),
    ) {
        let now = Instant::now();
        let mut actions = Vec::new();
        decide(&mut state.front, now, &mut actions);
        self.act(state, actions, now);
    }

    fn act(&self, state: &mut State, actions: Vec<Action>, now: Instant) {
        let mut receipts: Vec<(u64, Receipt)> = Vec::new();
        for action in actions {
            match action {
                Action::Say { link, message } => self.links.say(link, Ear::Leader, &message, now),
                Action::Deliver { session, letters } => {
                    self.meters.delivered.add(letters.len() as u64);
                    if let Some(party) = state.parties.get(&session) {
                        let letters = letters.into_iter();
                        let outgoing = letters.map(|(key, body)| Outgoing { key, body });
                        party.deliver(&outgoing.collect::<Vec<_>>(), now);
                    }
                }
                Action::Records { session, batch, records } => {
                    self.meters.delivered.add(records.len() as u64);
                    if let Some(party) = state.parties.get(&session) {
                        let records = records.into_iter();
                        let records = records.map(|(key, body)| Outgoing { key, body }).collect();
                        party.records(&Batch { number: batch, records }, now);
                    }
                }
                Action::Receipt { session, id, outcome } => {
                    receipts.push((session, Receipt { id, outcome: outcome.into() }));
                }
                Action::Hold { session, is_held } => {
                    if let Some(party) = state.parties.get(&session) {
                        party.hold(is_held);
                    }
                }
                Action::Withdraw { session } => {
                    if let Some(party) = state.parties.get(&session) {
                        party.withdraw();
                    }
                }
                Action::Replace { session } => {
                    self.meters.replaced.increment();
                    if let Some(party) = state.parties.get(&session) {
                        party.replace();
                    }
                }
                Action::Claimed { request, outcome } => {
                    if let Some(claim) = state.claims.remove(&request) {
                        // Who claims it may have gone away.
                        let _ = claim.send(outcome);
                    }
                }
                Action::Answered { request, answer } => {
                    if let Some(asked) = state.asked.remove(&request) {
                        let _ = asked.send(answer);
                    }
                }
                Action::Name { is_here, realm, name } => {
                    let names = state.names.get(&realm).and_then(Weak::upgrade);
                    match names {
                        Some(names) if is_here => names.came(&name),
                        Some(names) => names.went(&name),
                        None => {}
                    }
                }
            }
        }
        tell(&state.parties, receipts, now);
        state.led.note(state.front.epoch(), now);
        state.waiting.note(state.front.bytes(), now);
    }
}

/// Tells receipts, those of one session that follow each other together.
fn tell(parties: &BTreeMap<u64, Arc<dyn Party>>, receipts: Vec<(u64, Receipt)>, now: Instant) {
    let mut of_one: Vec<Receipt> = Vec::new();
    let mut receipts = receipts.into_iter().peekable();
    while let Some((session, receipt)) = receipts.next() {
        of_one.push(receipt);
        if receipts.peek().is_some_and(|(next, _)| *next == session) {
            continue;
        }
        if let Some(party) = parties.get(&session) {
            party.receipts(&of_one, now);
        }
        of_one.clear();
    }
}
