//! Messages of a mailbox, also where some of them cannot be read any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use fjall::Readable as _;

use super::codec::{DigestKey, message_key, read_found, read_message};
use super::database::{Database, failure};
use super::{key_of, key_value};
use crate::proto::bus::{Damaged, Digest, MailboxId, Reading, Seq, Stored};
use crate::store::{Most, StoreError};

/// Reads messages from a position on. What makes no sense is passed over, and told.
pub(super) fn read_from(
    database: &Database,
    mailbox: MailboxId,
    from: Seq,
    most: Most,
) -> Result<Reading, StoreError> {
    let mut pile = Pile::new(most);
    match pile.read_rows(database, mailbox, from) {
        Ok(()) if pile.reading.damaged.is_empty() => return Ok(pile.reading),
        Ok(()) => {}
        // A block of rows makes no sense: those around it may be read one by one.
        Err(StoreError::Damaged(error)) => {
            let next = pile.reading.last().map_or(from, Seq::next);
            pile.read_each(database, mailbox, next)?;
            if pile.reading.is_empty() {
                return Err(StoreError::Damaged(error));
            }
        }
        Err(error) => return Err(error),
    }
    let Reading { stored, mut damaged } = pile.reading;
    let keys = keys_of(database, mailbox);
    for damaged in &mut damaged {
        damaged.key = keys.get(&damaged.seq).copied();
    }
    Ok(Reading { stored, damaged })
}

/// What was read so far, and how much it may become.
struct Pile {
    most: Most,
    bytes: usize,
    is_full: bool,
    reading: Reading,
}

impl Pile {
    fn new(most: Most) -> Self {
        Self { most, bytes: 0, is_full: false, reading: Reading::default() }
    }

    fn read_rows(
        &mut self,
        database: &Database,
        mailbox: MailboxId,
        from: Seq,
    ) -> Result<(), StoreError> {
        let range = message_key(mailbox, from)..=message_key(mailbox, Seq(u64::MAX));
        for row in database.inner.snapshot().range(&database.messages, range) {
            let (key, value) = key_value(row)?;
            let [_, seq] = key_of::<2>(&database.messages, &key)?;
            self.add(Seq(seq), Some(&value));
            if self.is_full {
                break;
            }
        }
        Ok(())
    }

    /// Reads the messages one by one that have a delivery key.
    fn read_each(
        &mut self,
        database: &Database,
        mailbox: MailboxId,
        from: Seq,
    ) -> Result<(), StoreError> {
        for (seq, _) in keys_of(database, mailbox).range(from..) {
            if self.is_full {
                break;
            }
            match database.messages.get(message_key(mailbox, *seq)).map_err(failure) {
                Ok(Some(value)) => self.add(*seq, Some(&value)),
                Ok(None) => {}
                Err(StoreError::Damaged(_)) => self.add(*seq, None),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add(&mut self, seq: Seq, value: Option<&[u8]>) {
        let Reading { stored, damaged } = &mut self.reading;
        match value.map(read_message) {
            Some(Ok(message)) => {
                self.bytes += message.cost();
                self.is_full = !stored.is_empty() && self.bytes > self.most.bytes;
                if self.is_full {
                    return;
                }
                stored.push(Stored { seq, attempts: 0, message: Arc::new(message) });
            }
            Some(Err(_)) | None => damaged.push(Damaged { seq, key: None }),
        }
        self.is_full = stored.len() + damaged.len() >= self.most.messages;
    }
}

/// The delivery keys of a mailbox, by position, and what their messages count as. Reads those of
/// all mailboxes.
fn keys_of(database: &Database, mailbox: MailboxId) -> BTreeMap<Seq, (Digest, usize)> {
    let mut keys = BTreeMap::new();
    for row in database.keys.iter() {
        let Ok((key, value)) = key_value(row) else { break };
        let Some((of, digest)) = DigestKey::read(&key) else { continue };
        if let Ok(found) = read_found(&value)
            && of == mailbox
        {
            keys.insert(found.seq, (digest, found.cost));
        }
    }
    keys
}
