//! Checks the audit log as it streams by, in constant memory for each entry.

use std::collections::BTreeMap;

use super::{GENESIS, Kind, Seal, hash_after, hex};
use crate::ids::RelayId;
use crate::proto::bus::Millis;
use crate::store::AuditEntry;

/// Where the log is not what it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Break {
    /// An entry is missing, or stands elsewhere.
    #[error("entry {found} stands where entry {expected} belongs")]
    Order {
        /// Which should be there.
        expected: u64,
        /// Which is.
        found: u64,
    },
    /// An entry says that another hash is before it.
    #[error("entry {seq}: the hash before it is {expected}, it says {found}")]
    Before {
        /// The entry.
        seq: u64,
        /// The hash of the entry before it.
        expected: String,
        /// What it says.
        found: String,
    },
    /// An entry was changed.
    #[error("entry {seq}: its hash is {found}, that of its event {expected}: it was changed")]
    Hash {
        /// The entry.
        seq: u64,
        /// The hash of what it holds.
        expected: String,
        /// The hash that it has.
        found: String,
    },
    /// The chain is whole, and not the one that the relay signed.
    #[error(
        "entry {seq}: its hash is {found}, that of a checkpoint {expected}: the log was rewritten"
    )]
    Rewritten {
        /// The entry.
        seq: u64,
        /// The hash that the relay signed.
        expected: String,
        /// The hash that it has.
        found: String,
    },
    /// The last entries are missing.
    #[error("it ends {}, and a checkpoint has entry {checkpoint}: its end was cut off", ends(*last))]
    Cut {
        /// The last entry, where there is one.
        last: Option<u64>,
        /// The entry that the relay signed.
        checkpoint: u64,
    },
    /// Not this relay signed it.
    #[error("a {kind} is signed by relay {found}, not {expected}")]
    Relay {
        /// What is signed.
        kind: Kind,
        /// Whose log it is.
        expected: RelayId,
        /// Who signed.
        found: RelayId,
    },
}

fn ends(last: Option<u64>) -> String {
    last.map_or_else(|| "before its first entry".to_owned(), |last| format!("with entry {last}"))
}

/// What a checkpoint says of the end of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tail {
    /// Without a checkpoint nobody can tell whether the last entries are missing.
    NotProvable,
    /// Nothing was cut off up to this entry.
    Proven {
        /// The entry of the last checkpoint.
        seq: u64,
        /// When it was signed.
        at: Millis,
        /// Who signed it.
        relay: RelayId,
    },
}

/// What was found of a log that is whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checked {
    /// How many entries there are.
    pub entries: u64,
    /// The number behind the last one.
    pub next: u64,
    /// Whether the end is proven.
    pub tail: Tail,
}

/// Checks a log, entry by entry.
#[derive(Debug)]
pub struct Verifier {
    entries: u64,
    next: u64,
    hash: [u8; 32],
    /// What checkpoints say that the log does not have yet.
    ahead: BTreeMap<u64, [u8; 32]>,
    tail: Tail,
}

impl Verifier {
    /// Begins behind the entries that retention removed, if `head` tells of some. All that is
    /// signed has to be so by one relay: this one, where it is known.
    ///
    /// # Errors
    /// Another relay signed, or two checkpoints contradict each other.
    pub fn new(
        head: Option<&Seal>,
        checkpoints: &[Seal],
        relay: Option<RelayId>,
    ) -> Result<Self, Break> {
        let signed = || head.into_iter().chain(checkpoints);
        let whose = relay.or_else(|| signed().next().map(|seal| seal.relay));
        if let Some(expected) = whose
            && let Some(other) = signed().find(|seal| seal.relay != expected)
        {
            return Err(Break::Relay { kind: other.kind, expected, found: other.relay });
        }
        let (next, hash) = head.map_or((0, GENESIS), |head| (head.seq + 1, head.hash));
        let mut verifier =
            Self { entries: 0, next, hash, ahead: BTreeMap::new(), tail: Tail::NotProvable };
        let mut last: Option<&Seal> = None;
        for seal in checkpoints {
            if seal.seq + 1 == next {
                same(seal, &hash)?;
            } else if seal.seq >= next
                && let Some(hash) = verifier.ahead.insert(seal.seq, seal.hash)
            {
                same(seal, &hash)?;
            }
            last = last.filter(|last| last.seq >= seal.seq).or(Some(seal));
        }
        if let Some(Seal { seq, at, relay, .. }) = last.copied() {
            verifier.tail = Tail::Proven { seq, at, relay };
        }
        Ok(verifier)
    }

