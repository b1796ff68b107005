//! What all links of this relay share, and what makes a connection a link: the hello, and
//! the decision which of several links stays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, Incoming, RecvStream};
use tokio::sync::Notify;
use tokio::time::{Instant as Deadline, timeout_at};

use super::close::Failure;
use super::hello::{EXPORTER_LABEL, Hello, MAX_HELLO, Role, Way};
use super::links::{Links, Peer};
use super::notices::Notices;
use super::{canonical, tcp, tls, transport};
use crate::cluster::{Cluster, Member, Reject};
use crate::ids::RelayId;
use crate::metrics::{Gauge, Word as _};

/// How long a connection has to become a link.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// What all links share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) cluster: Arc<Cluster>,
    pub(super) relay: RelayId,
    pub(super) endpoint: Endpoint,
    pub(super) links: Links,
    /// Told when a dial has failed: its address may be out of date.
    pub(super) unreached: Notify,
    /// Where we listen, as we know it.
    pub(super) address: SocketAddr,
    /// TLS of lanes over TCP; `None` where all packets go over QUIC.
    pub(super) tcp: Option<tcp::Configs>,
    secret: Secret,
    notices: Notices,
}

/// A link whose relay is a member; [`run`](super::link::run) makes it work.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) member: Arc<Member>,
    /// A stream of the other side that opened before the link was up.
    pub(super) first: Option<RecvStream>,
    /// Which side of it we are.
    pub(super) role: Role,
    /// Its lanes over TCP.
    pub(super) tcp: Arc<tcp::Lanes>,
}

/// The secret that signs hellos.
pub(super) struct Secret(pub(super) Option<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(…)" } else { "Secret(none)" })
    }
}

