//! Relays with real sockets on loopback, and puppets: ends of a link that a test moves by
//! hand.

mod failures;
mod joining;
mod lanes;
#[path = "../../../../tests/it/ports.rs"]
mod ports;
mod settling;
mod strangers;
mod tcp;
mod tcp_faults;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::sign::CertifiedKey;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::close::Close;
use super::hello::{EXPORTER_LABEL, Hello, MAX_HELLO, Role, Way};
use super::lane::Lane;
use super::tls::{self, Verifier};
use super::{Mesh, Settings, Trust, transport};
use crate::cluster::relay_id;
use crate::cluster::{Boot, Cluster, Fabric as _, Identity, Member, Reject};
use crate::ids::RelayId;
use crate::metrics::Traffic;
use crate::net::bind::FreeBind;
use crate::proto::translators::Translators;

const SECRET: &[u8] = b"what all relays of this test know";

/// Longer than any of the waits here ever takes.
const PATIENCE: Duration = Duration::from_secs(20);

const KEEPALIVE: Duration = Duration::from_secs(5);

/// Keys in the order of their public halves, which decides who keeps which link.
fn keys<const N: usize>() -> [SigningKey; N] {
    let mut keys = std::array::from_fn(|n| SigningKey::from_bytes(&[u8::try_from(n).unwrap(); 32]));
    keys.sort_by_key(relay_id);
    keys
}

fn by_secret() -> Trust {
    Trust { allow: Vec::new(), secret: Some(SECRET.to_vec()) }
}

fn by_list(keys: &[SigningKey]) -> Trust {
    Trust { allow: keys.iter().map(relay_id).collect(), secret: None }
}

/// Waits for what other tasks bring about.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("still not so: {what}"));
}

/// A relay that runs until it is dropped.
struct Relay {
    cluster: Arc<Cluster>,
    address: SocketAddr,
    stopping: CancellationToken,
    running: JoinHandle<()>,
}

impl Relay {
    fn start(key: &SigningKey, join: &[SocketAddr], trust: Trust) -> Self {
        Self::start_as("test", [0; 16], key, bind(key, join, trust))
    }

    fn start_as(name: &str, boot: Boot, key: &SigningKey, mesh: Mesh) -> Self {
        let relay = relay_id(key);
        let identity = Identity { relay, boot, name: name.to_owned(), keepalive: KEEPALIVE };
        let cluster = Cluster::new(identity, Arc::new(Traffic::default()));
        let (address, stopping) = (mesh.address(), CancellationToken::new());
        let running = tokio::spawn(mesh.run(Arc::clone(&cluster), stopping.clone()));
        Self { cluster, address, stopping, running }
    }

    async fn stop(&mut self) {
        self.stopping.cancel();
        (&mut self.running).await.unwrap();
    }

    fn rejects(&self, reject: Reject) -> u64 {
        self.cluster.counters().rejects.of(reject).value()
    }

    /// Waits until this was refused.
    async fn refuses(&self, reject: Reject) {
        until(&format!("{reject:?} is counted"), || self.rejects(reject) > 0).await;
    }

    fn others(&self) -> Vec<RelayId> {
        let mut others: Vec<_> = self.cluster.members().iter().map(|other| other.relay).collect();
        others.sort();
        others
    }

    async fn has(&self, others: &[&SigningKey]) {
        let mut others: Vec<_> = others.iter().map(|key| relay_id(key)).collect();
        others.sort();
        until("the members are these", || self.others() == others).await;
    }

    fn member(&self) -> Arc<Member> {
        self.cluster.members().pop().unwrap()
    }

    /// Members that came and that were lost.
    fn history(&self) -> (u64, u64) {
        let counters = self.cluster.counters();
        (counters.joined.value(), counters.lost.value())
    }

