//! The lock that keeps a second relay out of a state folder: two would write one audit log, answer
//! at one control socket, and tell a cluster that they are one relay.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

/// How long a process that another thread is starting has what its parent had, locks among it.
const FORK: Duration = Duration::from_millis(500);

/// Pause between two attempts in that time.
const PAUSE: Duration = Duration::from_millis(10);

/// Longest number of a process, in digits: more is not read.
const LONGEST: u64 = 20;

/// Another relay runs with the state folder.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("another relay runs with it{}", .process.as_ref().map(|id| format!(" (process {id})")).unwrap_or_default())]
pub struct InUse {
    /// The folder.
    pub folder: PathBuf,
    /// The relay's process, as far as it has said so.
    pub process: Option<u32>,
}

/// Held as long as the relay runs; nothing where the folder takes no lock.
#[derive(Debug)]
pub(super) struct StateLock {
    /// Its end is that of the lock.
    _file: Option<File>,
}

impl StateLock {
    /// Keeps other relays out of a folder. One that cannot be written to, or knows no locks, is
    /// a line in the log: packets need no state. Blocks.
    ///
    /// # Errors
    /// Another relay keeps this one out.
    pub(super) fn take(folder: &Path) -> Result<Self, InUse> {
        let unlocked = |error: &io::Error| {
            warn!(%error, "the state folder cannot be locked: see that no other relay has it");
            Self { _file: None }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = match options.open(folder.join("relay.lock")) {
            Ok(file) => file,
            Err(error) => return Ok(unlocked(&error)),
        };
        let end = Instant::now() + FORK;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let process = told_by(&file);
                    return Err(InUse { folder: folder.to_owned(), process });
                }
                Err(TryLockError::Error(error)) => return Ok(unlocked(&error)),
            }
        }
        // For people only: the lock holds without it.
        let _told = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: Some(file) })
    }
}

/// The process that has the lock.
fn told_by(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_relay_of_a_folder_hears_who_has_it_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateLock::take(folder.path()).unwrap();

        let error = StateLock::take(folder.path()).unwrap_err();

        assert_eq!(error.process, Some(std::process::id()));
        assert!(error.to_string().starts_with("another relay runs with it (process "), "{error}");
        drop(first);
        assert!(StateLock::take(folder.path()).unwrap()._file.is_some());
    }

    #[test]
    fn folder_that_takes_no_lock_keeps_no_relay_from_starting() {
        let lock = StateLock::take("/proc/self".as_ref()).unwrap();
        assert!(lock._file.is_none());
    }
}
