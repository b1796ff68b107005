//! The log that all relays share.

use std::collections::BTreeSet;

use crate::bus::simulation::store::Store;

/// The log that all relays share: what is committed, and who may commit.
#[derive(Default)]
pub(super) struct Log {
    pub(super) epoch: u64,
    pub(super) store: Store,
    /// Sender and number of broadcasts that reached nobody, and may reach somebody when they are
    /// sent again, behind later ones.
    pub(super) refused: BTreeSet<(usize, u64)>,
}
