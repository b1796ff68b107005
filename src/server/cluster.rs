//! Makes the relay a part of its cluster: tells the others who comes and goes here.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::cluster::Cluster;
use crate::ids::{NodeId, PublicKey};
use crate::peers::{Kind, Table};
use crate::proto::presence::Here;
use crate::wire::cluster::{Standing, Takeover};

/// Tells the cluster whose way here has changed, for ever.
pub(super) async fn tell(table: Arc<Table<NodeId>>, cluster: Arc<Cluster>) {
    loop {
        let changed = table.next_changes().await;
        // Before the looks into the table: whatever comes later has a higher number.
        let serial = table.generation();
        for node in changed {
            match table.here(node) {
                Some(here) => cluster.arrived(node, presence(here.serial, here.kind)),
                None => cluster.departed(node, serial),
            }
        }
    }
}

/// Tells the cluster that nobody is here any more.
pub(super) fn withdraw(table: &Table<NodeId>, cluster: &Cluster) {
    let nodes = table.served();
    let serial = table.generation();
    nodes.into_iter().for_each(|node| cluster.departed(node, serial));
}

fn presence(serial: u64, kind: Kind) -> Here {
    let (standing, credential) = match kind {
        Kind::Session(key) => (Standing::Session, credential(&key)),
        Kind::Endpoint => (Standing::Endpoint, 0),
        Kind::Beacon => (Standing::Gateway, 0),
    };
    Here { serial, standing, takeover: Takeover::Always, credential }
}

/// What others are told of a proved key: enough to see that it is the same.
fn credential(key: &PublicKey) -> u64 {
    let hash: [u8; 32] = Sha256::digest(key.0).into();
    hash.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}
