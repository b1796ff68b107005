//! Makes the relay a part of its cluster: its identity, its fabric, and what the others are
//! told of who comes and goes here.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::bind::BindError;
use super::settings;
use crate::cluster::{Cluster, load_or_create, mesh, nats};
use crate::config::{self, ClusterFabric, HostPort};
use crate::ids::{NodeId, PublicKey};
use crate::metrics::Traffic;
use crate::peers::{Kind, Table};
use crate::proto::presence::Here;
use crate::wire::cluster::{Standing, Takeover};

/// A cluster to be part of, and what carries its batches.
pub(super) struct Joining {
    pub(super) cluster: Arc<Cluster>,
    fabric: Fabric,
}

enum Fabric {
    Mesh(mesh::Mesh),
    Nats(nats::Nats),
}

impl Joining {
    /// Reads this relay's identity and binds what has to be bound. Blocks.
    pub(super) fn open(
        config: &config::Cluster,
        state_dir: &std::path::Path,
        traffic: &Arc<Traffic>,
    ) -> Result<Self, StartError> {
        let key = load_or_create(state_dir)?;
        let identity = settings::cluster(config, &key)?;
        let fabric = match &config.fabric {
            ClusterFabric::Mesh { bind, join, dns, allow, secret } => {
                let secret = secret.as_ref().map(|secret| secret.expose().as_bytes().to_vec());
                let mesh = mesh::Mesh::bind(mesh::Settings {
                    bind: *bind,
                    join: join.iter().map(HostPort::to_string).collect(),
                    dns: dns.as_ref().map(HostPort::to_string),
                    trust: mesh::Trust { allow: allow.clone(), secret },
                    key,
                });
                Fabric::Mesh(mesh.map_err(BindError::of("cluster-bind", bind))?)
            }
            ClusterFabric::Nats { servers, credentials } => {
                let url = servers.expose().collect::<Vec<_>>().join(",");
                let credentials = credentials.clone();
                Fabric::Nats(nats::Nats::new(&nats::Settings { url, credentials })?)
            }
        };
        Ok(Self { cluster: Cluster::new(identity, Arc::clone(traffic)), fabric })
    }

    /// Keeps the links, until `stopping`.
    pub(super) async fn run(self, stopping: CancellationToken) {
        match self.fabric {
            Fabric::Mesh(mesh) => self.cluster.run(mesh, stopping).await,
            Fabric::Nats(nats) => self.cluster.run(nats, stopping).await,
        }
    }
}

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
