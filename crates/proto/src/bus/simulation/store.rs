//! A store as a model: what was committed, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::types::{
    Change, Damaged, Digest, Found, Level, MailboxId, Message, Millis, Named, Reading, Recovered,
    Seq, Stored,
};
use super::super::{ChannelState, Cursor, DEAD_LETTERS, Load};
use crate::simulated::Random;

#[derive(Debug, Default)]
pub(crate) struct Store {
    names: BTreeMap<(u8, Arc<str>), Named>,
    levels: BTreeMap<MailboxId, Level>,
    messages: BTreeMap<(MailboxId, Seq), Stored>,
    keys: BTreeMap<(MailboxId, Digest), Seq>,
    accepted: BTreeMap<u64, (Millis, Vec<Digest>)>,
    /// Mailbox and origin of all that ever waited.
    ever: BTreeSet<(MailboxId, Digest)>,
    pub(crate) dead: BTreeSet<(MailboxId, Digest)>,
    /// Those that cannot be read any more.
    damaged: BTreeSet<(MailboxId, Seq)>,
    next_mailbox: u64,
    pub(crate) channels: BTreeMap<MailboxId, ChannelState>,
    /// By channel and peer.
    pub(crate) cursors: BTreeMap<(MailboxId, MailboxId), Cursor>,
}

impl Store {
    /// Commits; twice is as good as once.
    pub(crate) fn commit(&mut self, changes: &[Change], again: bool) {
        for change in changes {
            match change {
                Change::Name(named) => {
                    self.next_mailbox = self.next_mailbox.max(named.mailbox.0 + 1);
                    self.names.insert((named.realm, Arc::clone(&named.name)), named.clone());
                }
                Change::Forget { realm, name, mailbox } => {
                    self.names.remove(&(*realm, Arc::clone(name)));
                    self.levels.remove(mailbox);
                }
                Change::Append { mailbox, seq, message } => {
                    let is_new = self.ever.insert((*mailbox, message.origin));
                    assert!(is_new || again, "the same message waits twice: {message:?}");
                    let key = (*mailbox, Digest::of_key(&message.key));
                    let before = self.keys.insert(key, *seq);
                    assert!(before.is_none() || again, "two messages have one key");
                    let stored = Stored { seq: *seq, attempts: 0, message: Arc::clone(message) };
                    self.messages.insert((*mailbox, *seq), stored);
                }
                Change::Remove { mailbox, seq, key } => {
                    let removed = self.messages.remove(&(*mailbox, *seq));
                    assert!(removed.is_some() || again, "what is removed does not wait");
                    self.keys.remove(&(*mailbox, *key));
                }
                Change::Bury { mailbox, seq, key, .. } => {
                    let removed = self.messages.remove(&(*mailbox, *seq));
                    assert!(removed.is_some() || again, "what is buried does not wait");
                    if let Some(Stored { message, .. }) = removed {
                        self.dead.insert((*mailbox, message.origin));
                    }
                    self.keys.remove(&(*mailbox, *key));
                }
                Change::Requeue { .. } => unreachable!("no operator puts dead letters back"),
                Change::Attempt { mailbox, seq, attempts } => {
                    let stored = self.messages.get_mut(&(*mailbox, *seq));
                    assert!(stored.is_some() || again, "what was tried does not wait");
                    if let Some(stored) = stored {
                        stored.attempts = *attempts;
                    }
                }
                Change::Level { mailbox, level } => {
                    self.levels.insert(*mailbox, *level);
                }
                Change::Accepted { number, at, origins } => {
                    self.accepted.insert(*number, (*at, origins.clone()));
                }
                Change::ForgetAccepted { before } => {
                    self.accepted = self.accepted.split_off(before);
                }
                Change::Channel(state) => {
                    self.next_mailbox = self.next_mailbox.max(state.channel.0 + 1);
                    self.channels.insert(state.channel, state.clone());
                }
                Change::DropChannel { channel } => {
                    assert_eq!(self.of(*channel).count(), 0, "a channel goes with records");
                    assert!(self.cursors.keys().all(|(of, _)| of != channel), "or with cursors");
                    self.channels.remove(channel);
                }
                Change::Record { channel, seq, record } => {
                    let stored = Stored { seq: *seq, attempts: 0, message: Arc::clone(record) };
                    let before = self.messages.insert((*channel, *seq), stored);
                    assert!(before.is_none() || again, "a position is taken");
                }
                Change::Trim { channel, from, before } => {
                    for seq in from.0..before.0 {
                        let removed = self.messages.remove(&(*channel, Seq(seq)));
                        assert!(removed.is_some() || again, "what is removed is not there");
                    }
                }
                Change::Cursor { channel, peer, cursor: Some(cursor) } => {
                    let before = self.cursors.insert((*channel, *peer), *cursor);
                    let is_forward = before.is_none_or(|before| before.seq <= cursor.seq);
                    assert!(is_forward || again, "a cursor goes back: {before:?} {cursor:?}");
                }
                Change::Cursor { channel, peer, cursor: None } => {
                    self.cursors.remove(&(*channel, *peer));
                }
            }
        }
        self.check_cursors();
    }

