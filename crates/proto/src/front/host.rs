//! The sessions of all relays, as the one that leads has them before its bus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LinkId;
use super::action::Claim;
use super::credit::WINDOW;
use super::link::Link;
use super::order::{Order, Output};
use crate::bus::{MailboxId, NotClaimed, Owner, Submission, To};
use beacon_wire::front::{
    ClaimOutcome, Claimant, Invalid, Letters, Message, Outcome, Recipient, Refusal,
};

/// Bytes of messages that are delivered in one piece, but for a single one.
const PIECE: usize = 60_000;

/// The sessions of all relays, in one epoch.
#[derive(Debug)]
pub struct Host {
    epoch: u64,
    /// Bytes on their way to each front, at most.
    pub(super) window: usize,
    links: BTreeMap<LinkId, Link>,
    /// By their generations.
    seats: BTreeMap<u64, Seat>,
    /// The seats that messages of mailboxes are delivered to.
    current: BTreeMap<MailboxId, u64>,
    next: u64,
}

/// A session.
#[derive(Debug)]
struct Seat {
    link: LinkId,
    session: u64,
    realm: u8,
    owner: Owner,
    name: Arc<str>,
    opened: Instant,
    is_listening: bool,
    /// Once its name is claimed.
    mailbox: Option<MailboxId>,
    /// Messages that the bus has and has not answered.
    unanswered: usize,
    /// The session has another seat, and this one only waits for answers.
    is_former: bool,
}

impl Host {
    /// The host of an epoch, whose bus nobody has said anything to.
    #[must_use]
    pub const fn new(epoch: u64) -> Self {
        Self {
            epoch,
            window: WINDOW,
            links: BTreeMap::new(),
            seats: BTreeMap::new(),
            current: BTreeMap::new(),
            next: 1,
        }
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many sessions there are, of all relays.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.seats.len()
    }

