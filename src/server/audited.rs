//! Whether the audit log of messages is whole: all of it is read once after the start, and from
//! then on what is new. It is read a piece at a time, with pauses.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::error;

use crate::metrics::{Counter, family};
use crate::store::audit::{Break, Kind, Seal, Verifier};
use crate::store::{Store, StoreError};

/// Entries of a piece.
const PIECE: usize = 256;

/// Between two pieces: a tenth of a core is spent at most.
const PAUSE: Duration = Duration::from_millis(5);

/// Between the end of the log and the next look for new entries.
const INTERVAL: Duration = Duration::from_secs(60);

/// The check, and what it has found.
pub(super) struct Audited {
    store: Arc<dyn Store>,
    /// Locked while the store is read.
    verifier: Mutex<Option<Verifier>>,
    /// Where the log is not what it was; nothing is checked behind. Whoever asks waits for no disk.
    broken: Mutex<Option<String>>,
    checked: Counter,
}

/// Why a piece was not checked.
enum Failure {
    Broken(String),
    /// It cannot be read now.
    Unread,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(reason) => Self::Broken(reason),
            StoreError::Unavailable(_) | StoreError::Locked | StoreError::Fenced => Self::Unread,
        }
    }
}

impl Audited {
    /// A check of the log of this store.
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let verifier = Mutex::default();
        Arc::new(Self { store, verifier, broken: Mutex::default(), checked: Counter::default() })
    }

    /// Checks for ever.
    pub(super) async fn keep_checking(self: Arc<Self>) {
        loop {
            let audited = Arc::clone(&self);
            let has_more = spawn_blocking(move || audited.check_piece()).await;
            sleep(if has_more.unwrap_or_default() { PAUSE } else { INTERVAL }).await;
        }
    }

    /// Where the log is not what it was.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.lock().clone()
    }

    /// Appends the families to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        families.extend([
            family::gauge_value(
                "beacon_relay_bus_audit_broken",
                "1 where the audit log of messages is not what the relay has written.",
                f64::from(u8::from(self.broken().is_some())),
            ),
            family::counter(
                "beacon_relay_bus_audit_checked_total",
                "Entries of the audit log of messages that were read and found in order.",
                &self.checked,
            ),
        ]);
    }

    /// Checks some entries; true where there may be more.
    fn check_piece(&self) -> bool {
        let mut verifier = self.verifier.lock();
        if self.broken.lock().is_some() {
            return false;
        }
        match self.piece(&mut verifier) {
            Ok(entries) => {
                self.checked.add(entries as u64);
                entries == PIECE
            }
            Err(Failure::Unread) => false,
            Err(Failure::Broken(reason)) => {
                error!(reason, "the audit log of messages is not what this relay has written");
                *self.broken.lock() = Some(reason);
                false
            }
        }
    }

    fn piece(&self, verifier: &mut Option<Verifier>) -> Result<usize, Failure> {
        let head = self.head()?;
        let begins = head.as_ref().map_or(0, |head| head.seq + 1);
        let verifier = match verifier {
            Some(verifier) if verifier.next() >= begins => verifier,
            // The first look, or entries that were yet to be checked have been removed.
            _ => verifier.insert(Verifier::new(head.as_ref(), &[], None).map_err(broken)?),
        };
        let entries = self.store.audit(verifier.next(), PIECE)?;
        for entry in &entries {
            let Err(reason) = verifier.entry(entry) else { continue };
            let is_removed = matches!(reason, Break::Order { .. }) && self.head()? != head;
            return Err(if is_removed { Failure::Unread } else { broken(reason) });
        }
        Ok(entries.len())
    }

    /// What stands in the place of entries that were removed.
    fn head(&self) -> Result<Option<Seal>, Failure> {
        let head = self.store.audit_head()?;
        let head = head.map(|head| Seal::from_json(Kind::Head, &head));
        head.transpose().map_err(|error| Failure::Broken(error.to_string()))
    }
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn broken(reason: Break) -> Failure {
    Failure::Broken(reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::bus::{Event, EventKind, Millis};
    use crate::store::audit::Chain;
    use crate::store::{AuditEntry, Commit, Embedded, Handover};

    fn entries(count: usize) -> Vec<AuditEntry> {
        let mut chain = Chain::after(None);
        let event = |number: usize| Event {
            kind: EventKind::Send,
            key: number.to_string().into(),
            from: "bob".into(),
            to: "alice".into(),
        };
        (0..count).map(|number| chain.append(&event(number), Millis(1))).collect()
    }

    fn audited(audit: Vec<AuditEntry>) -> (tempfile::TempDir, Arc<Audited>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), Handover::Process).unwrap();
        store.commit(&Commit { changes: Vec::new(), audit }).unwrap();
        (folder, Audited::new(Arc::new(store)))
    }

    #[test]
    fn whole_log_is_read_once_and_then_what_is_new() {
        let mut all = entries(PIECE + 11);
        let new = all.split_off(PIECE + 10);
        let (_folder, audited) = audited(all);

        assert!(audited.check_piece() && !audited.check_piece() && !audited.check_piece());
        assert_eq!(audited.checked.value(), PIECE as u64 + 10);
        audited.store.commit(&Commit { changes: Vec::new(), audit: new }).unwrap();
        assert!(!audited.check_piece());

        assert_eq!((audited.checked.value(), audited.broken()), (PIECE as u64 + 11, None));
    }

    #[test]
    fn entry_that_was_changed_breaks_the_log_for_good() {
        let mut all = entries(20);
        all[7].event =
            (*b"{\"event\":\"send\",\"id\":\"7\",\"from\":\"eve\",\"to\":\"alice\"}").into();
        let (_folder, audited) = audited(all);

        assert!(!audited.check_piece() && !audited.check_piece());

        let reason = audited.broken().unwrap();
        assert!(reason.starts_with("entry 7: its hash is"), "{reason}");
        let mut families = Vec::new();
        audited.families(&mut families);
        assert!((families[0].get_metric()[0].get_gauge().get_value() - 1.0).abs() < f64::EPSILON);
    }
}
