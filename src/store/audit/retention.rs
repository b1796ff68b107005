//! The end of old entries.

use ed25519_dalek::SigningKey;

use super::{Kind, Seal};
use crate::proto::bus::Millis;
use crate::store::{AuditEntry, Store, StoreError};

/// Entries are removed in segments of so many: each begins at a multiple of it.
pub const SEGMENT: u64 = 65_536;

/// Where they take too much, they are removed in segments of so many: an entry has 18 KiB at most,
/// and a segment of the longest is then 75 MB.
const PIECE: u64 = 4_096;

/// Removes the segments whose entries are all older than this, behind a signed head: its number of
/// entries. Where the clock was set back, an entry counts as old as those around it.
///
/// # Errors
/// The store cannot be read or written.
pub fn cut_before(
    store: &dyn Store,
    old: Millis,
    now: Millis,
    key: &SigningKey,
) -> Result<u64, StoreError> {
    let Some(first) = store.audit(0, 1)?.first().map(|entry| entry.seq) else { return Ok(0) };
    let Some(last) = store.last_audit()? else { return Ok(0) };
    let boundary = |seq: u64| seq / SEGMENT * SEGMENT;
    let is_old = |seq: u64| entry(store, seq).map(|entry| entry.at < old);
    // Halves the segments: up to `low` all is old, and `high` is not.
    let mut low = boundary(first);
    let mut high = boundary(last.seq);
    while low < high {
        let middle = boundary(low + (high - low) / 2);
        let end = middle + SEGMENT;
        if is_old(end - 1)? {
            low = end;
        } else {
            high = middle;
        }
    }
    if low <= first {
        return Ok(0);
    }
    cut(store, low, now, key)?;
    Ok(low - first)
}

/// Removes the oldest entries behind a signed head until the rest takes no more than so many bytes:
/// its number of entries. How many that are is an estimate, by what an entry takes on the average.
///
/// # Errors
/// The store cannot be read or written.
pub fn cut_beyond(
    store: &dyn Store,
    most: u64,
    now: Millis,
    key: &SigningKey,
) -> Result<u64, StoreError> {
    let surplus = store.audit_bytes()?.saturating_sub(most);
    if surplus == 0 {
        return Ok(0);
    }
    let Some(first) = store.audit(0, 1)?.first().map(|entry| entry.seq) else { return Ok(0) };
    let Some(last) = store.last_audit()? else { return Ok(0) };
    let entries = last.seq + 1 - first;
    let average = (store.audit_bytes()? / entries).max(1);
    let wanted = first.saturating_add(surplus.div_ceil(average)).next_multiple_of(PIECE);
    let before = wanted.min(last.seq / PIECE * PIECE);
    if before <= first {
        return Ok(0);
    }
    cut(store, before, now, key)?;
    Ok(before - first)
}

/// Removes the entries before this one, and has a head stand in their place.
fn cut(store: &dyn Store, before: u64, now: Millis, key: &SigningKey) -> Result<(), StoreError> {
    let hash = entry(store, before - 1)?.hash;
    let head = Seal::sign(Kind::Head, before - 1, hash, now, key);
    store.cut_audit(before, head.to_json().as_bytes())
}

fn entry(store: &dyn Store, seq: u64) -> Result<AuditEntry, StoreError> {
    let entry = store.audit(seq, 1)?.pop().filter(|entry| entry.seq == seq);
    entry.ok_or_else(|| StoreError::Damaged(format!("entry {seq} of the audit log is missing")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key, log};
    use super::super::{Tail, Verifier};
    use super::*;
    use crate::store::{Commit, Embedded, Handover};

    fn cut_old(store: &Embedded, old: u64) -> u64 {
        cut_before(store, Millis(old), Millis(5), &key()).unwrap()
    }

    #[test]
    fn whole_segments_go_and_the_rest_verifies_behind_its_head() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), Handover::Kernel).unwrap();
        assert_eq!(cut_old(&store, u64::MAX), 0, "there is nothing");
        // One a second.
        let log = log(3 * SEGMENT + 100);
        for entries in log.chunks(1_000) {
            store.commit(&Commit { changes: Vec::new(), audit: entries.to_vec() }).unwrap();
        }
        assert_eq!(cut_old(&store, 1_000 * (SEGMENT - 1)), 0, "its last entry is not older");
        assert_eq!(cut_old(&store, 1_000 * (2 * SEGMENT + 7)), 2 * SEGMENT);
        assert_eq!(cut_old(&store, 1_000 * (2 * SEGMENT + 7)), 0, "they are gone");

        let head = store.audit_head().unwrap().unwrap();
        let head = Seal::from_json(Kind::Head, &head).unwrap();
        assert_eq!((head.seq, head.at), (2 * SEGMENT - 1, Millis(5)));
        let mut verifier = Verifier::new(Some(&head), &[], Some(head.relay)).unwrap();
        loop {
            let page = store.audit(verifier.next(), 10_000).unwrap();
            if page.is_empty() {
                break;
            }
            page.iter().try_for_each(|entry| verifier.entry(entry)).unwrap();
        }
        let checked = verifier.end().unwrap();
        assert_eq!(checked.entries, SEGMENT + 100);
        assert_eq!(checked.tail, Tail::NotProvable);

        assert_eq!(cut_old(&store, u64::MAX), SEGMENT, "the last is not whole");
    }

    #[test]
    fn log_that_takes_too_much_loses_its_oldest_entries_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Embedded::open(folder.path(), Handover::Kernel).unwrap();
        let cut = |store: &Embedded, most| cut_beyond(store, most, Millis(5), &key()).unwrap();
        let store = open();
        assert_eq!((cut(&store, 0), store.audit_bytes().unwrap()), (0, 0), "there is nothing");
        let log = log(5 * PIECE + 100);
        for entries in log.chunks(1_000) {
            store.commit(&Commit { changes: Vec::new(), audit: entries.to_vec() }).unwrap();
        }
        let bytes = store.audit_bytes().unwrap();
        let events: usize = log.iter().map(|entry| entry.event.len() + 32).sum();
        assert!((events as u64..events as u64 * 2).contains(&bytes), "{bytes} {events}");
        assert_eq!(cut(&store, bytes), 0);
        drop(store);

        let store = open();
        assert_eq!(store.audit_bytes().unwrap(), bytes);
        let most = bytes / 2;
        assert_eq!(cut(&store, most), 3 * PIECE);
        let left = store.audit_bytes().unwrap();
        assert!(left <= most, "{left}");
        assert_eq!(cut(&store, most), 0);
        let head = Seal::from_json(Kind::Head, &store.audit_head().unwrap().unwrap()).unwrap();
        assert_eq!(head.seq, 3 * PIECE - 1);
        drop(store);

        let store = open();
        assert_eq!(store.audit_bytes().unwrap(), left);
        assert_eq!(store.audit(0, 1).unwrap()[0].seq, 3 * PIECE);
        assert_eq!(cut(&store, 0), 2 * PIECE, "the last are no whole segment");
    }
}
