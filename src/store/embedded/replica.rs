//! The embedded store as the replica of a log that is durable elsewhere.
//!
//! Each commit is written with its position in the log, so that a start knows where to go on. The
//! disk is never waited for: what a crash takes is read from the log again. A replica that cannot
//! be brought up from the log is filled from the rows of another one ([`View`], [`Filling`]).

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fjall::{Keyspace, Readable as _, Snapshot};

use super::codec::{chain_key, write_head, write_number};
use super::database::{Database, failure, memory_of, unavailable, unwritten};
use super::known::{AUDIT_BYTES_ROW, FOLDED_ROW, HEAD_ROW, Known, row_bytes};
use super::write::Place;
use super::{Embedded, key_value};
use crate::store::{Commit, StoreError};

/// Row of `meta`: what the follower of the log keeps with the rows.
const NOTE_ROW: &str = "log";

/// Prefix of rows of `meta`: what stands before the chain of a relay.
const CHAIN_HEAD: &[u8] = b"chain head ";

/// The number of the key space of `meta` among the rows of a view.
const META: u8 = 9;

/// The number of the key space of chains among the rows of a view: all of a view are there.
const CHAINS: u8 = 8;

/// Between two looks at whether a merge has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What became of a commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) enum Took {
    /// The replica has it.
    All,
    /// The replica is not where it was: a write that failed took some of it along. It ends here.
    Behind(u64),
}

/// A commit at its place in the log.
pub(in crate::store) struct Logged<'a> {
    /// The position of the commit before it.
    pub(in crate::store) after: u64,
    /// Its own.
    pub(in crate::store) at: u64,
    /// What it changes.
    pub(in crate::store) commit: &'a Commit,
    /// The relay whose chain the entries of the audit log belong to, where that is another.
    pub(in crate::store) chain: Option<&'a [u8; 32]>,
}

impl Embedded {
    /// The position of the last commit that it has.
    pub(in crate::store) fn position(&self) -> Result<u64, StoreError> {
        let _database = self.shared.to_read()?;
        Ok(self.shared.known.lock().pending.number)
    }

    /// Writes a commit of the log; the one that it has already does nothing twice.
    ///
    /// # Errors
    /// It has to be repeated.
    pub(in crate::store) fn follow(&self, logged: &Logged<'_>) -> Result<Took, StoreError> {
        let Logged { after, at, commit, chain } = *logged;
        let database = self.shared.to_write()?;
        let writing = self.shared.writing.lock();
        let is_at = self.shared.known.lock().pending.number;
        if is_at != after && is_at != at {
            return Ok(Took::Behind(is_at));
        }
        let of_other = chain.map(|relay| (relay, &commit.audit[..]));
        let place = Place { at, chain: of_other };
        let changes =
            of_other.map(|_| Commit { changes: commit.changes.clone(), audit: Vec::new() });
        let commit = changes.as_ref().unwrap_or(commit);
        let known = &self.shared.known;
        let written = database.write(known, commit, Some(&place), self.shared.handover);
        drop(writing);
        self.shared.written(written)?;
        self.settle_if_full(&database);
        Ok(Took::All)
    }

    /// Keeps something beside the rows, in the order of the commits.
    pub(in crate::store) fn keep_note(&self, note: &[u8]) -> Result<(), StoreError> {
        let database = self.shared.to_write()?;
        let _writing = self.shared.writing.lock();
        let mut batch = database.inner.batch();
        batch.insert(&database.meta, NOTE_ROW, note);
        self.shared.written(batch.commit().map_err(unwritten))
    }

    /// What was kept last.
    pub(in crate::store) fn note(&self) -> Result<Option<Box<[u8]>>, StoreError> {
        let database = self.shared.to_read()?;
        let note = database.meta.get(NOTE_ROW).map_err(failure)?;
        Ok(note.map(|note| note[..].into()))
    }

    /// What its messages, dead letters and audit logs take at most, in bytes.
    pub(in crate::store) fn live_bytes(&self) -> Result<u64, StoreError> {
        let database = self.shared.to_read()?;
        let known = self.shared.known.lock();
        let rows = database.letters.disk_space() + database.chains.disk_space();
        Ok(known.live + known.audit_size() + rows)
    }

