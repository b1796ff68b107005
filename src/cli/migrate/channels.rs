//! Channels of a keyop-messenger hub, from its folder, brought into the store of a relay that does not
//! run: the records that its federated peers have not acknowledged, and how far each has come.
//!
//! The folder has a file of lines for each part of a channel, called by the place where it begins,
//! and for each peer the place of what it gets next. A peer subscribes here when the records before
//! that place are in, so that its cursor stands where the hub had it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::offline::{Offline, why};
use crate::doors::keyop::{REALM, owner};
use crate::proto::bus::{
    ChannelLimits, Limits, MailboxId, Owner, Submission, Submitted, Subscription, To,
};
use crate::wire::keyop::Envelope;
use crate::wire::keyop::channel::is_name;

/// Records of a commit, and what they may take, in bytes.
const RECORDS: usize = 1_000;
const BYTES: usize = 4 << 20;

/// Longest line, in bytes: the original passes over longer ones.
const MAX_LINE: usize = 10 << 20;

/// Who has published what is brought in, as the audit log says it.
const PUBLISHER: &str = "(migrated)";

/// What was brought in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Imported {
    channels: u64,
    records: u64,
    cursors: u64,
    /// Lines that are no records, or repeat one.
    left_out: u64,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, records, cursors, left_out } = self;
        write!(f, "{channels} channels: {records} records wait for {cursors} cursors of peers")?;
        if *left_out > 0 {
            write!(f, ", {left_out} lines left out: no records, or some that were there already")?;
        }
        f.write_str("\n")
    }
}

/// A channel of the folder.
struct Found {
    name: String,
    /// Its files, by the place where each begins.
    segments: BTreeMap<u64, PathBuf>,
    /// How far each peer has come.
    peers: Vec<(u64, String)>,
}

/// Brings the channels of a hub's folder into the store of a state folder.
///
/// # Errors
/// The folder is no hub's, or the store cannot be used, or has such a channel already.
pub(super) fn import(data: &Path, state_dir: &Path) -> anyhow::Result<Imported> {
    let found = channels(data)?;
    let mut importing = Importing::new(state_dir)?;
    let offline = &importing.offline;
    let is_known = |one: &&Found| offline.bus.channel(REALM.0, &one.name, offline.now).is_some();
    if let Some(both) = found.iter().find(is_known) {
        bail!(
            "the channel {} is there already; `beacon-relay channel {} --remove` removes it",
            both.name,
            both.name
        );
    }
    for channel in &found {
        importing.channel(channel).with_context(|| format!("channel {}", channel.name))?;
    }
    importing.offline.finish()?;
    Ok(importing.imported)
}

/// The channels of a folder, in the order of their names.
fn channels(data: &Path) -> anyhow::Result<Vec<Found>> {
    let folder = data.join("channels");
    let mut found = Vec::new();
    for name in names(&folder)? {
        if !is_name(&name) {
            bail!("{}: no name of a channel", folder.join(&name).display());
        }
        let segments = numbered(&folder.join(&name))?;
        let peers = peers(&data.join("subscribers").join(&name))?;
        found.push(Found { name, segments, peers });
    }
    Ok(found)
}

/// The names in a folder.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let listed = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in listed {
        let name = entry?.file_name().into_string();
        names.push(name.map_err(|name| anyhow::anyhow!("{}: no text", name.display()))?);
    }
    names.sort();
    Ok(names)
}

/// The files of a channel.
fn numbered(folder: &Path) -> anyhow::Result<BTreeMap<u64, PathBuf>> {
    let number = |name: &String| name.strip_suffix(".jsonl")?.parse().ok();
    let of = |name: String| Some((number(&name)?, folder.join(&name)));
    Ok(names(folder)?.into_iter().filter_map(of).collect())
}

/// The federated peers of a channel; none where nobody has subscribed it.
fn peers(folder: &Path) -> anyhow::Result<Vec<(u64, String)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut peers = Vec::new();
    for name in names(folder)? {
        let Some(peer) = name.strip_prefix("fed-").and_then(|rest| rest.strip_suffix(".offset"))
        else {
            continue;
        };
        let file = folder.join(&name);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let offset = text.trim().parse();
        let offset = offset.with_context(|| format!("{}: no number", file.display()))?;
        peers.push((offset, peer.to_owned()));
    }
    // Those first who have come least far.
    peers.sort();
    Ok(peers)
}

struct Importing {
    offline: Offline,
    publisher: MailboxId,
    /// The generation of the next session.
    generation: u64,
    records: usize,
    imported: Imported,
}

impl Importing {
    fn new(state_dir: &Path) -> anyhow::Result<Self> {
        // Whatever the relay is told: what waits was accepted by another.
        let channels = ChannelLimits {
            channels: usize::MAX,
            cursors: usize::MAX,
            bytes: u64::MAX,
            records: u64::MAX,
            ..ChannelLimits::default()
        };
        let unbounded = Limits { names: usize::MAX, channels, ..Limits::default() };
        let mut offline = Offline::open(state_dir, unbounded)?;
        let Offline { bus, turn, now, .. } = &mut offline;
        let publisher = bus.claim(REALM.0, PUBLISHER, Owner(owner(PUBLISHER)), *now, turn)?;
        let imported = Imported::default();
        Ok(Self { offline, publisher, generation: 1, records: 0, imported })
    }

