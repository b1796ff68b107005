//! The audit log as lines of JSON: what `audit export` writes and `audit verify --from` reads.
//!
//! A head, where entries were removed, is the first line. An entry says the hash before it as
//! well, so that a stranger can check any part: the event is a text, whose bytes are hashed.

use std::io::{BufRead, Read as _};

use blake3::Hash;
use serde::{Deserialize, Serialize};

use super::{BadSeal, Kind, Seal, hex};
use crate::proto::bus::Millis;
use crate::store::AuditEntry;

/// Longest line that is read, in bytes: an event names three texts of a message of 1 MiB at most,
/// and an escape has six bytes.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// An entry as JSON.
#[derive(Deserialize, Serialize)]
struct Json<'a> {
    seq: u64,
    #[serde(default)]
    time_ms: u64,
    prev: std::borrow::Cow<'a, str>,
    hash: std::borrow::Cow<'a, str>,
    event: std::borrow::Cow<'a, str>,
}

/// One line of JSON with its line end: an entry that follows one of this hash.
#[must_use]
pub fn entry_line(before: &[u8; 32], entry: &AuditEntry) -> String {
    let json = Json {
        seq: entry.seq,
        time_ms: entry.at.0,
        prev: hex(before).into(),
        hash: hex(&entry.hash).into(),
        event: String::from_utf8_lossy(&entry.event),
    };
    let mut line = serde_json::to_string(&json).expect("its members are numbers and texts");
    line.push('\n');
    line
}

/// What a line holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// What stands in the place of entries that were removed.
    Head(Seal),
    /// An entry.
    Entry {
        /// The hash before it, as it says.
        before: [u8; 32],
        /// The entry.
        entry: AuditEntry,
    },
}

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The line holds something else.
    #[error("line {line} is no entry of an audit log: {reason}")]
    Malformed {
        /// Which, from 1 on.
        line: u64,
        /// Why.
        reason: String,
    },
    /// The line is a head or a checkpoint that nobody signed so.
    #[error("line {line}: {source}")]
    Seal {
        /// Which, from 1 on.
        line: u64,
        /// Why.
        source: BadSeal,
    },
}

