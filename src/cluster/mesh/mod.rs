//! The QUIC mesh: the fabric that needs no other server. Every relay has an authenticated
//! link to every other.
//!
//! A relay is its Ed25519 key. Each link is a QUIC connection on which both sides prove
//! their keys (`tls`), then a shared secret if there is one (`hello`); of several links
//! between the same two relays one stays (`links`). Addresses come from the operator and from
//! DNS (`seeds`), and each is dialled again for ever (`dial`). What batches mean is decided
//! above.

mod close;
mod dial;
mod hello;
mod hub;
mod lane;
mod link;
mod links;
mod lobby;
mod notices;
mod seeds;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, Incoming, ServerConfig};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Cluster, Fabric, Reject, relay_id};
use crate::ids::RelayId;
use crate::net::bind::FreeBind;
use crate::proto::translators::Translators;
use close::Close;
use hub::{Hub, Link, Secret};
use lobby::Lobby;
use tls::Verifier;

/// Connections that QUIC keeps until we look at them. It refuses more without a word to us,
/// so these are many: those beyond [`lobby::MAX_GREETING`] are counted.
const MAX_INCOMING: usize = 1_024;

/// What QUIC may hold of a connection before it is taken up, in bytes: a few datagrams.
const INCOMING_BUFFER: u64 = 16 << 10;

/// How long our last words to the other relays may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// What a mesh is made of.
pub struct Settings {
    /// The UDP address to listen on and to dial from.
    pub bind: SocketAddr,
    /// Whether that address may come later.
    pub free_bind: FreeBind,
    /// Other relays, each as `host:port`; all addresses of a host are dialled.
    pub join: Vec<String>,
    /// A name whose addresses are those of all relays, as `host:port`.
    pub dns: Option<String>,
    /// Whom to trust.
    pub trust: Trust,
    /// Whether packets go over TCP as well, at the port of the same number.
    pub tcp: bool,
    /// Those that strangers may come through.
    pub translators: Translators,
    /// This relay's identity; its public half is the relay's id.
    pub key: ed25519_dalek::SigningKey,
}

/// Whom a relay trusts; with both a list and a secret, both must hold.
pub struct Trust {
    /// The relays that may link; empty where the secret alone decides.
    pub allow: Vec<RelayId>,
    /// What all relays of the cluster know.
    pub secret: Option<Vec<u8>>,
}

/// A mesh that listens already, and takes and makes links once it runs.
pub struct Mesh {
    endpoint: Endpoint,
    address: SocketAddr,
    relay: RelayId,
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
    tcp: Option<(tcp::Port, tcp::Configs)>,
    secret: Secret,
    names: Vec<String>,
    translators: Translators,
}

impl Mesh {
    /// Binds the socket. Needs the runtime that the mesh will run on.
    ///
    /// # Errors
    /// No allow list and no secret (a mesh is never open to strangers); an address that
    /// cannot be bound; no runtime.
    pub fn bind(settings: Settings) -> io::Result<Self> {
        let Settings { bind, free_bind, join, dns, trust, tcp, translators, key } = settings;
        let Trust { allow, secret } = trust;
        if allow.is_empty() && secret.as_ref().is_none_or(Vec::is_empty) {
            let error = "a mesh needs an allow list or a secret";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let relay = relay_id(&key);
        let verifier = Verifier::new(relay, allow);
        let key = Arc::new(tls::certified(&key).map_err(io::Error::other)?);
        let client = tls::client(&verifier, Arc::clone(&key)).map_err(io::Error::other)?;
        let server = tls::server(&verifier, Arc::clone(&key)).map_err(io::Error::other)?;
        let lanes = tls::lanes(&verifier, key).map_err(io::Error::other)?;
        let (endpoint, port) = open(bind, free_bind, tcp)?;
        Ok(Self {
            address: endpoint.local_addr()?,
            endpoint,
            relay,
            client: Arc::new(client),
            server: Arc::new(server),
            tcp: port.map(|port| (port, lanes)),
            secret: Secret(secret),
            names: join.into_iter().chain(dns).collect(),
            translators,
        })
    }

    /// The address that is bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Fabric for Mesh {
    async fn run(mut self, cluster: Arc<Cluster>, stopping: CancellationToken) {
        debug_assert_eq!(cluster.identity().relay, self.relay, "the id is the key's public half");
        let transport = transport::config(cluster.identity().keepalive);
        let mut client = ClientConfig::new(self.client);
        client.transport_config(Arc::clone(&transport));
        self.endpoint.set_default_client_config(client);
        let mut server = ServerConfig::with_crypto(self.server);
        server
            .transport_config(transport)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * 64);
        self.endpoint.set_server_config(Some(server));

        let endpoint = self.endpoint.clone();
        let (port, configs) = self.tcp.unzip();
        let tcp = configs.clone();
        let hub = Hub::new(cluster, self.relay, self.endpoint, self.address, tcp, self.secret);
        let dialling = seeds::tend(Arc::clone(&hub), self.names, stopping.clone());
        let lobby = Arc::new(Lobby::new(self.translators.clone()));
        let mut tasks = Tasks::new(Arc::clone(&hub), Lobby::new(self.translators), dialling);
        if let Some((port, configs)) = port.zip(configs) {
            tasks.take_lanes(tcp::serve(port, configs, hub, lobby));
        }
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tasks.serve(&endpoint) => {}
        }
        endpoint.close(Close::Stopping.code(), &[]);
        let farewell = async {
            tasks.ended().await;
            endpoint.wait_idle().await;
        };
        // Whoever has not heard of it by then learns it from our silence.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// The tasks of a running mesh.
struct Tasks {
    hub: Arc<Hub>,
    lobby: Arc<Lobby>,
    /// Resolves names and dials; the mesh is none without it.
    dialling: JoinSet<()>,
    /// Takes lanes over TCP.
    taking: JoinSet<()>,
    /// Connections that others have dialled, until they are links.
    greeting: JoinSet<Option<Link>>,
    /// Links that others have dialled.
    links: JoinSet<()>,
}

impl Tasks {
    fn new(hub: Arc<Hub>, lobby: Lobby, dial: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut dialling = JoinSet::new();
        dialling.spawn(dial);
        Self {
            hub,
            lobby: Arc::new(lobby),
            dialling,
            taking: JoinSet::new(),
            greeting: JoinSet::new(),
            links: JoinSet::new(),
        }
    }

