//! What the actions are carried out on.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::Health;
use super::orders::Orders;
use super::queues::Queues;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::metrics::Traffic;
use crate::net::local::LocalAddresses;
use crate::peers::Table;
use crate::relay::Switches;
use crate::session::Door;
use crate::store::Store;
use crate::wire::name::Name;

/// What actions look at and change.
pub struct Parts {
    /// Who is reachable.
    pub table: Arc<Table>,
    /// Accounts, drops and events.
    pub traffic: Arc<Traffic>,
    /// The doors, which know what their peers are.
    pub doors: Vec<Arc<dyn Door>>,
    /// The cluster, where there is one.
    pub cluster: Option<Arc<Cluster>>,
    /// Where messages are, where a door has any.
    pub store: Option<Arc<dyn Store>>,
    /// The message bus, where a door has messages.
    pub queues: Option<Queues>,
    /// What can be switched off.
    pub switches: Switches,
    /// The machine's addresses.
    pub local: Arc<LocalAddresses>,
    /// The main numbers, as `/status` has them.
    pub status: Box<dyn Fn() -> Value + Send + Sync>,
    /// Whether peers should be sent here, and why not: quick, unlike `status`.
    pub readiness: Box<dyn Fn() -> Value + Send + Sync>,
    /// What only the owner of the server can do.
    pub orders: Orders,
    /// The settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// How the control socket and the audit log are.
    pub health: Arc<Health>,
}

impl Parts {
    /// The door whose peer this is, where it is served here.
    pub(super) fn door_of(&self, peer: Name) -> Option<&Arc<dyn Door>> {
        let name = peer.realm().door()?;
        self.doors.iter().find(|door| door.name() == name)
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("table", &self.table).finish_non_exhaustive()
    }
}
