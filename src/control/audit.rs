//! The audit log: `audit.jsonl` in the state folder, a line for each action.
//!
//! Lines are only ever appended, by a thread of its own: nobody waits long for a disk that does
//! not answer. A file that has grown large is renamed, and the one that had that name before
//! goes: the log cannot fill the disk. Ship it away to keep all of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::time::rfc3339;
use super::{Action, Health};
use crate::config;
use crate::metrics::{Labelled, family};
use crate::words;

/// Size at which a new file is begun, in bytes: about 100,000 actions.
const ROOM: u64 = 16 << 20;

/// Lines that wait for the thread: more than actions at a time write.
const QUEUE: usize = 64;

/// Longest wait for a line to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two attempts to write while that fails and nobody asks for anything.
const ASK_AGAIN: Duration = Duration::from_secs(5);

words! {
    /// Why a line is not known to be in the log.
    enum Failure {
        /// The system refused it.
        Refused => "write_failed",
        /// It was not written in time.
        Slow => "timeout",
        /// Too many wait for a disk that does not answer.
        Full => "queue_full",
    }
}

/// Why a line is not in the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the audit log cannot be written: {0}")]
pub(super) struct AuditError(String);

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    action: &'a Value,
    /// All of the action but its name.
    argument: &'a Value,
    by: &'a str,
    result: &'a str,
}

/// The log, as those see it who have lines for it.
#[derive(Debug)]
pub(super) struct Audit {
    lines: SyncSender<Order>,
    state: Arc<State>,
}

/// A line to be written, and who waits for that.
#[derive(Debug)]
struct Order {
    text: Vec<u8>,
    done: oneshot::Sender<Result<(), AuditError>>,
}

#[derive(Debug)]
struct State {
    /// Whether the last line could be written.
    health: Arc<Health>,
    /// Lines that are missing, and of which the log does not say so yet.
    missing: Mutex<u64>,
    failures: Labelled<Failure>,
    /// Closed once the thread has ended.
    running: watch::Sender<()>,
}

impl Audit {
    /// The log of a state folder; the file is made with its first line.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(super) fn start(state_dir: &Path, health: Arc<Health>) -> io::Result<Self> {
        let (lines, ordered) = sync_channel(QUEUE);
        let (running, watched) = watch::channel(());
        let (missing, failures) = <_>::default();
        let state = Arc::new(State { health, missing, failures, running });
        let log = Log::new(state_dir);
        let shared = Arc::clone(&state);
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let _until_the_end = watched;
            write_lines(log, &ordered, &shared);
        })?;
        Ok(Self { lines, state })
    }

    /// Appends the line of an action. `result` is `ok` or why not.
    ///
    /// # Errors
    /// The line is not in the file, or not yet.
    pub(super) async fn write(
        &self,
        action: &Action,
        by: &str,
        result: &str,
    ) -> Result<(), AuditError> {
        let mut argument = serde_json::to_value(action).expect("its fields are text and numbers");
        let name = argument.as_object_mut().and_then(|fields| fields.remove("action"));
        let text = line(&name.unwrap_or_default(), &argument, by, result, SystemTime::now());
        self.append(text).await
    }

    /// Appends a line about who showed a wrong token, which is no action.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) async fn write_wrong_tokens(
        &self,
        attempts: u64,
        by: &str,
    ) -> Result<(), AuditError> {
        let argument = json!({ "attempts": attempts });
        let text = line(&"wrong-token".into(), &argument, by, "refused", SystemTime::now());
        self.append(text).await
    }

    async fn append(&self, text: Vec<u8>) -> Result<(), AuditError> {
        let (done, written) = oneshot::channel();
        if self.lines.try_send(Order { text, done }).is_err() {
            *self.state.missing.lock() += 1;
            let error = AuditError("too many lines wait for the disk".to_owned());
            return Err(self.state.failed(Failure::Full, error));
        }
        match timeout(PATIENCE, written).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => {
                let error = AuditError("the disk does not answer".to_owned());
                Err(self.state.failed(Failure::Slow, error))
            }
        }
    }

    /// Waits until the thread has ended, which only a bug of ours makes it do.
    pub(super) async fn failed(&self) {
        self.state.running.closed().await;
    }

    /// Appends the log's family to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::labelled(
            "pilot_beacon_audit_failures_total",
            "Lines of the audit log that were not written, or not in time, by reason.",
            "reason",
            &self.state.failures,
        ));
    }
}

