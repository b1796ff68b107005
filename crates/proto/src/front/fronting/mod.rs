//! The sessions of one relay, and what they have to say to the relay that leads.

mod hearing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LinkId;
use super::action::{Action, Claim};
use super::credit::{Credit, WINDOW};
use super::names::Names;
use super::session::{Limits, Said, Session, State, Submitted};
use crate::bus::{Subscription, To};
use beacon_wire::front::{Message, Recipient, Texts};

/// The sessions of a relay.
#[derive(Debug)]
pub struct Front {
    limits: Limits,
    /// Bytes on their way to the leader, at most.
    pub(super) window: usize,
    sessions: BTreeMap<u64, Session>,
    /// The links, each with the epoch in which the relay behind it leads; 0 where it does not.
    links: BTreeMap<LinkId, u64>,
    /// The newest epoch that is known.
    newest: u64,
    attached: Option<Attached>,
    claims: BTreeMap<u64, Claim>,
    /// Questions that the leader has.
    asked: Vec<u64>,
    /// The sessions that have something to say, in turn.
    ready: VecDeque<u64>,
    /// What all of them have said that has no answer.
    bytes: usize,
    names: Names,
}

/// The leader that is listened to.
#[derive(Debug)]
struct Attached {
    link: LinkId,
    epoch: u64,
    credit: Credit,
}

