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

use super::bus::no_store;
use super::{Exit, output};
use crate::cluster::{identity_file, relay_id};
use crate::config::{Layers, Surroundings};
use crate::control::client::{PATIENCE, ask};
use crate::control::{Action, AuditPage, rfc3339};
use crate::ids::RelayId;
use crate::key_file::read_key;
use crate::store::audit::{
    BadSeal, Break, Checked, GENESIS, Kind, Line, LineError, Lines, Seal, Tail, Verifier,
    entry_line,
};
use crate::store::{
    AuditEntry, ChainPage, Embedded, Handover, Store as _, StoreError, bus_folder, replica_folder,
};

/// Entries that are read at once.
const PAGE: usize = 1_000;

/// Bytes of lines that are written at once.
const WRITE_AT: usize = 64 * 1024;

const OTHER_VERSION: &str =
    "the relay's answer is no audit log; is it of another version? Use its own program";

/// What is done with the audit log of messages.
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Check that nobody changed the audit log of messages
    Verify {
        /// Exported log to check, instead of that of the state folder
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        from: Option<PathBuf>,
        /// Checkpoints of the relay, which prove that the end is not cut off
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        checkpoint: Option<PathBuf>,
        /// Relay whose log is checked, of those that the store has [default: all]
        #[arg(long, value_name = "KEY", conflicts_with = "from")]
        chain: Option<RelayId>,
        /// Folder of what the relay keeps [default: that of `serve`]
        #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        state_dir: Option<String>,
    },
    /// Print the audit log of messages as lines of JSON
    Export {
        /// Relay whose log is printed, of those that the store has [default: this one]
        #[arg(long, value_name = "KEY")]
        chain: Option<RelayId>,
        /// Folder of what the relay keeps [default: that of `serve`]
        #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        state_dir: Option<String>,
    },
}

impl Audit {
    pub(super) fn run(self) -> Result<(), Exit> {
        match self {
            Self::Verify { from: Some(file), checkpoint, .. } => {
                let signed = checkpoints(checkpoint.as_deref())?;
                let checked = verify(&mut Log::open(&file)?, &signed.seals, None)?;
                output::print(&say(&checked, checkpoint.as_deref(), signed.no_lines))
            }
            Self::Verify { from: None, checkpoint, chain, state_dir } => {
                let folder = state_folder(state_dir)?;
                let signed = checkpoints(checkpoint.as_deref())?;
                let own = relay_of(&folder);
                let mut store = Stored::of(&folder)?;
                if chain.is_none_or(|chain| Some(chain) == own) {
                    let mut log = Log::Stored(&mut store, None);
                    let checked = verify(&mut log, &signed.seals, own)?;
                    output::print(&say(&checked, checkpoint.as_deref(), signed.no_lines))?;
                }
                let others = match chain {
                    Some(chain) if Some(chain) == own => Vec::new(),
                    Some(chain) => vec![chain],
                    None => store.chains()?,
                };
                for relay in others {
                    let seals: Vec<_> =
                        signed.seals.iter().filter(|seal| seal.relay == relay).cloned().collect();
                    let checked =
                        verify(&mut Log::Stored(&mut store, Some(relay)), &seals, Some(relay));
                    let checked = checked.map_err(|exit| of_relay(relay, exit))?;
                    let said = say(&checked, checkpoint.as_deref(), 0);
                    output::print(&format!("relay {relay}: {said}"))?;
                }
                Ok(())
            }
            Self::Export { chain, state_dir } => {
                let folder = state_folder(state_dir)?;
                let other = chain.filter(|chain| relay_of(&folder) != Some(*chain));
                export(&mut Log::Stored(&mut Stored::of(&folder)?, other))
            }
        }
    }
}

fn state_folder(state_dir: Option<String>) -> Result<PathBuf, Exit> {
    Ok(Layers::state_dir_of(state_dir, &Surroundings::of_this_process())?)
}

/// The relay of a state folder, where it has a key that can be read.
fn relay_of(state_dir: &Path) -> Option<RelayId> {
    read_key(&identity_file(state_dir)).ok().map(|file| relay_id(&file.key))
}

/// Says whose log is broken.
fn of_relay(relay: RelayId, exit: Exit) -> Exit {
    let Exit::Broken(reason) = exit else { return exit };
    Exit::Broken(format!("relay {relay}: {reason}"))
}

/// Where a log is read from.
enum Log<'a> {
    /// What was exported.
    File(Box<Lines<BufReader<File>>>),
    /// What a store has of this relay, or of another one.
    Stored(&'a mut Stored, Option<RelayId>),
}

