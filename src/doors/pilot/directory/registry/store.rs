//! The file in which remembered keys of the registry outlast a restart.
//!
//! The file has a magic number, the registry that it belongs to, the keys with the time at which
//! each was confirmed, and a SHA-256 of all that. What is wrong with it makes it worthless, and
//! is no reason not to start.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::cache::{Cache, MAX_KEYS, USABLE};
use crate::ids::{NodeId, PublicKey};

const MAGIC: [u8; 8] = *b"BRKEYS\0\x01";

const CHECKSUM: usize = 32;

/// A node, its key, and when it was confirmed, in seconds of Unix time.
const ENTRY: usize = 4 + 32 + 8;

/// Longest file: a million keys, and the name of a registry.
const MAX_FILE: u64 = MAX_KEYS as u64 * ENTRY as u64 + 4_096;

/// How far ahead of the clock a time may be: it may have been set back a little.
const AHEAD: Duration = Duration::from_secs(60);

/// A node, its key, and when it was confirmed, in Unix time.
type Entry = (NodeId, PublicKey, Duration);

/// Where the keys of one registry are kept.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    registry: String,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it has more than {MAX_FILE} bytes")]
    TooLong,
    #[error("others than its owner may write it")]
    Exposed,
    #[error("it is damaged")]
    Damaged,
}

impl Store {
    /// The keys of `registry` are kept in this file.
    pub(super) const fn new(path: PathBuf, registry: String) -> Self {
        Self { path, registry }
    }

    /// Puts what was kept into an empty cache; blocks.
    pub(super) fn load(&self, cache: &Cache, now: std::time::Instant) {
        let file = self.path.display();
        match self.read() {
            Ok(None) => {}
            Ok(Some(entries)) => {
                let clock = unix_time();
                let mut keys = 0;
                for (node, key, confirmed) in entries {
                    if confirmed > clock + AHEAD {
                        continue;
                    }
                    let age = clock.saturating_sub(confirmed);
                    if age < USABLE
                        && let Some(at) = now.checked_sub(age)
                    {
                        cache.replace(node, Some(key), at);
                        keys += 1;
                    }
                }
                info!(%file, keys, "took over remembered keys of the registry");
            }
            Err(error) => {
                warn!(%file, %error, "the remembered keys of the registry cannot be used");
            }
        }
    }

    /// The entries of the file; `None` where there is none, or one of another registry.
    fn read(&self) -> Result<Option<Vec<Entry>>, Unusable> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if metadata.permissions().mode() & 0o022 != 0 {
            return Err(Unusable::Exposed);
        }
        let mut bytes = Vec::new();
        if file.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE {
            return Err(Unusable::TooLong);
        }
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(Unusable::Damaged)?;
        if Sha256::digest(body).as_slice() != checksum {
            return Err(Unusable::Damaged);
        }
        self.parse(body).ok_or(Unusable::Damaged)
    }

    fn parse(&self, body: &[u8]) -> Option<Option<Vec<Entry>>> {
        let mut rest = body.strip_prefix(&MAGIC)?;
        let length = usize::from(rest.try_get_u16().ok()?);
        let (registry, entries) = rest.split_at_checked(length)?;
        if registry != self.registry.as_bytes() {
            info!(file = %self.path.display(), "the remembered keys are another registry's");
            return Some(None);
        }
        let (entries, []) = entries.as_chunks::<ENTRY>() else { return None };
        let entry = |mut entry: &[u8]| {
            let node = NodeId::new(entry.try_get_u32().ok()?)?;
            let key = PublicKey(*entry.split_off(..32)?.as_array()?);
            let confirmed = Duration::from_secs(entry.try_get_u64().ok()?);
            Some((node, key, confirmed))
        };
        entries.iter().map(|bytes| entry(bytes)).collect::<Option<Vec<_>>>().map(Some)
    }

    /// Writes what the cache remembers; blocks. The file is whole or the one before, whatever
    /// happens.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn save(&self, cache: &Cache, now: std::time::Instant) -> io::Result<()> {
        let clock = unix_time();
        let mut bytes = MAGIC.to_vec();
        bytes.put_u16(u16::try_from(self.registry.len()).map_err(io::Error::other)?);
        bytes.put_slice(self.registry.as_bytes());
        cache.each(now, |node, key, age| {
            bytes.put_u32(node.number());
            bytes.put_slice(&key.0);
            bytes.put_u64(clock.saturating_sub(age).as_secs());
        });
        let checksum = Sha256::digest(&bytes);
        bytes.put_slice(&checksum);

        // The name is fixed: a draft of a crash is overwritten.
        let draft = self.path.with_added_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        // The rename itself is on disk only when its folder is.
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(folder)?.sync_all()
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::cache::Cached;
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    struct Fixture {
        folder: tempfile::TempDir,
        store: Store,
        now: Instant,
    }

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn store(folder: &Path, registry: &str) -> Store {
        Store::new(folder.join("registry-keys"), registry.to_owned())
    }

    /// A file with a key that was confirmed just now, one that is a day old but for an hour, and
    /// one that is too old.
    fn saved() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "r:9000");
        let (cache, now) = (Cache::new(640), Instant::now() + 30 * HOUR);
        for (number, age) in [(1, Duration::ZERO), (2, 23 * HOUR), (3, 25 * HOUR)] {
            cache.replace(node(number), Some(PublicKey([9; 32])), now - age);
        }
        store.save(&cache, now).unwrap();
        Fixture { folder, store, now }
    }

    fn loaded(store: &Store, now: Instant) -> [Cached; 3] {
        let cache = Cache::new(640);
        store.load(&cache, now);
        [1, 2, 3].map(|number| cache.find(node(number), now))
    }

    #[test]
    fn keys_and_their_ages_outlast_a_restart() {
        let Fixture { folder, store, now } = saved();
        let key = PublicKey([9; 32]);
        let later = now + 5 * HOUR;
        assert_eq!(
            loaded(&store, later),
            [Cached::Fresh(key), Cached::Stale(key), Cached::Nothing]
        );
        let mode = fs::metadata(folder.path().join("registry-keys")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft stayed");
    }

    #[test]
    fn damaged_file_is_worth_nothing_and_harms_nobody() {
        let Fixture { folder, store, now } = saved();
        let path = folder.path().join("registry-keys");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(loaded(&store, now), [Cached::Nothing; 3], "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(loaded(&store, now), [Cached::Nothing; 3], "cut at {at}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(loaded(&store, now), [Cached::Nothing; 3]);
        fs::create_dir(&path).unwrap();
        assert_eq!(loaded(&store, now), [Cached::Nothing; 3]);
    }

    #[test]
    fn keys_of_another_registry_are_not_taken() {
        let Fixture { folder, now, .. } = saved();
        assert_eq!(loaded(&store(folder.path(), "other:9000"), now), [Cached::Nothing; 3]);
    }

    #[test]
    fn file_that_others_may_write_is_not_taken() {
        let Fixture { folder, store, now } = saved();
        let path = folder.path().join("registry-keys");
        fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert_eq!(loaded(&store, now), [Cached::Nothing; 3]);
    }
}
