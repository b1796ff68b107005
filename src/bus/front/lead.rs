//! The bus of the relay that leads, behind the host for the fronts of all relays.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::links::{Ear, LOOP, Links};
use super::log::Log;
use super::{Answers, Front};
use crate::bus::{Batch, Bus, Outgoing, Party, Receipt};
use crate::proto::bus::{Owner, Subscription};
use crate::proto::front::{Host, LinkId, Order, Output};
use crate::wire::front::{Message, Outcome};

/// A relay that leads, in one epoch.
pub(super) struct Lead {
    me: Weak<Self>,
    front: Weak<Front>,
    bus: Arc<Bus>,
    links: Arc<Links>,
    log: Arc<dyn Log>,
    answers: Arc<OnceLock<Answers>>,
    state: Mutex<State>,
}

struct State {
    host: Host,
    /// What the bus is to do, in order.
    orders: VecDeque<Order>,
    /// Somebody carries them out.
    is_busy: bool,
    is_over: bool,
}

impl Lead {
    pub(super) fn new(epoch: u64, bus: Arc<Bus>, front: &Arc<Front>) -> Arc<Self> {
        let log = Arc::clone(&front.log);
        let (links, answers) = (Arc::clone(&front.links), Arc::clone(&front.answers));
        let (host, orders) = (Host::new(epoch), VecDeque::new());
        let state = Mutex::new(State { host, orders, is_busy: false, is_over: false });
        let front = Arc::downgrade(front);
        Arc::new_cyclic(|me| Self { me: Weak::clone(me), front, bus, links, log, answers, state })
    }

    pub(super) const fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    pub(super) fn sessions(&self) -> usize {
        self.state.lock().host.sessions()
    }

    /// Whether no other relay can lead.
    pub(super) fn may_serve(&self) -> bool {
        self.log.may_serve()
    }

    pub(super) fn link_up(&self, link: LinkId) {
        self.with(|host, out| host.link_up(link, out));
    }

    pub(super) fn link_down(&self, link: LinkId) {
        self.with(|host, out| host.link_down(link, out));
    }

    /// Takes what a front says; false where it breaks the rules.
    pub(super) fn hear(
        &self,
        link: LinkId,
        message: &Message<'_>,
        length: usize,
        now: Instant,
    ) -> bool {
        let mut result = Ok(());
        self.with(|host, out| result = host.heard(link, message, length, now, out));
        result.is_ok()
    }

    /// Says that it leads no more, and nothing behind that.
    pub(super) fn end(&self) {
        self.with(|host, out| host.end(out));
        let mut state = self.state.lock();
        state.is_over = true;
        state.orders.clear();
    }

    /// Has the host decide; what this relay says to itself is left to the task that carries it, since
    /// something may be locked here that hearing it needs.
    fn with(&self, decide: impl FnOnce(&mut Host, &mut Output)) {
        if self.decide(decide) {
            self.links.leave();
        }
    }

    /// The same on the thread of the bus, which has nothing locked: it carries what is said itself.
    fn tell(&self, decide: impl FnOnce(&mut Host, &mut Output)) {
        if self.decide(decide)
            && let Some(front) = self.front.upgrade()
        {
            front.carry(Ear::Front);
        }
    }

    /// Has the host decide; whether something is said to this relay. What it says is said before it
    /// decides anything else; what the bus is to do is done in order, by whoever came first, and with
    /// nothing locked: the bus may hold a seat meanwhile.
    fn decide(&self, decide: impl FnOnce(&mut Host, &mut Output)) -> bool {
        let mut state = self.state.lock();
        if state.is_over {
            return false;
        }
        let mut out = Output::default();
        decide(&mut state.host, &mut out);
        let now = Instant::now();
        for (link, message) in &out.says {
            self.links.say(*link, Ear::Front, message, now);
        }
        let is_told = out.says.iter().any(|(link, _)| *link == LOOP);
        state.orders.append(&mut out.orders);
        if std::mem::replace(&mut state.is_busy, true) {
            return is_told;
        }
        while let Some(order) = state.orders.pop_front() {
            drop(state);
            self.carry_out(order);
            state = self.state.lock();
        }
        state.is_busy = false;
        is_told
    }

