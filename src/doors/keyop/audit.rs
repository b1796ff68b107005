//! The audit file of the door: lines of JSON, as tools of keyop-messenger read them.
//!
//! A thread of its own writes it: a line for which its queue has no room is counted, and nobody
//! waits. What is tamper-evident, and misses nothing, is the bus's own audit log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::meters::Meters;
use crate::wire::keyop::{Event, audit_line, timestamp};

/// Lines that wait for the disk, at most.
const QUEUE: usize = 4_096;

/// Bytes of a file; then the next begins, as the original has it.
const MAX_BYTES: u64 = 104_857_600;

/// Files beside the one that is written.
const FILES: u32 = 10;

/// What writes lines, where there is a file.
#[derive(Debug)]
pub(super) struct Audit {
    lines: Option<SyncSender<Vec<u8>>>,
    meters: Arc<Meters>,
}

impl Audit {
    /// Writes to this file from here on, whose thread ends with the value; to none without one.
    pub(super) fn new(path: Option<PathBuf>, meters: Arc<Meters>) -> Self {
        let lines = path.and_then(|path| {
            let (sender, lines) = sync_channel(QUEUE);
            let lost = Arc::clone(&meters);
            let work = move || write(&Rotated::new(path, MAX_BYTES), &lines, &lost);
            let thread = thread::Builder::new().name("keyop-audit".to_owned()).spawn(work);
            if let Err(error) = &thread {
                tracing::error!(%error, "the audit file of the keyop door is not written");
            }
            thread.ok().map(|_| sender)
        });
        Self { lines, meters }
    }

    /// Whether somebody reads lines: composing them costs.
    pub(super) const fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes a line of this, whose time is now.
    pub(super) fn note(&self, event: Event<'_>) {
        let Some(lines) = &self.lines else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ts = timestamp(now.as_secs(), now.subsec_nanos());
        if lines.try_send(audit_line(&Event { ts: &ts, ..event })).is_err() {
            self.meters.audit_lost.increment();
        }
    }
}

fn write(files: &Rotated, lines: &Receiver<Vec<u8>>, meters: &Meters) {
    let mut open: Option<(File, u64)> = None;
    let mut fails = false;
    while let Ok(line) = lines.recv() {
        let written = files.append(&mut open, &line);
        match written {
            Ok(()) => fails = false,
            Err(error) => {
                open = None;
                meters.audit_lost.increment();
                if !std::mem::replace(&mut fails, true) {
                    tracing::warn!(%error, file = %files.path.display(), "an audit line was not written");
                }
            }
        }
    }
}

/// A file that begins anew once it is long enough; those before are `.1`, `.2` and so on.
struct Rotated {
    path: PathBuf,
    max_bytes: u64,
}

impl Rotated {
    const fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self { path, max_bytes }
    }

    fn append(&self, open: &mut Option<(File, u64)>, line: &[u8]) -> io::Result<()> {
        if open.as_ref().is_some_and(|(_, bytes)| *bytes >= self.max_bytes) {
            *open = None;
            self.rotate()?;
        }
        if open.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            let bytes = file.metadata()?.len();
            *open = Some((file, bytes));
        }
        let (file, bytes) = open.as_mut().expect("it was opened if it was not");
        file.write_all(line)?;
        *bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..FILES).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = Path::as_os_str(&self.path).to_owned();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_begins_anew_once_it_is_long_enough_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let files = Rotated::new(path.clone(), 10);
        let mut open = None;
        for number in 0..30 {
            files.append(&mut open, format!("line {number:02}\n").as_bytes()).unwrap();
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "line 28\nline 29\n");
        assert_eq!(read(&files.numbered(1)), "line 26\nline 27\n");
        assert_eq!(read(&files.numbered(10)), "line 08\nline 09\n");
        assert!(!files.numbered(11).exists());
    }
}
