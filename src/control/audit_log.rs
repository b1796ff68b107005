//! The audit log of messages, page by page, for whoever checks it while the relay runs.

use blake3::Hash;
use serde::{Deserialize, Serialize};

use super::{Parts, Refused};
use crate::ids::RelayId;
use crate::proto::bus::Millis;
use crate::store::{AuditEntry, ChainPage, Store, StoreError};

/// Entries that are read at once.
const PIECE: usize = 64;

/// Most entries of a page.
const MOST_ENTRIES: usize = 4_096;

/// Bytes of events from which on a page is full.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A part of the log.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditPage {
    /// What stands in the place of entries that were removed, as JSON.
    pub head: Option<String>,
    /// The number of the last entry of all.
    pub last: Option<u64>,
    /// The entries from the one on that was asked for; none behind the last.
    pub entries: Vec<Logged>,
    /// The other relays whose logs the store has as well.
    #[serde(default)]
    pub chains: Vec<String>,
}

/// An entry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Logged {
    seq: u64,
    time_ms: u64,
    hash: String,
    event: String,
}

/// An entry whose hash is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("entry {0} has no hash")]
pub struct NoHash(u64);

impl From<AuditEntry> for Logged {
    fn from(entry: AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            time_ms: entry.at.0,
            hash: Hash::from_bytes(entry.hash).to_hex().to_string(),
            event: String::from_utf8_lossy(&entry.event).into_owned(),
        }
    }
}

impl TryFrom<Logged> for AuditEntry {
    type Error = NoHash;

    fn try_from(logged: Logged) -> Result<Self, NoHash> {
        let Logged { seq, time_ms, hash, event } = logged;
        let hash = Hash::from_hex(hash).map_err(|_| NoHash(seq))?.into();
        Ok(Self { seq, at: Millis(time_ms), hash, event: event.into_bytes().into() })
    }
}

impl AuditPage {
    /// The page that begins with this entry.
    pub(super) fn of(parts: &Parts, from: u64, chain: Option<&str>) -> Result<Self, Refused> {
        let Some(store) = &parts.store else {
            return Err(Refused::Failed(
                "this relay keeps no messages; give a listener a door that has messages".to_owned(),
            ));
        };
        let chain = chain.map(str::parse).transpose();
        let chain = chain.map_err(|_| {
            Refused::Failed(
                "that is no relay's id; write the 64 digits that `cluster-id` prints there"
                    .to_owned(),
            )
        })?;
        Self::read(&**store, from, chain).map_err(|error| Refused::Failed(error.to_string()))
    }

    fn read(store: &dyn Store, from: u64, chain: Option<RelayId>) -> Result<Self, StoreError> {
        let (head, last) = match chain {
            None => (store.audit_head()?, store.last_audit()?.map(|last| last.seq)),
            Some(relay) => {
                let ChainPage { head, last, .. } = store.chain(relay, from, 0)?;
                (head, last)
            }
        };
        let mut entries: Vec<Logged> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while bytes < MOST_BYTES && entries.len() < MOST_ENTRIES {
            let piece = match chain {
                None => store.audit(next, PIECE)?,
                Some(relay) => store.chain(relay, next, PIECE)?.entries,
            };
            let Some(last) = piece.last() else { break };
            next = last.seq + 1;
            bytes += piece.iter().map(|entry| entry.event.len()).sum::<usize>();
            entries.extend(piece.into_iter().map(Logged::from));
        }
        let head = head.map(|head| String::from_utf8_lossy(&head).into_owned());
        let chains = store.chains()?.iter().map(RelayId::to_string).collect();
        Ok(Self { head, last, entries, chains })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Commit, Embedded, Handover};

    fn entry(seq: u64, event: &str) -> AuditEntry {
        AuditEntry { seq, at: Millis(seq), hash: [3; 32], event: event.as_bytes().into() }
    }

    fn store(entries: impl IntoIterator<Item = AuditEntry>) -> (tempfile::TempDir, Embedded) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), Handover::Kernel).unwrap();
        let audit = entries.into_iter().collect();
        store.commit(&Commit { changes: Vec::new(), audit }).unwrap();
        (folder, store)
    }

    #[test]
    fn pages_make_the_whole_log() {
        let (_folder, store) = store((0..9_000).map(|seq| entry(seq, "{\"id\":\"é\\u0000\"}")));
        let mut read = Vec::new();
        loop {
            let page = AuditPage::read(&store, read.len() as u64, None).unwrap();
            assert_eq!((page.last, page.head.as_deref()), (Some(8_999), None));
            if page.entries.is_empty() {
                break;
            }
            assert!(page.entries.len() <= MOST_ENTRIES);
            let again = serde_json::to_string(&page).unwrap();
            let page: AuditPage = serde_json::from_str(&again).unwrap();
            read.extend(page.entries.into_iter().map(|entry| AuditEntry::try_from(entry).unwrap()));
        }
        assert_eq!(read, store.audit(0, 10_000).unwrap());
    }

    #[test]
    fn page_of_long_events_is_short() {
        let long = "x".repeat(100_000);
        let (_folder, store) = store((0..1_000).map(|seq| entry(seq, &long)));
        let page = AuditPage::read(&store, 0, None).unwrap();
        assert_eq!(page.entries.len(), PIECE);
    }

    #[test]
    fn entry_without_a_hash_is_none() {
        let logged = Logged { hash: "ab".to_owned(), ..Logged::from(entry(7, "{}")) };
        assert_eq!(AuditEntry::try_from(logged), Err(NoHash(7)));
    }
}