    /// What waits for room on its links.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.links.values().flat_map(Link::waiting)
    }

    /// A link stands: the relay behind it hears who leads. Twice is as good as once.
    pub fn link_up(&mut self, id: LinkId, out: &mut Output) {
        if self.links.contains_key(&id) {
            return;
        }
        self.links.insert(id, Link::new(id, self.window));
        let mut message = Vec::new();
        Message::Leads { epoch: self.epoch }.encode(&mut message);
        out.says.push((id, message));
    }

    /// Another relay leads, or will: whoever listens to this one stops.
    pub fn end(&mut self, out: &mut Output) {
        let mut message = Vec::new();
        Message::Leads { epoch: 0 }.encode(&mut message);
        out.says.extend(self.links.keys().map(|id| (*id, message.clone())));
    }

    /// A link is gone, and the sessions behind it.
    pub fn link_down(&mut self, id: LinkId, out: &mut Output) {
        self.leave_all(id, out);
        self.links.remove(&id);
    }

    fn leave_all(&mut self, id: LinkId, out: &mut Output) {
        let Some(link) = self.links.get_mut(&id) else { return };
        for generation in std::mem::take(&mut link.sessions).into_values() {
            self.leave(generation, out);
        }
    }

    /// Takes what a front says over its link, and was so long.
    ///
    /// # Errors
    /// It breaks the rules.
    pub fn heard(
        &mut self,
        id: LinkId,
        message: &Message<'_>,
        length: usize,
        now: Instant,
        out: &mut Output,
    ) -> Result<(), Invalid> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        if let Message::Attach { epoch } = *message {
            if epoch == self.epoch {
                self.leave_all(id, out);
                self.attach(id, length, out);
            }
            return Ok(());
        }
        if !link.is_attached {
            return Ok(());
        }
        if let Message::Took { bytes, .. } = *message {
            link.returned(bytes, &mut out.says);
            return Ok(());
        }
        link.took(length, &mut out.says);
        match *message {
            Message::Claim { request, claimant } => {
                out.orders.push_back(Order::Claim { link: id, request, claim: claimant.into() });
            }
            Message::Ask { request, question } => {
                let question = question.to_vec();
                out.orders.push_back(Order::Ask { link: id, request, question });
            }
            Message::Open { session, age_ms, is_listening, claimant } => {
                let generation = self.next;
                self.next += 1;
                let before = link.sessions.insert(session, generation);
                let Claim { realm, owner, name } = claimant.into();
                let age = Duration::from_millis(age_ms.into());
                let seat = Seat {
                    link: id,
                    session,
                    realm,
                    owner: Owner(owner),
                    name,
                    opened: now.checked_sub(age).unwrap_or(now),
                    is_listening,
                    mailbox: None,
                    unanswered: 0,
                    is_former: false,
                };
                self.seats.insert(generation, seat);
                if let Some(before) = before {
                    self.lapse(before, out);
                    self.make_former(before);
                }
                let claim = claimant.into();
                out.orders.push_back(Order::Enter { generation, claim });
            }
            Message::Close { session } => {
                let generation = link.sessions.remove(&session).ok_or(Invalid)?;
                self.leave(generation, out);
            }
            Message::Submit { session, to, id, wants_receipt, body } => {
                let generation = *link.sessions.get(&session).ok_or(Invalid)?;
                let seat = self.seats.get_mut(&generation).expect("a session has a seat");
                seat.unanswered += 1;
                let Some(from) = seat.mailbox else {
                    let outcome = Outcome::Refused(Refusal::UnknownRecipient);
                    self.answered(generation, &[outcome], out);
                    return Ok(());
                };
                let to = match to {
                    Recipient::Everybody => To::Everybody,
                    Recipient::Name(name) => To::Name(name.into()),
                    Recipient::Channel(name) => To::Channel(name.into()),
                    Recipient::Dropped { channel, is_loop } => {
                        To::Dropped { channel: channel.into(), is_loop }
                    }
                };
                let submission = Submission { from, to, id: id.into(), body: body.into() };
                out.orders.push_back(Order::Submit { generation, submission, wants_receipt });
            }
            Message::Acknowledge { session, key } => {
                let generation = *link.sessions.get(&session).ok_or(Invalid)?;
                let seat = self.seats.get(&generation).expect("a session has a seat");
                if let Some(mailbox) = seat.mailbox {
                    let key = key.into();
                    out.orders.push_back(Order::Acknowledge { generation, mailbox, key });
                }
            }
            Message::Subscribe { session, is_ephemeral, channels } => {
                let generation = *link.sessions.get(&session).ok_or(Invalid)?;
                let seat = self.seats.get(&generation).expect("a session has a seat");
                if let Some(mailbox) = seat.mailbox {
                    let channels = channels.into_iter().map(Arc::from).collect();
                    let order = Order::Subscribe { generation, mailbox, channels, is_ephemeral };
                    out.orders.push_back(order);
                }
            }
            Message::AcknowledgeRecords { session, batch } => {
                let generation = *link.sessions.get(&session).ok_or(Invalid)?;
                let seat = self.seats.get(&generation).expect("a session has a seat");
                if let Some(mailbox) = seat.mailbox {
                    let order = Order::AcknowledgeRecords { generation, mailbox, batch };
                    out.orders.push_back(order);
                }
            }
            Message::Leads { .. }
            | Message::Attach { .. }
            | Message::Took { .. }
            | Message::Claimed { .. }
            | Message::Opened { .. }
            | Message::Records { .. }
            | Message::Deliver { .. }
            | Message::Answered { .. }
            | Message::Hold { .. }
            | Message::Withdraw { .. }
            | Message::Replace { .. }
            | Message::Reopen { .. }
            | Message::Name { .. }
            | Message::Answer { .. } => return Err(Invalid),
        }
        Ok(())
    }

    fn attach(&mut self, id: LinkId, length: usize, out: &mut Output) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.attach();
        link.took(length, &mut out.says);
        for generation in self.current.values() {
            if let Some(Seat { realm, name, .. }) = self.seats.get(generation) {
                let name = Message::Name { is_here: true, realm: *realm, name };
                link.say(&name, &mut out.says);
            }
        }
    }

    /// The bus has answered a claim.
    pub fn claimed(
        &mut self,
        link: LinkId,
        request: u64,
        claimed: Result<MailboxId, NotClaimed>,
        out: &mut Output,
    ) {
        let outcome = match claimed {
            Ok(_) => ClaimOutcome::Claimed,
            Err(NotClaimed::Taken) => ClaimOutcome::Taken,
            Err(NotClaimed::Full) => ClaimOutcome::Full,
        };
        self.say(link, &Message::Claimed { request, outcome }, out);
    }

    /// An operator's question is answered.
    pub fn answer(&mut self, link: LinkId, request: u64, answer: &[u8], out: &mut Output) {
        self.say(link, &Message::Answer { request, answer }, out);
    }

    /// The bus has answered the claim of a session: that is heard from here on, and, unless a
    /// younger one has the name, delivered to.
    pub fn entered(
        &mut self,
        generation: u64,
        claimed: Result<MailboxId, NotClaimed>,
        out: &mut Output,
    ) {
        // It may have left meanwhile, or have another seat.
        let Some(seat) = self.seats.get_mut(&generation).filter(|seat| !seat.is_former) else {
            return;
        };
        let (link, session, owner) = (seat.link, seat.session, seat.owner);
        let (realm, name) = (seat.realm, Arc::clone(&seat.name));
        let (opened, is_listening) = (seat.opened, seat.is_listening);
        self.say(link, &Message::Opened { session }, out);
        let Ok(mailbox) = claimed else {
            self.say(link, &Message::Withdraw { session }, out);
            return;
        };
        if let Some(seat) = self.seats.get_mut(&generation) {
            seat.mailbox = Some(mailbox);
        }
        if !is_listening {
            return;
        }
        if let Some(before) = self.current.get(&mailbox).copied() {
            let other = self.seats.get(&before).expect("a current seat is there");
            let is_younger =
                if other.link == link { other.session > session } else { other.opened > opened };
            let replaced = if is_younger { (link, session) } else { (other.link, other.session) };
            self.say(replaced.0, &Message::Replace { session: replaced.1 }, out);
            if is_younger {
                return;
            }
            out.orders.push_back(Order::Close { generation: before, mailbox });
        } else {
            self.tell_all(&Message::Name { is_here: true, realm, name: &name }, out);
        }
        self.current.insert(mailbox, generation);
        out.orders.push_back(Order::Open { generation, mailbox, owner });
    }

    /// The bus delivers messages to a seat; returns how many were taken. `may_serve` says that no
    /// other relay can lead.
    pub fn deliver<'a>(
        &mut self,
        generation: u64,
        messages: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
        may_serve: bool,
        out: &mut Output,
    ) -> usize {
        let Some((link, session)) = self.link_to(generation, may_serve, out) else { return 0 };
        let count = messages.len();
        let mut piece = Vec::new();
        for (key, body) in messages {
            if !piece.is_empty() && piece.len() + key.len() + body.len() > PIECE {
                link.say_bytes(std::mem::take(&mut piece), &mut out.says);
            }
            if piece.is_empty() {
                Message::begin_deliver(&mut piece, session);
            }
            Letters::push(&mut piece, key, body);
        }
        if !piece.is_empty() {
            link.say_bytes(piece, &mut out.says);
        }
        count
    }

    /// The bus delivers a batch of records to a seat: all of it, or nothing. `may_serve` says that no
    /// other relay can lead.
    pub fn records<'a>(
        &mut self,
        generation: u64,
        batch: u64,
        records: impl Iterator<Item = (&'a str, &'a [u8])>,
        may_serve: bool,
        out: &mut Output,
    ) {
        let Some((link, session)) = self.link_to(generation, may_serve, out) else { return };
        let mut records = records.peekable();
        let mut piece = Vec::new();
        let mut bytes = 0;
        let mut pieces: Vec<Vec<(&str, &[u8])>> = Vec::new();
        while let Some((id, body)) = records.next() {
            bytes += id.len() + body.len();
            piece.push((id, body));
            let is_full =
                records.peek().is_none_or(|(id, body)| bytes + id.len() + body.len() > PIECE);
            if is_full {
                pieces.push(std::mem::take(&mut piece));
                bytes = 0;
            }
        }
        let count = pieces.len();
        for (number, piece) in pieces.into_iter().enumerate() {
            let mut message = Vec::new();
            Message::begin_records(&mut message, session, batch, number + 1 == count);
            piece.into_iter().for_each(|(id, body)| Letters::push(&mut message, id, body));
            link.say_bytes(message, &mut out.says);
        }
    }

    /// The link to a seat that is delivered to, and what the session is called there. Where it
    /// cannot be delivered to, the session begins again: what came later would be before it.
    fn link_to(
        &mut self,
        generation: u64,
        may_serve: bool,
        out: &mut Output,
    ) -> Option<(&mut Link, u64)> {
        let Seat { link, session, mailbox, .. } = self.seats.get(&generation)?;
        let (id, session) = (*link, *session);
        if self.current.get(&(*mailbox)?) != Some(&generation) {
            return None;
        }
        let link = self.links.get_mut(&id).expect("a seat has a link");
        if !may_serve || link.is_behind() {
            link.say(&Message::Reopen { session }, &mut out.says);
            self.lapse(generation, out);
            return None;
        }
        self.links.get_mut(&id).map(|link| (link, session))
    }

    /// The bus has judged messages of a seat, the oldest that have no answer.
    pub fn answered(&mut self, generation: u64, outcomes: &[Outcome], out: &mut Output) {
        let Some(seat) = self.seats.get_mut(&generation) else { return };
        seat.unanswered = seat.unanswered.saturating_sub(outcomes.len());
        let is_over = seat.is_former && seat.unanswered == 0;
        let mut message = Vec::new();
        Message::begin_answered(&mut message, seat.session);
        outcomes.iter().for_each(|outcome| outcome.encode(&mut message));
        if let Some(link) = self.links.get_mut(&seat.link) {
            link.say_bytes(message, &mut out.says);
        }
        if is_over {
            self.seats.remove(&generation);
        }
    }

    /// A session has another seat: this one goes once all that it has said is answered.
    fn make_former(&mut self, generation: u64) {
        let Some(seat) = self.seats.get_mut(&generation) else { return };
        seat.is_former = true;
        if seat.unanswered == 0 {
            self.seats.remove(&generation);
        }
    }

    /// The bus has a seat be read no more, or again.
    pub fn hold(&mut self, generation: u64, is_held: bool, out: &mut Output) {
        let Some(Seat { link, session, .. }) = self.seats.get(&generation) else { return };
        let (link, session) = (*link, *session);
        self.say(link, &Message::Hold { session, is_held }, out);
    }

    /// The name of a seat was given to another credential.
    pub fn withdraw(&mut self, generation: u64, out: &mut Output) {
        let Some(Seat { link, session, .. }) = self.seats.get(&generation) else { return };
        let (link, session) = (*link, *session);
        self.say(link, &Message::Withdraw { session }, out);
        self.lapse(generation, out);
    }

    fn say(&mut self, link: LinkId, message: &Message<'_>, out: &mut Output) {
        if let Some(link) = self.links.get_mut(&link) {
            link.say(message, &mut out.says);
        }
    }

    fn tell_all(&mut self, message: &Message<'_>, out: &mut Output) {
        self.links.values_mut().for_each(|link| link.say(message, &mut out.says));
    }

    /// A session is over.
    fn leave(&mut self, generation: u64, out: &mut Output) {
        self.lapse(generation, out);
        self.seats.remove(&generation);
    }

    /// Nothing more is delivered to a seat.
    fn lapse(&mut self, generation: u64, out: &mut Output) {
        let Some(Seat { mailbox: Some(mailbox), realm, name, .. }) = self.seats.get(&generation)
        else {
            return;
        };
        let (mailbox, realm, name) = (*mailbox, *realm, Arc::clone(name));
        if self.current.get(&mailbox) == Some(&generation) {
            self.current.remove(&mailbox);
            out.orders.push_back(Order::Close { generation, mailbox });
            self.tell_all(&Message::Name { is_here: false, realm, name: &name }, out);
        }
    }
}

impl From<Claimant<'_>> for Claim {
    fn from(Claimant { realm, owner, name }: Claimant<'_>) -> Self {
        Self { realm, owner, name: name.into() }
    }
}
