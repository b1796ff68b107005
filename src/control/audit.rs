//! The audit log: `audit.jsonl` in the state folder, a line for each action.
//!
//! Lines are only ever appended. A file that has grown large is renamed, and the one that had
//! that name before goes: the log cannot fill the disk. Ship it away to keep all of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::Action;
use super::time::rfc3339;

/// Size at which a new file is begun, in bytes: about 100,000 actions.
const ROOM: u64 = 16 << 20;

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

/// Writes the log. Blocks.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Audit {
    /// The log of a state folder; the file is made with its first line.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("audit.jsonl"), file: Mutex::default() }
    }

    /// Appends a line. `result` is `ok` or why not.
    ///
    /// # Errors
    /// The line is not, or not whole, in the file.
    pub(super) fn write(
        &self,
        action: &Action,
        by: &str,
        result: &str,
        at: SystemTime,
    ) -> io::Result<()> {
        let mut argument = serde_json::to_value(action)?;
        let name = argument.as_object_mut().and_then(|fields| fields.remove("action"));
        let line = Line {
            time: rfc3339(at),
            action: &name.unwrap_or_default(),
            argument: &argument,
            by,
            result,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');

        let mut open = self.file.lock();
        let mut file = match open.take() {
            Some(file) if self.is_current(&file) => file,
            _ => self.open()?,
        };
        // In one write, so that two relays that share a folder by mistake mix no lines.
        file.write_all(&text)?;
        *open = Some(file);
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() >= ROOM) {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
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
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::ids::NodeId;

    fn kick(audit: &Audit, result: &str) {
        let action = Action::Kick { node: NodeId::new(7).unwrap() };
        audit.write(&action, "uid 1000", result, UNIX_EPOCH).unwrap();
    }

    #[test]
    fn line_says_who_did_what_to_whom_and_what_came_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::new(folder.path());
        kick(&audit, "ok");
        kick(&Audit::new(folder.path()), "node 7 is not here");

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
        let audit = Audit::new(folder.path());
        kick(&audit, "ok");
        fs::rename(&path, &moved).unwrap();
        kick(&audit, "ok");
        for file in [path, moved] {
            assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 1);
        }
    }

    #[test]
    fn log_is_bounded_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        File::create(&path).unwrap().set_len(ROOM).unwrap();
        let audit = Audit::new(folder.path());
        kick(&audit, "ok");
        assert_eq!(fs::metadata(folder.path().join("audit.jsonl.1")).unwrap().len(), ROOM);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);

        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        let action = Action::Drain {};
        assert!(audit.write(&action, "http", "ok", UNIX_EPOCH).is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }
}
