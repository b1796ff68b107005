//! Tests with the real nats-server.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Cluster, Identity};
use crate::ids::{PublicKey, RelayId};
use crate::metrics::Traffic;

/// A relay's part in the cluster, its id and its run made of a number.
pub(super) fn cluster(number: u8) -> Arc<Cluster> {
    let identity = Identity {
        relay: RelayId(PublicKey([number; 32])),
        boot: [number; 16],
        name: "fleet".to_owned(),
        keepalive: Duration::from_millis(200),
    };
    Cluster::new(identity, Arc::new(Traffic::default()))
}
