//! The rows of the embedded store: keys and values as bytes.
//!
//! A value begins with the version of its form. Numbers are varints (LEB128), texts and bodies are
//! behind their length. Keys are big-endian, so that their order is that of the numbers. What is
//! read is checked: a row that somebody else wrote, or that a disk has lost some of, is an error
//! that the caller can name, never a panic.

mod changes;
mod keys;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use self::changes::commit_number;
pub(in crate::store) use self::changes::{read_commit, write_commit};
pub(super) use self::keys::{
    CHANNEL, CURSOR, DigestKey, chain_key, channel_key, cursor_key, key_numbers, letter_key,
    mailbox_key, message_key, name_key, read_chain_key, shown,
};

use crate::proto::bus::{
    Cause, ChannelState, Cursor, Digest, Found, Level, MailboxId, Message, Millis, Named, Owner,
    Seq, Stored,
};
use crate::store::{AuditEntry, DeadLetter};

/// The form of all values so far.
const VERSION: u8 = 1;

/// A value that is none of ours, or not all of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::store) enum Malformed {
    #[error("it ends too early")]
    Short,
    #[error("something follows its end")]
    Long,
    #[error("version {0} is not known here")]
    Version(u8),
    #[error("a number does not fit")]
    Number,
    #[error("a name is not UTF-8")]
    Text,
    #[error("cause {0} is not known here")]
    Cause(u8),
    #[error("change {0} is not known here")]
    Change(u8),
}

/// What one commit accepted: its number, the time, and of each message its sender and id.
pub(super) type Accepted = (u64, Millis, Vec<Digest>);

const fn number_of(cause: Cause) -> u8 {
    match cause {
        Cause::Attempts => 0,
    }
}

/// A value that is being written.
struct Value(Vec<u8>);

impl Value {
    fn of_at_least(bytes: usize) -> Self {
        let mut value = Vec::with_capacity(bytes + 1);
        value.push(VERSION);
        Self(value)
    }

    fn in_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.push(VERSION);
        Self(buffer)
    }

    fn number(mut self, mut number: u64) -> Self {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
        self
    }

    fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).fixed(bytes)
    }

    fn level(self, level: &Level) -> Self {
        self.number(level.head.0)
            .number(level.next.0)
            .number(level.messages)
            .number(level.bytes)
            .number(level.oldest.0)
    }

    fn channel(self, state: &ChannelState) -> Self {
        self.fixed(&[state.realm])
            .bytes(state.name.as_bytes())
            .number(state.head.0)
            .number(state.next.0)
            .number(state.bytes)
            .number(state.end)
            .number(state.oldest.0)
    }

    fn cursor(self, cursor: &Cursor) -> Self {
        self.number(cursor.seq.0)
            .number(cursor.offset)
            .number(cursor.seen.0)
            .number(cursor.attempts.into())
    }

    fn accepted(self, number: u64, at: Millis, origins: &[Digest]) -> Self {
        let value = self.number(number).number(at.0).number(origins.len() as u64);
        origins.iter().fold(value, |value, origin| value.fixed(&origin.0))
    }

    fn entries(self, entries: &[AuditEntry]) -> Self {
        let add = |value: Self, entry: &AuditEntry| {
            value.number(entry.at.0).fixed(&entry.hash).bytes(&entry.event)
        };
        entries.iter().fold(self.number(entries.len() as u64), add)
    }

    fn message(self, message: &Message) -> Self {
        self.bytes(message.from.as_bytes())
            .bytes(message.key.as_bytes())
            .fixed(&message.origin.0)
            .number(message.accepted.0)
            .bytes(&message.body)
    }
}