/// A store of messages.
enum Stored {
    /// One that nobody else uses.
    Free(Box<Embedded>),
    /// That of a running relay, by its state folder.
    InUse(PathBuf),
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

impl Stored {
    /// The store of a state folder: the messages themselves, or the replica of a log elsewhere.
    fn of(state_dir: &Path) -> Result<Self, Exit> {
        let replica = replica_folder(state_dir);
        let folder = bus_folder(state_dir);
        let folder = if replica.exists() && !folder.exists() { replica } else { folder };
        let there = fs::metadata(&folder).map_err(|error| no_store(&folder, &error));
        // A file of another user in it would keep its relay from opening it.
        if there.map_err(Exit::Unreadable)?.uid() != geteuid().as_raw() {
            let folder = folder.display();
            let error = anyhow!("{folder} is another user's: run this as the relay's user");
            return Err(Exit::Unreadable(error));
        }
        match Embedded::open(&folder, Handover::Kernel) {
            Ok(store) => Ok(Self::Free(Box::new(store))),
            Err(StoreError::Locked) => Ok(Self::InUse(state_dir.to_owned())),
            Err(error) => Err(refuse_store(error)),
        }
    }

    /// The other relays whose logs it has.
    fn chains(&self) -> Result<Vec<RelayId>, Exit> {
        match self {
            Self::Free(store) => store.chains().map_err(refuse_store),
            Self::InUse(folder) => {
                let AuditPage { chains, .. } = ask_for_page(folder, u64::MAX, None)?;
                let chains = chains.iter().map(|relay| relay.parse());
                let chains: Result<_, _> = chains.collect();
                chains.context(OTHER_VERSION).map_err(Exit::Unreadable)
            }
        }
    }

    fn page(&self, from: u64, chain: Option<RelayId>) -> Result<Page, Exit> {
        match self {
            Self::Free(store) => page_of(store, from, chain).map_err(refuse_store),
            Self::InUse(folder) => page_from(folder, from, chain),
        }
    }
}

impl Log<'_> {
    fn open(file: &Path) -> Result<Self, Exit> {
        let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()));
        let lines = Lines::new(BufReader::new(opened.map_err(Exit::Unreadable)?));
        Ok(Self::File(Box::new(lines)))
    }

    /// Hands on all parts, in their order.
    fn each(&mut self, mut take: impl FnMut(Part) -> Result<(), Exit>) -> Result<(), Exit> {
        match self {
            Self::File(lines) => {
                while let Some(line) = lines.next_line().map_err(refuse_line)? {
                    take(match line {
                        Line::Head(head) => Part::Head(head),
                        Line::Entry { before, entry } => Part::Entry(Some(before), entry),
                    })?;
                }
                Ok(())
            }
            Self::Stored(store, chain) => pages(take, |from| store.page(from, *chain)),
        }
    }
}

fn page_of(store: &Embedded, from: u64, chain: Option<RelayId>) -> Result<Page, StoreError> {
    if let Some(relay) = chain {
        let ChainPage { head, last, entries } = store.chain(relay, from, PAGE)?;
        return Ok(Page { head: head.map(Vec::from), last, entries });
    }
    Ok(Page {
        head: store.audit_head()?.map(Vec::from),
        last: store.last_audit()?.map(|last| last.seq),
        entries: store.audit(from, PAGE)?,
    })
}

/// Asks the relay that uses the store.
fn page_from(state_dir: &Path, from: u64, chain: Option<RelayId>) -> Result<Page, Exit> {
    let AuditPage { head, last, entries, .. } = ask_for_page(state_dir, from, chain)?;
    let entries: Result<_, _> = entries.into_iter().map(AuditEntry::try_from).collect();
    let entries = entries.context(OTHER_VERSION).map_err(Exit::Unreadable)?;
    Ok(Page { head: head.map(String::into_bytes), last, entries })
}

fn ask_for_page(state_dir: &Path, from: u64, chain: Option<RelayId>) -> Result<AuditPage, Exit> {
    let chain = chain.map(|relay| relay.to_string());
    let answer = ask(state_dir, &Action::AuditLog { from, chain }, PATIENCE);
    let answer = answer.map_err(|error| Exit::Unreadable(error.into()))?;
    serde_json::from_value(answer).context(OTHER_VERSION).map_err(Exit::Unreadable)
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
fn verify(log: &mut Log<'_>, signed: &[Seal], relay: Option<RelayId>) -> Result<Checked, Exit> {
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

fn export(log: &mut Log<'_>) -> Result<(), Exit> {
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

/// The checkpoints of a file, where one is named.
fn checkpoints(file: Option<&Path>) -> Result<Checkpoints, Exit> {
    Ok(file.map(Checkpoints::read).transpose()?.unwrap_or_default())
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