    /// Brings one channel in, from where the peer is that has come least far.
    fn channel(&mut self, found: &Found) -> anyhow::Result<()> {
        let mut waiting = found.peers.iter().peekable();
        let Some((first, _)) = waiting.peek() else { return Ok(()) };
        let mut has_reader = false;
        let begin = found.segments.range(..=first).next_back().map_or(0, |(begin, _)| *begin);
        for (start, file) in found.segments.range(begin..) {
            let mut at = *start;
            let mut lines = BufReader::new(File::open(file)?);
            let mut line = Vec::new();
            loop {
                while let Some((_, peer)) = waiting.next_if(|(offset, _)| *offset <= at) {
                    self.cursor(&found.name, peer)?;
                    has_reader = true;
                }
                line.clear();
                let read = lines.read_until(b'\n', &mut line);
                let read = read.with_context(|| file.display().to_string())?;
                if read == 0 {
                    break;
                }
                at += read as u64;
                // The end of a file may be a line that was not written whole.
                if let Some(record) = line.strip_suffix(b"\n")
                    && has_reader
                {
                    self.record(&found.name, record)?;
                }
            }
        }
        for (_, peer) in waiting {
            self.cursor(&found.name, peer)?;
        }
        self.imported.channels += 1;
        Ok(())
    }

    /// Has a peer begin at the end of what is in.
    fn cursor(&mut self, channel: &str, peer: &str) -> anyhow::Result<()> {
        let Offline { bus, turn, now, .. } = &mut self.offline;
        let mailbox = bus.claim(REALM.0, peer, Owner(owner(peer)), *now, turn);
        let mailbox = mailbox.with_context(|| format!("peer {peer}"))?;
        let generation = self.generation;
        self.generation += 1;
        bus.open(mailbox, generation, *now, turn);
        let subscription = Subscription { channels: vec![channel.into()], is_ephemeral: false };
        bus.subscribe(mailbox, generation, &subscription, *now, turn);
        bus.close(mailbox, generation, *now, turn);
        self.imported.cursors += 1;
        Ok(())
    }

    fn record(&mut self, channel: &str, record: &[u8]) -> anyhow::Result<()> {
        let Some(envelope) = Envelope::parse(record).ok().filter(|_| record.len() <= MAX_LINE)
        else {
            self.imported.left_out += 1;
            return Ok(());
        };
        let (id, to) = (envelope.id.as_ref().into(), To::Channel(channel.into()));
        let submission = Submission { from: self.publisher, to, id, body: record.into() };
        match self.offline.submit(&submission)? {
            Submitted::Stored(_) => self.imported.records += 1,
            Submitted::Duplicate => self.imported.left_out += 1,
            Submitted::Partly { .. } => bail!("the record {} is taken in part", submission.id),
            Submitted::Refused(refused) => {
                bail!("the record {} is not taken: {}", submission.id, why(refused))
            }
        }
        self.records += 1;
        if self.records >= RECORDS || self.offline.turn.appended_bytes >= BYTES {
            self.offline.commit()?;
            self.records = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::bus::{Bus, Millis};
    use crate::store::{Embedded, Handover, Store as _, bus_folder};

    fn record(id: u32) -> String {
        format!(
            "{{\"v\":1,\"id\":\"r{id}\",\"ts\":\"2026-01-02T03:04:05Z\",\"channel\":\"orders\",\"origin\":\"alpha\",\
             \"payload_type\":\"t\",\"payload\":{{\"n\":{id}}}}}\n"
        )
    }

    /// A hub's folder: ten records in two files, and two peers behind.
    fn hub() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let channel = folder.path().join("channels/orders");
        let peers = folder.path().join("subscribers/orders");
        fs::create_dir_all(&channel).unwrap();
        fs::create_dir_all(&peers).unwrap();
        let length = record(0).len();
        let of = |range: std::ops::Range<u32>| range.map(record).collect::<String>();
        fs::write(channel.join(format!("{:020}.jsonl", 0)), of(0..5)).unwrap();
        let torn = of(5..10) + "no JSON\n" + "{\"v\":1,";
        fs::write(channel.join(format!("{:020}.jsonl", 5 * length)), torn).unwrap();
        fs::write(peers.join("fed-beta.offset"), format!("{}\n", 3 * length)).unwrap();
        fs::write(peers.join("fed-gamma.offset"), format!("{}\n", 7 * length)).unwrap();
        fs::write(peers.join("local.offset"), "0\n").unwrap();
        folder
    }

    #[test]
    fn peers_go_on_where_the_hub_had_them() {
        let (hub, state) = (hub(), tempfile::tempdir().unwrap());

        let imported = import(hub.path(), state.path()).unwrap();

        let expected = Imported { channels: 1, records: 7, cursors: 2, left_out: 1 };
        assert_eq!(imported, expected);
        let store = Embedded::open(&bus_folder(state.path()), Handover::Kernel).unwrap();
        let bus = Bus::new(Limits::default(), store.recover().unwrap());
        let mut cursors = bus.cursors(REALM.0, "orders", Millis(0)).unwrap();
        cursors.sort_by(|one, other| one.name.cmp(&other.name));
        let behind: Vec<_> = cursors.iter().map(|of| (&*of.name, of.records)).collect();
        assert_eq!(behind, [("beta", 7), ("gamma", 3)]);
        let audit = store.audit(0, 100).unwrap();
        assert_eq!(audit.len(), 7, "each record stands in the audit log");
    }

    #[test]
    fn second_import_changes_nothing_and_says_what_to_do() {
        let (hub, state) = (hub(), tempfile::tempdir().unwrap());
        import(hub.path(), state.path()).unwrap();
        let error = import(hub.path(), state.path()).unwrap_err().to_string();
        assert!(error.contains("channel orders --remove"), "{error}");
        let none = import(Path::new("/nonexistent"), state.path()).unwrap_err().to_string();
        assert!(none.contains("/nonexistent/channels"), "{none}");
    }
}
