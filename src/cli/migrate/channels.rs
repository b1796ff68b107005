//! Channels of a keyop-messenger hub, from its folder, brought into the store of a relay that does not
//! run: the records that its federated peers have not acknowledged, and how far each has come.
//!
//! The folder has a file of lines for each part of a channel, called by the place where it begins,
//! and for each peer the place of what it gets next. A peer subscribes here when the records before
//! that place are in, so that its cursor stands where the hub had it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::offline::{Offline, why};
use crate::config::MOST_KEYOP_RECORD;
use crate::doors::keyop::{REALM, owner};
use crate::proto::bus::{
    ChannelLimits, Effect, Limits, MOST_CHANNELS_OF_PEER, MailboxId, Owner, Submission, Submitted,
    Subscription, To,
};
use crate::wire::keyop::Envelope;
use crate::wire::keyop::channel::is_name;

/// Records of a commit, and what they may take, in bytes.
const RECORDS: usize = 1_000;
const BYTES: usize = 4 << 20;

/// Longest line, in bytes: no peer could be sent a longer record.
const MAX_LINE: usize = MOST_KEYOP_RECORD;

/// Longest file of a place, in bytes: a number, and the end of its line.
const MAX_PLACE: u64 = 64;

/// Who has published what is brought in, as the audit log says it.
const PUBLISHER: &str = "(migrated)";

/// What was brought in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Imported {
    channels: u64,
    records: u64,
    cursors: u64,
    /// Lines that are no records, or repeat one.
    left_out: u64,
    /// Peers with places in more channels than a peer may have, and in how many channels each begins
    /// at the end.
    cut: BTreeMap<String, u64>,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, records, cursors, left_out, cut } = self;
        write!(f, "{channels} channels: {records} records wait for {cursors} cursors of peers")?;
        if *left_out > 0 {
            write!(f, ", {left_out} lines left out: no records, or some that were there already")?;
        }
        f.write_str("\n")?;
        for (peer, channels) in cut {
            writeln!(
                f,
                "{peer} begins at the end of {channels} channels: a peer has a place in \
                 {MOST_CHANNELS_OF_PEER} at most"
            )?;
        }
        Ok(())
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
            bail!("{}: no name of a channel; move it elsewhere", folder.join(&name).display());
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
        names.push(name.map_err(|name| anyhow::anyhow!("{}: no text; rename it", name.display()))?);
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
        let mut text = String::new();
        let read =
            File::open(&file).and_then(|file| file.take(MAX_PLACE).read_to_string(&mut text));
        read.with_context(|| file.display().to_string())?;
        let offset = text.trim().parse();
        let offset = offset
            .with_context(|| format!("{}: no number; correct or remove it", file.display()))?;
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
                let read = next_line(&mut lines, MAX_LINE, &mut line);
                let read = read.with_context(|| file.display().to_string())?;
                if read == 0 {
                    break;
                }
                at += read;
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
        let before = turn.effects.len();
        bus.subscribe(mailbox, generation, &subscription, *now, turn);
        let said = turn.effects.get(before..).unwrap_or_default();
        let is_cut = said.iter().any(|effect| matches!(effect, Effect::Withdraw { .. }));
        bus.close(mailbox, generation, *now, turn);
        if is_cut {
            *self.imported.cut.entry(peer.to_owned()).or_default() += 1;
        } else {
            self.imported.cursors += 1;
        }
        Ok(())
    }

    fn record(&mut self, channel: &str, record: &[u8]) -> anyhow::Result<()> {
        let Ok(envelope) = Envelope::parse(record) else {
            self.imported.left_out += 1;
            return Ok(());
        };
        let (id, to) = (envelope.id.as_ref().into(), To::Channel(channel.into()));
        let submission = Submission { from: self.publisher, to, id, body: record.into() };
        match self.offline.submit(&submission)? {
            Submitted::Stored(_) => self.imported.records += 1,
            Submitted::Duplicate => self.imported.left_out += 1,
            Submitted::Partly { .. } => bail!(
                "the record {} is taken in part; make room on the disk, then begin anew",
                submission.id
            ),
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

/// Reads a line with its end, and of one that is longer than `most` nothing but that; how many bytes it
/// is, 0 at the end.
fn next_line(lines: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let with_end = most as u64 + 1;
    let read = lines.by_ref().take(with_end).read_until(b'\n', line)? as u64;
    if read < with_end || line.ends_with(b"\n") {
        return Ok(read);
    }
    // What is left is a line that is no record.
    line.clear();
    line.push(b'\n');
    Ok(read + lines.skip_until(b'\n')? as u64)
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

        let expected =
            Imported { channels: 1, records: 7, cursors: 2, left_out: 1, ..Imported::default() };
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
    fn line_that_is_too_long_is_never_read_whole_and_those_behind_it_are() {
        let text = [&b"12345678\n"[..], &[b'x'; 100_000], b"\n1234567\nrest"].concat();
        let mut lines = BufReader::with_capacity(16, &text[..]);
        let mut line = Vec::new();
        let mut found = Vec::new();
        loop {
            let read = next_line(&mut lines, 8, &mut line).unwrap();
            if read == 0 {
                break;
            }
            assert!(line.capacity() < 1_000);
            found.push((read, String::from_utf8(line.clone()).unwrap()));
        }
        let found: Vec<_> = found.iter().map(|(read, text)| (*read, &**text)).collect();
        assert_eq!(found, [(9, "12345678\n"), (100_001, "\n"), (8, "1234567\n"), (4, "rest")]);
    }

    #[test]
    fn peer_with_places_in_more_channels_than_it_may_have_is_named() {
        let (hub, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for number in 0..MOST_CHANNELS_OF_PEER + 2 {
            let channel = hub.path().join(format!("channels/channel-{number}"));
            let peers = hub.path().join(format!("subscribers/channel-{number}"));
            fs::create_dir_all(&channel).unwrap();
            fs::create_dir_all(&peers).unwrap();
            fs::write(peers.join("fed-beta.offset"), "0\n").unwrap();
        }

        let imported = import(hub.path(), state.path()).unwrap();

        assert_eq!((imported.cursors, &imported.cut), (1_000, &[("beta".to_owned(), 2)].into()));
        let said = imported.to_string();
        assert!(
            said.ends_with(
                "beta begins at the end of 2 channels: a peer has a place in 1000 at most\n"
            ),
            "{said}"
        );
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