    /// Checks the next entry.
    ///
    /// # Errors
    /// It is not the next one, or was changed.
    pub fn entry(&mut self, entry: &AuditEntry) -> Result<(), Break> {
        let AuditEntry { seq, hash, .. } = *entry;
        if seq != self.next {
            return Err(Break::Order { expected: self.next, found: seq });
        }
        let expected = hash_after(&self.hash, &entry.event);
        if hash != expected {
            return Err(Break::Hash { seq, expected: hex(&expected), found: hex(&hash) });
        }
        if let Some(expected) = self.ahead.remove(&seq)
            && hash != expected
        {
            return Err(Break::Rewritten { seq, expected: hex(&expected), found: hex(&hash) });
        }
        self.entries += 1;
        self.next += 1;
        self.hash = hash;
        Ok(())
    }

    /// Checks the next entry, and what it says of the one before it.
    ///
    /// # Errors
    /// As of [`Self::entry`]; what it says is wrong.
    pub fn entry_after(&mut self, before: &[u8; 32], entry: &AuditEntry) -> Result<(), Break> {
        if entry.seq == self.next && *before != self.hash {
            let (expected, found) = (hex(&self.hash), hex(before));
            return Err(Break::Before { seq: entry.seq, expected, found });
        }
        self.entry(entry)
    }

    /// The number of the entry that comes next.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// What there is to say of a log that ends here.
    ///
    /// # Errors
    /// A checkpoint has an entry that did not come.
    pub fn end(self) -> Result<Checked, Break> {
        if let Some((&checkpoint, _)) = self.ahead.last_key_value() {
            return Err(Break::Cut { last: self.next.checked_sub(1), checkpoint });
        }
        Ok(Checked { entries: self.entries, next: self.next, tail: self.tail })
    }
}

