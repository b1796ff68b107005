//! A message bus: names with mailboxes, what waits in them, and what becomes of it.
//!
//! Sans-IO: the caller collects inputs in a [`Turn`], ends it with [`Bus::finish`], commits what it
//! changes in one piece, and only then carries out its effects. Where a message of a backlog is
//! needed, the caller reads it: at once for the key of one message (`find`), or later
//! ([`Effect::Load`], [`Bus::loaded`]).
//!
//! What holds across crashes, as long as commits are whole: an accepted message is delivered until
//! it is acknowledged; the messages of one sender come to a mailbox's recipient for the first time
//! in the order in which they were accepted; nothing is delivered once its acknowledgement is
//! committed.

mod channels;
mod clock;
mod limits;
mod live;
mod mailbox;
mod names;
mod remembered;
mod requeue;
#[cfg(test)]
pub(crate) mod simulation;
mod submit;
mod sweep;
#[cfg(test)]
mod tests;
mod turn;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use channels::{Channels, Session};
use mailbox::Mailbox;
use remembered::Remembered;
use sweep::Swept;
use turn::Purpose;

pub use channels::{
    ChannelLimits, ChannelTotals, ChannelView, CursorPeer, CursorView, DEAD_LETTERS,
    MOST_CHANNELS_OF_PEER, Subscription,
};
pub use clock::Clock;
pub use limits::Limits;
pub use names::{NotBound, NotClaimed, Presence};
pub use requeue::{Letter, Requeued};
pub use submit::{Refused, Submission, Submitted, To};
pub use turn::{Effect, Load, Turn, Withdrawn};
pub use types::{
    Cause, Change, ChannelState, Cursor, Damaged, Digest, Event, EventKind, Found, Level,
    MailboxId, Message, Millis, Named, Owner, Reading, Recovered, Seq, Stored,
};

/// Messages that were counted, each once: those recovered and accepted are those acknowledged,
/// expired, purged, dead, missing, damaged and waiting.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Waited when the bus began.
    pub recovered: u64,
    /// Accepted: copies, where it was a broadcast.
    pub accepted: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Removed for their age.
    pub expired: u64,
    /// Purged by an operator.
    pub purged: u64,
    /// Became dead letters.
    pub dead: u64,
    /// Were to wait, and the store does not have them.
    pub missing: u64,
    /// Waited, and cannot be read any more.
    pub damaged: u64,
    /// Dead letters that wait again, each accepted once more.
    pub requeued: u64,
    /// Delivered again since they stayed without an acknowledgement.
    pub redelivered: u64,
    /// Wait.
    pub waiting: u64,
    /// What those count as, in bytes.
    pub bytes: u64,
}

/// The names and mailboxes of a relay.
#[derive(Debug)]
pub struct Bus {
    limits: Limits,
    names: HashMap<(u8, Arc<str>), MailboxId, foldhash::fast::RandomState>,
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    /// Those whose recipient is connected.
    online: BTreeMap<(u8, Arc<str>), MailboxId>,
    of_owner: HashMap<Owner, usize, foldhash::fast::RandomState>,
    remembered: Remembered,
    channels: Channels,
    next_mailbox: u64,
    is_full: bool,
    totals: Totals,
}

impl Bus {
    /// A bus with what its store has.
    #[must_use]
    pub fn new(limits: Limits, recovered: Recovered) -> Self {
        let channels = Channels::recover(&recovered, &limits.channels);
        let mut bus = Self {
            limits,
            names: HashMap::default(),
            mailboxes: BTreeMap::new(),
            online: BTreeMap::new(),
            of_owner: HashMap::default(),
            remembered: Remembered::recover(recovered.accepted),
            channels,
            next_mailbox: recovered.next_mailbox,
            is_full: false,
            totals: Totals::default(),
        };
        for (named, level) in recovered.names {
            bus.totals.recovered += level.messages;
            bus.next_mailbox = bus.next_mailbox.max(named.mailbox.0 + 1);
            bus.insert(Mailbox::new(named, level));
        }
        for channel in &recovered.channels {
            bus.next_mailbox = bus.next_mailbox.max(channel.channel.0 + 1);
        }
        bus
    }

    /// Goes on by these bounds.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether the store has no room for new messages.
    pub const fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// The recipient of a mailbox is connected, by its session of this generation. Whichever was
    /// before gets nothing more.
    pub fn open(&mut self, mailbox: MailboxId, generation: u64, now: Millis, turn: &mut Turn) {
        let Some(mailbox) = self.mailboxes.get_mut(&mailbox) else { return };
        if mailbox.live.as_ref().is_some_and(|live| live.generation >= generation) {
            return;
        }
        let place = (mailbox.named.realm, Arc::clone(&mailbox.named.name));
        self.online.insert(place, mailbox.id());
        self.channels.leave(mailbox.id(), now);
        mailbox.open(generation, &self.limits, now, turn);
    }

