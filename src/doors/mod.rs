//! The protocols that peers speak, one folder each; none knows another.
//!
//! The server opens the Pilot door itself, since it has UDP sockets besides. All other doors are
//! a [`Plan`] each: those of the relay itself in [`plans`], those of a program around it in its
//! [`Host`](crate::server::Host).

pub mod keyop;
pub mod middleman;
pub mod netbird;
pub mod peerbus;
pub mod pilot;

use std::sync::Arc;

use crate::bus::Handle;
use crate::config::{Config, DoorKind, DoorTaken};
use crate::relay::Router;
use crate::session::Door;
use crate::wire::name::{self, Realm, Spelling};

/// What a door is made of.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// What carries its packets.
    pub router: &'a Arc<Router>,
    /// The settings in force.
    pub config: &'a Config,
    /// What keeps messages, where a listener has a door with some.
    pub bus: Option<&'a Handle>,
}

impl std::fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What makes a door.
pub type Make = Box<dyn FnOnce(Parts<'_>) -> Arc<dyn Door> + Send>;

/// A door that the server opens where a listener names it.
pub struct Plan {
    /// What the configuration knows of it.
    pub kind: &'static DoorKind,
    /// The name space of its peers.
    pub realm: Realm,
    /// How their names are written.
    pub spelling: Spelling,
    /// Makes it.
    pub make: Make,
    /// Whether all that its peers say goes to the bus.
    pub has_messages: bool,
}

/// Why a door cannot be one of this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RegisterError {
    /// Another door has its name.
    #[error(transparent)]
    Door(#[from] DoorTaken),
    /// Another door has its realm.
    #[error(transparent)]
    Realm(#[from] name::RegisterError),
    /// It has two names itself.
    #[error("the configuration calls the door `{0}`, and names call it `{1}`")]
    TwoNames(&'static str, &'static str),
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Plan {
    /// Makes the door `kind` by calling `make`. Its peers have the names of `realm`, whose
    /// spelling has the same door.
    pub fn new<D: Door>(
        kind: &'static DoorKind,
        realm: Realm,
        spelling: Spelling,
        make: impl FnOnce(Parts<'_>) -> Arc<D> + Send + 'static,
    ) -> Self {
        let make: Make = Box::new(|parts| make(parts));
        Self { kind, realm, spelling, make, has_messages: false }
    }

    /// A door all of whose peers' messages go to the bus: its sessions share one thread.
    #[must_use]
    pub fn with_messages(self) -> Self {
        Self { has_messages: true, ..self }
    }

    /// Has configurations and names of this process know the door: before the first of them is
    /// read. Once more changes nothing.
    ///
    /// # Errors
    /// Another door has its name or its realm, or it has two names.
    pub fn register(&self) -> Result<(), RegisterError> {
        if self.kind.name != self.spelling.door {
            return Err(RegisterError::TwoNames(self.kind.name, self.spelling.door));
        }
        self.realm.register(self.spelling)?;
        Ok(self.kind.register()?)
    }
}

/// The doors of the relay itself, but for Pilot's. A door is added here.
#[must_use]
pub fn plans() -> Vec<Plan> {
    vec![netbird::plan(), peerbus::plan(), middleman::plan(), keyop::plan()]
}