/// Reads lines one by one. Blank ones are passed over.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Begins to read.
    pub const fn new(from: R) -> Self {
        Self { from, line: 0, buffer: Vec::new() }
    }

    /// The next line of an exported log; none at the end.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn next_line(&mut self) -> Result<Option<Line>, LineError> {
        if !self.read()? {
            return Ok(None);
        }
        // A head is the first line, if there is one.
        if self.line == 1 && is_seal(&self.buffer) {
            return self.seal(Kind::Head).map(|head| Some(Line::Head(head)));
        }
        let line = parse(&self.buffer);
        line.map(Some).map_err(|reason| LineError::Malformed { line: self.line, reason })
    }

    /// The next line of a file of checkpoints; none at the end.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn next_checkpoint(&mut self) -> Result<Option<Seal>, LineError> {
        if self.read()? { self.seal(Kind::Checkpoint).map(Some) } else { Ok(None) }
    }

    fn seal(&self, kind: Kind) -> Result<Seal, LineError> {
        Seal::from_json(kind, &self.buffer)
            .map_err(|source| LineError::Seal { line: self.line, source })
    }

    /// Reads a line that is not blank: whether there is one.
    fn read(&mut self) -> Result<bool, LineError> {
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.from).take(MAX_LINE);
            if limited.read_until(b'\n', &mut self.buffer)? == 0 {
                return Ok(false);
            }
            self.line += 1;
            if self.buffer.last() != Some(&b'\n') && self.buffer.len() as u64 == MAX_LINE {
                let reason = format!("it has more than {MAX_LINE} bytes");
                return Err(LineError::Malformed { line: self.line, reason });
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

/// Whether a line says what it is sealed as, which entries do not.
fn is_seal(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Sealed {
        #[serde(rename = "kind")]
        _kind: serde::de::IgnoredAny,
    }
    serde_json::from_slice::<Sealed>(line).is_ok()
}

fn parse(line: &[u8]) -> Result<Line, String> {
    let json: Json<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let hash = |text: &str| Hash::from_hex(text).map(<[u8; 32]>::from).map_err(|e| e.to_string());
    let entry = AuditEntry {
        seq: json.seq,
        at: Millis(json.time_ms),
        hash: hash(&json.hash)?,
        event: json.event.as_bytes().into(),
    };
    Ok(Line::Entry { before: hash(&json.prev)?, entry })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key, log};
    use super::super::{GENESIS, hash_after};
    use super::*;

    fn lines(text: &str) -> Result<Vec<Line>, LineError> {
        let mut lines = Lines::new(text.as_bytes());
        std::iter::from_fn(|| lines.next_line().transpose()).collect()
    }

    #[test]
    fn exported_log_is_read_as_it_was_written() {
        let log = log(4);
        let mut before = GENESIS;
        let mut text = String::new();
        for entry in &log {
            text += &entry_line(&before, entry);
            before = entry.hash;
        }
        let read = lines(&text).unwrap();
        let entries: Vec<_> = read
            .into_iter()
            .map(|line| match line {
                Line::Entry { entry, .. } => entry,
                Line::Head(head) => panic!("{head:?}"),
            })
            .collect();
        assert_eq!(entries, log);
        let genesis = hex(&GENESIS);
        let begin = format!("{{\"seq\":0,\"time_ms\":0,\"prev\":\"{genesis}\",\"hash\":\"");
        assert!(text.starts_with(&begin), "{text}");
    }

    #[test]
    fn bytes_of_an_event_are_kept_whatever_they_are() {
        let event = "{\"id\":\"\\u0000\\\"\u{7f}é\u{1f600}\\u003c\"}".as_bytes();
        let hash = hash_after(&GENESIS, event);
        let entry = AuditEntry { seq: 7, at: Millis(1), hash, event: event.into() };
        let read = lines(&entry_line(&GENESIS, &entry)).unwrap();
        assert_eq!(read, [Line::Entry { before: GENESIS, entry }]);
    }

    #[test]
    fn head_is_the_first_line_and_no_other() {
        let head = Seal::sign(Kind::Head, 9, [1; 32], Millis(2), &key());
        let entry = entry_line(&GENESIS, &log(1)[0]);
        let read = lines(&format!("{}\n\n{entry}", head.to_json())).unwrap();
        assert!(matches!(read[..], [Line::Head(read), Line::Entry { .. }] if read == head));
        let error = lines(&format!("{entry}{}\n", head.to_json())).unwrap_err();
        assert!(matches!(error, LineError::Malformed { line: 2, .. }), "{error}");
    }

    #[test]
    fn forged_head_is_told_with_its_line() {
        let head = Seal::sign(Kind::Head, 9, [1; 32], Millis(2), &key());
        let forged = head.to_json().replace("\"seq\":9", "\"seq\":8");
        let error = lines(&forged).unwrap_err();
        assert!(error.to_string().starts_with("line 1: the signature is not"), "{error}");
    }

    #[test]
    fn what_is_no_entry_is_told_with_its_line() {
        let entry = entry_line(&GENESIS, &log(1)[0]);
        let bad_hash = entry.replace("\"hash\":\"", "\"hash\":\"z");
        for text in ["{}", "[]", "\u{0}", &bad_hash, &entry[..40]] {
            let error = lines(&format!("{entry}{text}")).unwrap_err();
            assert!(matches!(error, LineError::Malformed { line: 2, .. }), "{text}: {error}");
        }
    }

    #[test]
    fn line_without_an_end_is_not_read_into_memory() {
        let mut lines = Lines::new(std::io::BufReader::new(std::io::repeat(b' ')));
        let error = lines.next_line().unwrap_err();
        assert!(error.to_string().contains("more than 16777216 bytes"), "{error}");
    }
}
