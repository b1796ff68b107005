//! The audit log: a chain of hashes over what happened to messages.
//!
//! The hash of an entry is the BLAKE3 of the hash before it, as 64 hexadecimal digits, and of its
//! event. So an entry that was changed, moved or removed breaks the chain; who changes all that
//! follows as well is found by a [checkpoint](Kind::Checkpoint), which the relay signs, writes
//! elsewhere, and which alone proves that nothing was cut off behind. Old entries go in whole
//! segments, and a signed [head](Kind::Head) stands in their place.

mod lines;
mod retention;
mod seal;
mod verify;
mod writer;

use blake3::Hash;

use super::AuditEntry;
use crate::proto::bus::{Event, EventKind, Millis};
use crate::wire::peerbus::audit_event;

pub use lines::{Line, LineError, Lines, entry_line};
pub use retention::{SEGMENT, cut_before, cut_beyond};
pub use seal::{BadSeal, Kind, Seal};
pub use verify::{Break, Checked, Tail, Verifier};
pub use writer::{CheckpointError, Checkpoints};

/// What stands for the hash before the first entry: that of no bytes.
pub const GENESIS: [u8; 32] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49,
    0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

/// The digits that stand before an event in what is hashed.
const DIGITS: usize = 64;

/// The hash of an entry that follows one of this hash.
#[must_use]
pub fn hash_after(before: &[u8; 32], event: &[u8]) -> [u8; 32] {
    let mut text = Vec::with_capacity(DIGITS + event.len());
    push_hex(&mut text, before);
    text.extend_from_slice(event);
    blake3::hash(&text).into()
}

/// Appends a hash in hexadecimal.
fn push_hex(text: &mut Vec<u8>, hash: &[u8; 32]) {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    let digits = hash.map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
    text.extend_from_slice(digits.as_flattened());
}

/// The end of the chain, where the next entry goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    next: u64,
    hash: [u8; 32],
    /// What is hashed for the entry that is being appended.
    text: Vec<u8>,
}

impl Chain {
    /// The chain that ends with this entry; a new one where there is none.
    #[must_use]
    pub fn after(last: Option<&AuditEntry>) -> Self {
        let (next, hash) = last.map_or((0, GENESIS), |last| (last.seq + 1, last.hash));
        Self { next, hash, text: Vec::new() }
    }

    /// The entry of an event, which from here on is the last.
    pub fn append(&mut self, event: &Event, at: Millis) -> AuditEntry {
        let kind = match event.kind {
            EventKind::Send => "send",
            EventKind::Deliver => "deliver",
            EventKind::Ack => "ack",
            EventKind::Expire => "expire",
            EventKind::Purge => "purge",
            EventKind::Requeue => "requeue",
            EventKind::ReplayGap => "replay_gap",
            EventKind::PolicyViolation => "policy_violation",
            EventKind::LoopDropped => "loop_dropped",
        };
        // In one buffer: hashing it in pieces costs as much again.
        self.text.clear();
        push_hex(&mut self.text, &self.hash);
        audit_event(&mut self.text, kind, &event.key, &event.from, &event.to);
        self.hash = blake3::hash(&self.text).into();
        let seq = self.next;
        self.next += 1;
        let event = self.text.get(DIGITS..).unwrap_or_default().into();
        AuditEntry { seq, at, hash: self.hash, event }
    }
}

/// A hash as an operator reads it.
fn hex(hash: &[u8; 32]) -> String {
    Hash::from_bytes(*hash).to_hex().to_string()
}

#[cfg(test)]
mod testing {
    use ed25519_dalek::SigningKey;

    use super::*;

    /// The key of the relay of a test.
    pub(super) fn key() -> SigningKey {
        SigningKey::from_bytes(&[5; 32])
    }

    /// A log of so many entries.
    pub(super) fn log(entries: u64) -> Vec<AuditEntry> {
        let mut chain = Chain::after(None);
        let event = |number: u64| Event {
            kind: EventKind::Send,
            key: format!("m{number}").into(),
            from: "bob".into(),
            to: "alice".into(),
        };
        (0..entries).map(|number| chain.append(&event(number), Millis(1_000 * number))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// An entry of the log of the original program.
    #[derive(Deserialize)]
    struct Recorded {
        seq: u64,
        prev: String,
        hash: String,
        event: String,
    }

    fn recorded() -> Vec<Recorded> {
        serde_json::from_str(include_str!("vectors.json")).unwrap()
    }

    #[test]
    fn genesis_is_the_hash_of_nothing() {
        assert_eq!(blake3::hash(b""), GENESIS);
        let known = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(hex(&GENESIS), known);
    }

    #[test]
    fn chain_is_that_of_the_original_program() {
        #[derive(Deserialize)]
        struct Members {
            event: String,
            id: String,
            from: String,
            to: String,
        }
        let mut chain = Chain::after(None);
        let mut verifier = Verifier::new(None, &[], None).unwrap();
        let all = recorded();
        assert!(all.len() > 10);
        for recorded in all {
            assert_eq!(recorded.prev, hex(&chain.hash));
            let members: Members = serde_json::from_str(&recorded.event).unwrap();
            let kind = match &members.event[..] {
                "send" => EventKind::Send,
                "deliver" => EventKind::Deliver,
                "ack" => EventKind::Ack,
                other => panic!("{other}"),
            };
            let event = Event {
                kind,
                key: members.id.into(),
                from: members.from.into(),
                to: members.to.into(),
            };
            let entry = chain.append(&event, Millis(0));
            assert_eq!(entry.seq, recorded.seq);
            assert_eq!(std::str::from_utf8(&entry.event).unwrap(), recorded.event);
            assert_eq!(hex(&entry.hash), recorded.hash);
            verifier.entry(&entry).unwrap();
        }
        verifier.end().unwrap();
    }

    #[test]
    fn chain_goes_on_from_its_last_entry() {
        let log = testing::log(3);
        let mut chain = Chain::after(log.get(1));
        let event = Event {
            kind: EventKind::Send,
            key: "m2".into(),
            from: "bob".into(),
            to: "alice".into(),
        };
        assert_eq!(chain.append(&event, Millis(2_000)), log[2]);
    }
}
