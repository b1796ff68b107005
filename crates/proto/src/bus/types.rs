//! What a bus remembers, and how what it decides is written down.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// The number of a mailbox; never given to another, also not after a restart.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MailboxId(pub u64);

/// The position of a message in its mailbox: 1 for the first that ever came, then one more for
/// each in the order of acceptance.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Seq(pub u64);

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Millis(pub u64);

/// The first 16 bytes of a SHA-256: of a delivery key, or of a sender and its id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(pub [u8; 16]);

/// The credential that a name belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Owner(pub [u8; 32]);

impl Owner {
    /// The owner of names that belong to who claims them first.
    pub const NOBODY: Self = Self([0; 32]);

    /// The owner of names that nobody gets until an operator binds them: they were taken over from
    /// another program, which does not say whose they are.
    pub const RESERVED: Self = Self([0xff; 32]);
}

impl Seq {
    /// The position behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Millis {
    /// The time since `earlier`; none where the clock was set back.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Digest {
    /// The digest of a delivery key.
    #[must_use]
    pub fn of_key(key: &str) -> Self {
        Self::of(&[key.as_bytes()])
    }

    /// The digest of a sender and the id that it gave a message.
    #[must_use]
    pub fn of_origin(from: &str, id: &str) -> Self {
        Self::of(&[from.as_bytes(), id.as_bytes()])
    }

    /// The digest of a delivery key in one mailbox.
    #[must_use]
    pub fn of_key_in(mailbox: MailboxId, key: &str) -> Self {
        // Three parts, as no origin has: a sender may be called like the number of a mailbox.
        Self::of(&[b"", &mailbox.0.to_be_bytes(), key.as_bytes()])
    }

    /// The digest of the id of a record, from any sender.
    #[must_use]
    pub fn of_record(realm: u8, id: &str) -> Self {
        // Four parts, as nothing else has.
        Self::of(&[b"", b"", &[realm], id.as_bytes()])
    }

    /// The digest of parts, each behind its length, so that none runs into the next.
    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let whole: [u8; 32] = hash.finalize().into();
        let (first, _) = whole.split_first_chunk().expect("32 bytes hold 16");
        Self(*first)
    }
}

/// A message as it waits in a mailbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// The name of its sender.
    pub from: Arc<str>,
    /// What its recipient acknowledges it by; no other that waits in the mailbox has it.
    pub key: Arc<str>,
    /// Of its sender and the sender's id: the same again is a duplicate.
    pub origin: Digest,
    /// When it was accepted.
    pub accepted: Millis,
    /// What its door made of it; the bus does not look into it.
    pub body: Arc<[u8]>,
}

impl Message {
    /// What a message counts as towards quotas and windows, beyond its texts and its body: what
    /// an entry of the store costs.
    pub const OVERHEAD: usize = 64;

    /// What it counts as towards quotas and windows, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.from.len() + self.key.len() + self.body.len() + Self::OVERHEAD
    }
}

/// A message of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Where it is in its mailbox.
    pub seq: Seq,
    /// How often a recipient that had it, or may have had it, did not acknowledge it in time.
    pub attempts: u16,
    /// What waits.
    pub message: Arc<Message>,
}

/// A message of a store that nobody can read any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Damaged {
    /// Where it is in its mailbox.
    pub seq: Seq,
    /// Its delivery key and what it counts as, as far as that is known.
    pub key: Option<(Digest, usize)>,
}

/// Messages of a store, from a position on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// Those that can be read, in the order of their positions.
    pub stored: Vec<Stored>,
    /// Those between and behind them that cannot.
    pub damaged: Vec<Damaged>,
}

impl Reading {
    /// Whether there was nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.damaged.is_empty()
    }

    /// The last position that was read.
    #[must_use]
    pub fn last(&self) -> Option<Seq> {
        let stored = self.stored.last().map(|stored| stored.seq);
        stored.max(self.damaged.last().map(|damaged| damaged.seq))
    }
}