/// What is still to be read of a value, or of a key.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of a value.
    fn of(value: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Self(value);
        match fields.byte()? {
            VERSION => Ok(fields),
            other => Err(Malformed::Version(other)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(Malformed::Number);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.number()?).map_err(|_| Malformed::Number)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length: usize = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<Arc<str>, Malformed> {
        std::str::from_utf8(self.bytes()?).map(Arc::from).map_err(|_| Malformed::Text)
    }

    fn digest(&mut self) -> Result<Digest, Malformed> {
        self.array().map(Digest)
    }

    fn level(&mut self) -> Result<Level, Malformed> {
        Ok(Level {
            head: Seq(self.number()?),
            next: Seq(self.number()?),
            messages: self.number()?,
            bytes: self.number()?,
            oldest: Millis(self.number()?),
        })
    }

    fn channel(&mut self, channel: MailboxId) -> Result<ChannelState, Malformed> {
        let state = ChannelState {
            channel,
            realm: self.byte()?,
            name: self.text()?,
            head: Seq(self.number()?),
            next: Seq(self.number()?),
            bytes: self.number()?,
            end: self.number()?,
            oldest: Millis(self.number()?),
        };
        if state.head > state.next || state.bytes > state.end {
            return Err(Malformed::Number);
        }
        Ok(state)
    }

    fn cursor(&mut self) -> Result<Cursor, Malformed> {
        Ok(Cursor {
            seq: Seq(self.number()?),
            offset: self.number()?,
            seen: Millis(self.number()?),
            attempts: self.small()?,
        })
    }

    fn accepted(&mut self) -> Result<Accepted, Malformed> {
        let number = self.number()?;
        let at = Millis(self.number()?);
        let count: usize = self.small()?;
        if self.0.len() / 16 < count {
            return Err(Malformed::Short);
        }
        let origins = (0..count).map(|_| self.digest()).collect::<Result<_, _>>()?;
        Ok((number, at, origins))
    }

    /// Entries of the audit log, from this number on.
    fn entries(&mut self, first: u64) -> Result<Vec<AuditEntry>, Malformed> {
        let count = self.number()?;
        let mut entries = Vec::new();
        for number in 0..count {
            let seq = first.checked_add(number).ok_or(Malformed::Number)?;
            let at = Millis(self.number()?);
            let hash = self.array()?;
            entries.push(AuditEntry { seq, at, hash, event: self.bytes()?.into() });
        }
        Ok(entries)
    }

    fn cause(&mut self) -> Result<Cause, Malformed> {
        match self.byte()? {
            0 => Ok(Cause::Attempts),
            other => Err(Malformed::Cause(other)),
        }
    }

    fn message(&mut self) -> Result<Message, Malformed> {
        Ok(Message {
            from: self.text()?,
            key: self.text()?,
            origin: self.digest()?,
            accepted: Millis(self.number()?),
            body: Arc::from(self.bytes()?),
        })
    }

    /// What was read, if that was all.
    fn end<T>(self, read: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(read) } else { Err(Malformed::Long) }
    }
}

pub(super) fn write_name(named: &Named) -> Vec<u8> {
    Value::of_at_least(50).number(named.mailbox.0).fixed(&named.owner.0).number(named.seen.0).0
}

pub(super) fn read_name(key: &[u8], value: &[u8]) -> Result<Named, Malformed> {
    let (&realm, name) = key.split_first().ok_or(Malformed::Short)?;
    let name = std::str::from_utf8(name).map_err(|_| Malformed::Text)?.into();
    let mut fields = Fields::of(value)?;
    let named = Named {
        mailbox: MailboxId(fields.number()?),
        realm,
        name,
        owner: Owner(fields.array()?),
        seen: Millis(fields.number()?),
    };
    fields.end(named)
}

pub(super) fn write_level(level: &Level) -> Vec<u8> {
    Value::of_at_least(24).level(level).0
}

pub(super) fn read_level(value: &[u8]) -> Result<Level, Malformed> {
    let mut fields = Fields::of(value)?;
    let level = fields.level()?;
    fields.end(level)
}

pub(super) fn write_channel(state: &ChannelState) -> Vec<u8> {
    Value::of_at_least(40 + state.name.len()).channel(state).0
}

pub(super) fn read_channel(key: &[u8], value: &[u8]) -> Result<ChannelState, Malformed> {
    let [channel] = key_numbers(key.strip_prefix(CHANNEL).ok_or(Malformed::Short)?)?;
    let mut fields = Fields::of(value)?;
    let state = fields.channel(MailboxId(channel))?;
    fields.end(state)
}

pub(super) fn write_cursor(cursor: &Cursor) -> Vec<u8> {
    Value::of_at_least(24).cursor(cursor).0
}

