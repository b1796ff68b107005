//! Whose which name is.

use std::sync::Arc;

use super::Bus;
use super::mailbox::Mailbox;
use super::turn::{Effect, Turn, Withdrawn};
use super::types::{Change, Level, MailboxId, Millis, Named, Owner};

/// How exactly it is known when an owner was last here, in milliseconds: each login that writes it
/// down is a commit.
const SEEN: u64 = 3_600_000;

/// Names that are forgotten at a time.
const FORGOTTEN: usize = 256;

/// Why somebody does not get a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotClaimed {
    /// It is another's.
    #[error("the name belongs to another credential")]
    Taken,
    /// There are as many names as there may be, or as one owner may have.
    #[error("there are too many names")]
    Full,
}

/// Why a name is not given to somebody.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotBound {
    /// Nobody has it.
    #[error("nobody has that name")]
    Unknown,
}

impl Bus {
    pub(super) fn insert(&mut self, mailbox: Mailbox) {
        let Named { realm, name, owner, .. } = &mailbox.named;
        *self.of_owner.entry(*owner).or_insert(0) += 1;
        self.names.insert((*realm, Arc::clone(name)), mailbox.id());
        self.mailboxes.insert(mailbox.id(), mailbox);
    }

    /// The mailbox of a name for its owner: who is first to claim it.
    ///
    /// # Errors
    /// It is another's, or there are too many names.
    pub fn claim(
        &mut self,
        realm: u8,
        name: &str,
        owner: Owner,
        now: Millis,
        turn: &mut Turn,
    ) -> Result<MailboxId, NotClaimed> {
        let place = (realm, Arc::from(name));
        let Some(id) = self.names.get(&place).copied() else {
            return self.create(place, owner, now, turn);
        };
        let mailbox = self.mailboxes.get(&id).expect("a name has a mailbox");
        if mailbox.named.owner == owner {
            self.see(id, now, turn);
        } else if mailbox.named.owner == Owner::NOBODY {
            self.give(id, owner, now, turn);
        } else {
            return Err(NotClaimed::Taken);
        }
        Ok(id)
    }

    /// Has names of this name space be forgotten as others are, until they are reserved again.
    pub fn unreserve(&mut self, realm: u8) {
        let of_it = self.mailboxes.values_mut().filter(|mailbox| mailbox.named.realm == realm);
        of_it.for_each(|mailbox| mailbox.is_reserved = false);
    }

    /// Has a name be known, also one whose owner has not come yet, or stays away for very long;
    /// messages to it wait.
    ///
    /// # Errors
    /// There are too many names.
    pub fn reserve(
        &mut self,
        realm: u8,
        name: &str,
        now: Millis,
        turn: &mut Turn,
    ) -> Result<MailboxId, NotClaimed> {
        let place = (realm, Arc::from(name));
        let id = match self.names.get(&place) {
            Some(id) => *id,
            None => self.create(place, Owner::NOBODY, now, turn)?,
        };
        if let Some(mailbox) = self.mailboxes.get_mut(&id) {
            mailbox.is_reserved = true;
        }
        Ok(id)
    }

    fn create(
        &mut self,
        (realm, name): (u8, Arc<str>),
        owner: Owner,
        now: Millis,
        turn: &mut Turn,
    ) -> Result<MailboxId, NotClaimed> {
        let has = self.of_owner.get(&owner).copied().unwrap_or(0);
        if self.names.len() >= self.limits.names || has >= self.limits.names.div_ceil(2) {
            return Err(NotClaimed::Full);
        }
        let mailbox = MailboxId(self.next_mailbox);
        self.next_mailbox += 1;
        let named = Named { mailbox, realm, name, owner, seen: now };
        turn.changes.push(Change::Name(named.clone()));
        turn.touched.insert(mailbox);
        self.insert(Mailbox::new(named, Level::EMPTY));
        Ok(mailbox)
    }

