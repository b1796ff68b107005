//! The flight recorder: the last events of connections, on demand or as a file.
//!
//! Files are `flight-<milliseconds since 1970>.jsonl` in the state folder, for its owner
//! alone, one event a line; only the newest stay.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;

use super::time::rfc3339;
use crate::metrics::{Event, Traffic, Word as _};

/// Files that are kept: 8 of at most 1 MB.
const FILES: usize = 8;

/// Shortest time between two files that panics write: each panic of a peer's doing would
/// push an older file out.
const PAUSE: Duration = Duration::from_secs(60);

/// An event as the operator's own socket and files show it: with addresses.
#[derive(Debug, Serialize)]
pub(super) struct Recorded {
    number: u64,
    time: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
}

impl From<Event> for Recorded {
    fn from(event: Event) -> Self {
        let Event { number, at, what, node, relay, address, reason } = event;
        Self {
            number,
            time: rfc3339(at),
            what: what.word(),
            node: node.map(|node| node.number()),
            relay: relay.map(|relay| relay.to_string()),
            address: address.map(|address| address.to_string()),
            reason,
        }
    }
}

/// Writes the last events to files.
#[derive(Clone, Debug)]
pub struct Recorder {
    traffic: Arc<Traffic>,
    folder: PathBuf,
    panicked: Arc<Mutex<Option<SystemTime>>>,
}

impl Recorder {
    /// A recorder of this relay's events, whose files go to the state folder.
    #[must_use]
    pub fn new(traffic: Arc<Traffic>, folder: &Path) -> Self {
        Self { traffic, folder: folder.to_owned(), panicked: Arc::default() }
    }

    /// Writes the last events to a new file, and says which. Blocks.
    ///
    /// # Errors
    /// The system refuses, or somebody notes an event at this very moment, which can be the
    /// thread that calls this in a panic.
    pub fn dump(&self, now: SystemTime) -> io::Result<PathBuf> {
        let events = self.traffic.events.try_all().ok_or(io::ErrorKind::WouldBlock)?;
        let mut text = Vec::new();
        for event in events {
            serde_json::to_writer(&mut text, &Recorded::from(event))?;
            text.push(b'\n');
        }
        let ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Two in one millisecond have the same to say, and `create_new` replaces nothing.
        let path = self.folder.join(format!("flight-{ms:013}.jsonl"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&text)?;
        self.remove_old()?;
        Ok(path)
    }

    /// Writes a file where the process panics, at most one in 60 s.
    pub fn dump_on_panic(&self) {
        let recorder = self.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let now = SystemTime::now();
            if recorder.is_due(now) {
                match recorder.dump(now) {
                    Ok(path) => tracing::error!(path = %path.display(), "recorded after a panic"),
                    Err(error) => tracing::error!(%error, "cannot record after a panic"),
                }
            }
        }));
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let Some(mut last) = self.panicked.try_lock() else { return false };
        let is_due = last.is_none_or(|last| now.duration_since(last).is_ok_and(|t| t >= PAUSE));
        if is_due {
            *last = Some(now);
        }
        is_due
    }

    fn remove_old(&self) -> io::Result<()> {
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("flight-") && name.ends_with(".jsonl")
        };
        let entries = fs::read_dir(&self.folder)?.filter_map(Result::ok);
        let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_ours).collect();
        files.sort();
        let old = files.len().saturating_sub(FILES);
        files.iter().take(old).try_for_each(fs::remove_file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::ids::NodeId;
    use crate::metrics::What;

    #[test]
    fn files_are_few_private_and_tell_the_events_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let traffic = Arc::<Traffic>::default();
        let address = Some("192.0.2.1:7".parse().unwrap());
        let node = NodeId::new(7);
        let at = UNIX_EPOCH;
        traffic.events.note(Event { address, at, ..Event::new(What::Accepted) });
        traffic.events.note(Event { node, reason: "kicked", at, ..Event::new(What::Ended) });
        let recorder = Recorder::new(Arc::clone(&traffic), folder.path());
        fs::write(folder.path().join("keys.json"), "{}").unwrap();
        let paths: Vec<_> = (1..=FILES as u64 + 2)
            .map(|second| recorder.dump(UNIX_EPOCH + Duration::from_secs(second)).unwrap())
            .collect();

        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES + 1);
        assert!(!paths[1].exists() && paths[2].exists());
        let last = paths.last().unwrap();
        assert_eq!(fs::metadata(last).unwrap().permissions().mode() & 0o777, 0o600);
        let time = "1970-01-01T00:00:00.000Z";
        let expected = format!(
            "{{\"number\":1,\"time\":\"{time}\",\"what\":\"accepted\",\"address\":\"192.0.2.1:7\"}}\n\
             {{\"number\":2,\"time\":\"{time}\",\"what\":\"ended\",\"node\":7,\"reason\":\"kicked\"}}\n"
        );
        assert_eq!(fs::read_to_string(last).unwrap(), expected);
    }

    #[test]
    fn panics_that_follow_each_other_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(Arc::default(), folder.path());
        let due = |seconds| recorder.is_due(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!([1, 2, 60, 61, 62].map(due), [true, false, false, true, false]);
    }

    #[test]
    fn panic_writes_a_file_and_is_still_printed() {
        let folder = tempfile::tempdir().unwrap();
        let traffic = Arc::<Traffic>::default();
        traffic.events.note(Event::new(What::Draining));
        Recorder::new(traffic, folder.path()).dump_on_panic();
        let panicked = std::thread::spawn(|| panic!("on purpose")).join();
        // Other tests of this process go on without it.
        let _ours = std::panic::take_hook();
        assert!(panicked.is_err());
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        let text = fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        assert!(text.contains("\"what\":\"draining\""), "{text}");
    }
}
