//! A watched key file and the keys that it held when it was last good.
//!
//! A new state is checked whole, then swapped in; readers never wait for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use serde::Serialize;
use tracing::{info, warn};

use super::changes::Changes;
use super::list::{Difference, FileError, KeyList};
use crate::ids::{NodeId, PublicKey};
use crate::metrics::{Gauge, Labelled, family};
use crate::proto::watch::{Stamp, Watch};

/// Fewest keys for which a loss or change of more than half is refused; smaller files change
/// freely.
const GUARDED: usize = 16;

/// What a reload changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Reload {
    /// Nodes that had no key before.
    pub added: usize,
    /// Nodes that have no key any more.
    pub removed: usize,
    /// Nodes that have another key.
    pub changed: usize,
}

/// Why a reload left the keys as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file lost or changed more than half of the keys, which looks like an accident.
    #[error(
        "{} would remove {removed} and change {changed} of {entries} keys: \
         `beacon-relay reload --force` takes it as it is",
        path.display()
    )]
    Refused {
        /// The key file.
        path: PathBuf,
        /// How many keys it would remove.
        removed: usize,
        /// How many nodes it would give another key.
        changed: usize,
        /// How many keys there are.
        entries: usize,
    },
}

crate::words! {
    /// How an attempt to reload ended.
    enum Outcome {
        Ok => "ok",
        Invalid => "invalid",
        Refused => "refused",
    }
}

/// What a key file that does not exist means; one that had keys is always missed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Absent {
    Error,
    Empty,
}

impl Absent {
    fn or_read(self, path: &Path) -> Result<KeyList, FileError> {
        match (self, path.try_exists()) {
            (Self::Empty, Ok(false)) => Ok(KeyList::default()),
            (Self::Empty | Self::Error, _) => KeyList::read(path),
        }
    }
}

#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    absent: Absent,
    keys: ArcSwap<KeyList>,
    // Held while the file is read, so that two reloads never overtake each other.
    watch: Mutex<Watch>,
    outcomes: Labelled<Outcome>,
    last_good: Gauge,
    last_good_at: Gauge,
    /// Why the keys are older than the file, where they are.
    trouble: Mutex<Option<String>>,
}

impl KeyFile {
    /// Reads the file for the first time; blocks.
    pub(super) fn open(path: PathBuf, absent: Absent) -> Result<Self, FileError> {
        // The stamp comes first: a write during the reading then shows as a change.
        let stamp = stamp(&path);
        let keys = absent.or_read(&path)?;
        let file = Self {
            path,
            absent,
            keys: ArcSwap::from_pointee(keys),
            watch: Mutex::new(Watch::new(stamp)),
            outcomes: Labelled::default(),
            last_good: Gauge::default(),
            last_good_at: Gauge::default(),
            trouble: Mutex::default(),
        };
        file.mark_good();
        Ok(file)
    }

