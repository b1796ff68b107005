//! Makes the relay a part of its cluster: its identity, its fabric, and what the others are
//! told of who comes and goes here.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::bind::BindError;
use super::core::Core;
use super::settings;
use super::tasks::Tasks;
use crate::cluster::{Cluster, load_or_create, mesh, nats};
use crate::config::{self, ClusterFabric, Config, HostPort};
use crate::metrics::Traffic;
use crate::peers::{self, Credential, Kind, Table, Takeover};
use crate::proto::presence::Here;
use crate::wire::cluster::Ownership;

/// Time for the other relays to hear that this one leaves.
const LEAVE_TIME: Duration = Duration::from_millis(500);

/// A cluster to be part of, and what carries its batches.
pub(super) struct Joining {
    pub(super) cluster: Arc<Cluster>,
    fabric: Fabric,
}

enum Fabric {
    Mesh(Box<mesh::Mesh>),
    Nats(nats::Nats),
}

impl Joining {
    /// Reads this relay's identity and binds what has to be bound. Blocks.
    pub(super) fn open(
        cluster: &config::Cluster,
        config: &Config,
        traffic: &Arc<Traffic>,
    ) -> Result<Self, StartError> {
        let key = load_or_create(&config.state_dir)?;
        let identity = settings::cluster(cluster, &key)?;
        let fabric = match &cluster.fabric {
            ClusterFabric::Mesh { bind, join, dns, allow, secret, tcp } => {
                let secret = secret.as_ref().map(|secret| secret.expose().as_bytes().to_vec());
                let mesh = mesh::Mesh::bind(mesh::Settings {
                    bind: *bind,
                    free_bind: config.free_bind.into(),
                    join: join.iter().map(HostPort::to_string).collect(),
                    dns: dns.as_ref().map(HostPort::to_string),
                    trust: mesh::Trust { allow: allow.clone(), secret },
                    tcp: *tcp,
                    translators: config.translators.clone(),
                    key,
                });
                Fabric::Mesh(Box::new(mesh.map_err(BindError::of("cluster-bind", bind))?))
            }
            ClusterFabric::Nats { servers, credentials } => {
                let url = servers.expose().collect::<Vec<_>>().join(",");
                let credentials = credentials.clone();
                Fabric::Nats(nats::Nats::new(&nats::Settings { url, credentials })?)
            }
        };
        let cluster = Cluster::new(identity, Arc::clone(traffic));
        if let Some(address) = config.netbird_instance() {
            cluster.tell_alike(first_bytes(address.as_bytes()));
        }
        Ok(Self { cluster, fabric })
    }

    /// Keeps the links, until `stopping`.
    async fn run(self, stopping: CancellationToken) {
        match self.fabric {
            Fabric::Mesh(mesh) => self.cluster.run(*mesh, stopping).await,
            Fabric::Nats(nats) => self.cluster.run(nats, stopping).await,
        }
    }
}

/// Our part in a cluster, while it runs.
#[derive(Debug)]
pub(super) struct Part {
    cluster: Arc<Cluster>,
    leaving: CancellationToken,
    /// The task that keeps time and links: one, in a set that tells again that it has ended.
    links: JoinSet<()>,
}

impl Part {
    fn start(joining: Joining) -> Self {
        let cluster = Arc::clone(&joining.cluster);
        let leaving = CancellationToken::new();
        let mut links = JoinSet::new();
        links.spawn(joining.run(leaving.clone()));
        Self { cluster, leaving, links }
    }

    /// Waits until time or links have ended without being told to. Without them members never
    /// leave, and packets for their nodes age out.
    pub(super) async fn failed(&mut self) {
        if let Some(ended) = self.links.join_next().await {
            let reason = ended.err().map(tracing::field::display);
            tracing::error!(reason, "the cluster's task has ended");
        }
    }

    pub(super) fn drain(&self) {
        self.cluster.drain();
    }

    /// Tells the others that nobody is here any more, and ends the links.
    pub(super) async fn leave(mut self, table: &Table) {
        withdraw(table, &self.cluster);
        self.cluster.settled(LEAVE_TIME / 2).await;
        self.leaving.cancel();
        // What has not ended by then is aborted with the set.
        let _ended = timeout(LEAVE_TIME, self.links.join_next()).await;
    }
}

/// Tells the cluster who comes and goes here, and keeps the links.
pub(super) fn start(tasks: &mut Tasks, core: &Core, joining: Joining) -> Part {
    let telling = tell(Arc::clone(&core.table), Arc::clone(&joining.cluster));
    tasks.spawn("changes for the cluster", telling);
    Part::start(joining)
}