/// A cursor: of which channel, and of which peer's mailbox.
pub(super) fn read_cursor(
    key: &[u8],
    value: &[u8],
) -> Result<(MailboxId, MailboxId, Cursor), Malformed> {
    let [channel, peer] = key_numbers(key.strip_prefix(CURSOR).ok_or(Malformed::Short)?)?;
    let mut fields = Fields::of(value)?;
    let cursor = fields.cursor()?;
    fields.end((MailboxId(channel), MailboxId(peer), cursor))
}

pub(super) fn write_message(message: &Message) -> Vec<u8> {
    Value::of_at_least(message.cost()).message(message).0
}

pub(super) fn read_message(value: &[u8]) -> Result<Message, Malformed> {
    let mut fields = Fields::of(value)?;
    let message = fields.message()?;
    fields.end(message)
}

pub(super) fn write_found(found: Found) -> Vec<u8> {
    Value::of_at_least(32).number(found.seq.0).fixed(&found.origin.0).number(found.cost as u64).0
}

pub(super) fn read_found(value: &[u8]) -> Result<Found, Malformed> {
    let mut fields = Fields::of(value)?;
    let found =
        Found { seq: Seq(fields.number()?), origin: fields.digest()?, cost: fields.small()? };
    fields.end(found)
}

pub(super) fn write_number(number: u64) -> Vec<u8> {
    Value::of_at_least(10).number(number).0
}

pub(super) fn read_number<T: TryFrom<u64>>(value: &[u8]) -> Result<T, Malformed> {
    let mut fields = Fields::of(value)?;
    let number = fields.small()?;
    fields.end(number)
}

/// The value of entries that follow each other.
pub(super) fn write_accepted(entries: &[Accepted]) -> Vec<u8> {
    let bytes = entries.iter().map(|(.., origins)| 20 + 16 * origins.len()).sum();
    let value = Value::of_at_least(bytes).number(entries.len() as u64);
    let add =
        |value: Value, (number, at, origins): &Accepted| value.accepted(*number, *at, origins);
    entries.iter().fold(value, add).0
}

pub(super) fn read_accepted(value: &[u8]) -> Result<Vec<Accepted>, Malformed> {
    let mut fields = Fields::of(value)?;
    let count = fields.number()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(fields.accepted()?);
    }
    fields.end(entries)
}

/// The value of a dead letter, made of that of its message, which is not looked into.
pub(super) fn write_letter(cause: Cause, attempts: u16, message: &[u8]) -> Vec<u8> {
    let value = Value::of_at_least(message.len() + 12).fixed(&[number_of(cause)]);
    value.number(attempts.into()).fixed(message).0
}

pub(super) fn read_letter(key: &[u8], value: &[u8]) -> Result<DeadLetter, Malformed> {
    let [_mailbox, at, seq] = key_numbers(key)?;
    let mut fields = Fields::of(value)?;
    let cause = fields.cause()?;
    let attempts = fields.small()?;
    let message = Arc::new(read_message(fields.0)?);
    let stored = Stored { seq: Seq(seq), attempts, message };
    Ok(DeadLetter { stored, cause, at: Millis(at) })
}

/// The value of entries that follow each other.
pub(super) fn write_audit(entries: &[AuditEntry]) -> Vec<u8> {
    let bytes = entries.iter().map(|entry| 48 + entry.event.len()).sum();
    Value::of_at_least(bytes).entries(entries).0
}

pub(super) fn read_audit(key: &[u8], value: &[u8]) -> Result<Vec<AuditEntry>, Malformed> {
    let [first] = key_numbers(key)?;
    let mut fields = Fields::of(value)?;
    let entries = fields.entries(first)?;
    fields.end(entries)
}

pub(super) fn write_head(before: u64, head: &[u8]) -> Vec<u8> {
    Value::of_at_least(10 + head.len()).number(before).bytes(head).0
}

pub(super) fn read_head(value: &[u8]) -> Result<(u64, Box<[u8]>), Malformed> {
    let mut fields = Fields::of(value)?;
    let head = (fields.number()?, fields.bytes()?.into());
    fields.end(head)
}