    /// All of it, as it is at one moment; `own` names the relay whose chain is the audit log.
    pub(in crate::store) fn view(&self, own: [u8; 32]) -> Result<View, StoreError> {
        let database = self.shared.to_write()?;
        let _writing = self.shared.writing.lock();
        let mut known = self.shared.known.lock();
        let folded = database.fold(&mut known);
        self.shared.written(folded)?;
        let spaces = database.spaces().map(Clone::clone);
        let position = known.pending.number;
        Ok(View { snapshot: database.inner.snapshot(), spaces, position, own, place: None })
    }

    /// Begins to fill another in its place.
    pub(in crate::store) fn begin_filling(&self, own: [u8; 32]) -> Result<Filling, StoreError> {
        let folder = self.shared.folder.with_extension("filling");
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unavailable(error));
            }
            _ => {}
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(unavailable)?;
        let database = Database::open(&folder)?;
        let settle_at = self.shared.sizes.settle_at;
        Ok(Filling { folder, database, own, memory: 0, settle_at, audited: 0 })
    }

    /// Takes what was filled in place of what it has. Readers wait for moments.
    pub(in crate::store) fn take_over(&self, filling: Filling) -> Result<(), StoreError> {
        let Filling { folder: filled, database: new, audited, .. } = filling;
        let mut batch = new.inner.batch();
        batch.insert(&new.meta, AUDIT_BYTES_ROW, write_number(audited));
        batch.commit().map_err(unwritten)?;
        new.wait_for_room_to_settle().map_err(unwritten)?;
        new.settle().map_err(unwritten)?;
        new.wait_until_settled().map_err(unwritten)?;
        drop(new);
        // Ends a merge of everything, which has the database.
        self.shared.is_broken.store(true, Ordering::Release);
        while self.shared.is_compacting.load(Ordering::Acquire) {
            thread::sleep(LOOK);
        }
        let folder = &self.shared.folder;
        let mut database = self.shared.database.write();
        drop(database.take());
        clear(folder).map_err(unavailable)?;
        for entry in fs::read_dir(&filled).map_err(unavailable)? {
            let entry = entry.map_err(unavailable)?;
            fs::rename(entry.path(), folder.join(entry.file_name())).map_err(unavailable)?;
        }
        let opened = Database::open(folder)?;
        *self.shared.known.lock() = Known::read(&opened)?;
        *database = Some(opened);
        self.shared.is_broken.store(false, Ordering::Release);
        let _ = fs::remove_dir(&filled);
        Ok(())
    }

    /// Removes the entries of another relay's chain before this number, and keeps what stands in
    /// their place.
    pub(in crate::store) fn cut_chain(
        &self,
        relay: &[u8; 32],
        before: u64,
        head: &[u8],
    ) -> Result<(), StoreError> {
        let database = self.shared.to_write()?;
        let mut batch = database.inner.batch();
        batch.insert(&database.meta, chain_head_row(relay), write_head(before, head));
        let old = chain_key(relay, 0)..=chain_key(relay, before);
        let mut last: Option<Vec<u8>> = None;
        // The last of them may reach over the first entry that stays.
        for row in database.chains.range(&old.start()[..]..=&old.end()[..]) {
            let key = row.key().map_err(failure)?.to_vec();
            if let Some(before) = last.replace(key) {
                batch.remove(&database.chains, before);
            }
        }
        let _writing = self.shared.writing.lock();
        self.shared.written(batch.commit().map_err(unwritten))
    }
}

/// Removes what a folder has, but for its lock.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != "in-use" {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn chain_head_row(relay: &[u8; 32]) -> Vec<u8> {
    [CHAIN_HEAD, relay].concat()
}

/// A row of a view: the number of its key space, its key and its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::store) struct Row {
    pub(in crate::store) space: u8,
    pub(in crate::store) key: Vec<u8>,
    pub(in crate::store) value: Vec<u8>,
}