    /// That session is over.
    pub fn close(&mut self, mailbox: MailboxId, generation: u64, now: Millis, turn: &mut Turn) {
        let Some(mailbox) = self.mailboxes.get_mut(&mailbox) else { return };
        if mailbox.live.as_ref().is_none_or(|live| live.generation != generation) {
            return;
        }
        self.online.remove(&(mailbox.named.realm, Arc::clone(&mailbox.named.name)));
        mailbox.close_live(&self.limits, now, turn);
        let id = mailbox.id();
        self.channels.leave(id, now);
        self.see(id, now, turn);
    }

    /// The session of this generation is subscribed to these channels of its name space, and to no
    /// others: from its cursor on, or from the end where it has none. Where there are too many
    /// channels or cursors, it ends.
    pub fn subscribe(
        &mut self,
        id: MailboxId,
        generation: u64,
        subscription: &Subscription,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some(mailbox) = self.mailboxes.get(&id) else { return };
        if mailbox.live.as_ref().is_none_or(|live| live.generation != generation) {
            return;
        }
        let Named { realm, name, .. } = &mailbox.named;
        let (realm, name) = (*realm, Arc::clone(name));
        let Subscription { channels, is_ephemeral } = subscription;
        let is_ephemeral = *is_ephemeral;
        let session = Session { peer: id, generation, realm, name, is_ephemeral };
        let limits = self.limits.channels;
        let numbers = &mut self.next_mailbox;
        let subscribed = self.channels.subscribe(&session, channels, &limits, now, numbers, turn);
        if let Err(why) = subscribed {
            turn.effects.push(Effect::Withdraw { mailbox: id, generation, why });
        }
    }

    /// The session of this generation has the records of a batch. False where that is not the batch
    /// that it was handed last.
    pub fn acknowledge_records(
        &mut self,
        id: MailboxId,
        generation: u64,
        batch: u64,
        turn: &mut Turn,
    ) -> bool {
        self.channels.acknowledge(id, generation, batch, &self.limits.channels, turn)
    }

    /// The channels of a name space, by their names.
    #[must_use]
    pub fn channels(&self, realm: u8, now: Millis) -> Vec<ChannelView> {
        self.channels.views(realm, now)
    }

    /// One channel; nothing where there is none of this name.
    #[must_use]
    pub fn channel(&self, realm: u8, name: &str, now: Millis) -> Option<ChannelView> {
        self.channels.view(realm, name, now)
    }

    /// The cursors of all channels that are furthest behind, so many, each with the name of its
    /// channel.
    #[must_use]
    pub fn behind(&self, most: usize, now: Millis) -> Vec<(Arc<str>, CursorView)> {
        self.channels.behind(most, now)
    }

    /// The cursors of a channel, and where sessions without one are; none where there is no such
    /// channel.
    #[must_use]
    pub fn cursors(&self, realm: u8, channel: &str, now: Millis) -> Option<Vec<CursorView>> {
        Some(self.channels.cursors(self.channels.find(realm, channel)?, now))
    }

    /// Removes the cursor of a peer that is not connected; false where there is none.
    pub fn drop_cursor(&mut self, realm: u8, channel: &str, peer: &str, turn: &mut Turn) -> bool {
        let id = self.channels.find(realm, channel);
        id.is_some_and(|id| self.channels.drop_cursor(id, peer, turn))
    }

    /// Removes all records that a channel has at this moment; returns how many that will be.
    pub fn purge_channel(&mut self, realm: u8, channel: &str, turn: &mut Turn) -> Option<u64> {
        let id = self.channels.find(realm, channel)?;
        Some(self.channels.purge(id, &self.limits.channels, turn))
    }

    /// Removes a channel with its records and the cursors of those who are not connected; it goes
    /// on where somebody is. Returns how many records that will be.
    pub fn drop_channel(&mut self, realm: u8, channel: &str, turn: &mut Turn) -> Option<u64> {
        let id = self.channels.find(realm, channel)?;
        Some(self.channels.drop_channel(id, &self.limits.channels, turn))
    }

    /// What was counted of records so far.
    #[must_use]
    pub fn channel_totals(&self) -> ChannelTotals {
        self.channels.totals()
    }

