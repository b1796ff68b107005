//! What carries batches between relays: it says which relays are there, and moves bytes.
//!
//! A fabric authenticates the others, gives each to [`Cluster::joined`], writes what the
//! member's outbox holds, gives what comes to [`Cluster::receive`], and says
//! [`Cluster::left`] at the end. What the bytes mean, who is alive, and what is repeated is
//! decided above it, the same for every fabric.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Cluster;

/// A way to reach the other relays.
pub trait Fabric: Send + Sized + 'static {
    /// Keeps links to the other relays until `stopping`, and tries again whatever fails.
    fn run(
        self,
        cluster: Arc<Cluster>,
        stopping: CancellationToken,
    ) -> impl Future<Output = ()> + Send;
}
