//! Dead letters of a mailbox.

use std::collections::HashSet;
use std::sync::Arc;

use fjall::Readable as _;
use parking_lot::Mutex;

use super::codec::{letter_key, read_letter};
use super::database::{Database, damaged};
use super::key_value;
use super::known::Known;
use crate::proto::bus::{MailboxId, Millis, Seq, Stored};
use crate::store::{DeadLetter, Most, StoreError};

impl Database {
    /// The dead letters of a mailbox, the oldest first, of rows and of the log.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn dead_letters(
        &self,
        known: &Mutex<Known>,
        mailbox: MailboxId,
        most: Most,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let logged = known.lock();
        let snapshot = self.inner.snapshot();
        let mut pending = Letters::new(most);
        let mut gone = HashSet::new();
        for (at, seq, letter) in logged.pending.letters_of(mailbox) {
            let Some(letter) = letter else {
                gone.insert((at, seq));
                continue;
            };
            if pending.is_full() {
                continue;
            }
            let message = match &letter.message {
                Some(message) => Some(Arc::clone(message)),
                None => self.message(mailbox, seq)?.map(Arc::new),
            };
            let Some(message) = message else { continue };
            let stored = Stored { seq, attempts: letter.attempts, message };
            pending.push(DeadLetter { stored, cause: letter.cause, at });
        }
        drop(logged);
        let of = |at, seq| letter_key(mailbox, Millis(at), Seq(seq));
        let mut letters = Letters::new(most);
        for row in snapshot.range(&self.letters, of(0, 0)..=of(u64::MAX, u64::MAX)) {
            if letters.is_full() {
                break;
            }
            let (key, value) = key_value(row)?;
            let letter =
                read_letter(&key, &value).map_err(|error| damaged(&self.letters, &key, error))?;
            if !gone.contains(&(letter.at, letter.stored.seq)) {
                letters.push(letter);
            }
        }
        let mut all = letters.read;
        all.append(&mut pending.read);
        all.sort_by_key(|letter| (letter.at, letter.stored.seq));
        let mut letters = Letters::new(most);
        for letter in all {
            if letters.is_full() {
                break;
            }
            letters.push(letter);
        }
        Ok(letters.read)
    }
}

/// Dead letters that are read, until they are enough.
struct Letters {
    read: Vec<DeadLetter>,
    bytes: usize,
    most: Most,
}

impl Letters {
    const fn new(most: Most) -> Self {
        Self { read: Vec::new(), bytes: 0, most }
    }

    fn is_full(&self) -> bool {
        self.read.len() >= self.most.messages || self.bytes >= self.most.bytes
    }

    fn push(&mut self, letter: DeadLetter) {
        self.bytes += letter.stored.message.cost();
        self.read.push(letter);
    }
}
