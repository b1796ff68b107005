//! The rows of the log: a commit as a whole. Its entries of the audit log follow each other.

use super::{Fields, Malformed, Value, number_of};
use crate::proto::bus::{Change, MailboxId, Millis, Named, Owner, Seq};
use crate::store::Commit;

const NAME: u8 = 1;
const FORGET: u8 = 2;
const APPEND: u8 = 3;
const REMOVE: u8 = 4;
const BURY: u8 = 5;
const ATTEMPT: u8 = 6;
const LEVEL: u8 = 7;
const ACCEPTED: u8 = 8;
const FORGET_ACCEPTED: u8 = 9;
const REQUEUE: u8 = 10;
const CHANNEL: u8 = 11;
const DROP_CHANNEL: u8 = 12;
const RECORD: u8 = 13;
const TRIM: u8 = 14;
const CURSOR: u8 = 15;
const DROP_CURSOR: u8 = 16;

/// Records that a change removes, at most: each is a row to look at.
const MOST_TRIMMED: u64 = 1 << 20;

/// The value of the commit of this number, in a buffer that had another.
pub(in crate::store) fn write_commit(number: u64, commit: &Commit, buffer: Vec<u8>) -> Vec<u8> {
    let Commit { changes, audit } = commit;
    let value = Value::in_buffer(buffer).number(number).number(changes.len() as u64);
    let value = changes.iter().fold(value, Value::change);
    let first = audit.first().map_or(0, |entry| entry.seq);
    value.number(first).entries(audit).0
}

/// The number of a commit.
pub(in crate::store::embedded) fn commit_number(value: &[u8]) -> Result<u64, Malformed> {
    Fields::of(value)?.number()
}

/// A commit.
pub(in crate::store) fn read_commit(value: &[u8]) -> Result<Commit, Malformed> {
    let mut fields = Fields::of(value)?;
    let _number = fields.number()?;
    let count = fields.number()?;
    let mut changes = Vec::new();
    for _ in 0..count {
        changes.push(fields.change()?);
    }
    let first = fields.number()?;
    let audit = fields.entries(first)?;
    fields.end(Commit { changes, audit })
}

impl Value {
    fn kind(self, kind: u8, mailbox: MailboxId) -> Self {
        self.fixed(&[kind]).number(mailbox.0)
    }

    fn change(self, change: &Change) -> Self {
        match change {
            Change::Name(named) => self
                .kind(NAME, named.mailbox)
                .fixed(&[named.realm])
                .bytes(named.name.as_bytes())
                .fixed(&named.owner.0)
                .number(named.seen.0),
            Change::Forget { realm, name, mailbox } => {
                self.kind(FORGET, *mailbox).fixed(&[*realm]).bytes(name.as_bytes())
            }
            Change::Append { mailbox, seq, message } => {
                self.kind(APPEND, *mailbox).number(seq.0).message(message)
            }
            Change::Remove { mailbox, seq, key } => {
                self.kind(REMOVE, *mailbox).number(seq.0).fixed(&key.0)
            }
            Change::Bury { mailbox, seq, key, cause, at } => self
                .kind(BURY, *mailbox)
                .number(seq.0)
                .fixed(&key.0)
                .fixed(&[number_of(*cause)])
                .number(at.0),
            Change::Requeue { mailbox, seq, at } => {
                self.kind(REQUEUE, *mailbox).number(seq.0).number(at.0)
            }
            Change::Attempt { mailbox, seq, attempts } => {
                self.kind(ATTEMPT, *mailbox).number(seq.0).number((*attempts).into())
            }
            Change::Level { mailbox, level } => self.kind(LEVEL, *mailbox).level(level),
            Change::Accepted { number, at, origins } => {
                self.fixed(&[ACCEPTED]).accepted(*number, *at, origins)
            }
            Change::ForgetAccepted { before } => self.fixed(&[FORGET_ACCEPTED]).number(*before),
            Change::Channel(state) => self.kind(CHANNEL, state.channel).channel(state),
            Change::DropChannel { channel } => self.kind(DROP_CHANNEL, *channel),
            Change::Record { channel, seq, record } => {
                self.kind(RECORD, *channel).number(seq.0).message(record)
            }
            Change::Trim { channel, from, before } => {
                self.kind(TRIM, *channel).number(from.0).number(before.0)
            }
            Change::Cursor { channel, peer, cursor: Some(cursor) } => {
                self.kind(CURSOR, *channel).number(peer.0).cursor(cursor)
            }
            Change::Cursor { channel, peer, cursor: None } => {
                self.kind(DROP_CURSOR, *channel).number(peer.0)
            }
        }
    }
}

impl Fields<'_> {
    fn change(&mut self) -> Result<Change, Malformed> {
        let kind = self.byte()?;
        Ok(match kind {
            NAME => Change::Name(Named {
                mailbox: self.mailbox()?,
                realm: self.byte()?,
                name: self.text()?,
                owner: Owner(self.array()?),
                seen: Millis(self.number()?),
            }),
            FORGET => {
                let mailbox = self.mailbox()?;
                Change::Forget { realm: self.byte()?, name: self.text()?, mailbox }
            }
            APPEND => Change::Append {
                mailbox: self.mailbox()?,
                seq: Seq(self.number()?),
                message: self.message()?.into(),
            },
            REMOVE => Change::Remove {
                mailbox: self.mailbox()?,
                seq: Seq(self.number()?),
                key: self.digest()?,
            },
            BURY => Change::Bury {
                mailbox: self.mailbox()?,
                seq: Seq(self.number()?),
                key: self.digest()?,
                cause: self.cause()?,
                at: Millis(self.number()?),
            },
            REQUEUE => Change::Requeue {
                mailbox: self.mailbox()?,
                seq: Seq(self.number()?),
                at: Millis(self.number()?),
            },
            ATTEMPT => Change::Attempt {
                mailbox: self.mailbox()?,
                seq: Seq(self.number()?),
                attempts: self.small()?,
            },
            LEVEL => Change::Level { mailbox: self.mailbox()?, level: self.level()? },
            ACCEPTED => {
                let (number, at, origins) = self.accepted()?;
                Change::Accepted { number, at, origins }
            }
            FORGET_ACCEPTED => Change::ForgetAccepted { before: self.number()? },
            CHANNEL => {
                let channel = self.mailbox()?;
                Change::Channel(self.channel(channel)?)
            }
            DROP_CHANNEL => Change::DropChannel { channel: self.mailbox()? },
            RECORD => Change::Record {
                channel: self.mailbox()?,
                seq: Seq(self.number()?),
                record: self.message()?.into(),
            },
            TRIM => {
                let channel = self.mailbox()?;
                let from = Seq(self.number()?);
                let before = Seq(self.number()?);
                if before.0.checked_sub(from.0).is_none_or(|records| records > MOST_TRIMMED) {
                    return Err(Malformed::Number);
                }
                Change::Trim { channel, from, before }
            }
            CURSOR => Change::Cursor {
                channel: self.mailbox()?,
                peer: self.mailbox()?,
                cursor: Some(self.cursor()?),
            },
            DROP_CURSOR => {
                Change::Cursor { channel: self.mailbox()?, peer: self.mailbox()?, cursor: None }
            }
            other => return Err(Malformed::Change(other)),
        })
    }

    fn mailbox(&mut self) -> Result<MailboxId, Malformed> {
        self.number().map(MailboxId)
    }
}
