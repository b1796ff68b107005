//! A node's key file: the 32-byte seed in base64, as `beacon-relay keygen --out` writes it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

/// More than any key file has, in bytes: 44 of base64 and a line end.
const MAX_FILE: u64 = 256;

/// What a key file holds. Without a debug form, since it is a secret.
pub struct KeyFile {
    /// The node's key.
    pub key: SigningKey,
    /// Whether others than the file's owner may read it, which they should not.
    pub exposed: bool,
}

/// Reads a key file. Blocks.
///
/// # Errors
/// A file that cannot be read or does not hold a key.
pub fn read_key(path: &Path) -> Result<KeyFile, KeyFileError> {
    let unreadable = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let exposed = file.metadata().map_err(unreadable)?.permissions().mode() & 0o077 != 0;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    let seed = STANDARD.decode(text.trim()).ok().and_then(|seed| seed.try_into().ok());
    let seed = seed.ok_or_else(|| KeyFileError::NotAKey { path: path.to_owned() })?;
    Ok(KeyFile { key: SigningKey::from_bytes(&seed), exposed })
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is no key file: it must hold 32 bytes in base64", path.display())]
    NotAKey {
        /// The key file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn key_file_is_the_seed_in_base64() {
        let text = format!("{}\n", STANDARD.encode([7; 32]));
        for (mode, exposed) in [(0o600, false), (0o640, true), (0o604, true)] {
            let (_folder, path) = write(&text, mode);
            let file = read_key(&path).unwrap();
            assert_eq!(file.key.to_bytes(), [7; 32]);
            assert_eq!(file.exposed, exposed, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let other_lengths = [STANDARD.encode([7; 31]), STANDARD.encode([7; 33]), "A".repeat(4_000)];
        for text in other_lengths.iter().map(String::as_str).chain(["", "no key"]) {
            let (_folder, path) = write(text, 0o600);
            let error = read_key(&path).err().unwrap();
            assert!(matches!(error, KeyFileError::NotAKey { .. }), "{error}");
            assert!(error.to_string().contains("node.key"), "{error}");
        }
        let error = read_key("/nonexistent/node.key".as_ref()).err().unwrap();
        assert!(matches!(error, KeyFileError::Read { .. }), "{error}");
    }
}