    /// Waits until nothing is dialled and nobody is greeted.
    async fn settled(&self) {
        let counters = self.cluster.counters();
        let is_so = || counters.dialling.value() == 0 && counters.greeting.value() == 0;
        until("nothing is dialled", is_so).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn bind(key: &SigningKey, join: &[SocketAddr], trust: Trust) -> Mesh {
    bind_to(([127, 0, 0, 1], 0).into(), key, join, trust)
}

fn bind_to(bind: SocketAddr, key: &SigningKey, join: &[SocketAddr], trust: Trust) -> Mesh {
    Mesh::bind(settings(bind, key, join, trust)).unwrap()
}

/// A mesh whose packets go over QUIC only.
fn settings(bind: SocketAddr, key: &SigningKey, join: &[SocketAddr], trust: Trust) -> Settings {
    let join = join.iter().map(SocketAddr::to_string).collect();
    Settings {
        bind,
        free_bind: FreeBind::Off,
        join,
        dns: None,
        trust,
        tcp: false,
        translators: Translators::default(),
        key: key.clone(),
    }
}

/// Addresses that were free a moment ago, for relays that have to know each other's.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    [(); N].map(|()| ports::free_address())
}

/// An end of links that a test moves by hand. It trusts everybody.
struct Puppet {
    endpoint: Endpoint,
    key: SigningKey,
    hello: Hello,
    secret: Option<&'static [u8]>,
}

impl Puppet {
    fn new(key: &SigningKey) -> Self {
        Self::showing(key, tls::certified(key).unwrap())
    }

    /// One that shows this key in the handshake and signs with what comes with it.
    fn showing(key: &SigningKey, shown: CertifiedKey) -> Self {
        let verifier = Verifier::new(relay_id(key), Vec::new());
        let shown = Arc::new(shown);
        let mut endpoint = transport::open(([127, 0, 0, 1], 0).into(), FreeBind::Off).unwrap();
        let client = tls::client(&verifier, Arc::clone(&shown)).unwrap();
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport::config(KEEPALIVE));
        endpoint.set_default_client_config(client);
        let server = tls::server(&verifier, shown).unwrap();
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport::config(KEEPALIVE));
        endpoint.set_server_config(Some(server));
        let hello = Hello { cluster: "test".into(), boot: [0; 16], address: "127.0.0.1:1".into() };
        Self { endpoint, key: key.clone(), hello, secret: Some(SECRET) }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    async fn dial(&self, relay: &Relay) -> Connection {
        self.endpoint.connect(relay.address, tls::SERVER_NAME).unwrap().await.unwrap()
    }

    async fn accept(&self) -> Connection {
        self.endpoint.accept().await.unwrap().await.unwrap()
    }

    /// The hello that we say as the dialler of this connection.
    fn hello_for(&self, connection: &Connection) -> Vec<u8> {
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]).unwrap();
        let to = tls::proven(connection).unwrap();
        let from = relay_id(&self.key);
        let way = Way { role: Role::Dial, from, to, exporter: &exporter };
        self.hello.encode(self.secret, &way)
    }

    /// Says these bytes as a hello, and gives the answer.
    async fn say(&self, connection: &Connection, hello: &[u8]) -> Result<Vec<u8>, ConnectionError> {
        let (mut send, mut receive) = connection.open_bi().await?;
        // If these fail, the connection is gone, which the answer tells.
        let _ = send.write_all(hello).await;
        let _ = send.finish();
        match receive.read_to_end(MAX_HELLO).await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(connection.closed().await),
        }
    }

    /// Says hello as the dialler, and waits for the answer or for the end.
    async fn greet(&self, relay: &Relay) -> Connection {
        let connection = self.dial(relay).await;
        // Where the relay decides against this link, the close may overtake the answer.
        let _ = self.say(&connection, &self.hello_for(&connection)).await;
        connection
    }

    /// A link on which both of our lanes are open.
    async fn link(&self, relay: &Relay) -> (Connection, [SendStream; 2]) {
        let connection = self.greet(relay).await;
        transport::link(&connection);
        let lanes = open_lanes(&connection).await;
        (connection, lanes)
    }
}

async fn open_lanes(connection: &Connection) -> [SendStream; 2] {
    let mut words = connection.open_uni().await.unwrap();
    words.write_all(&[Lane::Words as u8]).await.unwrap();
    let mut packets = connection.open_uni().await.unwrap();
    packets.write_all(&[Lane::Packets as u8]).await.unwrap();
    [words, packets]
}

/// The lanes that the other side opens, in the order of [`Lane`].
async fn accept_lanes(connection: &Connection) -> [RecvStream; 2] {
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let mut stream = connection.accept_uni().await.unwrap();
        let mut lane = [0];
        stream.read_exact(&mut lane).await.unwrap();
        lanes.push((lane, stream));
    }
    lanes.sort_by_key(|(lane, _)| *lane);
    assert_eq!(lanes.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(), [[0], [1]]);
    lanes.into_iter().map(|(_, stream)| stream).collect::<Vec<_>>().try_into().unwrap()
}

async fn closed_with(connection: &Connection, close: Close) {
    let error = timeout(PATIENCE, connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(closed) = error else { panic!("{error}") };
    assert_eq!(closed.error_code, close.code());
}
