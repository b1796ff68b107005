//! The embedded directory: a key file in the state directory that we write ourselves.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::list::{FileError, KeyList};
use crate::ids::{NodeId, PublicKey};

/// How long an enrolment waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What an enrolment did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Enrolled {
    /// The node had no key before.
    Added,
    /// The node had another key before.
    Replaced,
    /// The node had this key already; nothing was written.
    Unchanged,
}

/// Why a node was not enrolled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrollError {
    /// The present directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another enrolment held the lock for 5 s.
    #[error("another process is writing {}", path.display())]
    Locked {
        /// The file that is being written.
        path: PathBuf,
    },
    /// The directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the embedded directory is.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("keys.json")
}

/// Gives `node` the key `key` in the embedded directory of `state_dir`, made where it is
/// missing. The change is whole or absent whatever happens; a running relay takes it
/// within 2 s. Blocks, at most 5 s for another enrolment.
///
/// # Errors
/// A broken or unwritable directory, or another enrolment that does not end.
pub fn enroll(state_dir: &Path, node: NodeId, key: PublicKey) -> Result<Enrolled, EnrollError> {
    let path = path(state_dir);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(|source| EnrollError::Write { path: state_dir.to_owned(), source })?;
    let _lock = lock(&state_dir.join("keys.json.lock"))?;
    let keys = match path.try_exists() {
        Ok(false) => KeyList::default(),
        Ok(true) | Err(_) => KeyList::read(&path)?,
    };
    let enrolled = match keys.find(node) {
        Some(old) if old == key => return Ok(Enrolled::Unchanged),
        Some(_) => Enrolled::Replaced,
        None => Enrolled::Added,
    };
    write(&path, &keys.with(node, key)).map_err(|source| EnrollError::Write { path, source })?;
    Ok(enrolled)
}

/// Waits for the lock, which ends with the file that is returned.
fn lock(path: &Path) -> Result<File, EnrollError> {
    let failed = |source| EnrollError::Write { path: path.to_owned(), source };
    let file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                return Err(EnrollError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn write(path: &Path, keys: &KeyList) -> io::Result<()> {
    // The name is fixed because the lock is held: a draft of a crash is overwritten.
    let draft = path.with_extension("json.new");
    let file = File::create(&draft)?;
    // Readable by all: who enrols is often not the user that the relay runs as.
    file.set_permissions(Permissions::from_mode(0o644))?;
    let mut out = BufWriter::new(file);
    let mut separator = "{";
    for (node, key) in keys.iter() {
        write!(out, "{separator}\n  \"{node}\": \"{key}\"")?;
        separator = ",";
    }
    out.write_all(b"\n}\n")?;
    out.into_inner()?.sync_all()?;
    fs::rename(&draft, path)?;
    // The rename itself is on disk only when its directory is.
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn enrolment_adds_replaces_or_leaves_alone() {
        let parent = tempfile::tempdir().unwrap();
        let state_dir = parent.path().join("new/state");
        let (first, second) = (PublicKey([1; 32]), PublicKey([2; 32]));
        assert_eq!(enroll(&state_dir, node(7), first).unwrap(), Enrolled::Added);
        assert_eq!(enroll(&state_dir, node(7), first).unwrap(), Enrolled::Unchanged);
        assert_eq!(enroll(&state_dir, node(7), second).unwrap(), Enrolled::Replaced);
        assert_eq!(enroll(&state_dir, node(3), first).unwrap(), Enrolled::Added);
        let text = fs::read_to_string(path(&state_dir)).unwrap();
        assert_eq!(text, format!("{{\n  \"3\": \"{first}\",\n  \"7\": \"{second}\"\n}}\n"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state_dir), 0o700);
        assert_eq!(mode(&path(&state_dir)), 0o644);
    }

    #[test]
    fn enrolments_at_the_same_time_are_all_kept() {
        let state_dir = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for number in 1..=16 {
                let state_dir = state_dir.path();
                scope.spawn(move || enroll(state_dir, node(number), PublicKey([1; 32])).unwrap());
            }
        });
        assert_eq!(KeyList::read(&path(state_dir.path())).unwrap().len(), 16);
    }

    #[test]
    fn broken_directory_is_not_overwritten() {
        let state_dir = tempfile::tempdir().unwrap();
        let path = path(state_dir.path());
        fs::write(&path, "{").unwrap();
        let error = enroll(state_dir.path(), node(7), PublicKey([1; 32])).unwrap_err();
        assert!(matches!(error, EnrollError::File(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }
}
