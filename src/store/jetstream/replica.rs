//! The replica of the log, and what it remembers of the log beside its rows.

use std::path::Path;

use bytes::Bytes;

use super::record::{Author, Entry, Joining, Malformed, Record};
use crate::ids::RelayId;
use crate::store::embedded::codec::read_commit;
use crate::store::embedded::replica::{Logged, Took};
use crate::store::{Commit, Embedded, Handover, Store as _, StoreError};

/// What is kept beside the rows: which log it is of, and the last epoch that it knows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Note {
    pub(super) log: [u8; 16],
    /// The number of the epoch, and the position where it began.
    pub(super) epoch: u64,
    pub(super) began: u64,
}

impl Note {
    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.log);
        bytes[16..24].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[24..].copy_from_slice(&self.began.to_be_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (log, rest) = bytes.split_first_chunk::<16>()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let began: [u8; 8] = rest.try_into().ok()?;
        let (epoch, began) = (u64::from_be_bytes(*epoch), u64::from_be_bytes(began));
        Some(Self { log: *log, epoch, began })
    }
}

/// What a record of the log comes to in the replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Applied {
    /// It has it.
    Done,
    /// A write that failed took commits along that it had: it ends at this position.
    Behind(u64),
}

/// The replica of the log.
pub(super) struct Replica {
    pub(super) embedded: Embedded,
    relay: RelayId,
}

impl Replica {
    /// Opens it, or makes it anew where it cannot be read.
    pub(super) fn open(folder: &Path, relay: RelayId) -> Result<Self, StoreError> {
        let open = || Embedded::open(folder, Handover::Process);
        let embedded = match open() {
            Err(StoreError::Damaged(error)) => {
                tracing::warn!(error, "the replica of the log of messages is made anew");
                std::fs::remove_dir_all(folder).map_err(|error| {
                    StoreError::Unavailable(format!("{}: {error}", folder.display()))
                })?;
                open()?
            }
            opened => opened?,
        };
        Ok(Self { embedded, relay })
    }

    /// The position of the last commit that it has.
    pub(super) fn position(&self) -> Result<u64, StoreError> {
        self.embedded.position()
    }

    pub(super) fn note(&self) -> Result<Option<Note>, StoreError> {
        Ok(self.embedded.note()?.and_then(|note| Note::read(&note)))
    }

    pub(super) fn keep(&self, note: Note) -> Result<(), StoreError> {
        self.embedded.keep_note(&note.to_bytes())
    }

    /// Takes a commit of the log, which followed on one at `after`.
    pub(super) fn commit(
        &self,
        relay: RelayId,
        after: u64,
        at: u64,
        commit: &Commit,
    ) -> Result<Applied, StoreError> {
        let chain = (relay != self.relay).then_some(&relay.0.0);
        Ok(match self.embedded.follow(&Logged { after, at, commit, chain })? {
            Took::All => Applied::Done,
            Took::Behind(at) => Applied::Behind(at),
        })
    }

    /// Does what a record says that is no commit.
    pub(super) fn sweep(&self, record: &Record) -> Result<u64, StoreError> {
        match &record.entry {
            Entry::DropLetters(before) => self.embedded.drop_dead_letters(*before),
            Entry::TrimLetters(most) => self.embedded.trim_dead_letters(*most),
            Entry::CutAudit { before, head } if record.author.relay == self.relay => {
                self.embedded.cut_audit(*before, head).map(|()| 0)
            }
            Entry::CutAudit { before, head } => {
                self.embedded.cut_chain(&record.author.relay.0.0, *before, head).map(|()| 0)
            }
            Entry::Epoch
            | Entry::Renewal
            | Entry::Resignation
            | Entry::Filled
            | Entry::Part { .. } => Ok(0),
        }
    }
}

/// Takes records of the log, one after the other, into a replica.
pub(super) struct Following<'a> {
    replica: &'a Replica,
    joining: Joining,
    /// The position of the last commit.
    pub(super) position: u64,
    /// The position of the last record.
    pub(super) seen: u64,
    pub(super) note: Note,
    /// The end of the log at first. Dead letters that were to go before may have gone, and go
    /// with the next sweep where they have not.
    began_with: u64,
}

impl<'a> Following<'a> {
    /// Goes on behind the last commit that the replica has, in a log that ends at `last`.
    pub(super) fn new(replica: &'a Replica, note: Note, last: u64) -> Result<Self, StoreError> {
        let position = replica.position()?;
        let joining = Joining::default();
        Ok(Self { replica, joining, position, seen: position, note, began_with: last })
    }

    /// Takes the next record; who wrote it, and what it says.
    ///
    /// # Errors
    /// It is none, or the replica cannot take it: what has come from the log has to be read again.
    pub(super) fn take(&mut self, at: u64, bytes: &Bytes) -> Result<Record, StoreError> {
        let record = Record::decode(bytes).map_err(malformed)?;
        if at <= self.seen {
            return Ok(record);
        }
        if at != self.seen + 1 {
            return Err(StoreError::Unavailable("the log was cut meanwhile".to_owned()));
        }
        if record.entry == Entry::Filled && at > self.began_with {
            let reason = "messages were moved into the log";
            return Err(StoreError::Unavailable(reason.to_owned()));
        }
        if record.author.epoch > self.note.epoch {
            self.note = Note { epoch: record.author.epoch, began: at, ..self.note };
            self.replica.keep(self.note)?;
        }
        if let Some(commit) = self.joining.take(&record) {
            let commit = read_commit(&commit)
                .map_err(|error| StoreError::Damaged(format!("record {at} of the log: {error}")))?;
            let relay = record.author.relay;
            match self.replica.commit(relay, self.position, at, &commit)? {
                Applied::Done => self.position = at,
                Applied::Behind(position) => {
                    let reason = format!("the replica is at {position} again");
                    return Err(StoreError::Unavailable(reason));
                }
            }
        } else if at > self.began_with || matches!(record.entry, Entry::CutAudit { .. }) {
            self.replica.sweep(&record)?;
        }
        self.seen = at;
        Ok(record)
    }
}

pub(super) fn malformed(error: Malformed) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// Whether the record at the replica's position is the one that it took there.
pub(super) const fn is_of_replica(note: Note, position: u64, author: Author) -> bool {
    if position >= note.began { author.epoch == note.epoch } else { author.epoch < note.epoch }
}
