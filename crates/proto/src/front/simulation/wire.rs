//! What is on its way between relays.

use std::collections::VecDeque;

use super::super::LinkId;

/// A link between two relays, or of one to itself; what is said waits at its ends.
pub(super) struct Wire {
    pub(super) id: LinkId,
    pub(super) ends: [usize; 2],
    /// What goes to each end, in order.
    pub(super) to: [VecDeque<Said>; 2],
}

/// What a relay said.
pub(super) struct Said {
    /// The epoch that it led in; 0 where it did not.
    pub(super) epoch: u64,
    pub(super) bytes: Vec<u8>,
}