    /// Has lanes over TCP taken, with a lobby of their own: strangers at one port keep nobody out
    /// of the other.
    fn take_lanes(&mut self, take: impl Future<Output = ()> + Send + 'static) {
        self.taking.spawn(take);
    }

    /// Takes links, until a part of the mesh has ended that it cannot do without.
    async fn serve(&mut self, endpoint: &Endpoint) {
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.greet(incoming),
                    None => return tracing::error!("the mesh's socket has failed"),
                },
                Some(greeted) = self.greeting.join_next() => self.greeted(greeted),
                Some(ended) = self.links.join_next() => {
                    // It tells of its end itself, unless it has failed: its relay would stay
                    // a member for ever.
                    if let Err(error) = ended {
                        return tracing::error!(%error, "a link has failed");
                    }
                }
                Some(_ended) = self.taking.join_next() => {
                    return tracing::error!("nothing takes lanes over TCP any more");
                }
                _ended = self.dialling.join_next() => {
                    return tracing::error!("nothing dials other relays any more");
                }
            }
        }
    }

    fn greet(&mut self, incoming: Incoming) {
        let Some(incoming) = validated(incoming) else { return };
        let remote = canonical(incoming.remote_address());
        let (guest, gave_way) = self.lobby.enter(remote.ip());
        if gave_way {
            self.hub.warn(Reject::TooMany, remote, &"too many strangers");
        }
        let hub = Arc::clone(&self.hub);
        self.greeting.spawn(async move {
            let welcome = hub.welcome(incoming);
            guest.leaving.run_until_cancelled(welcome).await.flatten()
        });
    }

    fn greeted(&mut self, greeted: Result<Option<Link>, JoinError>) {
        match greeted {
            Ok(Some(link)) => _ = self.links.spawn(link::run(Arc::clone(&self.hub), link)),
            Ok(None) => {}
            // A stranger's connection, and nothing else.
            Err(error) => {
                self.hub.cluster.counters().panics.increment();
                tracing::error!(%error, "a connection without a hello has failed");
            }
        }
    }

    /// Waits for the end of all tasks, and of the links among them.
    async fn ended(&mut self) {
        self.taking.shutdown().await;
        while let Some(greeted) = self.greeting.join_next().await {
            self.greeted(greeted);
        }
        while self.links.join_next().await.is_some() {}
        while self.dialling.join_next().await.is_some() {}
    }
}

/// Sockets that are tried for a port that is free over UDP and TCP, where any will do.
const TRIES: usize = 16;

/// Binds QUIC's socket, and the TCP port of the same number. Without that packets go over QUIC:
/// whoever has the port was there before.
fn open(bind: SocketAddr, free: FreeBind, tcp: bool) -> io::Result<(Endpoint, Option<tcp::Port>)> {
    let mut endpoint = transport::open(bind, free)?;
    if !tcp {
        return Ok((endpoint, None));
    }
    let tries = if bind.port() == 0 { TRIES } else { 1 };
    for left in (0..tries).rev() {
        let address = endpoint.local_addr()?;
        match tcp::Port::bind(address, free) {
            Ok(port) => return Ok((endpoint, Some(port))),
            Err(error) if left == 0 => tracing::warn!(
                %address, %error,
                "the TCP port of the cluster cannot be bound: packets to and from other relays go \
                 over QUIC, which costs more"
            ),
            Err(_) => endpoint = transport::open(bind, free)?,
        }
    }
    Ok((endpoint, None))
}

/// Takes up nothing for an address that may be forged: it first has to send back a token.
fn validated(incoming: Incoming) -> Option<Incoming> {
    if incoming.remote_address_validated() {
        return Some(incoming);
    }
    incoming.retry().err().map(|error| error.into_incoming())
}

/// An address in the form that people write: IPv4 as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
