//! What the log has, and the rows have not yet.
//!
//! Most messages are acknowledged within milliseconds. So a commit goes into the log as one row,
//! and what it changes is kept here, where an acknowledgement takes its message away again. What is
//! left when the log is full becomes rows, all at once. A start reads the log into this again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attempts::Attempts;
use super::codec::Accepted;
use crate::proto::bus::{
    Cause, Change, ChannelState, Cursor, Digest, Found, Level, MailboxId, Message, Millis, Named,
    Seq,
};
use crate::store::AuditEntry;

/// Rows of the log. They are written again and again, from the first on.
const LOG_ROWS: u32 = 1_024;

/// What the log holds, in bytes.
const LOG_BYTES: usize = 1 << 20;

/// Rows of messages that it stands for, which come or go when it is full: nobody is to wait long for
/// that.
const LOG_MESSAGES: usize = 1_024;

/// What the log has, and the rows have not.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) messages: BTreeMap<(MailboxId, Seq), Row<Arc<Message>>>,
    pub(super) keys: BTreeMap<(MailboxId, Digest), Row<Found>>,
    /// How often each was not acknowledged in time; 0 for one whose row is to go.
    pub(super) attempts: BTreeMap<(MailboxId, Seq), u16>,
    /// None for a mailbox that is no more.
    pub(super) levels: BTreeMap<MailboxId, Option<Level>>,
    /// None for a name that is no more.
    pub(super) names: BTreeMap<(u8, Arc<str>), Option<Named>>,
    /// None for one whose row is to go, if there is one.
    pub(super) letters: BTreeMap<(MailboxId, Millis, Seq), Option<Letter>>,
    /// None for a channel that is no more.
    pub(super) channels: BTreeMap<MailboxId, Option<ChannelState>>,
    /// By channel and mailbox of the peer; none for a cursor that is no more.
    pub(super) cursors: BTreeMap<(MailboxId, MailboxId), Option<Cursor>>,
    pub(super) accepted: Vec<Accepted>,
    /// Entries of the audit log, in order.
    pub(super) audit: Vec<AuditEntry>,
    /// The number of the first of the accepted that counts; 0 where that is as it was.
    pub(super) accepted_from: u64,
    /// Above all mailboxes that it names; 0 where there are none.
    pub(super) next_mailbox: u64,
    /// The number of the last commit that the log has, or had.
    pub(super) number: u64,
    /// The last entry of the audit log, here or in a row.
    pub(super) last_audit: Option<u64>,
    /// The last of what was accepted, here or in a row.
    pub(super) last_accepted: Option<u64>,
    /// Whether rows may have what it puts there: it is of a commit that may be repeated.
    may_replace: bool,
    /// Rows of the log that are of use.
    pub(super) rows: u32,
    /// What those take, in bytes.
    pub(super) bytes: usize,
}

/// A row to be.
#[derive(Debug)]
pub(super) struct Row<V> {
    /// None for one that is to go.
    pub(super) value: Option<V>,
    /// Whether there is one that it replaces.
    is_stored: bool,
}

/// A dead letter to be.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) cause: Cause,
    pub(super) attempts: u16,
    /// None where a row has it, which goes when the letter comes.
    pub(super) message: Option<Arc<Message>>,
}

/// Puts a value in the place of what is there; `is_stored` where a row may have it that is not.
fn put<K: Ord, V>(rows: &mut BTreeMap<K, Row<V>>, key: K, value: V, is_stored: bool) {
    let is_stored = rows.get(&key).map_or(is_stored, |row| row.is_stored);
    rows.insert(key, Row { value: Some(value), is_stored });
}

/// Takes a value away; none where a row has it, or where it is gone.
fn take<K: Ord, V>(rows: &mut BTreeMap<K, Row<V>>, key: K) -> Option<V> {
    match rows.get_mut(&key) {
        Some(row) if row.is_stored => row.value.take(),
        Some(_) => rows.remove(&key)?.value,
        None => {
            rows.insert(key, Row { value: None, is_stored: true });
            None
        }
    }
}

