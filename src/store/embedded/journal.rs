//! The journals of the database, as far as a crash concerns them.
//!
//! fjall takes a journal up to where it makes no sense any more, but not one with a commit whose
//! bytes are not those that were written: a machine that lost power may have written a part of the
//! last commits, in any order. The store then does the same there ([`cut_torn_end`]).
//!
//! The form is that of fjall 3 (`journal/entry.rs`): a commit is a start with its number of items,
//! the items, and an end with their xxh3.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

/// What ends a commit.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// The path of a journal.
pub(super) fn journal(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number}.jnl"))
}

/// The journals of a folder, each with its number.
pub(super) fn journals(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (true, Some(number)) = (is_journal, number) {
            found.push((number, path));
        }
    }
    Ok(found)
}

/// Syncs that are expected at a time.
const SYNCS: usize = 4;

/// The newest journal of a folder, to be synced. fjall has synced all others when it began the
/// next.
///
/// It is open once for each sync that runs at a time, and from the start: what the kernel could not
/// write is told once to each, and not to one that is opened later.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<Idle>);

/// Those that nobody syncs at the moment.
#[derive(Debug, Default)]
struct Idle {
    /// Of which journal they are.
    number: Option<u64>,
    files: Vec<File>,
}

impl Newest {
    /// Has the disk take it.
    pub(super) fn sync(&self, folder: &Path) -> io::Result<()> {
        let (number, file) = self.take(folder)?;
        let synced = file.sync_data();
        let mut idle = self.0.lock();
        if idle.number == Some(number) {
            idle.files.push(file);
        }
        synced
    }

    fn take(&self, folder: &Path) -> io::Result<(u64, File)> {
        let mut idle = self.0.lock();
        let number = match idle.number {
            Some(number) if !fs::exists(journal(folder, number + 1))? => number,
            _ => {
                let newest = journals(folder)?.into_iter().max();
                let (number, _) = newest.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
                let open = |_| File::open(journal(folder, number));
                let files = (0..SYNCS).map(open).collect::<Result<_, _>>()?;
                *idle = Idle { number: Some(number), files };
                number
            }
        };
        match idle.files.pop() {
            Some(file) => Ok((number, file)),
            None => Ok((number, File::open(journal(folder, number))?)),
        }
    }
}

/// Whether a journal that is there has no entry.
pub(super) fn is_blank(journal: &Path) -> io::Result<bool> {
    let mut first = [0];
    match File::open(journal) {
        Ok(mut file) => Ok(file.read(&mut first)? == 0 || first == [0]),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets the next opening begin a new journal, and bring into files what the last one has.
///
/// After a failed write, nobody knows how much of the end of the journal is on the disk, whatever
/// the kernel still shows of it; what is written behind such a place is lost with it.
pub(super) fn begin_new_journal(folder: &Path) -> io::Result<()> {
    match journals(folder)?.into_iter().max() {
        Some((number, path)) if !is_blank(&path)? => {
            File::create_new(journal(folder, number + 1)).map(drop)
        }
        _ => Ok(()),
    }
}

/// Cuts off what follows the last whole commit of the last journal, and keeps it in a file next to
/// it: that file and its length, or nothing where all commits are whole.
pub(super) fn cut_torn_end(folder: &Path) -> io::Result<Option<(PathBuf, u64)>> {
    // The last that has something: behind a journal that failed, another is begun.
    let mut all = journals(folder)?;
    all.sort_unstable();
    while all.len() > 1 && all.last().is_some_and(|(_, path)| is_blank(path).unwrap_or(false)) {
        all.pop();
    }
    let Some((_, path)) = all.pop() else { return Ok(None) };
    let mut file = File::options().read(true).write(true).open(&path)?;
    let end = whole(&mut BufReader::new(&file))?;
    file.seek(SeekFrom::Start(end))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    // A journal is longer than what it holds: zeros are its end.
    let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if used == 0 {
        return Ok(None);
    }
    let torn = path.with_extension("torn");
    fs::write(&torn, &rest[..used])?;
    file.set_len(end)?;
    file.sync_all()?;
    Ok(Some((torn, used as u64)))
}

/// How many bytes from the beginning are whole commits.
fn whole(journal: &mut impl Read) -> io::Result<u64> {
    let mut commits = Commits { journal, at: 0 };
    let mut end = 0;
    loop {
        match commits.skip() {
            Ok(true) => end = commits.at,
            Ok(false) => return Ok(end),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(end),
            Err(error) => return Err(error),
        }
    }
}

/// Reads commits one by one.
struct Commits<'a, R> {
    journal: &'a mut R,
    at: u64,
}

impl<R: Read> Commits<'_, R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.journal.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// Whether a whole commit was passed over.
    fn skip(&mut self) -> io::Result<bool> {
        let [tag] = self.bytes()?;
        if tag != 1 {
            return Ok(false);
        }
        let items = u32::from_le_bytes(self.bytes()?);
        let _number: [u8; 8] = self.bytes()?;
        let mut hash = Xxh3::new();
        for _ in 0..items {
            if !self.item(&mut hash)? {
                return Ok(false);
            }
        }
        let [tag] = self.bytes()?;
        let expected = u64::from_le_bytes(self.bytes()?);
        Ok(tag == 3 && self.bytes()? == TRAILER && hash.digest() == expected)
    }

    /// Whether an item was passed over, and added to the hash.
    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let [tag] = self.bytes()?;
        hash.update(&[tag]);
        if tag == 4 {
            let space: [u8; 8] = self.bytes()?;
            hash.update(&space);
            return Ok(true);
        }
        if tag != 2 {
            return Ok(false);
        }
        // What it is, how it is compressed, and in which key space.
        let kind: [u8; 10] = self.bytes()?;
        let key: [u8; 2] = self.bytes()?;
        let value: [u8; 4] = self.bytes()?;
        let stored: [u8; 4] = self.bytes()?;
        for field in [&kind[..], &key, &value, &stored] {
            hash.update(field);
        }
        let length = u64::from(u16::from_le_bytes(key)) + u64::from(u32::from_le_bytes(stored));
        let mut content = Vec::new();
        self.journal.by_ref().take(length).read_to_end(&mut content)?;
        self.at += content.len() as u64;
        hash.update(&content);
        Ok(content.len() as u64 == length)
    }
}
