//! The demo's own state folder, which disappears with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A new folder that only this user may enter; removed with its content when dropped.
#[derive(Debug)]
pub struct TemporaryState(PathBuf);

impl TemporaryState {
    /// Makes the folder where the system keeps temporary files.
    ///
    /// # Errors
    /// What the system says.
    pub fn create() -> io::Result<Self> {
        // A name that nobody can guess, and an error if it exists: never somebody else's folder.
        let name = format!("beacon-relay-demo-{:016x}", getrandom::u64()?);
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryState {
    fn drop(&mut self) {
        // What cannot be removed stays for the system's own clean-up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folder_is_private_and_goes_with_its_content() {
        let state = TemporaryState::create().unwrap();
        let path = state.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("keys.json"), "{}").unwrap();
        drop(state);
        assert!(!path.exists());
    }
}
