//! In which order connections were accepted.

use std::time::Instant;

/// When it was a connection's turn to be accepted: of two logins of a peer the later one counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) generation: u64,
    pub(super) accepted: Instant,
    /// It is the relay's own.
    pub(super) is_probe: bool,
}
