//! The cluster's settings, put together: which fabric, and how its relays know each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Mistakes;
use super::small_file::contents;
use super::table::settings;
use super::value::SharedName;
use super::{ClusterName, Error, HostPort, Invalid, Layers, NatsServers, Secret};
use crate::ids::RelayId;

/// Shortest time between signs of life: three of them outlast what a busy machine sleeps.
const LEAST_KEEPALIVE: Duration = Duration::from_millis(100);

/// Longest time between signs of life: a dead relay is missed after 15 minutes.
const MOST_KEEPALIVE: Duration = Duration::from_secs(5 * 60);

settings! {
    /// What the cluster's flags say, each for itself.
    #[derive(Debug)]
    pub(super) struct ClusterFlags {
        "Cluster" {
            /// Link to other relays over QUIC, listening here: UDP, IP:PORT
            cluster_bind: Option<SocketAddr> ["IP:PORT"];
            /// Relays to link to; they tell nobody of each other, so list all
            cluster_join: Vec<HostPort> ["HOST:PORT"];
            /// Name whose addresses are those of all relays [default port: of --cluster-bind]
            cluster_dns: Option<SharedName> ["NAME[:PORT]"];
            /// File with a secret of 16 bytes or more that all relays share
            cluster_secret_file: Option<PathBuf> ["FILE"];
            /// Ids of the relays that may link, as `cluster-id` prints them
            cluster_allow: Vec<RelayId> ["KEY"];
            /// Carry packets over TLS at the TCP port of --cluster-bind, where others reach it
            cluster_tcp: bool ["BOOL"] or "true";
            /// Time between keepalives; a relay that misses three is lost
            cluster_keepalive: Duration ["TIME"] or "5s" in LEAST_KEEPALIVE..=MOST_KEEPALIVE;
            /// Reach other relays through NATS instead: nats:// or tls://, several with commas
            cluster_nats: Option<NatsServers> ["URL"];
            /// Credentials file for NATS, with a JWT and its seed
            cluster_nats_credentials: Option<PathBuf> ["FILE"];
            /// Name of this cluster: letters, digits, - and _
            cluster_name: ClusterName ["NAME"] or "beacon";
        }
    }
}

/// The cluster that the relay is part of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// What tells it from others.
    pub name: ClusterName,
    /// Time between two signs of life, 100 ms to 5 min.
    pub keepalive: Duration,
    /// How its relays reach each other.
    pub fabric: ClusterFabric,
}

/// How relays of a cluster reach each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClusterFabric {
    /// Each links to each, over QUIC. `allow` or `secret` says who may, or both do.
    Mesh {
        /// Where to listen.
        bind: SocketAddr,
        /// Relays to link to.
        join: Vec<HostPort>,
        /// A name whose addresses are those of all relays.
        dns: Option<HostPort>,
        /// The relays that may link; all with the secret, where it is empty.
        allow: Vec<RelayId>,
        /// What all relays know and nobody else.
        secret: Option<Secret>,
        /// Whether packets go over TCP as well.
        tcp: bool,
    },
    /// All connect to a NATS system.
    Nats {
        /// Its servers.
        servers: NatsServers,
        /// A file with a JWT and the seed of its key.
        credentials: Option<PathBuf>,
    },
}

impl Cluster {
    /// Reads the cluster's settings, and the files that they name.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let flags = ClusterFlags::read(layers)?;
        refuse_alone(&flags, layers)?;
        let fabric = match (flags.cluster_bind, flags.cluster_nats) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let reason = "cannot be combined with --cluster-bind; choose one";
                return Err(layers.refuse("cluster_nats", reason));
            }
            (Some(bind), None) => {
                if flags.cluster_secret_file.is_none() && flags.cluster_allow.is_empty() {
                    let reason = "needs --cluster-secret-file or --cluster-allow as well: \
                                  relays never link to strangers";
                    return Err(layers.refuse("cluster_bind", reason));
                }
                let dns = flags.cluster_dns.map(|name| name.or_port(bind.port())).transpose();
                let dns = dns.map_err(|Invalid(_)| {
                    let reason = "needs a port, as in NAME:PORT, since --cluster-bind has none";
                    layers.refuse("cluster_dns", reason)
                })?;
                let secret = flags.cluster_secret_file.map(|path| {
                    Secret::read_long(&path)
                        .map_err(|e| layers.refuse_file("cluster_secret_file", &path, e))
                });
                ClusterFabric::Mesh {
                    bind,
                    join: flags.cluster_join,
                    dns,
                    allow: flags.cluster_allow,
                    secret: secret.transpose()?,
                    tcp: flags.cluster_tcp,
                }
            }
            (None, Some(servers)) => {
                let credentials = flags.cluster_nats_credentials;
                if let Some(path) = &credentials {
                    contents(path).map_err(|reason| {
                        layers.refuse_file("cluster_nats_credentials", path, reason)
                    })?;
                }
                ClusterFabric::Nats { servers, credentials }
            }
        };
        Ok(Some(Self { name: flags.cluster_name, keepalive: flags.cluster_keepalive, fabric }))
    }
}

/// Refuses what means nothing without the flag that turns its fabric on.
fn refuse_alone(flags: &ClusterFlags, layers: &Layers) -> Result<(), Error> {
    let (mesh, nats) = (flags.cluster_bind.is_some(), flags.cluster_nats.is_some());
    let bind = "needs --cluster-bind as well";
    let mut mistakes = Mistakes::default();
    [
        ("cluster_join", flags.cluster_join.is_empty() || mesh, bind),
        ("cluster_dns", flags.cluster_dns.is_none() || mesh, bind),
        ("cluster_secret_file", flags.cluster_secret_file.is_none() || mesh, bind),
        ("cluster_tcp", flags.cluster_tcp || mesh, bind),
        ("cluster_allow", flags.cluster_allow.is_empty() || mesh, bind),
        (
            "cluster_nats_credentials",
            flags.cluster_nats_credentials.is_none() || nats,
            "needs --cluster-nats as well",
        ),
    ]
    .into_iter()
    .filter(|(_, is_fine, _)| !is_fine)
    .for_each(|(key, _, reason)| mistakes.add(layers.refuse(key, reason)));
    mistakes.end()
}