    /// The session of this generation says that it has a message. True where one waited under the
    /// key; nobody but the recipient's newest session may say so.
    ///
    /// # Errors
    /// That of `find`; then nothing has changed.
    pub fn acknowledge<E>(
        &mut self,
        id: MailboxId,
        generation: u64,
        text: &str,
        now: Millis,
        turn: &mut Turn,
        mut find: impl FnMut(MailboxId, Digest) -> Result<Option<Found>, E>,
    ) -> Result<bool, E> {
        let key = Digest::of_key(text);
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return Ok(false) };
        let Some(live) = &mailbox.live else { return Ok(false) };
        if live.generation != generation {
            return Ok(false);
        }
        let cursor = live.cursor;
        if mailbox.acknowledge_sent(key, &self.limits, now, turn) {
            self.totals.acknowledged += 1;
            return Ok(true);
        }
        if mailbox.backlog() == 0 || turn.appended.contains_key(&(id, key)) {
            return Ok(false);
        }
        // A message that an earlier session of the recipient had, and that this one has not got yet.
        let limits = &self.limits;
        if !mailbox.live.as_mut().is_some_and(|live| live.may_look(limits)) {
            return Ok(false);
        }
        let found = self.find(id, key, turn, &mut find)?;
        let Some(found) = found.filter(|found| found.seq >= cursor) else { return Ok(false) };
        let mailbox = self.mailboxes.get_mut(&id).expect("it was there");
        mailbox.remove(found.seq, key, found.cost, turn);
        mailbox.note_ack(text.into(), turn);
        mailbox.load_more(&self.limits, turn);
        self.totals.acknowledged += 1;
        Ok(true)
    }

    /// Takes what an [`Effect::Load`] has read.
    pub fn loaded(&mut self, load: &Load, reading: Reading, now: Millis, turn: &mut Turn) {
        let limits = &self.limits.channels;
        match load.purpose {
            Purpose::Records { peer, generation } => {
                let session = (peer, generation);
                return self.channels.records_loaded(load, session, reading, limits, now, turn);
            }
            Purpose::Retain => {
                return self.channels.oldest_loaded(load, &reading, limits, now, turn);
            }
            Purpose::Deliver { .. } | Purpose::Repeat { .. } | Purpose::Sweep => {}
        }
        let Some(mailbox) = self.mailboxes.get_mut(&load.mailbox) else { return };
        match load.purpose {
            Purpose::Deliver { .. } => {
                let lost = mailbox.deliver_loaded(load, reading, &self.limits, now, turn);
                self.totals.missing += lost.missing;
                self.totals.damaged += lost.damaged;
            }
            Purpose::Repeat { generation } => {
                let lost = mailbox.repeat_loaded(generation, &reading, now, turn);
                self.totals.damaged += lost.damaged;
            }
            Purpose::Sweep => {
                let swept = mailbox.swept(load, &reading, &self.limits, now, turn);
                let Swept { expired, purged, lost } = swept;
                self.totals.expired += expired;
                self.totals.purged += purged;
                self.totals.missing += lost.missing;
                self.totals.damaged += lost.damaged;
            }
            Purpose::Records { .. } | Purpose::Retain => unreachable!("those are of channels"),
        }
    }

    /// Removes all that waits in a mailbox at this moment; returns how many messages that will be.
    pub fn purge(&mut self, realm: u8, name: &str, turn: &mut Turn) -> Option<u64> {
        let id = self.names.get(&(realm, Arc::from(name)))?;
        let mailbox = self.mailboxes.get_mut(id)?;
        mailbox.purge_before = mailbox.level.next;
        if mailbox.level.messages > 0 {
            mailbox.sweep(turn);
        }
        Some(mailbox.level.messages)
    }

    /// Does what is due: redeliveries, messages that are too old, names that never came back. To be
    /// called each few seconds.
    pub fn tick(&mut self, now: Millis, turn: &mut Turn) {
        for mailbox in self.mailboxes.values_mut() {
            if let Some(live) = &mut mailbox.live {
                live.look_again();
            }
            let redelivered = mailbox.redeliver(&self.limits, now, turn);
            self.totals.redelivered += redelivered as u64;
            if mailbox.wants_sweep(&self.limits, now) {
                mailbox.sweep(turn);
            }
        }
        self.channels.tick(&self.limits.channels, now, turn);
        self.forget_names(now, turn);
        self.remembered.beat(now);
    }

    /// Ends a turn: adds what has to be committed once for all of its inputs.
    pub fn finish(&mut self, now: Millis, turn: &mut Turn) {
        let numbers = &mut self.next_mailbox;
        self.channels.finish(&self.limits.channels, now, numbers, turn);
        for mailbox in std::mem::take(&mut turn.touched) {
            if let Some(Mailbox { level, .. }) = self.mailboxes.get(&mailbox) {
                turn.changes.push(Change::Level { mailbox, level: *level });
            }
        }
        let origins = std::mem::take(&mut turn.origins);
        let Limits { remembered, remembered_for, .. } = self.limits;
        self.remembered.write(origins, remembered, remembered_for, now, &mut turn.changes);
        self.totals.dead += std::mem::take(&mut turn.buried);
        if !turn.removed.is_empty() {
            // A recipient may acknowledge what it has not got, if it knows the key.
            let Turn { effects, removed, .. } = turn;
            effects.retain(|effect| match effect {
                Effect::Deliver { mailbox, seq, .. } => !removed.contains(&(*mailbox, *seq)),
                Effect::Records { .. } | Effect::Load(_) | Effect::Withdraw { .. } => true,
            });
        }
    }

    /// Whether something is left to do that no turn waits for: the next one goes on with it, and
    /// should begin as soon as nothing else is to be done.
    #[must_use]
    pub fn has_leftovers(&self) -> bool {
        self.channels.is_trimming()
    }

    /// What was counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let levels = || self.mailboxes.values().map(|mailbox| mailbox.level);
        Totals {
            waiting: levels().map(|level| level.messages).sum(),
            bytes: levels().map(|level| level.bytes).sum(),
            ..self.totals
        }
    }
}
