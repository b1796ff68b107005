//! `audit verify` and `audit export`: the audit log of messages, from a file, from the store of a
//! state folder, or from the relay that uses it.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use rustix::process::geteuid;

use super::{Exit, output};
use crate::cluster::{identity_file, relay_id};
use crate::config::{Flags, Layers, Surroundings};
use crate::control::client::{PATIENCE, ask};
use crate::control::{Action, AuditPage, rfc3339};
use crate::ids::RelayId;
use crate::key_file::read_key;
use crate::store::audit::{
    BadSeal, Break, Checked, GENESIS, Kind, Line, LineError, Lines, Seal, Tail, Verifier,
    entry_line,
};
use crate::store::{AuditEntry, Embedded, Handover, Store as _, StoreError, bus_folder};

/// Entries that are read at once.
const PAGE: usize = 1_000;

/// Bytes of lines that are written at once.
const WRITE_AT: usize = 64 * 1024;

/// What is done with the audit log of messages.
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Check that nobody changed the audit log of messages
    Verify {
        /// Exported log to check, instead of that of the state folder
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Checkpoints of the relay, which prove that the end is not cut off
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// Folder of what the relay keeps [default: that of `serve`]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<String>,
    },
    /// Print the audit log of messages as lines of JSON
    Export {
        /// Folder of what the relay keeps [default: that of `serve`]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<String>,
    },
}

impl Audit {
    pub(super) fn run(self) -> Result<(), Exit> {
        match self {
            Self::Verify { from, checkpoint, state_dir } => {
                let (log, relay) = match from {
                    Some(file) => (Log::open(&file)?, None),
                    None => {
                        let folder = state_folder(state_dir)?;
                        (Log::of(&folder)?, relay_of(&folder))
                    }
                };
                let signed = checkpoint.as_deref().map(Checkpoints::read).transpose()?;
                let signed = signed.unwrap_or_default();
                let checked = verify(log, &signed.seals, relay)?;
                output::print(&say(&checked, checkpoint.as_deref(), signed.no_lines))
            }
            Self::Export { state_dir } => export(Log::of(&state_folder(state_dir)?)?),
        }
    }
}

fn state_folder(state_dir: Option<String>) -> Result<PathBuf, Exit> {
    let mut surroundings = Surroundings::of_this_process();
    if state_dir.is_some() {
        // Nothing else is needed, and what is broken there is no concern of this command.
        surroundings.variables.clear();
    }
    Ok(Layers::collect(Flags::state_dir(state_dir), &surroundings)?.state_dir()?)
}

/// The relay of a state folder, where it has a key that can be read.
fn relay_of(state_dir: &Path) -> Option<RelayId> {
    read_key(&identity_file(state_dir)).ok().map(|file| relay_id(&file.key))
}

/// Where a log is read from.
enum Log {
    /// What was exported.
    File(Lines<BufReader<File>>),
    /// A store that nobody else uses.
    Store(Box<Embedded>),
    /// The store of a running relay.
    Relay(PathBuf),
}

/// What a log has first, and then.
enum Part {
    /// What stands in the place of entries that were removed.
    Head(Seal),
    /// An entry, and the hash before it, where it says so.
    Entry(Option<[u8; 32]>, AuditEntry),
}

/// What was read at once.
struct Page {
    /// What stands in the place of entries that were removed.
    head: Option<Vec<u8>>,
    /// The number of the last entry of all.
    last: Option<u64>,
    entries: Vec<AuditEntry>,
}

impl Log {
    fn open(file: &Path) -> Result<Self, Exit> {
        let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()));
        Ok(Self::File(Lines::new(BufReader::new(opened.map_err(Exit::Unreadable)?))))
    }

    /// The log of a state folder.
    fn of(state_dir: &Path) -> Result<Self, Exit> {
        let folder = bus_folder(state_dir);
        let there = fs::metadata(&folder)
            .with_context(|| format!("there is no store of messages at {}", folder.display()));
        // A file of another user in it would keep its relay from opening it.
        if there.map_err(Exit::Unreadable)?.uid() != geteuid().as_raw() {
            let folder = folder.display();
            let error = anyhow!("{folder} is another user's: run this as the relay's user");
            return Err(Exit::Unreadable(error));
        }
        match Embedded::open(&folder, Handover::Kernel) {
            Ok(store) => Ok(Self::Store(Box::new(store))),
            Err(StoreError::Locked) => Ok(Self::Relay(state_dir.to_owned())),
            Err(error) => Err(refuse_store(error)),
        }
    }

    /// Hands on all parts, in their order.
    fn each(self, mut take: impl FnMut(Part) -> Result<(), Exit>) -> Result<(), Exit> {
        match self {
            Self::File(mut lines) => {
                while let Some(line) = lines.next_line().map_err(refuse_line)? {
                    take(match line {
                        Line::Head(head) => Part::Head(head),
                        Line::Entry { before, entry } => Part::Entry(Some(before), entry),
                    })?;
                }
                Ok(())
            }
            Self::Store(store) => pages(take, |from| page_of(&store, from).map_err(refuse_store)),
            Self::Relay(folder) => pages(take, |from| page_from(&folder, from)),
        }
    }
}

fn page_of(store: &Embedded, from: u64) -> Result<Page, StoreError> {
    Ok(Page {
        head: store.audit_head()?.map(Vec::from),
        last: store.last_audit()?.map(|last| last.seq),
        entries: store.audit(from, PAGE)?,
    })
}

