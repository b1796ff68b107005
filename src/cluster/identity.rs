//! Who this relay is to the others: an Ed25519 key in the state folder, made on first use.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::Boot;
use crate::ids::{PublicKey, RelayId};
use crate::key_file::{KeyFileError, create_key, read_key};

/// Who this relay is in the cluster.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Our id.
    pub relay: RelayId,
    /// Random, made at the start.
    pub boot: Boot,
    /// The cluster's name: relays of other names are strangers.
    pub name: String,
    /// Time between two signs of life; [`DEAD_AFTER`](super::DEAD_AFTER) of it without one is
    /// death.
    pub keepalive: Duration,
}

impl Identity {
    /// The identity of a relay that starts, under its key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(key: &SigningKey, name: String, keepalive: Duration) -> Result<Self, IdentityError> {
        let mut boot = Boot::default();
        getrandom::fill(&mut boot).map_err(IdentityError::Random)?;
        Ok(Self { relay: relay_id(key), boot, name, keepalive })
    }
}

/// Why the relay has no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is there and cannot be used. It is never replaced: other relays know the key.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The file cannot be made.
    #[error("cannot write the key file {}: {source}", path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Where the identity is kept.
#[must_use]
pub fn identity_file(state_dir: &Path) -> PathBuf {
    state_dir.join("cluster.key")
}

/// The relay that signs with this key.
#[must_use]
pub fn relay_id(key: &SigningKey) -> RelayId {
    RelayId(PublicKey(key.verifying_key().to_bytes()))
}

/// Reads this relay's key from the state folder, or makes it there; processes that do so at
/// once get the same one. Warns where others may read it. Blocks.
///
/// # Errors
/// A file that holds something else, or cannot be read or made.
pub fn load_or_create(state_dir: &Path) -> Result<SigningKey, IdentityError> {
    let path = identity_file(state_dir);
    let file = match read_key(&path) {
        Err(KeyFileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            create(&path)?;
            read_key(&path)?
        }
        file => file?,
    };
    if file.exposed {
        tracing::warn!(path = %path.display(), "others may read this relay's key: chmod 600 it");
    }
    Ok(file.key)
}

/// Makes a key, unless another process was faster.
fn create(path: &Path) -> Result<(), IdentityError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(IdentityError::Random)?;
    match create_key(path, &SigningKey::from_bytes(&seed)) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(IdentityError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = load_or_create(folder.path()).unwrap();
        assert_eq!(load_or_create(folder.path()).unwrap(), key);
        let file = identity_file(folder.path());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::remove_file(file).unwrap();
        assert_ne!(load_or_create(folder.path()).unwrap(), key);
    }

    #[test]
    fn relays_that_start_at_once_get_the_same_key() {
        const RELAYS: usize = 8;
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let start = Barrier::new(RELAYS);
            let keys: Vec<_> = thread::scope(|scope| {
                let load = || {
                    start.wait();
                    load_or_create(folder.path()).unwrap().to_bytes()
                };
                let threads: Vec<_> = (0..RELAYS).map(|_| scope.spawn(load)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(keys.iter().all(|key| *key == keys[0]));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft stayed");
        }
    }

    #[test]
    fn file_that_is_no_key_stays_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = identity_file(folder.path());
        fs::write(&file, "").unwrap();
        let error = load_or_create(folder.path()).unwrap_err().to_string();
        assert!(error.contains("cluster.key") && error.contains("32 bytes"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"");
        let error = load_or_create(&folder.path().join("missing")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the key file"), "{error}");
    }

    #[test]
    fn every_start_is_another_boot_of_one_relay() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let start = || Identity::new(&key, "test".to_owned(), Duration::from_secs(5)).unwrap();
        let (first, second) = (start(), start());
        assert_eq!(first.relay, second.relay);
        assert_ne!(first.boot, second.boot);
    }
}