    /// That no cursor is before the first record of its channel, and that channels have no gaps.
    fn check_cursors(&self) {
        for ((channel, peer), cursor) in &self.cursors {
            let state = &self.channels[channel];
            assert!(cursor.seq >= state.head, "{peer:?} at {cursor:?} lost records: {state:?}");
            assert!(cursor.seq <= state.next, "{peer:?} at {cursor:?} is beyond: {state:?}");
        }
        for (channel, state) in &self.channels {
            let range = (*channel, Seq(0))..(*channel, Seq(u64::MAX));
            let seqs: Vec<_> = self.messages.range(range).map(|((_, seq), _)| seq.0).collect();
            assert!(seqs.into_iter().eq(state.head.0..state.next.0), "{state:?} has gaps");
            let bytes: usize = self.of(*channel).map(|record| record.cost()).sum();
            assert!(state.bytes >= bytes as u64, "{state:?} has {bytes} bytes");
            assert!(bytes > 0 || state.bytes == 0, "{state:?} is empty");
        }
    }

    /// Records that wait for somebody: those of dead letters do not.
    pub(crate) fn waiting_records(&self) -> u64 {
        let alive = self.channels.values().filter(|state| !state.name.ends_with(DEAD_LETTERS));
        alive.map(ChannelState::records).sum()
    }

    pub(crate) fn recover(&self) -> Recovered {
        let level = |named: &Named| self.levels.get(&named.mailbox).copied();
        let names = self.names.values();
        let names = names.map(|named| (named.clone(), level(named).unwrap_or(Level::EMPTY)));
        let accepted = self.accepted.iter();
        let accepted = accepted.map(|(number, (at, origins))| (*number, *at, origins.clone()));
        Recovered {
            names: names.collect(),
            accepted: accepted.collect(),
            next_mailbox: self.next_mailbox,
            channels: self.channels.values().cloned().collect(),
            cursors: self.cursors.iter().map(|((of, peer), at)| (*of, *peer, *at)).collect(),
        }
    }

    pub(crate) fn find(&self, mailbox: MailboxId, key: Digest) -> Option<Found> {
        let seq = *self.keys.get(&(mailbox, key))?;
        let Stored { message, .. } = self.messages.get(&(mailbox, seq))?;
        Some(Found { seq, origin: message.origin, cost: message.cost() })
    }

    /// Loses one of the messages that wait; returns it.
    pub(crate) fn damage(&mut self, random: &mut Random) -> Option<(MailboxId, Arc<Message>)> {
        if self.messages.is_empty() {
            return None;
        }
        let at = random.index(self.messages.len());
        let ((mailbox, seq), stored) = self.messages.iter().nth(at)?;
        self.damaged.insert((*mailbox, *seq));
        Some((*mailbox, Arc::clone(&stored.message)))
    }

    pub(crate) fn read(&self, load: &Load) -> Reading {
        let Load { mailbox, from, messages, bytes, .. } = *load;
        let mut read = Vec::new();
        let mut damaged = Vec::new();
        let mut cost = 0;
        let waiting = self.messages.range((mailbox, from)..);
        for (place, stored) in waiting.take_while(|((of, _), _)| *of == mailbox).take(messages) {
            if self.damaged.contains(place) {
                let key = (Digest::of_key(&stored.message.key), stored.message.cost());
                damaged.push(Damaged { seq: stored.seq, key: Some(key) });
                continue;
            }
            cost += stored.message.cost();
            if cost > bytes && !read.is_empty() {
                break;
            }
            read.push(stored.clone());
        }
        Reading { stored: read, damaged }
    }

    pub(crate) fn has(&self, mailbox: MailboxId, seq: Seq) -> bool {
        self.messages.contains_key(&(mailbox, seq))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.messages.len()
    }

    /// The messages that wait for a mailbox.
    pub(crate) fn of(&self, mailbox: MailboxId) -> impl Iterator<Item = &Arc<Message>> {
        let waiting = self.messages.range((mailbox, Seq(0))..);
        let of_it = waiting.take_while(move |((of, _), _)| *of == mailbox);
        of_it.map(|(_, stored)| &stored.message)
    }

    /// That the levels are what the messages come to.
    pub(crate) fn check_levels(&self) {
        for (mailbox, level) in &self.levels {
            let count = self.of(*mailbox).count() as u64;
            let bytes: usize = self.of(*mailbox).map(|message| message.cost()).sum();
            assert_eq!((level.messages, level.bytes), (count, bytes as u64), "{mailbox:?}");
            let range = (*mailbox, Seq(0))..(*mailbox, Seq(u64::MAX));
            let mut seqs = self.messages.range(range).map(|((_, seq), _)| *seq);
            let first = seqs.next();
            let last = seqs.next_back().or(first);
            assert!(first.is_none_or(|first| level.head <= first), "{level:?} {first:?}");
            assert!(last.is_none_or(|last| last < level.next), "{level:?} {last:?}");
        }
    }
}