/// Tells the cluster whose way here has changed, for ever.
async fn tell(table: Arc<Table>, cluster: Arc<Cluster>) {
    loop {
        let changed = table.next_changes().await;
        // Before the looks into the table: whatever comes later has a higher number.
        let serial = table.generation();
        for node in changed {
            match table.here(node) {
                Some(here) => cluster.arrived(node, presence(here)),
                None if table.has_left(node) => cluster.released(node, serial),
                None => cluster.departed(node, serial),
            }
        }
    }
}

/// Tells the cluster that nobody is here any more.
fn withdraw(table: &Table, cluster: &Cluster) {
    let nodes = table.served();
    let serial = table.generation();
    nodes.into_iter().for_each(|node| cluster.departed(node, serial));
}

fn presence(here: peers::Here) -> Here {
    let peers::Here { serial, kind, accepted } = here;
    let (ownership, proved) = match kind {
        Kind::Session { credential, takeover } => {
            (Ownership::Session, Some((credential, takeover)))
        }
        Kind::Endpoint => (Ownership::Endpoint, None),
        Kind::Foreign => (Ownership::Gateway, None),
    };
    // What proved nothing takes over by other rules, whatever this one says.
    let (credential, takeover) =
        proved.map_or((0, Takeover::Always), |(proved, takeover)| (credential(proved), takeover));
    Here { serial, ownership, takeover, credential, since: accepted }
}

/// What others are told of what a peer proved to have: enough to see that it is the same.
fn credential(proved: Credential) -> u64 {
    first_bytes(&proved.0)
}

/// The first bytes of a hash.
fn first_bytes(of: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(of).into();
    hash.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{Config, Flags, Layers, Surroundings};
    use crate::server::Server;

    #[test]
    fn session_is_claimed_by_its_own_rule_and_what_proved_nothing_by_none() {
        let of = |kind| presence(peers::Here { serial: 3, kind, accepted: None });
        let proved = Credential([7; 32]);
        for takeover in [Takeover::Always, Takeover::SameCredential, Takeover::Refuse] {
            let here = of(Kind::Session { credential: proved, takeover });
            assert_eq!((here.ownership, here.takeover), (Ownership::Session, takeover));
            assert_eq!(here.credential, credential(proved));
        }
        assert_eq!(
            (of(Kind::Endpoint).ownership, of(Kind::Endpoint).credential),
            (Ownership::Endpoint, 0)
        );
        assert_eq!(
            (of(Kind::Foreign).ownership, of(Kind::Foreign).credential),
            (Ownership::Gateway, 0)
        );
    }

    async fn relay_on_a_mesh() -> (Server, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "a secret that only a test may have").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let mut flags = Flags::state_dir(Some(folder.path().display().to_string()));
        for key in ["wss_bind", "udp_bind", "admin_bind", "cluster_bind"] {
            flags.add(key, "127.0.0.1:0".to_owned());
        }
        flags.add("cluster_secret_file", secret.display().to_string());
        let layers = Layers::collect(flags, &Surroundings::of_this_process()).unwrap();
        (Server::start(Config::new(&layers).unwrap()).await.unwrap(), folder)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn relay_without_the_task_of_its_cluster_has_failed() {
        let (mut server, _folder) = relay_on_a_mesh().await;
        let unharmed = timeout(Duration::from_millis(50), server.failed()).await;
        assert!(unharmed.is_err(), "it fails by itself");

        server.cluster.as_mut().expect("it is part of one").links.abort_all();

        // A supervisor may look again, and still stop it in order.
        for _ in 0..2 {
            let failed = timeout(Duration::from_secs(20), server.failed()).await;
            failed.expect("it goes on as if nothing was");
        }
        server.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn relay_with_a_clone_serves_on_and_says_that_it_is_not_well() {
        let (server, _folder) = relay_on_a_mesh().await;
        let cluster = &server.cluster.as_ref().expect("it is part of one").cluster;

        cluster.cloned(&"192.0.2.1:9100");

        let readiness = server.operators.vitals.readiness();
        let part = &readiness.parts["cluster"];
        assert!(readiness.ready && part.condition == crate::admin::Condition::Degraded);
        let remedy = part.remedy.as_deref().unwrap_or_default();
        assert!(remedy.contains("cluster.key"), "{part:?}");
    }
}
