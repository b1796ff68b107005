//! What a cluster's log says, and takes.

use std::sync::Arc;

use tokio::sync::watch;

use crate::bus::{Bus, StartError};
use crate::store::{Leadership, Outage};

/// The log of a cluster, which says who leads.
pub trait Log: Send + Sync + 'static {
    /// Whether no other relay can lead.
    fn may_serve(&self) -> bool;

    /// Who leads, as far as this relay knows. It says that this one does once the store has all that
    /// epochs before have committed.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Why this relay cannot use the log; nothing where it can.
    fn outage(&self) -> Option<Outage>;

    /// Starts a bus whose store takes commits in this epoch. Blocks.
    ///
    /// # Errors
    /// What is stored cannot be read, or there is no room for a thread.
    fn start(&self, epoch: u64) -> Result<Arc<Bus>, StartError>;
}