impl From<Vec<Stored>> for Reading {
    fn from(stored: Vec<Stored>) -> Self {
        Self { stored, damaged: Vec::new() }
    }
}

/// Where the message of a delivery key is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its position.
    pub seq: Seq,
    /// Whose it is.
    pub origin: Digest,
    /// What it counts as.
    pub cost: usize,
}

/// What there is to know of a mailbox without reading its messages. It is stored with each commit
/// that changes it, so that a start reads no message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Level {
    /// No message that waits is before this one.
    pub head: Seq,
    /// The position of the next message that comes.
    pub next: Seq,
    /// Messages that wait.
    pub messages: u64,
    /// What they count as, in bytes.
    pub bytes: u64,
    /// No message that waits was accepted before.
    pub oldest: Millis,
}

impl Level {
    /// An empty mailbox.
    pub const EMPTY: Self =
        Self { head: Seq(1), next: Seq(1), messages: 0, bytes: 0, oldest: Millis(0) };
}

/// A name and the mailbox behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Named {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// The name space: that of the door.
    pub realm: u8,
    /// The name.
    pub name: Arc<str>,
    /// Whose it is.
    pub owner: Owner,
    /// When its owner was last here: logged in, or left.
    pub seen: Millis,
}

/// What there is to know of a channel without reading its records. It is stored with each commit
/// that changes it, so that a start reads no record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelState {
    /// Its number, as mailboxes have one: neither is ever given to another.
    pub channel: MailboxId,
    /// The name space: that of the door.
    pub realm: u8,
    /// The name.
    pub name: Arc<str>,
    /// The first record that is kept. Those behind it are kept without a gap.
    pub head: Seq,
    /// The position of the next record that comes.
    pub next: Seq,
    /// What the records that are kept count as, in bytes.
    pub bytes: u64,
    /// What all that ever came count as, in bytes: where the channel ends.
    pub end: u64,
    /// No record that is kept was accepted before.
    pub oldest: Millis,
}

impl ChannelState {
    /// Records that are kept.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.next.0 - self.head.0
    }
}

/// How far a peer has come in a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// The first record that it has not acknowledged.
    pub seq: Seq,
    /// What all records before that count as, in bytes.
    pub offset: u64,
    /// When its peer was connected last, an hour late at most.
    pub seen: Millis,
    /// How often the records behind it stayed without an acknowledgement.
    pub attempts: u16,
}

/// Why a message is a dead letter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cause {
    /// Too many deliveries stayed without an acknowledgement.
    Attempts,
}