/// All of a replica, at one moment.
pub(in crate::store) struct View {
    snapshot: Snapshot,
    spaces: [Keyspace; 11],
    /// The position of the last commit that it has.
    pub(in crate::store) position: u64,
    own: [u8; 32],
    /// What stands in the place of the rows that say where in a log it is.
    place: Option<[Row; 2]>,
}

impl View {
    /// The same, as what a log has at a position, with what its follower keeps.
    pub(in crate::store) fn moved_to(mut self, position: u64, note: &[u8]) -> Self {
        let meta = |key: &str, value| Row { space: META, key: key.as_bytes().to_vec(), value };
        let folded = meta(FOLDED_ROW, write_number(position));
        self.place = Some([folded, meta(NOTE_ROW, note.to_vec())]);
        self.position = position;
        self
    }

    /// Its rows; those of the audit log as the chain of its relay.
    pub(in crate::store) fn rows(&self) -> impl Iterator<Item = Result<Row, StoreError>> + '_ {
        // The last is the log, which the others have.
        let spaces = self.spaces.iter().take(10).enumerate();
        let rows = spaces.flat_map(move |(number, space)| {
            let rows = self.snapshot.iter(space).map(key_value);
            rows.map(move |row| row.map(|(key, value)| self.row(number, &key, &value)))
        });
        let place = self.place.as_ref();
        let is_place = move |row: &Row| {
            let mut placed = place.into_iter().flatten();
            placed.any(|place| (place.space, &place.key) == (row.space, &row.key))
        };
        let rows = rows.filter(move |row| !row.as_ref().is_ok_and(is_place));
        rows.chain(place.into_iter().flatten().cloned().map(Ok))
    }

    fn row(&self, number: usize, key: &[u8], value: &[u8]) -> Row {
        const AUDIT: usize = CHAINS as usize - 1;
        let space = u8::try_from(number).expect("there are eleven");
        let (space, key) = match number {
            AUDIT => (CHAINS, [&self.own, key].concat()),
            _ if space == META && key == HEAD_ROW.as_bytes() => (META, chain_head_row(&self.own)),
            _ => (space, key.to_vec()),
        };
        Row { space, key, value: value.to_vec() }
    }
}

/// A replica that is being filled.
pub(in crate::store) struct Filling {
    folder: PathBuf,
    database: Database,
    own: [u8; 32],
    memory: u64,
    settle_at: u64,
    audited: u64,
}

impl Filling {
    /// Adds rows of a [`View`].
    ///
    /// # Errors
    /// They cannot be written, or are none.
    pub(in crate::store) fn add(&mut self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut batch = self.database.inner.batch();
        for Row { space, key, value } in rows {
            let (space, key) = self.place(space, key, &value)?;
            self.memory += memory_of(key.len(), value.len());
            let space = space.ok_or_else(|| none("a row of no key space"))?;
            batch.insert(&space, key, value);
        }
        batch.commit().map_err(unwritten)?;
        if self.memory >= self.settle_at {
            self.database.wait_for_room_to_settle().map_err(unwritten)?;
            self.database.settle().map_err(unwritten)?;
            self.memory = 0;
        }
        Ok(())
    }

    /// Where a row belongs here: the chain of this relay is its audit log.
    fn place(
        &mut self,
        space: u8,
        key: Vec<u8>,
        value: &[u8],
    ) -> Result<(Option<Keyspace>, Vec<u8>), StoreError> {
        let database = &self.database;
        if space == CHAINS && key.get(..32) == Some(&self.own[..]) {
            let key = key[32..].to_vec();
            self.audited += row_bytes(&key, value);
            return Ok((Some(database.audit.clone()), key));
        }
        if space == META && key == chain_head_row(&self.own) {
            return Ok((Some(database.meta.clone()), HEAD_ROW.as_bytes().to_vec()));
        }
        if space == META && key == b"format" {
            let (ours, theirs) = (database.meta.get("format").map_err(failure)?, value);
            if ours.as_deref() != Some(theirs) {
                return Err(none("a snapshot of another format"));
            }
        }
        Ok((database.spaces().get(usize::from(space)).map(|space| (*space).clone()), key))
    }
}

