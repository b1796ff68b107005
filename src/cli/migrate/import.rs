//! Names and messages of peerbus's broker, as Debian's `sqlite3 -json` prints them, brought into the
//! store of a relay that does not run.
//!
//! A row is a line. Names are reserved, since that broker does not keep whose they are; messages
//! are accepted as those of peers are, and stand in the audit log.

use std::fmt;
use std::io::BufRead;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::offline::{Offline, why};
use crate::doors::peerbus::REALM;
use crate::proto::bus::{Limits, Owner, Refused, Submission, Submitted, To};
use crate::wire::peerbus::{Envelope, MAX_MESSAGE, MAX_NAME, deliver_length};

/// Rows of a commit.
const ROWS: usize = 1_000;

/// A row of either table.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Row {
    Name { name: String },
    Message { id: String, sender: String, recipient: String, envelope: String },
}

/// What was brought in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Imported {
    names: u64,
    messages: u64,
    /// Messages that the store had.
    duplicates: u64,
    /// Messages that no peer could be sent.
    left_out: u64,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, messages, duplicates, left_out } = self;
        write!(f, "{names} names reserved, {messages} messages wait")?;
        if *duplicates > 0 {
            write!(f, ", {duplicates} were there already")?;
        }
        if *left_out > 0 {
            write!(f, ", {left_out} left out: too long, or no envelopes")?;
        }
        f.write_str("\n")
    }
}

/// Brings all rows into the store of a state folder.
///
/// # Errors
/// A line that is no row, or a store that cannot be used.
pub(super) fn import(rows: impl BufRead, state_dir: &Path) -> anyhow::Result<Imported> {
    let mut importing = Importing::new(state_dir)?;
    for (line, number) in rows.lines().zip(1..) {
        let line = line.context("the rows cannot be read")?;
        let row = line.trim().trim_start_matches('[').trim_end_matches([',', ']']);
        if row.is_empty() {
            continue;
        }
        let row = serde_json::from_str(row).map_err(|_| {
            anyhow::anyhow!("line {number} is no row of docs/PEERBUS.md's query; use that")
        })?;
        importing.take(row).with_context(|| format!("line {number}"))?;
    }
    importing.offline.finish()?;
    Ok(importing.imported)
}

struct Importing {
    offline: Offline,
    /// Rows of the turn.
    rows: usize,
    imported: Imported,
}

impl Importing {
    fn new(state_dir: &Path) -> anyhow::Result<Self> {
        // Whatever the relay is told: what waits was accepted by another.
        let unbounded = Limits {
            quota_messages: u64::MAX,
            quota_bytes: u64::MAX,
            names: usize::MAX,
            ..Limits::default()
        };
        let offline = Offline::open(state_dir, unbounded)?;
        Ok(Self { offline, rows: 0, imported: Imported::default() })
    }

    fn take(&mut self, row: Row) -> anyhow::Result<()> {
        match row {
            Row::Name { name } => self.reserve(&name)?,
            Row::Message { id, sender, recipient, envelope } => {
                self.reserve(&sender)?;
                self.reserve(&recipient)?;
                self.submit(&id, &sender, &recipient, &envelope)?;
            }
        }
        self.rows += 1;
        if self.rows >= ROWS {
            self.offline.commit()?;
            self.rows = 0;
        }
        Ok(())
    }

    /// Has a name be nobody's until an operator binds it, where it is not known.
    fn reserve(&mut self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() || name.len() > MAX_NAME {
            bail!("a name has 1 to {MAX_NAME} bytes; leave that row out");
        }
        let Offline { bus, turn, now, .. } = &mut self.offline;
        if bus.name(REALM.0, name).is_some() {
            return Ok(());
        }
        bus.reserve(REALM.0, name, *now, turn)?;
        bus.bind(REALM.0, name, Owner::RESERVED, *now, turn)?;
        self.imported.names += 1;
        Ok(())
    }

