//! Messages of a mailbox, also where some of them cannot be read any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use fjall::{Readable as _, Snapshot};

use super::codec::{DigestKey, message_key, read_found, read_message};
use super::database::{Database, failure};
use super::{key_of, key_value};
use crate::proto::bus::{Damaged, Digest, MailboxId, Message, Reading, Seq, Stored};
use crate::store::{Most, StoreError};

/// What is being read, and how much it may become.
pub(super) struct Pile<'a> {
    database: &'a Database,
    snapshot: Snapshot,
    /// What counts in the place of a row; none where the message is gone.
    pending: BTreeMap<Seq, Option<Arc<Message>>>,
    most: Most,
    bytes: usize,
    is_full: bool,
    reading: Reading,
}

impl<'a> Pile<'a> {
    pub(super) fn new<'p>(
        database: &'a Database,
        pending: impl Iterator<Item = (Seq, Option<&'p Arc<Message>>)>,
        most: Most,
    ) -> Self {
        Self {
            database,
            snapshot: database.inner.snapshot(),
            pending: pending.map(|(seq, message)| (seq, message.cloned())).collect(),
            most,
            bytes: 0,
            is_full: false,
            reading: Reading::default(),
        }
    }

    /// Reads messages from a position on. What makes no sense is passed over, and told.
    pub(super) fn read(mut self, mailbox: MailboxId, from: Seq) -> Result<Reading, StoreError> {
        match self.read_rows(mailbox, from) {
            Ok(()) if self.reading.damaged.is_empty() => return Ok(self.reading),
            Ok(()) => {}
            // A block of rows makes no sense: those around it may be read one by one.
            Err(StoreError::Damaged(error)) => {
                let next = self.reading.last().map_or(from, Seq::next);
                match self.database.channel_end(mailbox)? {
                    Some(end) => self.read_each(mailbox, (next.0..end.0).map(Seq))?,
                    None => {
                        let keys = keys_of(self.database, mailbox);
                        self.read_each(mailbox, keys.range(next..).map(|(seq, _)| *seq))?;
                    }
                }
                if self.reading.is_empty() {
                    return Err(StoreError::Damaged(error));
                }
            }
            Err(error) => return Err(error),
        }
        let Reading { stored, mut damaged } = self.reading;
        let keys = keys_of(self.database, mailbox);
        for damaged in &mut damaged {
            damaged.key = keys.get(&damaged.seq).copied();
        }
        Ok(Reading { stored, damaged })
    }

    fn read_rows(&mut self, mailbox: MailboxId, from: Seq) -> Result<(), StoreError> {
        let range = message_key(mailbox, from)..=message_key(mailbox, Seq(u64::MAX));
        for row in self.snapshot.range(&self.database.messages, range) {
            let (key, value) = key_value(row)?;
            let [_, seq] = key_of::<2>(&self.database.messages, &key)?;
            self.add_row(Seq(seq), Some(&value));
            if self.is_full {
                return Ok(());
            }
        }
        self.add_pending(None);
        Ok(())
    }

    /// Reads messages one by one: those that have a delivery key, or all positions of a channel.
    fn read_each(
        &mut self,
        mailbox: MailboxId,
        positions: impl Iterator<Item = Seq>,
    ) -> Result<(), StoreError> {
        for seq in positions {
            if self.is_full {
                return Ok(());
            }
            let row = self.snapshot.get(&self.database.messages, message_key(mailbox, seq));
            match row.map_err(failure) {
                Ok(Some(value)) => self.add_row(seq, Some(&value)),
                Ok(None) => {}
                Err(StoreError::Damaged(_)) => self.add_row(seq, None),
                Err(error) => return Err(error),
            }
        }
        self.add_pending(None);
        Ok(())
    }

    /// Adds what is pending before a position, or all of it.
    fn add_pending(&mut self, before: Option<Seq>) {
        while let Some(first) = self.pending.first_entry()
            && before.is_none_or(|before| *first.key() < before)
            && !self.is_full
        {
            if let (seq, Some(message)) = first.remove_entry() {
                self.add(seq, message);
            }
        }
    }

    /// Adds the message of a row, unless something else counts in its place; before it what is
    /// pending there. Without a value it cannot be read.
    fn add_row(&mut self, seq: Seq, value: Option<&[u8]>) {
        self.add_pending(Some(seq));
        if self.is_full {
            return;
        }
        match self.pending.remove(&seq) {
            Some(Some(message)) => self.add(seq, message),
            Some(None) => {}
            None => match value.map(read_message) {
                Some(Ok(message)) => self.add(seq, Arc::new(message)),
                Some(Err(_)) | None => {
                    self.reading.damaged.push(Damaged { seq, key: None });
                    self.note_count();
                }
            },
        }
    }

    fn add(&mut self, seq: Seq, message: Arc<Message>) {
        let stored = &mut self.reading.stored;
        self.bytes += message.cost();
        if !stored.is_empty() && self.bytes > self.most.bytes {
            self.is_full = true;
            return;
        }
        stored.push(Stored { seq, attempts: 0, message });
        self.note_count();
    }

    fn note_count(&mut self) {
        let Reading { stored, damaged } = &self.reading;
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