fn none(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PublicKey, RelayId};
    use crate::proto::bus::{MailboxId, Seq};
    use crate::store::suite::{ALL, append, entry, level, message, positions, remove};
    use crate::store::{AuditEntry, Handover, Store as _};

    const OWN: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn logged(after: u64, at: u64, commit: &Commit) -> Logged<'_> {
        Logged { after, at, commit, chain: None }
    }

    fn appending(seq: u64, bytes: usize) -> Commit {
        let changes = vec![append(1, seq, &message("alice", seq, bytes)), level(1, 1, seq + 1)];
        Commit { changes, audit: vec![entry(seq)] }
    }

    #[test]
    fn position_is_that_of_the_last_commit_whatever_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Embedded::open(folder.path(), Handover::Process).unwrap();
        let replica = open();
        assert_eq!(replica.position().unwrap(), 0);
        for (after, at, bytes) in [(0, 7, 10), (7, 9, 100_000), (9, 10, 10)] {
            assert_eq!(
                replica.follow(&logged(after, at, &appending(at, bytes))).unwrap(),
                Took::All
            );
            assert_eq!(replica.position().unwrap(), at);
        }
        replica.keep_note(b"epoch").unwrap();
        drop(replica);

        let replica = open();
        assert_eq!(replica.position().unwrap(), 10);
        assert_eq!(replica.note().unwrap().as_deref(), Some(&b"epoch"[..]));
        assert_eq!(positions(&replica.read(MailboxId(1), Seq(1), ALL).unwrap().stored), [7, 9, 10]);
        let ahead = replica.follow(&logged(11, 12, &appending(12, 10))).unwrap();
        assert_eq!(ahead, Took::Behind(10));
    }

    #[test]
    fn view_fills_another_replica_with_all_chains() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [here, there] = folders
            .each_ref()
            .map(|folder| Embedded::open(&folder.path().join("r"), Handover::Process).unwrap());
        for seq in 1..=500 {
            here.follow(&logged(seq - 1, seq, &appending(seq, 1_000))).unwrap();
        }
        let taken =
            Commit { changes: vec![remove(1, 3, &message("alice", 3, 1_000))], audit: Vec::new() };
        here.follow(&logged(500, 501, &taken)).unwrap();
        let foreign = Commit { changes: Vec::new(), audit: (0..3).map(entry).collect() };
        let of_other = Logged { after: 501, at: 502, commit: &foreign, chain: Some(&OTHER) };
        here.follow(&of_other).unwrap();
        here.cut_audit(9, b"own head").unwrap();
        here.cut_chain(&OTHER, 1, b"other head").unwrap();
        there.follow(&logged(0, 4, &appending(9_999, 10))).unwrap();

        let view = here.view(OWN).unwrap();
        here.follow(&logged(502, 503, &appending(600, 10))).unwrap();
        let mut filling = there.begin_filling(OTHER).unwrap();
        let rows: Vec<_> = view.rows().map(Result::unwrap).collect();
        rows.chunks(100).for_each(|rows| filling.add(rows.to_vec()).unwrap());
        there.take_over(filling).unwrap();

        assert_eq!((view.position, there.position().unwrap()), (502, 502));
        let read = positions(&there.read(MailboxId(1), Seq(1), ALL).unwrap().stored);
        assert_eq!(read, (1..=500).filter(|seq| *seq != 3).collect::<Vec<_>>());
        let numbers = |entries: Vec<AuditEntry>| entries.iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(numbers(there.audit(0, 9).unwrap()), [1, 2], "its own chain came back");
        assert_eq!(there.audit_head().unwrap().as_deref(), Some(&b"other head"[..]));
        let own = RelayId(PublicKey(OWN));
        assert_eq!(there.chains().unwrap(), [own]);
        let page = there.chain(own, 0, 2).unwrap();
        assert_eq!((page.head.as_deref(), page.last), (Some(&b"own head"[..]), Some(500)));
        assert_eq!(numbers(page.entries), [9, 10]);
        assert_eq!(here.chains().unwrap(), [RelayId(PublicKey(OTHER))]);
        assert_eq!(there.recover().unwrap().accepted, here.recover().unwrap().accepted);
        assert_eq!(there.follow(&logged(502, 503, &appending(600, 10))).unwrap(), Took::All);
    }
}