    fn carry_out(&self, order: Order) {
        let me = Weak::clone(&self.me);
        match order {
            Order::Claim { link, request, claim } => self.bus.order(
                move |desk| {
                    let owner = Owner(claim.owner);
                    desk.bus.claim(claim.realm, &claim.name, owner, desk.now, desk.turn)
                },
                move |claimed| {
                    if let Some(lead) = me.upgrade() {
                        lead.tell(|host, out| host.claimed(link, request, claimed, out));
                    }
                },
            ),
            Order::Enter { generation, claim } => self.bus.order(
                move |desk| {
                    let owner = Owner(claim.owner);
                    desk.bus.claim(claim.realm, &claim.name, owner, desk.now, desk.turn)
                },
                move |claimed| {
                    if let Some(lead) = me.upgrade() {
                        lead.tell(|host, out| host.entered(generation, claimed, out));
                    }
                },
            ),
            Order::Open { generation, mailbox, owner } => {
                self.bus.open(mailbox, owner, Seat::party(&me, generation));
            }
            Order::Close { generation, mailbox } => self.bus.close(mailbox, generation),
            Order::Submit { generation, submission, wants_receipt } => {
                self.bus.submit(&Seat::party(&me, generation), submission, wants_receipt);
            }
            Order::Acknowledge { generation, mailbox, key } => {
                self.bus.acknowledge(&Seat::party(&me, generation), mailbox, &key);
            }
            Order::Subscribe { generation, mailbox, channels, is_ephemeral } => {
                let subscription = Subscription { channels, is_ephemeral };
                self.bus.subscribe(mailbox, generation, subscription);
            }
            Order::AcknowledgeRecords { generation, mailbox, batch } => {
                let seat = Seat::party(&me, generation);
                self.bus.acknowledge_records(&seat, mailbox, batch);
            }
            Order::Ask { link, request, question } => {
                let answered = move |answer: Vec<u8>| {
                    if let Some(lead) = me.upgrade() {
                        lead.with(|host, out| host.answer(link, request, &answer, out));
                    }
                };
                match self.answers.get() {
                    Some(answers) => answers(question, Box::new(answered)),
                    None => answered(Vec::new()),
                }
            }
        }
    }
}

/// A session of some relay, as the bus has it: what it is told goes over the link of the relay.
struct Seat {
    lead: Weak<Lead>,
    generation: u64,
}

impl Seat {
    fn party(lead: &Weak<Lead>, generation: u64) -> Arc<dyn Party> {
        Arc::new(Self { lead: Weak::clone(lead), generation })
    }
}

impl Party for Seat {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn deliver(&self, messages: &[Outgoing], _: Instant) -> usize {
        let Some(lead) = self.lead.upgrade() else { return 0 };
        let may_serve = lead.may_serve();
        let mut taken = 0;
        lead.tell(|host, out| {
            let messages = messages.iter().map(|Outgoing { key, body }| (&**key, &**body));
            taken = host.deliver(self.generation, messages, may_serve, out);
        });
        taken
    }

    fn records(&self, batch: &Batch, _: Instant) {
        let Some(lead) = self.lead.upgrade() else { return };
        let may_serve = lead.may_serve();
        lead.tell(|host, out| {
            let records = batch.records.iter().map(|Outgoing { key, body }| (&**key, &**body));
            host.records(self.generation, batch.number, records, may_serve, out);
        });
    }

    fn receipts(&self, receipts: &[Receipt], _: Instant) {
        if let Some(lead) = self.lead.upgrade() {
            let outcomes = receipts.iter().map(|receipt| Outcome::from(receipt.outcome));
            let outcomes: Vec<_> = outcomes.collect();
            lead.tell(|host, out| host.answered(self.generation, &outcomes, out));
        }
    }

    fn is_answered(&self) -> bool {
        true
    }

    fn hold(&self, held: bool) {
        if let Some(lead) = self.lead.upgrade() {
            lead.with(|host, out| host.hold(self.generation, held, out));
        }
    }

    fn withdraw(&self) {
        if let Some(lead) = self.lead.upgrade() {
            lead.with(|host, out| host.withdraw(self.generation, out));
        }
    }

    /// The host says so itself.
    fn replace(&self) {}
}