    pub(super) fn find(&self, node: NodeId) -> Option<PublicKey> {
        self.keys.load().find(node)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the one that `enroll` writes, and may be missing.
    pub(super) fn is_embedded(&self) -> bool {
        self.absent == Absent::Empty
    }

    /// Why the keys are older than the file, where they are.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Looks at the file and reads it when it is time; blocks.
    pub(super) fn poll(&self, now: Instant, changes: &Changes) {
        let mut watch = self.watch.lock();
        if watch.poll(now, stamp(&self.path)) {
            // What happened is in the log and the metrics already.
            let _reported = self.read(changes, false);
        }
    }

    /// Reads the file as it is now; blocks. `force` takes it whatever it has lost.
    pub(super) fn reload(&self, changes: &Changes, force: bool) -> Result<Reload, ReloadError> {
        let mut watch = self.watch.lock();
        watch.mark_read(stamp(&self.path));
        self.read(changes, force)
    }

    fn read(&self, changes: &Changes, force: bool) -> Result<Reload, ReloadError> {
        let absent = if self.keys.load().len() == 0 { self.absent } else { Absent::Error };
        let outcome = absent
            .or_read(&self.path)
            .map_err(ReloadError::from)
            .and_then(|keys| self.swap(keys, changes, force));
        match &outcome {
            Ok(_) => self.mark_good(),
            Err(error) => self.mark_bad(error),
        }
        outcome
    }

    fn swap(&self, keys: KeyList, changes: &Changes, force: bool) -> Result<Reload, ReloadError> {
        let old = self.keys.load_full();
        let mut reload = Reload::default();
        for (_, difference) in old.differences(&keys) {
            match difference {
                Difference::Added => reload.added += 1,
                Difference::Removed => reload.removed += 1,
                Difference::Changed => reload.changed += 1,
            }
        }
        let Reload { added, removed, changed } = reload;
        if !force && old.len() >= GUARDED && removed + changed > old.len() / 2 {
            let path = self.path.clone();
            return Err(ReloadError::Refused { path, removed, changed, entries: old.len() });
        }
        let keys = Arc::new(keys);
        self.keys.store(keys.clone());
        // An added node counts too: its key may have come from the registry until now.
        old.differences(&keys).for_each(|(node, _)| changes.push(node));
        let (file, entries) = (self.path.display(), keys.len());
        info!(%file, entries, added, removed, changed, "read the key file");
        Ok(reload)
    }

    fn mark_good(&self) {
        self.outcomes.of(Outcome::Ok).increment();
        *self.trouble.lock() = None;
        self.last_good.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_good_at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    fn mark_bad(&self, error: &ReloadError) {
        self.last_good.set(0);
        *self.trouble.lock() = Some(error.to_string());
        let outcome = match error {
            ReloadError::File(FileError::Read { path, source }) => {
                warn!(file = %path.display(), reason = %source, "cannot read the key file, its keys stay");
                Outcome::Invalid
            }
            ReloadError::File(FileError::Invalid { path, line, column, reason }) => {
                let file = path.display();
                warn!(%file, line, column, %reason, "the key file is broken, its keys stay");
                Outcome::Invalid
            }
            ReloadError::Refused { path, removed, changed, entries } => {
                let file = path.display();
                warn!(
                    %file, removed, changed, entries,
                    "the key file lost or changed more than half of its keys and was not taken; \
                     `beacon-relay reload --force` takes it as it is"
                );
                Outcome::Refused
            }
        };
        self.outcomes.of(outcome).increment();
    }

    pub(super) fn metrics(&self, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        let entries = self.keys.load().len() as f64;
        families.extend([
            family::labelled(
                "pilot_beacon_keys_reload_total",
                "Attempts to read the key file, the first included.",
                "result",
                &self.outcomes,
            ),
            family::gauge(
                "pilot_beacon_keys_last_reload_success",
                "1 if the last attempt to read the key file went well, 0 if its keys are older.",
                &self.last_good,
            ),
            family::gauge(
                "pilot_beacon_keys_last_reload_timestamp_seconds",
                "When the keys in use were read, in Unix time.",
                &self.last_good_at,
            ),
            family::gauge_value(
                "pilot_beacon_keys_entries",
                "Nodes that the key file has a key for.",
                entries,
            ),
        ]);
    }
}

/// The file's present state; `None` where there is none to see.
fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|file| Stamp::of(&file))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doors::pilot::directory::Change;
    use crate::metrics::Word as _;
    use crate::proto::watch::POLL;

    const T: Duration = Duration::from_secs(5);