impl Pending {
    /// Whether the log has room for a commit of so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.rows < LOG_ROWS
            && self.bytes + bytes <= LOG_BYTES
            && self.messages.len() < LOG_MESSAGES
    }

    /// Forgets all, since the rows have it.
    pub(super) fn clear(&mut self) {
        let Self { number, last_audit, last_accepted, .. } = *self;
        *self = Self { number, last_audit, last_accepted, ..Self::default() };
    }

    /// Nothing, behind this: for a commit of which rows may have some, since it may be repeated.
    pub(super) fn behind(&self) -> Self {
        let Self { number, last_audit, last_accepted, .. } = *self;
        Self { number, last_audit, last_accepted, may_replace: true, ..Self::default() }
    }

    /// Takes over what the next row of the log has.
    pub(super) fn log(&mut self, number: u64, bytes: usize) {
        self.number = number;
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Takes a change, of which the rows say how often messages were not acknowledged in time.
    pub(super) fn apply(&mut self, change: &Change, stored: &Attempts) {
        match change {
            Change::Name(named) => {
                let name = Arc::clone(&named.name);
                self.next_mailbox = self.next_mailbox.max(named.mailbox.0 + 1);
                self.names.insert((named.realm, name), Some(named.clone()));
            }
            Change::Forget { realm, name, mailbox } => {
                self.names.insert((*realm, Arc::clone(name)), None);
                self.levels.insert(*mailbox, None);
            }
            Change::Append { mailbox, seq, message } => {
                let key = Digest::of_key(&message.key);
                let found = Found { seq: *seq, origin: message.origin, cost: message.cost() };
                let may_replace = self.may_replace;
                put(&mut self.messages, (*mailbox, *seq), Arc::clone(message), may_replace);
                put(&mut self.keys, (*mailbox, key), found, may_replace);
            }
            Change::Remove { mailbox, seq, key } => {
                self.remove(*mailbox, *seq, *key, stored);
            }
            Change::Bury { mailbox, seq, key, cause, at } => {
                let attempts = self.attempts_of(*mailbox, *seq, stored);
                let message = self.remove(*mailbox, *seq, *key, stored);
                // A commit that is repeated has nothing more to bury.
                let letter = Letter { cause: *cause, attempts, message };
                self.letters.entry((*mailbox, *at, *seq)).or_insert(Some(letter));
            }
            Change::Requeue { mailbox, seq, at } => {
                self.letters.insert((*mailbox, *at, *seq), None);
            }
            Change::Attempt { mailbox, seq, attempts } => {
                self.attempts.insert((*mailbox, *seq), *attempts);
            }
            Change::Level { mailbox, level } => {
                self.levels.insert(*mailbox, Some(*level));
            }
            Change::Accepted { number, at, origins } => {
                // One of a commit that is repeated is there.
                if self.last_accepted.is_none_or(|last| last < *number) {
                    self.accepted.push((*number, *at, origins.clone()));
                    self.last_accepted = Some(*number);
                }
            }
            Change::ForgetAccepted { before } => {
                self.accepted.retain(|(number, ..)| number >= before);
                self.accepted_from = self.accepted_from.max(*before);
            }
            Change::Channel(state) => {
                self.next_mailbox = self.next_mailbox.max(state.channel.0 + 1);
                self.channels.insert(state.channel, Some(state.clone()));
            }
            Change::DropChannel { channel } => {
                self.channels.insert(*channel, None);
            }
            Change::Record { channel, seq, record } => {
                let place = (*channel, *seq);
                put(&mut self.messages, place, Arc::clone(record), self.may_replace);
            }
            Change::Trim { channel, from, before } => {
                for seq in from.0..before.0 {
                    take(&mut self.messages, (*channel, Seq(seq)));
                }
            }
            Change::Cursor { channel, peer, cursor } => {
                self.cursors.insert((*channel, *peer), *cursor);
            }
        }
    }

    /// Takes entries of the audit log; those of a commit that is repeated are there.
    pub(super) fn note(&mut self, entries: &[AuditEntry]) {
        let last = self.last_audit;
        let is_new = |entry: &&AuditEntry| last.is_none_or(|last| last < entry.seq);
        self.audit.extend(entries.iter().filter(is_new).cloned());
        self.last_audit = self.audit.last().map(|last| last.seq).or(last);
    }

    fn attempts_of(&self, mailbox: MailboxId, seq: Seq, stored: &Attempts) -> u16 {
        let pending = self.attempts.get(&(mailbox, seq)).copied();
        pending.unwrap_or_else(|| stored.of(mailbox, seq))
    }

    /// The message, where it is here.
    fn remove(
        &mut self,
        mailbox: MailboxId,
        seq: Seq,
        key: Digest,
        stored: &Attempts,
    ) -> Option<Arc<Message>> {
        if self.attempts_of(mailbox, seq, stored) > 0 {
            self.attempts.insert((mailbox, seq), 0);
        }
        take(&mut self.keys, (mailbox, key));
        take(&mut self.messages, (mailbox, seq))
    }

    /// What is known of the messages of a mailbox from a position on: those that wait, and none for
    /// those that no row counts for.
    pub(super) fn messages_from(
        &self,
        mailbox: MailboxId,
        from: Seq,
    ) -> impl Iterator<Item = (Seq, Option<&Arc<Message>>)> {
        let range = (mailbox, from)..=(mailbox, Seq(u64::MAX));
        self.messages.range(range).map(|((_, seq), row)| (*seq, row.value.as_ref()))
    }

    /// What is known of the dead letters of a mailbox, the oldest first; none for those that no row
    /// counts for.
    pub(super) fn letters_of(
        &self,
        mailbox: MailboxId,
    ) -> impl Iterator<Item = (Millis, Seq, Option<&Letter>)> {
        let range = (mailbox, Millis(0), Seq(0))..=(mailbox, Millis(u64::MAX), Seq(u64::MAX));
        self.letters.range(range).map(|((_, at, seq), letter)| (*at, *seq, letter.as_ref()))
    }

    /// Drops the dead letters of before a time; how many.
    pub(super) fn drop_letters(&mut self, before: Millis) -> u64 {
        let mut dropped = 0;
        self.letters.retain(|(_, at, _), letter| {
            // One that was put back is gone, however old it is.
            let is_kept = *at >= before || letter.is_none();
            dropped += u64::from(!is_kept);
            is_kept
        });
        dropped
    }
}