impl State {
    /// Notes a failure, which is logged where it is the first in a row.
    fn failed(&self, failure: Failure, error: AuditError) -> AuditError {
        self.failures.of(failure).increment();
        if self.health.set_audit(Some(error.0.clone())).is_none() {
            tracing::warn!(error = %error.0, "cannot write the audit log");
        }
        error
    }

    fn succeeded(&self) {
        if self.health.set_audit(None).is_some() {
            tracing::info!("the audit log can be written again");
        }
    }
}

fn line(action: &Value, argument: &Value, by: &str, result: &str, at: SystemTime) -> Vec<u8> {
    let line = Line { time: rfc3339(at), action, argument, by, result };
    let mut text = serde_json::to_vec(&line).expect("all of it is text");
    text.push(b'\n');
    text
}

/// Writes what is ordered, and while that fails tries again by the clock, so that the end of
/// the trouble is seen without an action.
fn write_lines(mut log: Log, ordered: &Receiver<Order>, state: &State) {
    loop {
        let order = match ordered.recv_timeout(ASK_AGAIN) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if order.is_none() && state.health.audit().is_none() {
            continue;
        }
        let missing = *state.missing.lock();
        let mut text = Vec::new();
        if missing > 0 {
            // The gap is told where it is.
            let argument = json!({ "lines": missing });
            text = line(&"missing".into(), &argument, "relay", "lost", SystemTime::now());
        }
        text.extend(order.iter().flat_map(|order| &order.text));
        let written = match log.append(&text) {
            Ok(()) => {
                *state.missing.lock() -= missing;
                state.succeeded();
                Ok(())
            }
            Err(error) if order.is_none() => Err(AuditError(error.to_string())),
            Err(error) => {
                *state.missing.lock() += 1;
                Err(state.failed(Failure::Refused, AuditError(error.to_string())))
            }
        };
        if let Some(order) = order {
            // It may have given up waiting.
            let _ = order.done.send(written);
        }
    }
}

/// The file. Blocks.
#[derive(Debug)]
struct Log {
    folder: PathBuf,
    path: PathBuf,
    file: Option<File>,
    /// The last line is not whole: the next one begins on a line of its own.
    is_torn: bool,
}

