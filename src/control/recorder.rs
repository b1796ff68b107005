//! The flight recorder: the last events of connections, on demand or as a file.
//!
//! Files are `flight-<milliseconds since 1970>.jsonl` in the state folder, for its owner
//! alone, one event a line; only the newest stay.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::time::rfc3339;
use crate::config::create_state_dir;
use crate::metrics::{Event, Traffic, Word as _};
use crate::net::Shown;
use crate::wire::name::Name;

/// Files that are kept: 8 of at most 1 MB.
const FILES: usize = 8;

/// Shortest time between two files that panics write: each panic of a peer's doing would
/// push an older file out.
const PAUSE: Duration = Duration::from_secs(60);

/// Files that wait to be written: one more is as good as all that are asked for meanwhile.
const ORDERS: usize = 1;

/// An event as the operator's own socket and files show it: with addresses.
#[derive(Debug, Serialize)]
pub(super) struct Recorded {
    number: u64,
    time: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    door: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
}

impl From<Event> for Recorded {
    fn from(event: Event) -> Self {
        let Event { number, at, what, door, peer, relay, address, reason } = event;
        Self {
            number,
            time: rfc3339(at),
            what: what.word(),
            door,
            node: peer,
            relay: relay.map(|relay| relay.to_string()),
            address: address.map(|address| Shown(address).to_string()),
            reason,
        }
    }
}

/// Writes the last events to files, on a thread of its own: a disk that takes nothing stops
/// neither who panics nor the signals.
#[derive(Clone, Debug)]
pub struct Recorder {
    orders: SyncSender<Why>,
    unfinished: Arc<Unfinished>,
    panicked: Arc<Mutex<Option<SystemTime>>>,
}

/// Why a file is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    Asked,
    Panicked,
}

/// How many files are ordered and not written yet.
#[derive(Debug, Default)]
struct Unfinished {
    count: Mutex<usize>,
    changed: Condvar,
}

/// What the thread writes, and where.
#[derive(Debug)]
struct Files {
    traffic: Arc<Traffic>,
    folder: PathBuf,
}

impl Recorder {
    /// A recorder of this relay's events, whose files go to the state folder.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(traffic: Arc<Traffic>, folder: &Path) -> io::Result<Self> {
        let files = Files { traffic, folder: folder.to_owned() };
        let (orders, ordered) = sync_channel(ORDERS);
        let unfinished = Arc::<Unfinished>::default();
        let finished = Arc::clone(&unfinished);
        thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            for why in ordered {
                files.write(why);
                finished.add(-1);
            }
        })?;
        Ok(Self { orders, unfinished, panicked: Arc::default() })
    }

    /// Has the last events written to a new file, which the log then names. Waits for nothing.
    pub fn record(&self) {
        self.order(Why::Asked);
    }

    /// Writes a file where the process panics, at most one in 60 s.
    pub fn dump_on_panic(&self) {
        let recorder = self.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            if recorder.is_due(SystemTime::now()) {
                recorder.order(Why::Panicked);
            }
        }));
    }

    /// Waits until all files are written, for `limit` at most.
    pub fn wait(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut count = self.unfinished.count.lock();
        while *count > 0 {
            if self.unfinished.changed.wait_until(&mut count, end).timed_out() {
                return;
            }
        }
    }

    fn order(&self, why: Why) {
        self.unfinished.add(1);
        if self.orders.try_send(why).is_err() {
            self.unfinished.add(-1);
            tracing::warn!(
                "the last events are not recorded: the files before are not written yet"
            );
        }
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let Some(mut last) = self.panicked.try_lock() else { return false };
        let is_due = last.is_none_or(|last| now.duration_since(last).is_ok_and(|t| t >= PAUSE));
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

impl Unfinished {
    fn add(&self, change: isize) {
        let mut count = self.count.lock();
        *count = count.saturating_add_signed(change);
        self.changed.notify_all();
    }
}

impl Files {
    fn write(&self, why: Why) {
        match (self.dump(SystemTime::now()), why) {
            (Ok(path), Why::Asked) => {
                tracing::info!(path = %path.display(), "recorded the last events");
            }
            (Ok(path), Why::Panicked) => {
                tracing::error!(path = %path.display(), "recorded after a panic");
            }
            (Err(error), _) => tracing::warn!(%error, "cannot record the last events"),
        }
    }

    /// Writes the last events to a new file, and says which.
    fn dump(&self, now: SystemTime) -> io::Result<PathBuf> {
        let mut text = Vec::new();
        for event in self.traffic.events.all() {
            serde_json::to_writer(&mut text, &Recorded::from(event))?;
            text.push(b'\n');
        }
        let ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Two in one millisecond have the same to say, and `create_new` replaces nothing.
        // The folder may have gone.
        create_state_dir(&self.folder).map_err(io::Error::other)?;
        let path = self.folder.join(format!("flight-{ms:013}.jsonl"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&text)?;
        self.remove_old()?;
        Ok(path)
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
    use crate::metrics::What;

    #[test]
    fn files_are_few_private_and_tell_the_events_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let traffic = Arc::<Traffic>::default();
        let address = Some("192.0.2.1:7".parse().unwrap());
        let peer = "7".parse().ok();
        let at = UNIX_EPOCH;
        traffic.events.note(Event { address, at, ..Event::new(What::Accepted) });
        traffic.events.note(Event { peer, reason: "kicked", at, ..Event::new(What::Ended) });
        let files = Files { traffic, folder: folder.path().to_owned() };
        fs::write(folder.path().join("keys.json"), "{}").unwrap();
        let paths: Vec<_> = (1..=FILES as u64 + 2)
            .map(|second| files.dump(UNIX_EPOCH + Duration::from_secs(second)).unwrap())
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
        let recorder = Recorder::start(Arc::default(), folder.path()).unwrap();
        let due = |seconds| recorder.is_due(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!([1, 2, 60, 61, 62].map(due), [true, false, false, true, false]);
    }

    #[test]
    fn panic_writes_a_file_and_is_still_printed() {
        let folder = tempfile::tempdir().unwrap();
        let traffic = Arc::<Traffic>::default();
        traffic.events.note(Event::new(What::Draining));
        let recorder = Recorder::start(traffic, folder.path()).unwrap();
        recorder.dump_on_panic();
        let panicked = thread::spawn(|| panic!("on purpose")).join();
        // Other tests of this process go on without it.
        let _ours = std::panic::take_hook();
        assert!(panicked.is_err());
        recorder.wait(Duration::from_secs(20));
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        let text = fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        assert!(text.contains("\"what\":\"draining\""), "{text}");
    }
}
