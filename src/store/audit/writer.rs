//! Checkpoints: written where a process that changes the log does not come to.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::{Kind, Seal, hex};
use crate::proto::bus::Millis;
use crate::store::{Store, StoreError};

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The last entry cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written; the log has the checkpoint.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Writes checkpoints. Blocks.
pub struct Checkpoints {
    key: SigningKey,
    file: Option<PathBuf>,
    /// The entry of the last one.
    last: Option<u64>,
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoints").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Checkpoints {
    /// Time between two checkpoints of a log that grows.
    pub const INTERVAL: Duration = Duration::from_secs(60);

    /// Writes to the log, and to the end of this file, where one is named. It is opened each
    /// time, so that it can be moved away.
    #[must_use]
    pub const fn new(key: SigningKey, file: Option<PathBuf>) -> Self {
        Self { key, file, last: None }
    }

    /// Signs the last entry that the store has; nothing where that was signed before.
    ///
    /// # Errors
    /// The store cannot be read, or the file not written.
    pub fn write(
        &mut self,
        store: &dyn Store,
        now: Millis,
    ) -> Result<Option<Seal>, CheckpointError> {
        let Some(last) = store.last_audit()?.filter(|last| self.last != Some(last.seq)) else {
            return Ok(None);
        };
        let seal = Seal::sign(Kind::Checkpoint, last.seq, last.hash, now, &self.key);
        let hash = hex(&seal.hash);
        let signature = seal.signature();
        let (seq, time_ms, relay) = (seal.seq, seal.at.0, seal.relay);
        tracing::info!(seq, %hash, time_ms, %relay, %signature, "audit checkpoint");
        if let Some(path) = &self.file {
            append(path, &seal)
                .map_err(|source| CheckpointError::File { path: path.clone(), source })?;
        }
        self.last = Some(last.seq);
        Ok(Some(seal))
    }
}

/// Adds a line to a file, which others than its owner may read: it holds no secret.
fn append(path: &Path, seal: &Seal) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().create(true).read(true).append(true).mode(0o644).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    // A crash may have left a part of a line.
    let begin = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{begin}{}\n", seal.to_json()).as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{key, log};
    use super::super::{Lines, Verifier};
    use super::*;
    use crate::store::{Commit, Embedded, Handover};

    fn store(entries: u64) -> (tempfile::TempDir, Embedded) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&folder.path().join("bus"), Handover::Kernel).unwrap();
        store.commit(&Commit { changes: Vec::new(), audit: log(entries) }).unwrap();
        (folder, store)
    }

    #[test]
    fn log_that_grew_gets_one_checkpoint() {
        let (folder, store) = store(3);
        let file = folder.path().join("checkpoints");
        let mut checkpoints = Checkpoints::new(key(), Some(file.clone()));
        let first = checkpoints.write(&store, Millis(10)).unwrap().unwrap();
        assert_eq!(checkpoints.write(&store, Millis(20)).unwrap(), None);
        let audit = log(5)[3..].to_vec();
        store.commit(&Commit { changes: Vec::new(), audit }).unwrap();
        let second = checkpoints.write(&store, Millis(30)).unwrap().unwrap();
        assert_eq!((first.seq, second.seq, second.at), (2, 4, Millis(30)));

        let text = fs::read_to_string(file).unwrap();
        let mut lines = Lines::new(text.as_bytes());
        let read: Vec<_> = std::iter::from_fn(|| lines.next_checkpoint().transpose())
            .map(Result::unwrap)
            .collect();
        assert_eq!(read, [first, second]);
        let mut verifier = Verifier::new(None, &read, None).unwrap();
        log(5).iter().try_for_each(|entry| verifier.entry(entry)).unwrap();
        verifier.end().unwrap();
    }

    #[test]
    fn empty_log_has_no_checkpoint() {
        let (_folder, store) = store(0);
        let mut checkpoints = Checkpoints::new(key(), None);
        assert_eq!(checkpoints.write(&store, Millis(1)).unwrap(), None);
    }

    #[test]
    fn file_that_cannot_be_written_is_named_and_tried_again() {
        let (folder, store) = store(1);
        let file = folder.path().join("folder/checkpoints");
        let mut checkpoints = Checkpoints::new(key(), Some(file.clone()));
        let error = checkpoints.write(&store, Millis(1)).unwrap_err().to_string();
        assert!(error.contains("folder/checkpoints: No such file"), "{error}");
        fs::create_dir(file.parent().unwrap()).unwrap();
        assert!(checkpoints.write(&store, Millis(2)).unwrap().is_some());
    }

    #[test]
    fn line_that_a_crash_cut_short_does_not_spoil_the_next() {
        let (folder, store) = store(1);
        let file = folder.path().join("checkpoints");
        fs::write(&file, "{\"kind\":\"check").unwrap();
        let mut checkpoints = Checkpoints::new(key(), Some(file.clone()));
        checkpoints.write(&store, Millis(1)).unwrap();
        let text = fs::read_to_string(file).unwrap();
        let last = text.lines().last().unwrap();
        assert!(Seal::from_json(Kind::Checkpoint, last.as_bytes()).is_ok(), "{text}");
    }
}