impl Hub {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        relay: RelayId,
        endpoint: Endpoint,
        address: SocketAddr,
        tcp: Option<tcp::Configs>,
        secret: Secret,
    ) -> Arc<Self> {
        let links = Links::new(Arc::clone(&cluster));
        Arc::new(Self {
            cluster,
            relay,
            endpoint,
            links,
            unreached: Notify::new(),
            address,
            tcp,
            secret,
            notices: Notices::default(),
        })
    }

    /// Makes a connection that came in a link.
    pub(super) async fn welcome(&self, incoming: Incoming) -> Option<Link> {
        let _greeting = Counted::new(&self.cluster.counters().greeting);
        let remote = canonical(incoming.remote_address());
        let deadline = Deadline::now() + HELLO_WITHIN;
        let connecting = async { incoming.accept()?.await };
        let met = match timeout_at(deadline, connecting).await {
            Ok(Ok(connection)) => self.meet(connection, Role::Accept, deadline).await,
            Ok(Err(error)) => Err(Failure::of_handshake(error)),
            Err(_) => Err(Failure::Timeout),
        };
        met.map_err(|failure| self.refused(&failure, remote)).ok()
    }

    /// Dials an address and makes a link of what answers. `behind` learns the relay, link or
    /// not.
    ///
    /// # Errors
    /// Why there is no link; it is counted already.
    pub(super) async fn call(
        &self,
        address: SocketAddr,
        behind: &mut Option<RelayId>,
    ) -> Result<Link, Failure> {
        let deadline = Deadline::now() + HELLO_WITHIN;
        let connecting = async {
            let connecting = self.endpoint.connect(address, tls::SERVER_NAME)?;
            connecting.await.map_err(Failure::of_handshake)
        };
        let met = match timeout_at(deadline, connecting).await {
            Ok(Ok(connection)) => {
                *behind = tls::proven(&connection).filter(|relay| *relay != self.relay);
                let _dialling = behind.map(|relay| self.links.dialling(relay));
                self.meet(connection, Role::Dial, deadline).await
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::NoAnswer),
        };
        met.inspect_err(|failure| self.refused(failure, address))
    }

    /// From a finished handshake to a link; a connection that becomes none is closed.
    async fn meet(
        &self,
        connection: Connection,
        role: Role,
        deadline: Deadline,
    ) -> Result<Link, Failure> {
        let met = timeout_at(deadline, async {
            let peer = self.greet(&connection, role).await?;
            self.settle(&connection, &peer, role).await
        });
        let met = met.await.unwrap_or(Err(Failure::Timeout));
        if let Err(failure) = &met {
            connection.close(failure.close().code(), &[]);
        }
        met
    }

    /// Finds out who the other side is.
    async fn greet(&self, connection: &Connection, role: Role) -> Result<Peer, Failure> {
        let relay = tls::proven(connection).ok_or(Failure::Broken)?;
        let peer = self.exchange(connection, relay, role).await;
        if relay == self.relay {
            let ours = self.cluster.identity().boot;
            return Err(Failure::with_own_key(peer.map(|peer| peer.boot), ours));
        }
        peer
    }

    /// Exchanges hellos. The dialler speaks first; the other side answers only what holds.
    async fn exchange(
        &self,
        connection: &Connection,
        relay: RelayId,
        role: Role,
    ) -> Result<Peer, Failure> {
        let mut exporter = [0; 32];
        connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .map_err(|_| Failure::Broken)?;
        let ours = Way { role, from: self.relay, to: relay, exporter: &exporter };
        let theirs = Way { role: role.other(), from: relay, to: self.relay, exporter: &exporter };
        let said = self.hello().encode(self.secret(), &ours);
        let hello = match role {
            Role::Dial => {
                let (mut send, receive) = connection.open_bi().await?;
                send.write_all(&said).await.map_err(|_| broken(connection))?;
                send.finish().map_err(|_| Failure::Broken)?;
                self.hear(connection, receive, &theirs).await?
            }
            Role::Accept => {
                let (mut send, receive) = connection.accept_bi().await?;
                let hello = self.hear(connection, receive, &theirs).await?;
                send.write_all(&said).await.map_err(|_| broken(connection))?;
                send.finish().map_err(|_| Failure::Broken)?;
                hello
            }
        };
        Ok(Peer { relay, boot: hello.boot, address: hello.address })
    }

    async fn hear(
        &self,
        connection: &Connection,
        mut from: RecvStream,
        way: &Way<'_>,
    ) -> Result<Hello, Failure> {
        let bytes = from.read_to_end(MAX_HELLO).await.map_err(|_| broken(connection))?;
        let cluster = &self.cluster.identity().name;
        Ok(Hello::decode(&bytes, cluster, self.secret(), way)?)
    }

    /// Joins the relay if this link is the one that stays (see [`Links`]).
    async fn settle(
        &self,
        connection: &Connection,
        peer: &Peer,
        role: Role,
    ) -> Result<Link, Failure> {
        let lane =
            if self.relay < peer.relay { None } else { Some(connection.accept_uni().await?) };
        let mut secret = [0; 32];
        connection
            .export_keying_material(&mut secret, tcp::EXPORTER_LABEL, &[])
            .map_err(|_| Failure::Broken)?;
        let tcp = Arc::new(tcp::Lanes::new(role, tcp::LinkSecret(secret)));
        let member = self.links.admit(peer, connection, &tcp, lane.is_some());
        let member = member.ok_or(Failure::Duplicate)?;
        transport::link(connection);
        tracing::debug!(
            relay = %peer.relay,
            remote_addr = %member.address,
            bound_to = peer.address,
            dialled = role == Role::Dial,
            "a link is up"
        );
        Ok(Link { connection: connection.clone(), member, first: lane, role, tcp })
    }

    fn hello(&self) -> Hello {
        let identity = self.cluster.identity();
        Hello {
            cluster: identity.name.clone(),
            boot: identity.boot,
            address: self.address.to_string(),
        }
    }

    fn secret(&self) -> Option<&[u8]> {
        self.secret.0.as_deref()
    }

    fn refused(&self, failure: &Failure, remote: SocketAddr) {
        match failure.reject() {
            // Our own address is in everybody's list of addresses.
            Some(Reject::Itself) => {
                self.reject(Reject::Itself);
                tracing::debug!(remote_addr = %remote, "an address leads to this relay itself");
            }
            Some(Reject::Clone) => self.cluster.cloned(&remote),
            Some(reject) => self.warn(reject, remote, &failure),
            None => tracing::debug!(remote_addr = %remote, error = %failure, "no link"),
        }
    }

    /// Counts what was not taken, and warns about it once a minute for each address.
    pub(super) fn warn(&self, reject: Reject, remote: SocketAddr, error: &dyn std::fmt::Display) {
        self.reject(reject);
        let reason = reject.word();
        if self.notices.is_due(remote.ip(), Instant::now()) {
            tracing::warn!(remote_addr = %remote, reason, %error, "refused what came from an address");
        } else {
            tracing::debug!(remote_addr = %remote, reason, %error, "refused what came from an address");
        }
    }

    fn reject(&self, reject: Reject) {
        self.cluster.counters().rejects.of(reject).increment();
    }
}

/// A hello's stream that broke: with the connection, or alone.
fn broken(connection: &Connection) -> Failure {
    connection.close_reason().map_or(Failure::Broken, Failure::of_handshake)
}

/// Counts in a gauge while it lives.
pub(super) struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    pub(super) fn new(gauge: &'a Gauge) -> Self {
        gauge.add(1);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
