//! The lock that keeps other processes out. It is the store's: its database is closed at times.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::database::unavailable;
use crate::store::StoreError;

/// How long a process that is being started has what its parent had.
const FORK: Duration = Duration::from_millis(500);

/// Makes the folder where there is none, and keeps other processes out.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    if !fs::exists(folder).map_err(unavailable)? {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unavailable)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(unavailable)?;
    let file = File::options().create(true).append(true).open(folder.join("in-use"));
    let file = file.map_err(unavailable)?;
    // A process that another thread is starting has all files for a moment, and their locks.
    let end = Instant::now() + FORK;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(FORK / 50),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked),
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
        }
    }
}