    /// Gives a name to an owner, or with [`Owner::NOBODY`] to who comes first. The session of
    /// another owner that has the name gets nothing more, acknowledges nothing, and ends.
    ///
    /// # Errors
    /// There is no such name.
    pub fn bind(
        &mut self,
        realm: u8,
        name: &str,
        owner: Owner,
        now: Millis,
        turn: &mut Turn,
    ) -> Result<MailboxId, NotBound> {
        let id = self.names.get(&(realm, Arc::from(name))).copied().ok_or(NotBound::Unknown)?;
        self.give(id, owner, now, turn);
        Ok(id)
    }

    fn give(&mut self, id: MailboxId, owner: Owner, now: Millis, turn: &mut Turn) {
        let mailbox = self.mailboxes.get_mut(&id).expect("a name has a mailbox");
        let before = std::mem::replace(&mut mailbox.named.owner, owner);
        mailbox.named.seen = now;
        turn.changes.push(Change::Name(mailbox.named.clone()));
        if before != owner
            && let Some(live) = &mailbox.live
        {
            let generation = live.generation;
            let why = Withdrawn::NotItsName;
            turn.effects.push(Effect::Withdraw { mailbox: id, generation, why });
            self.channels.leave(id, now);
            mailbox.close_live(&self.limits, now, turn);
            let Named { realm, name, .. } = &mailbox.named;
            self.online.remove(&(*realm, Arc::clone(name)));
        }
        self.leave(before);
        *self.of_owner.entry(owner).or_insert(0) += 1;
    }

    fn leave(&mut self, owner: Owner) {
        if let Some(names) = self.of_owner.get_mut(&owner) {
            *names -= 1;
            if *names == 0 {
                self.of_owner.remove(&owner);
            }
        }
    }

    /// The owner is here.
    pub(super) fn see(&mut self, id: MailboxId, now: Millis, turn: &mut Turn) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        if now.since(mailbox.named.seen) >= SEEN {
            mailbox.named.seen = now;
            turn.changes.push(Change::Name(mailbox.named.clone()));
        }
    }

    /// Forgets names that nobody comes back to, and for which nothing waits.
    pub(super) fn forget_names(&mut self, now: Millis, turn: &mut Turn) {
        let expiry = self.limits.name_expiry;
        let is_over = |mailbox: &&Mailbox| {
            mailbox.live.is_none()
                && !mailbox.is_reserved
                && mailbox.level.messages == 0
                && !self.channels.has_peer(mailbox.id())
                && now.since(mailbox.named.seen) >= expiry
        };
        let over = self.mailboxes.values().filter(is_over).take(FORGOTTEN);
        let over: Vec<_> = over.map(Mailbox::id).collect();
        for id in over {
            let Some(Mailbox { named, .. }) = self.mailboxes.remove(&id) else { continue };
            let Named { mailbox, realm, name, owner, .. } = named;
            self.names.remove(&(realm, Arc::clone(&name)));
            self.leave(owner);
            turn.changes.push(Change::Forget { realm, name, mailbox });
        }
    }

    /// All names, each with its mailbox's level and whether its recipient is connected.
    pub fn names(&self) -> impl Iterator<Item = (&Named, &Level, Presence)> {
        self.mailboxes.values().map(|Mailbox { named, level, live, .. }| {
            let unacknowledged = live.as_ref().map(|live| live.sent.len());
            (named, level, Presence { unacknowledged })
        })
    }

    /// Whose a mailbox is.
    #[must_use]
    pub fn owner(&self, mailbox: MailboxId) -> Option<Owner> {
        Some(self.mailboxes.get(&mailbox)?.named.owner)
    }

    /// The name of a mailbox.
    #[must_use]
    pub fn name_of(&self, mailbox: MailboxId) -> Option<&Arc<str>> {
        Some(&self.mailboxes.get(&mailbox)?.named.name)
    }

    /// A name.
    #[must_use]
    pub fn name(&self, realm: u8, name: &str) -> Option<&Named> {
        let id = self.names.get(&(realm, Arc::from(name)))?;
        Some(&self.mailboxes.get(id)?.named)
    }
}

/// Whether the recipient of a mailbox is connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Presence {
    /// Messages that it has and has not acknowledged; nothing where it is not connected.
    pub unacknowledged: Option<usize>,
}