impl Front {
    /// A front without sessions or links.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            window: WINDOW,
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            newest: 0,
            attached: None,
            claims: BTreeMap::new(),
            asked: Vec::new(),
            ready: VecDeque::new(),
            bytes: 0,
            names: Names::default(),
        }
    }

    /// The epoch of the leader that is listened to; none where there is no leader.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.attached.as_ref().map(|attached| attached.epoch)
    }

    /// How many relays say that they lead: for a moment two, while one does not know that it was
    /// replaced.
    #[must_use]
    pub fn leaders(&self) -> usize {
        self.links.values().filter(|epoch| **epoch > 0).count()
    }

    /// What the sessions have said that has no answer, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many sessions there are, those included that are over and have something left to say.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many names have a session at some relay, as the leader tells.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// A link stands.
    pub fn link_up(&mut self, link: LinkId) {
        self.links.insert(link, 0);
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: LinkId, now: Instant, out: &mut Vec<Action>) {
        self.links.remove(&link);
        self.choose(now, out);
    }

    /// The log knows of an epoch: who leads in one before does so no more.
    pub fn know(&mut self, epoch: u64, now: Instant, out: &mut Vec<Action>) {
        if epoch > self.newest {
            self.newest = epoch;
            self.choose(now, out);
        }
    }

    /// Has a name be claimed, under a number that no other claim has, as soon as there is a leader.
    pub fn claim(&mut self, request: u64, claim: Claim, out: &mut Vec<Action>) {
        if let Some(attached) = &mut self.attached {
            attached.say(&claim.message(request), out);
        }
        self.claims.insert(request, claim);
    }

    /// Nobody waits for the answer to a claim any more.
    pub fn forget_claim(&mut self, request: u64) {
        self.claims.remove(&request);
    }

    /// Asks the leader, under a number that no other question has. False where there is none.
    pub fn ask(&mut self, request: u64, question: &[u8], out: &mut Vec<Action>) -> bool {
        let Some(attached) = &mut self.attached else { return false };
        attached.say(&Message::Ask { request, question }, out);
        self.asked.push(request);
        true
    }

    /// A session can be reached: messages are delivered to it from here on. No session before it
    /// has its number.
    pub fn open(&mut self, session: u64, claim: Claim, now: Instant, out: &mut Vec<Action>) {
        let Claim { realm, owner, name } = claim;
        self.sessions.insert(session, Session::new(realm, owner, name, now));
        self.set_ready(session);
        self.pump(now, out);
    }

    /// A session is over. What it has said goes to the leader all the same, once there is one.
    pub fn close(&mut self, session: u64, now: Instant, out: &mut Vec<Action>) {
        let Some(of) = self.sessions.get_mut(&session) else { return };
        of.is_closing = true;
        // Nobody wants to hear of it, and it is repeated for nobody.
        if of.state == State::Away && of.unsent.is_empty() {
            self.forget(session);
            return;
        }
        self.set_ready(session);
        self.pump(now, out);
    }

    /// A session sends a message.
    pub fn submit(
        &mut self,
        session: u64,
        (to, id, body): (To, Arc<str>, Arc<[u8]>),
        wants_receipt: bool,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let submitted = Submitted { to, id, body, wants_receipt, is_repeated: false };
        self.say(session, Said::Submitted(submitted), now, out);
    }

    /// A session acknowledges a message.
    pub fn acknowledge(&mut self, session: u64, key: &str, now: Instant, out: &mut Vec<Action>) {
        self.say(session, Said::Acknowledged(key.into()), now, out);
    }

    /// A session is subscribed to these channels, and to no others.
    pub fn subscribe(
        &mut self,
        session: u64,
        subscription: Subscription,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(of) = self.sessions.get_mut(&session).filter(|of| !of.is_closing) else { return };
        if of.subscription != subscription {
            of.subscription = subscription;
            of.is_subscribing = true;
            self.set_ready(session);
            self.pump(now, out);
        }
    }

    /// A session has the records of a batch, by the number that it was told.
    pub fn acknowledge_records(
        &mut self,
        session: u64,
        batch: u64,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(of) = self.sessions.get_mut(&session) else { return };
        if let Some(batch) = of.batch.acknowledged(batch) {
            self.say(session, Said::HasRecords(batch), now, out);
        }
    }

    fn say(&mut self, session: u64, said: Said, now: Instant, out: &mut Vec<Action>) {
        let Some(of) = self.sessions.get_mut(&session).filter(|of| !of.is_closing) else { return };
        let cost = said.cost();
        of.bytes += cost;
        self.bytes += cost;
        of.unsent.push_back(said);
        let is_much = self.bytes > self.limits.of_all;
        let by_leader = of.is_held_by_leader;
        if let Some(is_held) = of.judge_hold(is_much, by_leader, &self.limits) {
            out.push(Action::Hold { session, is_held });
        }
        self.set_ready(session);
        self.pump(now, out);
    }

    /// Does what is due. To be called each second.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.attached.is_none() {
            return;
        }
        for (realm, name) in self.names.expired(now) {
            out.push(Action::Name { is_here: false, realm, name });
        }
    }

    /// Listens to the newest leader that is known.
    fn choose(&mut self, now: Instant, out: &mut Vec<Action>) {
        let newest = self.links.iter().max_by_key(|(_, epoch)| **epoch);
        let leader = newest.map(|(link, epoch)| (*link, *epoch));
        let leader = leader.filter(|(_, epoch)| *epoch > 0 && *epoch >= self.newest);
        let listened = self.attached.as_ref().map(|attached| (attached.link, attached.epoch));
        if leader == listened {
            return;
        }
        if listened.is_some() {
            self.detach(out);
        }
        if let Some((link, epoch)) = leader {
            self.attach(link, epoch, now, out);
        }
    }

    fn attach(&mut self, link: LinkId, epoch: u64, now: Instant, out: &mut Vec<Action>) {
        let mut attached = Attached { link, epoch, credit: Credit::new(self.window) };
        attached.say(&Message::Attach { epoch }, out);
        for (request, claim) in &self.claims {
            attached.say(&claim.message(*request), out);
        }
        self.attached = Some(attached);
        self.names.begin(now);
        // The older first: of a name that has two, the younger is to stay.
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.set_ready(session));
        self.pump(now, out);
    }

    fn detach(&mut self, out: &mut Vec<Action>) {
        self.attached = None;
        self.ready.clear();
        for request in self.asked.drain(..) {
            out.push(Action::Answered { request, answer: None });
        }
        let mut over = Vec::new();
        for (session, of) in &mut self.sessions {
            self.bytes -= of.lose_leader();
            if let Some(is_held) = of.judge_hold(false, false, &self.limits) {
                out.push(Action::Hold { session: *session, is_held });
            }
            if of.is_closing && of.unsent.is_empty() {
                over.push(*session);
            }
        }
        over.into_iter().for_each(|session| self.forget(session));
    }

    fn set_ready(&mut self, session: u64) {
        if self.attached.is_some()
            && let Some(of) = self.sessions.get_mut(&session)
            && !of.is_ready
        {
            of.is_ready = true;
            self.ready.push_back(session);
        }
    }

    /// Says what there is to say, one thing of each session in turn, as far as the link takes it.
    fn pump(&mut self, now: Instant, out: &mut Vec<Action>) {
        while self.attached.as_ref().is_some_and(|attached| attached.credit.has_room()) {
            let Some(session) = self.ready.pop_front() else { break };
            if let Some(of) = self.sessions.get_mut(&session) {
                of.is_ready = false;
                self.say_next(session, now, out);
            }
        }
    }

    fn say_next(&mut self, session: u64, now: Instant, out: &mut Vec<Action>) {
        let Some(attached) = &mut self.attached else { return };
        let Some(of) = self.sessions.get_mut(&session) else { return };
        match of.state {
            State::Opening => return,
            State::Away => {
                of.state = State::Opening;
                let age_ms = millis(now.saturating_duration_since(of.opened));
                let is_listening = !of.is_closing;
                let claimant = of.claimant();
                attached.say(&Message::Open { session, age_ms, is_listening, claimant }, out);
                return;
            }
            State::Open => {}
        }
        if of.is_subscribing && !of.is_closing {
            of.is_subscribing = false;
            let Subscription { channels, is_ephemeral } = &of.subscription;
            let mut message = Vec::new();
            Message::begin_subscribe(&mut message, session, *is_ephemeral);
            channels.iter().for_each(|name| Texts::push(&mut message, name));
            attached.say_bytes(message, out);
            if !of.unsent.is_empty() {
                self.set_ready(session);
            }
            return;
        }
        match of.unsent.pop_front() {
            None if of.is_closing => {
                attached.say(&Message::Close { session }, out);
                self.forget(session);
                return;
            }
            None => return,
            Some(Said::Submitted(submitted)) => {
                attached.say(&submitted.message(session), out);
                of.sent.push_back(submitted);
            }
            Some(said @ (Said::Acknowledged(_) | Said::HasRecords(_))) => {
                let cost = said.cost();
                match said {
                    Said::HasRecords(batch) => {
                        attached.say(&Message::AcknowledgeRecords { session, batch }, out);
                    }
                    Said::Acknowledged(key) => {
                        attached.say(&Message::Acknowledge { session, key: &key }, out);
                    }
                    Said::Submitted(_) => unreachable!("it acknowledges something"),
                }
                of.bytes -= cost;
                self.bytes -= cost;
                let by_leader = of.is_held_by_leader;
                if let Some(is_held) = of.judge_hold(false, by_leader, &self.limits) {
                    out.push(Action::Hold { session, is_held });
                }
            }
        }
        if !of.unsent.is_empty() || of.is_closing {
            self.set_ready(session);
        }
    }

    fn forget(&mut self, session: u64) {
        if let Some(of) = self.sessions.remove(&session) {
            self.bytes -= of.bytes;
        }
    }
}

impl Attached {
    /// Says something that counts as being on its way.
    fn say(&mut self, message: &Message<'_>, out: &mut Vec<Action>) {
        let length = self.say_free(message, out);
        self.credit.sent(length);
    }

    fn say_free(&self, message: &Message<'_>, out: &mut Vec<Action>) -> usize {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let length = bytes.len();
        out.push(Action::Say { link: self.link, message: bytes });
        length
    }

    /// The same as [`Self::say`] of what is written down.
    fn say_bytes(&mut self, message: Vec<u8>, out: &mut Vec<Action>) {
        self.credit.sent(message.len());
        out.push(Action::Say { link: self.link, message });
    }
}

impl Submitted {
    fn message(&self, session: u64) -> Message<'_> {
        let to = match &self.to {
            To::Name(name) => Recipient::Name(name),
            To::Everybody => Recipient::Everybody,
            To::Channel(name) => Recipient::Channel(name),
            To::Dropped { channel, is_loop } => Recipient::Dropped { channel, is_loop: *is_loop },
        };
        let Self { id, body, wants_receipt, .. } = self;
        Message::Submit { session, to, id, wants_receipt: *wants_receipt, body }
    }
}

/// Milliseconds of it, as many as a message says.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