    struct Fixture {
        directory: tempfile::TempDir,
        file: KeyFile,
        changes: Changes,
        now: Instant,
    }

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey([byte; 32])
    }

    fn text(entries: impl IntoIterator<Item = (u32, u8)>) -> String {
        let entries: Vec<_> =
            entries.into_iter().map(|(n, k)| format!("\"{n}\":\"{}\"", key(k))).collect();
        format!("{{{}}}", entries.join(","))
    }

    impl Fixture {
        fn new(entries: impl IntoIterator<Item = (u32, u8)>) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("keys.json");
            fs::write(&path, text(entries)).unwrap();
            let file = KeyFile::open(path, Absent::Error).unwrap();
            Self { directory, file, changes: Changes::default(), now: Instant::now() }
        }

        /// Replaces the file and polls until it has been still.
        fn write(&mut self, text: &str) {
            // By rename, so that the inode tells the states apart whatever the clock does.
            let draft = self.directory.path().join("draft");
            fs::write(&draft, text).unwrap();
            fs::rename(&draft, &self.file.path).unwrap();
            self.wait();
        }

        fn wait(&mut self) {
            let end = self.now + T;
            while self.now < end {
                self.now += POLL;
                self.file.poll(self.now, &self.changes);
            }
        }

        fn counts(&self) -> Vec<u64> {
            Outcome::ALL.iter().map(|word| self.file.outcomes.of(*word).value()).collect()
        }
    }

    #[tokio::test]
    async fn changed_file_is_swapped_in_and_its_changes_are_told() {
        let mut fixture = Fixture::new([(1, 1), (2, 2), (3, 3)]);
        fixture.write(&text([(2, 2), (3, 9), (4, 4)]));
        assert_eq!(fixture.file.find(node(1)), None);
        assert_eq!(fixture.file.find(node(2)), Some(key(2)));
        assert_eq!(fixture.file.find(node(3)), Some(key(9)));
        for number in [1, 3, 4] {
            assert_eq!(fixture.changes.next().await, Change::Node(node(number)));
        }
        assert_eq!(fixture.counts(), [2, 0, 0]);
    }

    #[test]
    fn broken_file_keeps_the_keys_and_counts_once() {
        let mut fixture = Fixture::new([(1, 1)]);
        fixture.write("{\"1\":");
        fixture.wait();
        assert_eq!(fixture.file.find(node(1)), Some(key(1)));
        assert_eq!((fixture.counts(), fixture.file.last_good.value()), (vec![1, 1, 0], 0));
        assert!(fixture.file.trouble().is_some());

        fixture.write(&text([(1, 2)]));
        assert_eq!(fixture.file.find(node(1)), Some(key(2)));
        assert_eq!((fixture.counts(), fixture.file.last_good.value()), (vec![2, 1, 0], 1));
        assert_eq!(fixture.file.trouble(), None);
    }

    #[test]
    fn deleted_file_keeps_the_keys() {
        let mut fixture = Fixture::new([(1, 1)]);
        fs::remove_file(&fixture.file.path).unwrap();
        fixture.wait();
        fixture.wait();
        assert_eq!(fixture.file.find(node(1)), Some(key(1)));
        assert_eq!(fixture.counts(), [1, 1, 0]);
    }

    #[test]
    fn loss_of_more_than_half_is_refused_from_16_keys_on() {
        let mut fixture = Fixture::new((1..=16).map(|n| (n, 1)));
        fixture.write(&text((1..=7).map(|n| (n, 1))));
        assert_eq!(fixture.file.find(node(16)), Some(key(1)));
        assert_eq!(fixture.counts(), [1, 0, 1]);
        let error = fixture.file.reload(&fixture.changes, false).unwrap_err();
        assert!(matches!(error, ReloadError::Refused { removed: 9, entries: 16, .. }), "{error}");

        let forced = fixture.file.reload(&fixture.changes, true).unwrap();
        assert_eq!((forced.removed, fixture.file.find(node(16))), (9, None));

        fixture.write(&text((1..=16).map(|n| (n, 1))));
        fixture.write(&text((1..=8).map(|n| (n, 1))));
        assert_eq!(fixture.file.find(node(16)), None, "half is no more than half");
        fixture.write("{}");
        assert_eq!(fixture.file.find(node(1)), None, "a small file changes freely");
    }

    #[test]
    fn other_keys_for_more_than_half_of_the_nodes_are_refused() {
        let mut fixture = Fixture::new((1..=100).map(|n| (n, 1)));
        fixture.write(&text((1..=100).map(|n| (n, 2))));
        assert_eq!(fixture.file.find(node(1)), Some(key(1)));
        assert_eq!(fixture.counts(), [1, 0, 1]);

        // Removed and changed ones count together, added ones do not.
        let kept = (1..=49).map(|n| (n, 1));
        let changed = (50..=80).map(|n| (n, 2));
        let added = (101..=300).map(|n| (n, 1));
        fixture.write(&text(kept.chain(changed).chain(added)));
        assert_eq!(fixture.counts(), [1, 0, 2]);
        let error = fixture.file.reload(&fixture.changes, false).unwrap_err();
        let expected = "would remove 20 and change 31 of 100 keys";
        assert!(error.to_string().contains(expected), "{error}");

        fixture.write(&text((1..=50).map(|n| (n, 1)).chain((51..=100).map(|n| (n, 2)))));
        assert_eq!(fixture.file.find(node(100)), Some(key(2)), "half is no more than half");
        fixture.write(&text((1..=100).map(|n| (n, 3))));
        let forced = fixture.file.reload(&fixture.changes, true).unwrap();
        assert_eq!(forced, Reload { added: 0, removed: 0, changed: 100 });
    }

    #[test]
    fn reload_does_not_wait_for_the_file_to_be_still() {
        let fixture = Fixture::new([(1, 1), (2, 2)]);
        fs::write(&fixture.file.path, text([(2, 3), (3, 3)])).unwrap();
        let reload = fixture.file.reload(&fixture.changes, false).unwrap();
        assert_eq!(reload, Reload { added: 1, removed: 1, changed: 1 });
        assert_eq!(fixture.file.find(node(3)), Some(key(3)));
    }

    #[test]
    fn file_that_may_be_absent_starts_empty_and_is_found_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        assert!(KeyFile::open(path.clone(), Absent::Error).is_err());
        let file = KeyFile::open(path, Absent::Empty).unwrap();
        let (changes, now) = (Changes::default(), Instant::now());
        let mut fixture = Fixture { directory, file, changes, now };
        assert_eq!(fixture.file.reload(&fixture.changes, false).unwrap(), Reload::default());
        fixture.write(&text([(1, 1)]));
        assert_eq!(fixture.file.find(node(1)), Some(key(1)));
        fs::remove_file(&fixture.file.path).unwrap();
        assert!(fixture.file.reload(&fixture.changes, false).is_err());
        assert_eq!(fixture.file.find(node(1)), Some(key(1)));
    }
}
