//! Decides when a watched file is to be read: it has changed, and has been still since.
//!
//! Sans-IO: the caller brings the file's stamp and the time.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

/// How often the file is looked at.
pub const POLL: Duration = Duration::from_millis(250);

/// How long a changed file must stay as it is before it is read: who writes it in place
/// needs that long for the rest.
const STILL: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    /// The stamp of a file as it is.
    #[must_use]
    pub fn of(file: &Metadata) -> Self {
        Self { modified: (file.mtime(), file.mtime_nsec()), size: file.len(), inode: file.ino() }
    }
}

/// What is known of one file; `None` is a file that is not there.
#[derive(Debug)]
pub struct Watch {
    read: Option<Stamp>,
    changed: Option<(Option<Stamp>, Instant)>,
}

impl Watch {
    /// Starts with the state that was read first.
    #[must_use]
    pub fn new(read: Option<Stamp>) -> Self {
        Self { read, changed: None }
    }

    /// Takes the file's present state; says whether to read it.
    ///
    /// After `true` the state counts as read, whether the reading goes well or not, so
    /// that a broken file is reported once.
    pub fn poll(&mut self, now: Instant, stamp: Option<Stamp>) -> bool {
        if stamp == self.read {
            self.changed = None;
            return false;
        }
        match self.changed {
            Some((seen, since)) if seen == stamp => {
                let still = now.saturating_duration_since(since) >= STILL;
                if still {
                    self.mark_read(stamp);
                }
                still
            }
            _ => {
                self.changed = Some((stamp, now));
                false
            }
        }
    }

    /// Takes a state that was read without waiting for it to be still.
    pub fn mark_read(&mut self, stamp: Option<Stamp>) {
        *self = Self::new(stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64) -> Option<Stamp> {
        Some(Stamp { modified: (0, 0), size, inode: 1 })
    }

    #[test]
    fn changed_file_is_read_once_it_is_still() {
        let t0 = Instant::now();
        let mut watch = Watch::new(stamp(1));
        assert!(!watch.poll(t0, stamp(1)));
        assert!(!watch.poll(t0, stamp(2)));
        assert!(!watch.poll(t0 + STILL - Duration::from_millis(1), stamp(2)));
        assert!(watch.poll(t0 + STILL, stamp(2)));
        assert!(!watch.poll(t0 + STILL * 2, stamp(2)), "read already");
    }

    #[test]
    fn each_write_starts_the_wait_again() {
        let t0 = Instant::now();
        let mut watch = Watch::new(stamp(1));
        assert!(!watch.poll(t0, stamp(2)));
        assert!(!watch.poll(t0 + STILL, stamp(3)));
        assert!(!watch.poll(t0 + STILL + POLL, stamp(3)));
        assert!(watch.poll(t0 + STILL * 2, stamp(3)));
    }

    #[test]
    fn file_that_returns_to_what_was_read_is_left_alone() {
        let t0 = Instant::now();
        let mut watch = Watch::new(stamp(1));
        assert!(!watch.poll(t0, None));
        assert!(!watch.poll(t0 + POLL, stamp(1)));
        assert!(!watch.poll(t0 + STILL, None), "the wait begins with this absence");
        assert!(watch.poll(t0 + STILL * 2, None));
    }
}