/// Whether the log has what a checkpoint says.
fn same(seal: &Seal, hash: &[u8; 32]) -> Result<(), Break> {
    if seal.hash == *hash {
        return Ok(());
    }
    Err(Break::Rewritten { seq: seal.seq, expected: hex(&seal.hash), found: hex(hash) })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::super::testing::{key, log};
    use super::super::{Chain, hash_after};
    use super::*;

    fn seal(kind: Kind, entry: &AuditEntry) -> Seal {
        Seal::sign(kind, entry.seq, entry.hash, Millis(9), &key())
    }

    fn checkpoint(entry: &AuditEntry) -> Seal {
        seal(Kind::Checkpoint, entry)
    }

    fn verify(
        head: Option<&Seal>,
        checkpoints: &[Seal],
        entries: &[AuditEntry],
    ) -> Result<Checked, Break> {
        let mut verifier = Verifier::new(head, checkpoints, None)?;
        entries.iter().try_for_each(|entry| verifier.entry(entry))?;
        verifier.end()
    }

    /// Whoever can write the log, but has no key, makes it whole again from here on.
    fn rewrite(entries: &mut [AuditEntry], from: usize) {
        for at in from..entries.len() {
            let before = at.checked_sub(1).map_or(GENESIS, |before| entries[before].hash);
            entries[at].hash = hash_after(&before, &entries[at].event);
        }
    }

    #[test]
    fn whole_log_passes_and_its_tail_is_not_provable() {
        let checked = verify(None, &[], &log(9)).unwrap();
        assert_eq!(checked, Checked { entries: 9, next: 9, tail: Tail::NotProvable });
        assert_eq!(verify(None, &[], &[]).unwrap().entries, 0);
    }

    #[test]
    fn edit_is_found_at_its_entry() {
        let mut log = log(9);
        log[4].event = (*b"{\"event\":\"send\"}").into();
        let found = verify(None, &[], &log).unwrap_err();
        assert!(matches!(found, Break::Hash { seq: 4, .. }), "{found}");
        log[4].hash = hash_after(&log[3].hash, &log[4].event);
        let found = verify(None, &[], &log).unwrap_err();
        assert!(matches!(found, Break::Hash { seq: 5, .. }), "{found}");
    }

    #[test]
    fn reordering_is_found() {
        let mut log = log(9);
        log.swap(3, 4);
        assert_eq!(verify(None, &[], &log), Err(Break::Order { expected: 3, found: 4 }));
        let (third, fourth) = (log[3].seq, log[4].seq);
        log[3].seq = fourth;
        log[4].seq = third;
        let found = verify(None, &[], &log).unwrap_err();
        assert!(matches!(found, Break::Hash { seq: 3, .. }), "{found}");
    }

    #[test]
    fn removed_segment_is_found_wherever_it_was() {
        let log = log(30);
        let without = |from: usize, to: usize| [&log[..from], &log[to..]].concat();
        let middle = verify(None, &[], &without(10, 20));
        assert_eq!(middle, Err(Break::Order { expected: 10, found: 20 }));
        let first = verify(None, &[], &without(0, 10));
        assert_eq!(first, Err(Break::Order { expected: 0, found: 10 }));
        // Retention removed 10; somebody removed 10 more.
        let head = seal(Kind::Head, &log[9]);
        let more = verify(Some(&head), &[], &without(0, 20));
        assert_eq!(more, Err(Break::Order { expected: 10, found: 20 }));
    }

    #[test]
    fn cut_tail_is_found_with_a_checkpoint_alone() {
        let log = log(9);
        assert!(verify(None, &[], &log[..7]).is_ok());
        let signed = [checkpoint(&log[2]), checkpoint(&log[7])];
        let cut = Break::Cut { last: Some(6), checkpoint: 7 };
        assert_eq!(verify(None, &signed, &log[..7]), Err(cut.clone()));
        assert!(cut.to_string().contains("ends with entry 6"), "{cut}");
        let none = verify(None, &signed, &[]);
        assert_eq!(none, Err(Break::Cut { last: None, checkpoint: 7 }));
        let checked = verify(None, &signed, &log).unwrap();
        let relay = signed[0].relay;
        assert_eq!(checked.tail, Tail::Proven { seq: 7, at: Millis(9), relay });
    }

    #[test]
    fn log_that_was_rewritten_is_found_with_a_checkpoint_alone() {
        let mut log = log(9);
        let signed = [checkpoint(&log[6])];
        log[4].event = (*b"{\"event\":\"send\"}").into();
        rewrite(&mut log, 4);
        assert!(verify(None, &[], &log).is_ok());
        let found = verify(None, &signed, &log).unwrap_err();
        assert!(matches!(found, Break::Rewritten { seq: 6, .. }), "{found}");
    }

    #[test]
    fn log_begins_behind_its_head() {
        let log = log(30);
        let head = seal(Kind::Head, &log[9]);
        let checked = verify(Some(&head), &[], &log[10..]).unwrap();
        assert_eq!((checked.entries, checked.next), (20, 30));
        assert_eq!(verify(Some(&head), &[], &[]).unwrap().next, 10);
        // Checkpoints of what is gone stay in their file.
        let signed = [checkpoint(&log[3]), checkpoint(&log[9]), checkpoint(&log[20])];
        assert!(verify(Some(&head), &signed, &log[10..]).is_ok());
    }

    #[test]
    fn head_of_another_chain_is_found() {
        let mut other = log(30);
        other[2].event = (*b"{}").into();
        rewrite(&mut other, 2);
        let log = log(30);
        let head = seal(Kind::Head, &other[9]);
        let found = verify(Some(&head), &[], &log[10..]).unwrap_err();
        assert!(matches!(found, Break::Hash { seq: 10, .. }), "{found}");
        let found = verify(Some(&head), &[checkpoint(&log[9])], &other[10..]).unwrap_err();
        assert!(matches!(found, Break::Rewritten { seq: 9, .. }), "{found}");
    }

    #[test]
    fn checkpoints_that_contradict_each_other_are_found() {
        let log = log(9);
        let lie = Seal::sign(Kind::Checkpoint, 5, [1; 32], Millis(9), &key());
        let found = verify(None, &[checkpoint(&log[5]), lie], &log).unwrap_err();
        assert!(matches!(found, Break::Rewritten { seq: 5, .. }), "{found}");
    }

    #[test]
    fn checkpoint_of_another_relay_is_found() {
        let log = log(9);
        let other = SigningKey::from_bytes(&[6; 32]);
        let theirs = Seal::sign(Kind::Checkpoint, 5, log[5].hash, Millis(9), &other);
        let mixed = verify(None, &[checkpoint(&log[4]), theirs], &log);
        assert!(matches!(mixed, Err(Break::Relay { .. })), "{mixed:?}");
        let ours = checkpoint(&log[4]).relay;
        let known = Verifier::new(None, &[theirs], Some(ours)).unwrap_err();
        assert!(matches!(known, Break::Relay { .. }), "{known}");
    }

    #[test]
    fn what_an_entry_says_of_the_one_before_it_is_checked() {
        let log = log(3);
        let mut verifier = Verifier::new(None, &[], None).unwrap();
        verifier.entry_after(&GENESIS, &log[0]).unwrap();
        let found = verifier.entry_after(&GENESIS, &log[1]).unwrap_err();
        assert!(matches!(found, Break::Before { seq: 1, .. }), "{found}");
        let moved = verifier.entry_after(&log[1].hash, &log[2]).unwrap_err();
        assert_eq!(moved, Break::Order { expected: 1, found: 2 });
        let chain = Chain::after(Some(&log[0]));
        assert_eq!((chain.next, chain.hash), (1, log[0].hash));
    }
}
