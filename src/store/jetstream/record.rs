//! The records of the log, as bytes.
//!
//! Each begins with who wrote it: its epoch, the relay that led then, and a number that is drawn
//! once for each process, so that two with one identity are told apart. Numbers are big-endian.
//! A commit that is longer than a message of the log is several records that follow each other.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::ids::{PublicKey, RelayId};
use crate::proto::bus::Millis;
use crate::store::Most;

/// The form of all records so far.
const VERSION: u8 = 1;

const EPOCH: u8 = 1;
const RENEWAL: u8 = 2;
const RESIGNATION: u8 = 3;
const PART: u8 = 4;
const DROP_LETTERS: u8 = 5;
const TRIM_LETTERS: u8 = 6;
const CUT_AUDIT: u8 = 7;
const FILLED: u8 = 8;

/// What a record takes beyond its body, in bytes.
///
/// 50 = 1 (version) + 1 (kind) + 8 (epoch) + 32 (relay) + 8 (process).
pub(super) const HEADER: usize = 50;

/// What a part takes beyond its piece of the commit, in bytes.
pub(super) const PART_HEADER: usize = HEADER + 8;

/// Most parts of a commit: 4 GiB of the smallest messages that a server may have, 1 MiB.
const MOST_PARTS: u32 = 4_096;

/// Who writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Author {
    /// 1 for the first relay that ever led, then one more each time.
    pub(super) epoch: u64,
    pub(super) relay: RelayId,
    /// Drawn once for each process.
    pub(super) process: u64,
}

/// What is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    /// The author leads from here on.
    Epoch,
    /// It still does.
    Renewal,
    /// It does no more, and nobody need wait.
    Resignation,
    /// A piece of a commit; the last one completes it.
    Part { number: u32, count: u32, piece: Bytes },
    /// Dead letters of before this time go.
    DropLetters(Millis),
    /// The oldest dead letters of each mailbox that has more than this go.
    TrimLetters(Most),
    /// The author's chain begins at an entry, with this in the place of what was before.
    CutAudit { before: u64, head: Bytes },
    /// What the log has begins with the newest snapshot: messages were moved into it.
    Filled,
}

/// A record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) author: Author,
    pub(super) entry: Entry,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a record of the log ends too early")]
    Short,
    #[error("something follows the end of a record of the log")]
    Long,
    #[error("a record of the log is of version {0}, which is not known here")]
    Version(u8),
    #[error("a record of the log is of kind {0}, which is not known here")]
    Kind(u8),
    #[error("part {number} of {count} of a commit")]
    Part { number: u32, count: u32 },
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let Self { author, entry } = self;
        let body = match entry {
            Entry::Part { piece, .. } => piece.len(),
            Entry::CutAudit { head, .. } => head.len(),
            Entry::Epoch
            | Entry::Renewal
            | Entry::Resignation
            | Entry::Filled
            | Entry::DropLetters(_)
            | Entry::TrimLetters(_) => 0,
        };
        let mut bytes = BytesMut::with_capacity(HEADER + 16 + body);
        bytes.put_u8(VERSION);
        bytes.put_u8(match entry {
            Entry::Epoch => EPOCH,
            Entry::Renewal => RENEWAL,
            Entry::Resignation => RESIGNATION,
            Entry::Part { .. } => PART,
            Entry::DropLetters(_) => DROP_LETTERS,
            Entry::TrimLetters(_) => TRIM_LETTERS,
            Entry::CutAudit { .. } => CUT_AUDIT,
            Entry::Filled => FILLED,
        });
        bytes.put_u64(author.epoch);
        bytes.put_slice(&author.relay.0.0);
        bytes.put_u64(author.process);
        match entry {
            Entry::Epoch | Entry::Renewal | Entry::Resignation | Entry::Filled => {}
            Entry::Part { number, count, piece } => {
                bytes.put_u32(*number);
                bytes.put_u32(*count);
                bytes.put_slice(piece);
            }
            Entry::DropLetters(before) => bytes.put_u64(before.0),
            Entry::TrimLetters(most) => {
                bytes.put_u64(most.messages as u64);
                bytes.put_u64(most.bytes as u64);
            }
            Entry::CutAudit { before, head } => {
                bytes.put_u64(*before);
                bytes.put_slice(head);
            }
        }
        bytes.freeze()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes.clone());
        let [version, kind] = fields.array()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let author = Author {
            epoch: fields.number()?,
            relay: RelayId(PublicKey(fields.array()?)),
            process: fields.number()?,
        };
        let entry = match kind {
            EPOCH => Entry::Epoch,
            RENEWAL => Entry::Renewal,
            RESIGNATION => Entry::Resignation,
            PART => {
                let number = u32::from_be_bytes(fields.array()?);
                let count = u32::from_be_bytes(fields.array()?);
                if number >= count || count > MOST_PARTS {
                    return Err(Malformed::Part { number, count });
                }
                Entry::Part { number, count, piece: fields.rest() }
            }
            DROP_LETTERS => Entry::DropLetters(Millis(fields.number()?)),
            TRIM_LETTERS => {
                let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
                let messages = size(fields.number()?);
                Entry::TrimLetters(Most { messages, bytes: size(fields.number()?) })
            }
            FILLED => Entry::Filled,
            CUT_AUDIT => Entry::CutAudit { before: fields.number()?, head: fields.rest() },
            other => return Err(Malformed::Kind(other)),
        };
        if fields.0.is_empty() { Ok(Self { author, entry }) } else { Err(Malformed::Long) }
    }
}

