//! Whether a message is accepted, and for whom.

use std::sync::Arc;

use super::Bus;
use super::turn::Turn;
use super::types::{Digest, Event, EventKind, Found, MailboxId, Message, Millis};

/// Delivery keys that are tried for a message whose id is taken in its mailbox.
const KEYS: u64 = 16;

/// To whom a message goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// The mailbox of this name, in the name space of the sender.
    Name(Arc<str>),
    /// A copy to each recipient of that name space that is connected, but for the sender.
    Everybody,
    /// The channel of this name, in that name space. Whoever has sent its id before, it is a
    /// duplicate.
    Channel(Arc<str>),
    /// Nobody: it was published to this channel, and is only noted in the audit log.
    Dropped {
        /// The channel.
        channel: Arc<str>,
        /// It has been here before; else its sender may not publish it.
        is_loop: bool,
    },
}

/// A message that somebody wants to send.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The mailbox of its sender.
    pub from: MailboxId,
    /// To whom.
    pub to: To,
    /// Its id, as its sender has it.
    pub id: Arc<str>,
    /// What recipients get.
    pub body: Arc<[u8]>,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Submitted {
    /// So many copies of it wait: all that there are to be.
    Stored(usize),
    /// A broadcast of which some recipients get no copy.
    Partly {
        /// Copies that wait.
        stored: usize,
        /// Recipients.
        of: usize,
    },
    /// It was accepted before.
    Duplicate,
    /// Nothing of it waits.
    Refused(Refused),
}

/// Why a submission was not accepted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refused {
    /// Nobody has the recipient's name, nor is it reserved.
    UnknownRecipient,
    /// The recipient's mailbox is full.
    Quota,
    /// The store has no room for new messages.
    StoreFull,
    /// A broadcast, and nobody else is connected.
    NoRecipients,
    /// A broadcast, and the mailbox of each recipient is full.
    RecipientsFull,
    /// The copies of a broadcast are too much at a time.
    TooManyCopies,
    /// Other messages of the mailbox have all keys that it could have.
    KeyTaken,
}

/// A delivery key that nothing else in its mailbox has.
pub(super) struct FreeKey {
    pub(super) text: Arc<str>,
    pub(super) digests: Digests,
}

/// A delivery key as it is looked up.
#[derive(Clone, Copy)]
pub(super) struct Digests {
    /// By itself,
    of_key: Digest,
    /// and in its mailbox.
    in_mailbox: Digest,
}

/// A message on its way into a mailbox.
pub(super) struct Posted {
    pub(super) to: MailboxId,
    pub(super) digests: Digests,
    pub(super) message: Message,
}

impl Submitted {
    /// Whether it is refused and may be accepted later, when others are gone. Nobody waits for the
    /// recipients of a broadcast, whom its sender has not chosen.
    #[must_use]
    pub const fn is_for_want_of_room(self) -> bool {
        matches!(self, Self::Refused(Refused::Quota | Refused::StoreFull))
    }
}

impl Bus {
    /// Judges a message. Where somebody else's message may wait under its key, `find` looks for it
    /// in the store.
    ///
    /// # Errors
    /// That of `find`; then nothing has changed.
    pub fn submit<E>(
        &mut self,
        submission: &Submission,
        now: Millis,
        turn: &mut Turn,
        mut find: impl FnMut(MailboxId, Digest) -> Result<Option<Found>, E>,
    ) -> Result<Submitted, E> {
        let Submission { from, to, id, body } = submission;
        let Some(sender) = self.mailboxes.get(from) else {
            return Ok(Submitted::Refused(Refused::UnknownRecipient));
        };
        let realm = sender.named.realm;
        let from = Arc::clone(&sender.named.name);
        match to {
            To::Channel(name) => {
                return Ok(self.publish(submission, (realm, from), name, now, turn));
            }
            To::Dropped { channel, is_loop } => {
                let kind =
                    if *is_loop { EventKind::LoopDropped } else { EventKind::PolicyViolation };
                let (key, to) = (Arc::clone(id), Arc::clone(channel));
                turn.events.push(Event { kind, key, from, to });
                return Ok(Submitted::Stored(0));
            }
            To::Name(_) | To::Everybody => {}
        }
        let origin = Digest::of_origin(&from, id);
        if self.remembered.has(origin) {
            return Ok(Submitted::Duplicate);
        }
        if self.is_full {
            return Ok(Submitted::Refused(Refused::StoreFull));
        }
        let message = |key| Message {
            from: Arc::clone(&from),
            key,
            origin,
            accepted: now,
            body: Arc::clone(body),
        };
        let mut copies = Vec::new();
        let recipients;
        match to {
            To::Name(name) => {
                let Some(to) = self.names.get(&(realm, Arc::clone(name))).copied() else {
                    return Ok(Submitted::Refused(Refused::UnknownRecipient));
                };
                let key = match self.free_key(to, id, origin, turn, &mut find)? {
                    Ok(key) => key,
                    Err(taken) => return Ok(taken),
                };
                let copy = Posted { to, digests: key.digests, message: message(key.text) };
                if !self.has_room(to, &copy.message) {
                    return Ok(Submitted::Refused(Refused::Quota));
                }
                copies.push(copy);
                recipients = 1;
            }
            To::Everybody => {
                let others = self.others(realm, &from);
                recipients = others.len();
                if recipients == 0 {
                    return Ok(Submitted::Refused(Refused::NoRecipients));
                }
                let most = self.limits.broadcast_bytes / (body.len() + Message::OVERHEAD);
                if others.len() > most.max(1) {
                    return Ok(Submitted::Refused(Refused::TooManyCopies));
                }
                for (name, to) in others {
                    let key = format!("{id}|{name}").into();
                    match self.free_key(to, &key, origin, turn, &mut find)? {
                        Ok(key) => {
                            let message = message(key.text);
                            copies.push(Posted { to, digests: key.digests, message });
                        }
                        Err(Submitted::Duplicate) => return Ok(Submitted::Duplicate),
                        Err(_) => {}
                    }
                }
                if copies.is_empty() {
                    return Ok(Submitted::Refused(Refused::KeyTaken));
                }
                // A mailbox that is full costs its owner the copy, and nobody else theirs.
                copies.retain(|copy| self.has_room(copy.to, &copy.message));
                if copies.is_empty() {
                    return Ok(Submitted::Refused(Refused::RecipientsFull));
                }
            }
            To::Channel(_) | To::Dropped { .. } => unreachable!("a record is published"),
        }
        self.remembered.add(origin, submission.from);
        turn.origins.push(origin);
        let stored = copies.len();
        for copy in copies {
            self.append(submission.from, copy, now, turn);
        }
        if stored < recipients {
            return Ok(Submitted::Partly { stored, of: recipients });
        }
        Ok(Submitted::Stored(stored))
    }

