//! The protocols that peers speak, one folder each; none knows another.
//!
//! The server opens the Pilot door itself, since it has UDP sockets besides. All other doors are
//! a [`Plan`] each: those of the relay itself in [`plans`], those of a program around it in its
//! [`Host`](crate::server::Host).

pub mod pilot;

use std::sync::Arc;

use crate::config::{Config, DoorKind};
use crate::relay::Router;
use crate::session::Door;

/// What a door is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What carries its packets.
    pub router: &'a Arc<Router>,
    /// The settings in force.
    pub config: &'a Config,
}

/// A door that the server opens where a listener names it.
pub struct Plan {
    /// What the configuration knows of it.
    pub kind: &'static DoorKind,
    /// Makes it.
    pub make: Box<dyn FnOnce(Parts<'_>) -> Arc<dyn Door> + Send>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Plan {
    /// Makes the door `kind` by calling `make`.
    pub fn new<D: Door>(
        kind: &'static DoorKind,
        make: impl FnOnce(Parts<'_>) -> Arc<D> + Send + 'static,
    ) -> Self {
        Self { kind, make: Box::new(|parts| make(parts)) }
    }
}

/// The doors of the relay itself, but for Pilot's. A door is added here.
#[must_use]
pub const fn plans() -> Vec<Plan> {
    Vec::new()
}