/// What is left to read.
struct Fields(Bytes);

impl Fields {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, _) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        let array = *array;
        self.0 = self.0.slice(N..);
        Ok(array)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

/// The records of a commit, none of them longer than `most` bytes; nothing where it would be too
/// many.
pub(super) fn parts(author: Author, commit: &Bytes, most: usize) -> Option<Vec<Bytes>> {
    let room = most.saturating_sub(PART_HEADER).max(1);
    let count = u32::try_from(commit.len().div_ceil(room).max(1)).ok()?;
    if count > MOST_PARTS {
        return None;
    }
    let part = |number: u32| {
        let begin = number as usize * room;
        let end = commit.len().min(begin + room);
        let entry = Entry::Part { number, count, piece: commit.slice(begin..end) };
        Record { author, entry }.encode()
    };
    Some((0..count).map(part).collect())
}

/// Puts commits together from their parts.
#[derive(Debug, Default)]
pub(super) struct Joining {
    pieces: Vec<Bytes>,
    author: Option<Author>,
}

impl Joining {
    /// Takes a record; the commit that it completes. Whatever is not the next part of the same
    /// author ends what was begun: nobody was told of that.
    pub(super) fn take(&mut self, record: &Record) -> Option<Bytes> {
        let Entry::Part { number, count, piece } = &record.entry else {
            self.pieces.clear();
            return None;
        };
        if self.author != Some(record.author) || *number as usize != self.pieces.len() {
            self.pieces.clear();
        }
        if *number as usize != self.pieces.len() {
            return None;
        }
        self.author = Some(record.author);
        if *count == 1 {
            return Some(piece.clone());
        }
        self.pieces.push(piece.clone());
        if self.pieces.len() < *count as usize {
            return None;
        }
        Some(std::mem::take(&mut self.pieces).concat().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author(epoch: u64) -> Author {
        Author { epoch, relay: RelayId(PublicKey([7; 32])), process: 99 }
    }

    fn records() -> Vec<Record> {
        let entries = vec![
            Entry::Epoch,
            Entry::Renewal,
            Entry::Resignation,
            Entry::Part { number: 1, count: 3, piece: Bytes::from_static(b"piece") },
            Entry::DropLetters(Millis(5)),
            Entry::TrimLetters(Most { messages: 6, bytes: 7 }),
            Entry::CutAudit { before: 8, head: Bytes::from_static(b"head") },
            Entry::Filled,
        ];
        entries.into_iter().map(|entry| Record { author: author(3), entry }).collect()
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        for record in records() {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn what_is_no_record_is_told_as_such() {
        let renewal = records().remove(1).encode();
        assert_eq!(renewal.len(), HEADER);
        assert_eq!(Record::decode(&renewal.slice(..HEADER - 1)), Err(Malformed::Short));
        let with = |at: usize, byte| {
            let mut bytes = renewal.to_vec();
            bytes[at] = byte;
            Record::decode(&bytes.into())
        };
        assert_eq!(with(0, 9), Err(Malformed::Version(9)));
        assert_eq!(with(1, 9), Err(Malformed::Kind(9)));
        let long = Bytes::from([&renewal[..], b"x"].concat());
        assert_eq!(Record::decode(&long), Err(Malformed::Long));
        let entry = Entry::Part { number: 3, count: 3, piece: Bytes::new() };
        let beyond = Record { author: author(1), entry }.encode();
        assert_eq!(Record::decode(&beyond), Err(Malformed::Part { number: 3, count: 3 }));
    }

    #[test]
    fn commit_is_split_and_joined() {
        let commit = Bytes::from((0..=255).collect::<Vec<u8>>());
        for most in [PART_HEADER + 1, PART_HEADER + 100, PART_HEADER + 256, 10_000] {
            let parts = parts(author(1), &commit, most).unwrap();
            assert!(parts.iter().all(|part| part.len() <= most));
            let mut joining = Joining::default();
            let joined: Vec<_> = parts
                .iter()
                .filter_map(|part| joining.take(&Record::decode(part).unwrap()))
                .collect();
            assert_eq!(joined, std::slice::from_ref(&commit), "{most}");
        }
        assert_eq!(parts(author(1), &Bytes::new(), 1_000).unwrap().len(), 1);
        let much = Bytes::from(vec![0; MOST_PARTS as usize + 1]);
        assert_eq!(parts(author(1), &much, PART_HEADER + 1), None);
    }

    #[test]
    fn commit_that_its_author_did_not_complete_is_none() {
        let commit = Bytes::from_static(b"abcdef");
        let read = |parts: Vec<Bytes>| -> Vec<Record> {
            parts.iter().map(|part| Record::decode(part).unwrap()).collect()
        };
        let first = read(parts(author(1), &commit, PART_HEADER + 2).unwrap());
        let next = read(parts(author(2), &commit, PART_HEADER + 2).unwrap());
        let mut joining = Joining::default();
        assert_eq!(joining.take(&first[0]), None);
        assert_eq!(joining.take(&first[1]), None);
        assert_eq!(joining.take(&Record { author: author(2), entry: Entry::Epoch }), None);
        assert_eq!(joining.take(&first[2]), None, "the rest of what was given up");
        assert_eq!(joining.take(&next[0]), None);
        assert_eq!(joining.take(&next[1]), None);
        assert_eq!(joining.take(&next[2]), Some(commit));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes.into());
        }
    }
}