    /// Judges a record for a channel.
    fn publish(
        &mut self,
        submission: &Submission,
        (realm, from): (u8, Arc<str>),
        channel: &Arc<str>,
        now: Millis,
        turn: &mut Turn,
    ) -> Submitted {
        let Submission { from: sender, id, body, .. } = submission;
        let origin = Digest::of_record(realm, id);
        if self.remembered.has(origin) {
            return Submitted::Duplicate;
        }
        if self.is_full {
            return Submitted::Refused(Refused::StoreFull);
        }
        self.remembered.add(origin, *sender);
        turn.origins.push(origin);
        let (key, body) = (Arc::clone(id), Arc::clone(body));
        let record = Arc::new(Message { from, key, origin, accepted: now, body });
        let is_stored = self.channels.publish(realm, channel, &record, turn);
        Submitted::Stored(usize::from(is_stored))
    }

    /// Those of a name space that are connected, but for one.
    fn others(&self, realm: u8, but: &str) -> Vec<(Arc<str>, MailboxId)> {
        let first = (realm, Arc::from(""));
        let online = self.online.range(first..).take_while(|((of, _), _)| *of == realm);
        let others = online.filter(|((_, name), _)| **name != *but);
        others.map(|((_, name), to)| (Arc::clone(name), *to)).collect()
    }

    pub(super) fn append(&mut self, from: MailboxId, copy: Posted, now: Millis, turn: &mut Turn) {
        let Posted { to, digests, message } = copy;
        let mailbox = self.mailboxes.get_mut(&to).expect("a copy goes to a mailbox that is there");
        let message = Arc::new(message);
        let seq = mailbox.append(&message, &self.limits, now, turn);
        self.remembered.add(digests.in_mailbox, from);
        turn.origins.push(digests.in_mailbox);
        let found = Found { seq, origin: message.origin, cost: message.cost() };
        turn.appended.insert((to, digests.of_key), found);
        self.totals.accepted += 1;
    }

    /// The key of a message: this one, or where another that waits has it, or had it lately, one that
    /// begins with it. Clients acknowledge what comes to them again: the second acknowledgement of a
    /// message must not be one of another, which nobody has got.
    pub(super) fn free_key<E>(
        &self,
        to: MailboxId,
        wanted: &Arc<str>,
        origin: Digest,
        turn: &Turn,
        find: &mut impl FnMut(MailboxId, Digest) -> Result<Option<Found>, E>,
    ) -> Result<Result<FreeKey, Submitted>, E> {
        let mut text = Arc::clone(wanted);
        for attempt in 0..KEYS {
            let of_key = Digest::of_key(&text);
            let digests = Digests { of_key, in_mailbox: Digest::of_key_in(to, &text) };
            match self.find(to, of_key, turn, find)? {
                None if !self.remembered.has(digests.in_mailbox) => {
                    return Ok(Ok(FreeKey { text, digests }));
                }
                Some(found) if found.origin == origin => return Ok(Err(Submitted::Duplicate)),
                None | Some(_) => {
                    let [a, b, c, d, e, f, g, h, ..] = origin.0;
                    let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                    text = format!("{wanted}|{:016x}", number.wrapping_add(attempt)).into();
                }
            }
        }
        Ok(Err(Submitted::Refused(Refused::KeyTaken)))
    }

    /// The message that waits under a key.
    pub(super) fn find<E>(
        &self,
        id: MailboxId,
        key: Digest,
        turn: &Turn,
        find: &mut impl FnMut(MailboxId, Digest) -> Result<Option<Found>, E>,
    ) -> Result<Option<Found>, E> {
        let Some(mailbox) = self.mailboxes.get(&id) else { return Ok(None) };
        if let Some(found) = mailbox.find_sent(key) {
            return Ok(Some(found));
        }
        if mailbox.backlog() == 0 {
            return Ok(None);
        }
        if let Some(found) = turn.appended.get(&(id, key)) {
            return Ok((!turn.removed.contains(&(id, found.seq))).then_some(*found));
        }
        let found = find(id, key)?;
        Ok(found.filter(|found| !turn.removed.contains(&(id, found.seq))))
    }

    pub(super) fn has_room(&self, to: MailboxId, message: &Message) -> bool {
        let Some(mailbox) = self.mailboxes.get(&to) else { return false };
        mailbox.level.messages < self.limits.quota_messages
            && mailbox.level.bytes + message.cost() as u64 <= self.limits.quota_bytes
    }
}
