//! A relay: its front, and where it leads, its host and its bus.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Front, Limits};
use super::lead::Lead;

pub(super) struct Relay {
    pub(super) front: Front,
    pub(super) lead: Option<Lead>,
    /// The names that it was told of.
    pub(super) names: BTreeSet<Arc<str>>,
    /// The newest epoch that it has read of in the log.
    pub(super) known: u64,
}

impl Relay {
    pub(super) fn new(window: usize) -> Self {
        let mut front = Front::new(Limits { of_one: 2_000, of_all: 10_000 });
        front.window = window;
        Self { front, lead: None, names: BTreeSet::new(), known: 0 }
    }
}