/// Asks the relay that uses the store.
fn page_from(state_dir: &Path, from: u64) -> Result<Page, Exit> {
    let answer = ask(state_dir, &Action::AuditLog { from }, PATIENCE);
    let answer = answer.map_err(|error| Exit::Unreadable(error.into()))?;
    let page = serde_json::from_value::<AuditPage>(answer).map_err(anyhow::Error::from);
    let page = page.and_then(|AuditPage { head, last, entries }| {
        let entries: Result<_, _> = entries.into_iter().map(AuditEntry::try_from).collect();
        Ok(Page { head: head.map(String::into_bytes), last, entries: entries? })
    });
    page.context("the relay's answer is no audit log").map_err(Exit::Unreadable)
}

/// Hands on all parts that there are at the first page.
fn pages(
    mut take: impl FnMut(Part) -> Result<(), Exit>,
    mut read: impl FnMut(u64) -> Result<Page, Exit>,
) -> Result<(), Exit> {
    let mut page = read(0)?;
    let (first_head, end) = (page.head, page.last);
    if let Some(head) = &first_head {
        let head = Seal::from_json(Kind::Head, head);
        take(Part::Head(head.map_err(|error| Exit::Broken(format!("its head: {error}")))?))?;
    }
    loop {
        let mut next = None;
        for entry in page.entries.into_iter().filter(|entry| Some(entry.seq) <= end) {
            next = Some(entry.seq + 1);
            take(Part::Entry(None, entry))?;
        }
        let Some(next) = next else { return Ok(()) };
        page = read(next)?;
        if page.head != first_head {
            let error = anyhow!("retention cut the log while it was read: run this again");
            return Err(Exit::Unreadable(error));
        }
    }
}

/// Checks a log of this relay, where that is known.
fn verify(log: Log, signed: &[Seal], relay: Option<RelayId>) -> Result<Checked, Exit> {
    let begin = |head: Option<&Seal>| Verifier::new(head, signed, relay).map_err(broken);
    let mut verifier = begin(None)?;
    log.each(|part| match part {
        Part::Head(head) => {
            verifier = begin(Some(&head))?;
            Ok(())
        }
        Part::Entry(None, entry) => verifier.entry(&entry).map_err(broken),
        Part::Entry(Some(before), entry) => verifier.entry_after(&before, &entry).map_err(broken),
    })?;
    verifier.end().map_err(broken)
}

fn export(log: Log) -> Result<(), Exit> {
    let mut before = GENESIS;
    let mut lines = String::new();
    log.each(|part| {
        match part {
            Part::Head(head) => {
                before = head.hash;
                lines = format!("{}\n", head.to_json());
            }
            Part::Entry(_, entry) => {
                lines += &entry_line(&before, &entry);
                before = entry.hash;
            }
        }
        if lines.len() >= WRITE_AT { output::print(&std::mem::take(&mut lines)) } else { Ok(()) }
    })?;
    output::print(&lines)
}

/// What a file of checkpoints has.
#[derive(Default)]
struct Checkpoints {
    seals: Vec<Seal>,
    /// Lines that are none, such as the part of one that a crash left.
    no_lines: usize,
}

impl Checkpoints {
    fn read(file: &Path) -> Result<Self, Exit> {
        let named = || format!("cannot read {}", file.display());
        let opened = File::open(file).with_context(named).map_err(Exit::Unreadable)?;
        let mut lines = Lines::new(BufReader::new(opened));
        let mut found = Self::default();
        loop {
            match lines.next_checkpoint() {
                Ok(Some(seal)) => found.seals.push(seal),
                Ok(None) => return Ok(found),
                Err(LineError::Seal { source: BadSeal::Malformed { .. }, .. }) => {
                    found.no_lines += 1;
                }
                Err(LineError::Read(error)) => {
                    let error = anyhow::Error::from(error).context(named());
                    return Err(Exit::Unreadable(error));
                }
                Err(error) => return Err(Exit::Broken(format!("{}: {error}", file.display()))),
            }
        }
    }
}

/// What was found of a log that is whole.
fn say(checked: &Checked, checkpoint: Option<&Path>, no_lines: usize) -> String {
    let entries = checked.entries;
    let tail = match (checked.tail, checkpoint) {
        (Tail::Proven { seq, at, relay }, _) => {
            let at = rfc3339(UNIX_EPOCH + Duration::from_millis(at.0));
            format!("tail proven up to entry {seq}, signed at {at} by relay {relay}")
        }
        (Tail::NotProvable, None) => "tail not provable without a checkpoint".to_owned(),
        (Tail::NotProvable, Some(file)) => {
            format!("tail not provable: {} has no checkpoint", file.display())
        }
    };
    let no_lines = match no_lines {
        0 => String::new(),
        count => format!("; lines that are no checkpoint: {count}"),
    };
    format!("audit chain OK: {entries} entries; {tail}{no_lines}\n")
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(found: Break) -> Exit {
    Exit::Broken(found.to_string())
}

fn refuse_store(error: StoreError) -> Exit {
    if let StoreError::Damaged(reason) = error {
        return Exit::Broken(reason);
    }
    Exit::Unreadable(error.into())
}

fn refuse_line(error: LineError) -> Exit {
    if let LineError::Read(error) = error {
        return Exit::Unreadable(error.into());
    }
    Exit::Broken(error.to_string())
}