/// One thing that a commit changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A name is there, with this owner: a new one, or in place of what was known of it.
    Name(Named),
    /// A name and its mailbox, which is empty, are no more.
    Forget {
        /// Its name space.
        realm: u8,
        /// The name.
        name: Arc<str>,
        /// Its mailbox.
        mailbox: MailboxId,
    },
    /// A message waits.
    Append {
        /// Where.
        mailbox: MailboxId,
        /// At which position.
        seq: Seq,
        /// The message.
        message: Arc<Message>,
    },
    /// A message waits no more: it was acknowledged, has expired, or was purged.
    Remove {
        /// Where it waited.
        mailbox: MailboxId,
        /// At which position.
        seq: Seq,
        /// Its delivery key.
        key: Digest,
    },
    /// A message waits no more and is kept as a dead letter: the store has its body.
    Bury {
        /// Where it waited.
        mailbox: MailboxId,
        /// At which position.
        seq: Seq,
        /// Its delivery key.
        key: Digest,
        /// Why.
        cause: Cause,
        /// When.
        at: Millis,
    },
    /// A dead letter is none any more: it waits again, by an [`Change::Append`] of its own.
    Requeue {
        /// The mailbox that it is of.
        mailbox: MailboxId,
        /// The position that it had there.
        seq: Seq,
        /// Since when it was one.
        at: Millis,
    },
    /// A message was not acknowledged in time.
    Attempt {
        /// Where it waits.
        mailbox: MailboxId,
        /// At which position.
        seq: Seq,
        /// How often so far.
        attempts: u16,
    },
    /// What is known of a mailbox; once for each that a commit touches.
    Level {
        /// Which.
        mailbox: MailboxId,
        /// What is known of it.
        level: Level,
    },
    /// These were accepted: the same again is a duplicate. Once a commit.
    Accepted {
        /// The number of this entry: one more than that of the last.
        number: u64,
        /// When.
        at: Millis,
        /// Of each its sender and id.
        origins: Vec<Digest>,
    },
    /// What was accepted by entries before this number is forgotten.
    ForgetAccepted {
        /// The number.
        before: u64,
    },
    /// A channel is there, with this known of it: a new one, or in place of what was known. Once for
    /// each that a commit touches.
    Channel(ChannelState),
    /// A channel, which has no records and no cursors, is no more.
    DropChannel {
        /// Which.
        channel: MailboxId,
    },
    /// A channel has a record.
    Record {
        /// Which channel.
        channel: MailboxId,
        /// At which position.
        seq: Seq,
        /// The record: its id is the key.
        record: Arc<Message>,
    },
    /// Records of a channel are no more.
    Trim {
        /// Which channel.
        channel: MailboxId,
        /// The first of them.
        from: Seq,
        /// The position behind the last.
        before: Seq,
    },
    /// A peer has a cursor in a channel, in place of what it had; or none any more.
    Cursor {
        /// Which channel.
        channel: MailboxId,
        /// The mailbox of the peer.
        peer: MailboxId,
        /// The cursor.
        cursor: Option<Cursor>,
    },
}

/// What a bus begins with: what its store has.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The names, each with what is known of its mailbox.
    pub names: Vec<(Named, Level)>,
    /// What was accepted lately: number, time, origins, in the order of the numbers.
    pub accepted: Vec<(u64, Millis, Vec<Digest>)>,
    /// The number of the next mailbox or channel: above all that ever were.
    pub next_mailbox: u64,
    /// The channels.
    pub channels: Vec<ChannelState>,
    /// The cursors: channel, mailbox of the peer, where it is.
    pub cursors: Vec<(MailboxId, MailboxId, Cursor)>,
}

/// What the audit log says happened to a message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventKind {
    /// It was accepted from `from` for `to`.
    Send,
    /// It was handed to `to`, who gets it from `from`.
    Deliver,
    /// `from`, its recipient, has acknowledged it.
    Ack,
    /// It was removed from the mailbox `from` without an acknowledgement: it expired, or became a
    /// dead letter.
    Expire,
    /// An operator removed it from the mailbox `from`.
    Purge,
    /// An operator put it, a dead letter of the mailbox `from`, back among what waits there: it is
    /// sent once more.
    Requeue,
    /// Records of the channel `from` went before `to` had them.
    ReplayGap,
    /// `from` published it to the channel `to`, and may not: it was dropped.
    PolicyViolation,
    /// `from` published it to the channel `to`, and it has been here before: it was dropped.
    LoopDropped,
}

/// One entry of the audit log, before it has its place in the chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The delivery key.
    pub key: Arc<str>,
    /// Who did it.
    pub from: Arc<str>,
    /// For whom; empty where there is nobody.
    pub to: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_called_like_the_number_of_a_mailbox_is_no_mailbox() {
        let key = Digest::of_key_in(MailboxId(7), "x");
        assert_ne!(key, Digest::of_origin("7", "x"));
        assert_ne!(key, Digest::of_origin("\0\0\0\0\0\0\0\u{7}", "x"));
        assert_ne!(key, Digest::of_key("x"));
        assert_ne!(key, Digest::of_key_in(MailboxId(8), "x"));
    }
}
