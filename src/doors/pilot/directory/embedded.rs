//! The embedded directory: a key file in the state directory that we write ourselves.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

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
    let directory = Locked::open(state_dir)?;
    let keys = directory.read()?;
    let enrolled = match keys.find(node) {
        Some(old) if old == key => return Ok(Enrolled::Unchanged),
        Some(_) => Enrolled::Replaced,
        None => Enrolled::Added,
    };
    directory.write(&keys.with(node, key))?;
    Ok(enrolled)
}

/// Removes the key of `node`, as [`enroll`] adds one; false where it has none.
///
/// # Errors
/// As [`enroll`].
pub fn unenroll(state_dir: &Path, node: NodeId) -> Result<bool, EnrollError> {
    let directory = Locked::open(state_dir)?;
    let Some(keys) = directory.read()?.without(node) else { return Ok(false) };
    directory.write(&keys)?;
    Ok(true)
}

/// The nodes of the embedded directory with their keys, in the order of their ids; none where
/// there is no such directory. Blocks.
///
/// # Errors
/// A broken or unreadable directory.
pub fn enrolled(state_dir: &Path) -> Result<Vec<(NodeId, PublicKey)>, EnrollError> {
    Ok(read(&path(state_dir))?.iter().copied().collect())
}

fn read(path: &Path) -> Result<KeyList, FileError> {
    match path.try_exists() {
        Ok(false) => Ok(KeyList::default()),
        Ok(true) | Err(_) => KeyList::read(path),
    }
}

/// The embedded directory, while nobody else writes it.
struct Locked {
    path: PathBuf,
    owner: Owner,
    /// Ends the lock when it is dropped.
    _lock: File,
}

impl Locked {
    /// Makes the state folder where there is none, and waits for the lock.
    fn open(state_dir: &Path) -> Result<Self, EnrollError> {
        let failed = |source| EnrollError::Write { path: state_dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(failed)?;
        let owner = Owner::of(state_dir).map_err(failed)?;
        let lock = lock(&state_dir.join("keys.json.lock"))?;
        owner.give(&lock).map_err(failed)?;
        Ok(Self { path: path(state_dir), owner, _lock: lock })
    }

    fn read(&self) -> Result<KeyList, EnrollError> {
        Ok(read(&self.path)?)
    }

    fn write(&self, keys: &KeyList) -> Result<(), EnrollError> {
        let failed = |source| EnrollError::Write { path: self.path.clone(), source };
        write(&self.path, keys, self.owner).map_err(failed)
    }
}

/// Whose the files of a folder are: the folder's own, also where root writes them, since the
/// relay that runs there as another user has to read and replace them.
#[derive(Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { user: metadata.uid(), group: metadata.gid() })
    }

    /// Gives it a file that root has just made. Who is not root has made it as itself, and may give
    /// nothing away; and of what was there before, nothing is given to the folder's owner, who may
    /// have put it there: a second name of a file of root's, for one.
    fn give(self, file: &File) -> io::Result<()> {
        let made = file.metadata()?;
        let is_new = made.is_file() && made.nlink() == 1 && made.uid() == 0;
        if geteuid().is_root() && is_new {
            fchown(file, Some(self.user), Some(self.group))
        } else {
            Ok(())
        }
    }
}

/// Waits for the lock, which ends with the file that is returned.
fn lock(path: &Path) -> Result<File, EnrollError> {
    let failed = |source| EnrollError::Write { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    // No link: root would write elsewhere for the folder's owner.
    options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).map_err(failed)?;
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

fn write(path: &Path, keys: &KeyList, owner: Owner) -> io::Result<()> {
    // The name is fixed because the lock is held: a draft of a crash is overwritten.
    let draft = path.with_extension("json.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).open(&draft)?;
    // Who the operator lets read it stays; a new one all may read.
    let mode = fs::metadata(path).map_or(0o644, |before| before.permissions().mode() & 0o777);
    file.set_permissions(Permissions::from_mode(mode))?;
    owner.give(&file)?;
    let mut out = BufWriter::new(file);
    out.write_all(b"{")?;
    let mut separator = "";
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
    fn node_that_is_unenrolled_is_gone_and_the_others_stay() {
        let state_dir = tempfile::tempdir().unwrap();
        let state_dir = state_dir.path();
        assert!(enrolled(state_dir).unwrap().is_empty());
        assert!(!unenroll(state_dir, node(7)).unwrap());
        for number in [7, 3, 9] {
            enroll(state_dir, node(number), PublicKey([1; 32])).unwrap();
        }
        assert!(unenroll(state_dir, node(7)).unwrap());
        let left: Vec<_> = enrolled(state_dir).unwrap().into_iter().map(|(node, _)| node).collect();
        assert_eq!(left, [node(3), node(9)]);
        assert!(unenroll(state_dir, node(3)).unwrap() && unenroll(state_dir, node(9)).unwrap());
        assert_eq!(fs::read_to_string(path(state_dir)).unwrap(), "{\n}\n");
    }

    #[test]
    fn files_keep_the_owner_of_the_folder_and_the_mode_that_they_had() {
        let state_dir = tempfile::tempdir().unwrap();
        let state_dir = state_dir.path();
        // Without root there is no other owner to give them to.
        let (user, group) = if geteuid().is_root() {
            (12_345, 12_346)
        } else {
            let own = fs::metadata(state_dir).unwrap();
            (own.uid(), own.gid())
        };
        std::os::unix::fs::chown(state_dir, Some(user), Some(group)).unwrap();
        enroll(state_dir, node(7), PublicKey([1; 32])).unwrap();
        fs::set_permissions(path(state_dir), Permissions::from_mode(0o640)).unwrap();

        enroll(state_dir, node(8), PublicKey([1; 32])).unwrap();

        for file in ["keys.json", "keys.json.lock"] {
            let metadata = fs::metadata(state_dir.join(file)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (user, group), "{file}");
        }
        let mode = fs::metadata(path(state_dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn link_that_the_folders_owner_made_led_root_to_another_file() {
        let (state_dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "root's").unwrap();
        let link = |name: &str| state_dir.path().join(name);
        std::os::unix::fs::symlink(&victim, link("keys.json.new")).unwrap();

        enroll(state_dir.path(), node(7), PublicKey([1; 32])).unwrap();

        assert_eq!(fs::read_to_string(&victim).unwrap(), "root's");
        fs::remove_file(link("keys.json.lock")).unwrap();
        std::os::unix::fs::symlink(&victim, link("keys.json.lock")).unwrap();
        assert!(enroll(state_dir.path(), node(8), PublicKey([1; 32])).is_err());
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