    fn submit(
        &mut self,
        id: &str,
        sender: &str,
        recipient: &str,
        envelope: &str,
    ) -> anyhow::Result<()> {
        let bytes = unhex(envelope)
            .context("the envelope is not in hexadecimal; use the query of docs/PEERBUS.md")?;
        let envelope = Envelope::parse(&bytes).map(|envelope| envelope.encode());
        let Ok(body) = envelope else {
            self.imported.left_out += 1;
            return Ok(());
        };
        if id.is_empty() || deliver_length(id, body.len()) > MAX_MESSAGE {
            self.imported.left_out += 1;
            return Ok(());
        }
        let from = self
            .offline
            .bus
            .name(REALM.0, sender)
            .context("its sender is reserved; leave that row out")?
            .mailbox;
        let (id, to) = (id.into(), To::Name(recipient.into()));
        let submission = Submission { from, to, id, body: body.into() };
        match self.offline.submit(&submission)? {
            Submitted::Stored(_) | Submitted::Partly { .. } => self.imported.messages += 1,
            Submitted::Duplicate => self.imported.duplicates += 1,
            Submitted::Refused(Refused::KeyTaken) => self.imported.left_out += 1,
            Submitted::Refused(refused) => bail!("the message is refused: {}", why(refused)),
        }
        Ok(())
    }
}

/// The bytes of a text of hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::bus::Seq;
    use crate::store::{Embedded, Handover, Most, Store as _, bus_folder};

    /// What sqlite3 prints for a database with two names and these messages for alice.
    fn rows(messages: &[(&str, &str)]) -> String {
        let names = "[{\"name\":\"alice\"},\n{\"name\":\"bob\"}]\n";
        let rows = messages.iter().map(|(id, envelope)| {
            let hex: String = envelope.bytes().map(|byte| format!("{byte:02X}")).collect();
            format!(
                "{{\"id\":\"{id}\",\"sender\":\"bob\",\"recipient\":\"alice\",\"envelope\":\"{hex}\"}}"
            )
        });
        let rows: Vec<_> = rows.collect();
        format!("{names}[{}]\n", rows.join(",\n"))
    }

    fn envelope(id: &str) -> String {
        format!(
            "{{\"protocol_version\":\"v1\",\"id\":\"{id}\",\"from\":\"bob\",\"to\":\"alice\",\"ts\":\"t\",\
             \"source\":\"peer-bus\",\"kind\":\"msg\",\"body\":{{\"a\":1.0}},\"hmac\":\"\"}}"
        )
    }

    #[test]
    fn names_are_reserved_and_messages_wait_in_their_order_however_often_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let (m2, m1, broadcast) = (envelope("m2"), envelope("m1"), envelope("b1"));
        let text = rows(&[("m2", &m2), ("m1", &m1), ("b1|alice", &broadcast), ("x", "no JSON")]);

        let imported = import(text.as_bytes(), folder.path()).unwrap();
        let again = import(text.as_bytes(), folder.path()).unwrap();

        let expected = Imported { names: 2, messages: 3, duplicates: 0, left_out: 1 };
        assert_eq!(imported, expected);
        assert_eq!(imported.to_string().lines().count(), 1);
        assert_eq!(again, Imported { names: 0, messages: 0, duplicates: 3, left_out: 1 });
        let store = Embedded::open(&bus_folder(folder.path()), Handover::Kernel).unwrap();
        let recovered = store.recover().unwrap();
        let alice = recovered.names.iter().find(|(named, _)| &*named.name == "alice").unwrap();
        assert_eq!((alice.0.owner, alice.1.messages), (Owner::RESERVED, 3));
        let most = Most { messages: 10, bytes: 1 << 20 };
        let waiting = store.read(alice.0.mailbox, Seq(0), most).unwrap().stored;
        let keys: Vec<_> = waiting.iter().map(|stored| &*stored.message.key).collect();
        assert_eq!(keys, ["m2", "m1", "b1|alice"]);
        assert_eq!(&*waiting[1].message.body, m1.as_bytes());
        let audit = store.audit(0, 10).unwrap();
        assert_eq!(audit.len(), 3);
        assert!(audit[0].event.starts_with(b"{\"event\":\"send\",\"id\":\"m2\",\"from\":\"bob\""));
    }

    #[test]
    fn line_that_is_no_row_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, reason) in [
            ("[{\"name\":\"alice\"},\n{\"nome\":\"bob\"}]", "line 2 is no row"),
            ("[{\"name\":\"\"}]", "line 1"),
            ("hunter2", "line 1 is no row"),
        ] {
            let error = import(text.as_bytes(), folder.path()).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
        assert_eq!(unhex("0aFf"), Some(vec![10, 255]));
        assert_eq!((unhex("0"), unhex("0g"), unhex("é")), (None, None, None));
    }
}
