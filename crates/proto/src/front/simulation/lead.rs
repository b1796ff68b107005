//! A relay that leads: its host, and its bus, whose commits fail once another leads.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use super::super::{Host, Order, Output};
use super::log::Log;
use super::{PEERS, REALM, peer};
use crate::bus::{
    Bus, Effect, Limits, Load, MailboxId, Millis, NotClaimed, Owner, Recovered, Submitted,
    Subscription, Turn,
};
use crate::simulated::Random;
use beacon_wire::front::{Outcome, Refusal};

/// In milliseconds, beyond the end of the world: what is not acknowledged comes again when its
/// session is opened anew, or never.
const NEVER: u64 = 1 << 40;

pub(super) struct Lead {
    pub(super) host: Host,
    bus: Bus,
    /// What the host wants done.
    pub(super) inbox: VecDeque<Order>,
    loads: Vec<Load>,
}

/// What is told when the turn is committed.
enum Reply {
    Claimed(Order, Result<MailboxId, NotClaimed>),
    Answered(u64, Outcome),
}

impl Lead {
    pub(super) fn new(epoch: u64, window: usize, recovered: Recovered) -> Self {
        let limits = Limits { window: 5, redelivery: NEVER, ..Limits::default() };
        let bus = Bus::new(limits, recovered);
        let mut host = Host::new(epoch);
        host.window = window;
        Self { host, bus, inbox: VecDeque::new(), loads: Vec::new() }
    }

    /// All peers have logged in once.
    pub(super) fn claim_all(&mut self, log: &mut Log) {
        let mut turn = Turn::default();
        for index in 0..PEERS {
            let owner = Owner(peer::owner(index));
            let name = peer::name(index);
            let mailbox = self.bus.claim(REALM, &name, owner, Millis(0), &mut turn).unwrap();
            // Each has a cursor before the first record.
            self.bus.open(mailbox, 1, Millis(0), &mut turn);
            self.bus.subscribe(mailbox, 1, &peer::subscription(), Millis(0), &mut turn);
            self.bus.close(mailbox, 1, Millis(0), &mut turn);
        }
        self.bus.finish(Millis(0), &mut turn);
        log.store.commit(&turn.changes, false);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.loads.is_empty()
    }

    /// Takes some of what has come, commits, and tells; nothing where another relay leads.
    pub(super) fn turn(
        &mut self,
        random: &mut Random,
        elapsed: Duration,
        log: &mut Log,
    ) -> Option<Output> {
        let now = Millis::from(elapsed);
        let mut turn = Turn::default();
        let mut replies = Vec::new();
        if random.percent(60) {
            let loads = random.index(self.loads.len() + 1);
            for load in self.loads.drain(..loads) {
                self.bus.loaded(&load, log.store.read(&load), now, &mut turn);
            }
        }
        for _ in 0..=random.index(8) {
            let Some(order) = self.inbox.pop_front() else { break };
            self.take(order, now, log, &mut turn, &mut replies);
        }
        if random.percent(10) {
            self.bus.tick(now, &mut turn);
        }
        self.bus.finish(now, &mut turn);
        let is_leader = log.epoch == self.host.epoch();
        if !turn.is_unchanged() {
            if !is_leader {
                return None;
            }
            log.store.commit(&turn.changes, false);
            log.store.check_levels();
        }
        let mut out = Output::default();
        for reply in replies {
            match reply {
                Reply::Claimed(Order::Enter { generation, .. }, claimed) => {
                    self.host.entered(generation, claimed, &mut out);
                }
                Reply::Claimed(..) => {}
                Reply::Answered(generation, outcome) => {
                    self.host.answered(generation, &[outcome], &mut out);
                }
            }
        }
        for effect in turn.effects {
            match effect {
                Effect::Load(load) => self.loads.push(load),
                Effect::Withdraw { .. } => panic!("no name is another's"),
                Effect::Records { generation, batch, records, .. } => {
                    let records = records.iter().map(|record| (&*record.key, &*record.body));
                    let may_serve = is_leader && !random.percent(2);
                    self.host.records(generation, batch, records, may_serve, &mut out);
                }
                Effect::Deliver { generation, message, .. } => {
                    let letters = std::iter::once((&*message.key, &*message.body));
                    // Also a leader that cannot be sure for a moment.
                    let may_serve = is_leader && !random.percent(2);
                    let taken = self.host.deliver(generation, letters, may_serve, &mut out);
                    assert!(may_serve || taken == 0, "a relay delivers that may not serve");
                }
            }
        }
        Some(out)
    }

    fn take(
        &mut self,
        order: Order,
        now: Millis,
        log: &mut Log,
        turn: &mut Turn,
        replies: &mut Vec<Reply>,
    ) {
        let Log { store, refused, .. } = log;
        let find = |mailbox, key| Ok::<_, Infallible>(store.find(mailbox, key));
        match order {
            Order::Claim { .. } | Order::Ask { .. } => {}
            Order::Enter { ref claim, .. } => {
                let claimed =
                    self.bus.claim(claim.realm, &claim.name, Owner(claim.owner), now, turn);
                replies.push(Reply::Claimed(order, claimed));
            }
            Order::Open { generation, mailbox, owner } => {
                assert_eq!(self.bus.owner(mailbox), Some(owner));
                self.bus.open(mailbox, generation, now, turn);
            }
            Order::Close { generation, mailbox } => self.bus.close(mailbox, generation, now, turn),
            Order::Submit { generation, submission, .. } => {
                let Ok(submitted) = self.bus.submit(&submission, now, turn, find);
                let outcome = match submitted {
                    Submitted::Stored(_) => Outcome::Stored,
                    Submitted::Duplicate => Outcome::Duplicate,
                    Submitted::Refused(_) => {
                        refused.insert(peer::sent(&submission.body));
                        Outcome::Refused(Refusal::NoRecipients)
                    }
                    Submitted::Partly { .. } => panic!("no mailbox is full"),
                };
                replies.push(Reply::Answered(generation, outcome));
            }
            Order::Subscribe { generation, mailbox, channels, is_ephemeral } => {
                let subscription = Subscription { channels, is_ephemeral };
                self.bus.subscribe(mailbox, generation, &subscription, now, turn);
            }
            Order::AcknowledgeRecords { generation, mailbox, batch } => {
                self.bus.acknowledge_records(mailbox, generation, batch, turn);
            }
            Order::Acknowledge { generation, mailbox, key } => {
                let Ok(_) = self.bus.acknowledge(mailbox, generation, &key, now, turn, find);
            }
        }
    }
}
