//! What a bus is told.

use std::time::Duration;

use crate::proto::bus::Limits;

/// What a bus is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The bounds of names and mailboxes.
    pub limits: Limits,
    /// When the disk has what was committed. Only a start changes it.
    pub durable: Durable,
    /// How long entries of the audit log are kept.
    pub audit_retention: Duration,
    /// What they may take, in bytes.
    pub audit_max_bytes: u64,
    /// How long a message waits for room that its sender cannot be told about.
    pub patience: Duration,
}

/// When the disk has what was committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durable {
    /// Before anybody is told of it. Acknowledgements, of which nobody is told, wait for the next
    /// message or name, or for 200 ms.
    Each,
    /// So long after it was committed, at most.
    Every(Duration),
    /// When the kernel or the store likes.
    Never,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            durable: Durable::Every(Duration::from_millis(200)),
            audit_retention: Duration::from_secs(90 * 24 * 60 * 60),
            audit_max_bytes: 1 << 30,
            patience: Duration::from_secs(10),
        }
    }
}
