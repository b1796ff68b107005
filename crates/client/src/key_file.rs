//! A file with an Ed25519 key: `private-key:`, the 32-byte seed in base64 and a line end, for its
//! owner alone. Earlier versions wrote it without the mark, and such files are read as well.
//!
//! Nodes and relays have such files; `beacon-relay keygen --out` writes one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

use crate::wire::ids::PRIVATE_KEY_MARK;
use crate::wire::mark::without_mark;

/// More than any key file has, in bytes: 12 of the mark, 44 of base64 and a line end.
const MAX_FILE: u64 = 256;

/// What a key file holds. Without a debug form, since it is a secret.
#[non_exhaustive]
pub struct KeyFile {
    /// The key.
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
    let text = without_mark(&text).trim();
    let seed = text.strip_prefix(PRIVATE_KEY_MARK).unwrap_or(text);
    let seed = STANDARD.decode(seed).ok().and_then(|seed| seed.try_into().ok());
    let seed = seed.ok_or_else(|| KeyFileError::NotAKey { path: path.to_owned() })?;
    Ok(KeyFile { key: SigningKey::from_bytes(&seed), exposed })
}

/// Writes a key into a new file, which is there whole or not at all. Blocks.
///
/// # Errors
/// The system refuses; `AlreadyExists` where there is a file, which is somebody's key and
/// stays.
pub fn create_key(path: &Path, key: &SigningKey) -> io::Result<()> {
    let seed = format!("{PRIVATE_KEY_MARK}{}\n", STANDARD.encode(key.to_bytes()));
    let draft = path.with_added_extension(format!("{:016x}.new", getrandom::u64()?));
    let written = write_new(&draft, &seed).and_then(|()| match fs::hard_link(&draft, path) {
        // Some network file systems have no links: there, a crash can leave a part of it.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => write_new(path, &seed),
        linked => linked,
    });
    // A draft that stays is no more than a file too many.
    let _ = fs::remove_file(&draft);
    written?;
    // The name is on disk only when its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Writes a file for its owner alone, unless there is one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
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
    #[error(
        "{} is no key file: it must hold 32 bytes in base64, as `beacon-relay keygen --out` writes them",
        path.display()
    )]
    NotAKey {
        /// The key file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
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
        let (_folder, marked) = write(&format!("\u{feff}{text}"), 0o600);
        assert_eq!(read_key(&marked).unwrap().key.to_bytes(), [7; 32]);
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

    #[test]
    fn created_file_is_its_owners_alone_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let (key, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        create_key(&path, &key).unwrap();
        assert_eq!(create_key(&path, &other).unwrap_err().kind(), ErrorKind::AlreadyExists);

        let file = read_key(&path).unwrap();
        assert_eq!((file.key.to_bytes(), file.exposed), ([7; 32], false));
        // Nobody takes it for a public key.
        let text = fs::read_to_string(&path).unwrap();
        let taken = text.trim().parse::<crate::wire::ids::PublicKey>();
        assert!(taken.unwrap_err().to_string().starts_with("that is a private key"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft stayed");
        let nowhere = folder.path().join("missing/node.key");
        assert_eq!(create_key(&nowhere, &key).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
