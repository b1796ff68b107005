//! What the actions are carried out on.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::Health;
use super::orders::Orders;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::directory::Directory;
use crate::metrics::Traffic;
use crate::net::local::LocalAddresses;
use crate::peers::Table;
use crate::relay::Switches;
use crate::wire::name::Name;

/// What actions look at and change.
pub struct Parts {
    /// Who is reachable.
    pub table: Arc<Table>,
    /// Accounts, drops and events.
    pub traffic: Arc<Traffic>,
    /// Public keys.
    pub directory: Directory,
    /// The cluster, where there is one.
    pub cluster: Option<Arc<Cluster>>,
    /// What can be switched off.
    pub switches: Switches,
    /// The machine's addresses.
    pub local: Arc<LocalAddresses>,
    /// Notifies a peer that is here.
    pub notify: Box<dyn Fn(Name) -> Result<Notified, NotNotified> + Send + Sync>,
    /// The main numbers, as `/status` has them.
    pub status: Box<dyn Fn() -> Value + Send + Sync>,
    /// What only the owner of the server can do.
    pub orders: Orders,
    /// The settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// How the control socket and the audit log are.
    pub health: Arc<Health>,
}

/// How a peer was notified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notified {
    /// Over its session.
    Session,
    /// In a datagram, at its endpoint.
    Endpoint(SocketAddr),
}

/// Why a peer was not notified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotNotified {
    /// It is not here.
    NotHere,
    /// For this reason, which is a sentence.
    Refused(String),
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("table", &self.table).finish_non_exhaustive()
    }
}