impl Log {
    fn new(state_dir: &Path) -> Self {
        let (folder, path) = (state_dir.to_owned(), state_dir.join("audit.jsonl"));
        Self { folder, path, file: None, is_torn: false }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) if self.is_current(&file) => file,
            _ => self.open()?,
        };
        let mut whole = Vec::with_capacity(text.len() + 1);
        if self.is_torn {
            whole.push(b'\n');
        }
        whole.extend_from_slice(text);
        // In one write, so that two relays that share a folder by mistake mix no lines.
        let before = file.metadata()?.len();
        let written = file.write_all(&whole);
        if written.is_ok() {
            self.is_torn = false;
        } else {
            self.is_torn |= file.metadata().is_ok_and(|file| file.len() > before);
        }
        self.file = Some(file);
        written
    }

    fn open(&self) -> io::Result<File> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() >= ROOM) {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        // The folder may have gone.
        config::create_state_dir(&self.folder).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options.open(&self.path)
    }

    /// Whether the open file still has the log's name, and room.
    fn is_current(&self, file: &File) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let (Ok(open), Ok(named)) = (file.metadata(), fs::symlink_metadata(&self.path)) else {
            return false;
        };
        (open.dev(), open.ino()) == (named.dev(), named.ino()) && open.len() < ROOM
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Instant, UNIX_EPOCH};

    use super::*;

    fn kick(result: &str) -> Vec<u8> {
        line(&"kick".into(), &json!({ "node": 7 }), "uid 1000", result, UNIX_EPOCH)
    }

    #[test]
    fn line_says_who_did_what_to_whom_and_what_came_of_it() {
        let folder = tempfile::tempdir().unwrap();
        Log::new(folder.path()).append(&kick("ok")).unwrap();
        Log::new(folder.path()).append(&kick("node 7 is not here")).unwrap();

        let path = folder.path().join("audit.jsonl");
        let line = |result| {
            format!(
                "{{\"time\":\"1970-01-01T00:00:00.000Z\",\"action\":\"kick\",\
                 \"argument\":{{\"node\":7}},\"by\":\"uid 1000\",\"result\":\"{result}\"}}\n"
            )
        };
        let expected = [line("ok"), line("node 7 is not here")].concat();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn file_that_was_moved_away_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("audit.jsonl"), folder.path().join("moved"));
        let mut log = Log::new(folder.path());
        log.append(&kick("ok")).unwrap();
        fs::rename(&path, &moved).unwrap();
        log.append(&kick("ok")).unwrap();
        for file in [path, moved] {
            assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 1);
        }
    }

    #[test]
    fn log_is_bounded_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        File::create(&path).unwrap().set_len(ROOM).unwrap();
        let mut log = Log::new(folder.path());
        log.append(&kick("ok")).unwrap();
        assert_eq!(fs::metadata(folder.path().join("audit.jsonl.1")).unwrap().len(), ROOM);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);

        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(log.append(&kick("ok")).is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[tokio::test]
    async fn lines_that_are_lost_are_counted_and_told_in_the_log_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::create_dir(&path).unwrap();
        let audit = Audit::start(folder.path(), Arc::default()).unwrap();
        let action = Action::Kick { node: "7".parse().unwrap(), seconds: None };
        for _ in 0..2 {
            audit.write(&action, "uid 0", "ok").await.unwrap_err();
        }
        assert_eq!(audit.state.failures.of(Failure::Refused).value(), 2);
        assert!(audit.state.health.audit().is_some_and(|why| why.contains("directory")));

        fs::remove_dir(&path).unwrap();
        audit.write(&action, "uid 0", "ok").await.unwrap();
        assert_eq!(audit.state.health.audit(), None);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let told = lines.iter().map(|line| &line["action"]);
        assert!(told.eq(["missing", "kick"].iter()), "{text}");
        assert_eq!(lines[0]["argument"]["lines"], 2);
    }

    #[tokio::test]
    async fn folder_that_was_deleted_took_the_audit_log_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state");
        fs::create_dir(&folder).unwrap();
        let audit = Audit::start(&folder, Arc::default()).unwrap();
        audit.write(&Action::Drain {}, "uid 0", "ok").await.unwrap();
        fs::remove_dir_all(&folder).unwrap();
        audit.write(&Action::Drain {}, "uid 0", "ok").await.unwrap();
        assert_eq!(fs::read_to_string(folder.join("audit.jsonl")).unwrap().lines().count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn disk_that_does_not_answer_is_given_up_and_holds_few_lines() {
        let (lines, _never_taken) = sync_channel(QUEUE);
        let (health, missing, failures) = <_>::default();
        let state = Arc::new(State { health, missing, failures, running: watch::channel(()).0 });
        let audit = Audit { lines, state };
        let began = Instant::now();
        for _ in 0..QUEUE {
            audit.write(&Action::Drain {}, "uid 0", "ok").await.unwrap_err();
        }
        let error = audit.write(&Action::Drain {}, "uid 0", "ok").await.unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
        assert_eq!(audit.state.failures.of(Failure::Slow).value(), QUEUE as u64);
        assert!(began.elapsed() < PATIENCE, "the time is paused");
    }
}
