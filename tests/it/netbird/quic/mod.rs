//! The door over QUIC: clients that log in by datagrams, and meet those over WebSocket.

mod hostile;
mod path;
mod replay;
mod sessions;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use beacon_relay::net::tls::{Trust, client_config};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{EXPOSED, SECRET, Site, auth, frame, id, message, token, unix_now};
use crate::cells::assert_balance;
use crate::harness::PATIENCE;

/// What all clients of this process run on.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

/// A client over QUIC.
pub(super) struct QuicPeer {
    pub(super) connection: Connection,
    endpoint: Endpoint,
}

/// What a client says that it is and takes.
#[derive(Clone)]
pub(super) struct Manner {
    pub(super) from: Ipv4Addr,
    pub(super) protocol: &'static [u8],
    pub(super) transport: Arc<TransportConfig>,
}

impl Default for Manner {
    fn default() -> Self {
        let mut transport = TransportConfig::default();
        transport.initial_mtu(1_232).keep_alive_interval(Some(Duration::from_secs(30)));
        Self { from: Ipv4Addr::LOCALHOST, protocol: b"nb-quic", transport: Arc::new(transport) }
    }
}

impl Manner {
    fn config(&self, ca: &Path) -> ClientConfig {
        let trust = client_config(&Trust::CaFile(ca.to_owned())).unwrap();
        let mut tls = (*trust).clone();
        tls.alpn_protocols = vec![self.protocol.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::clone(&self.transport));
        config
    }

    /// One whose first packets are as large as they may become.
    fn wide() -> Self {
        let mut transport = TransportConfig::default();
        transport.initial_mtu(1_452).keep_alive_interval(Some(Duration::from_secs(30)));
        Self { transport: Arc::new(transport), ..Self::default() }
    }
}

impl QuicPeer {
    /// Makes the handshake.
    pub(super) fn dial(
        to: SocketAddr,
        ca: &Path,
        manner: &Manner,
    ) -> Result<Self, ConnectionError> {
        Self::dial_on(&RUNTIME, to, ca, manner)
    }

    /// The same, on a runtime of its own.
    fn dial_on(
        runtime: &Runtime,
        to: SocketAddr,
        ca: &Path,
        manner: &Manner,
    ) -> Result<Self, ConnectionError> {
        let config = manner.config(ca);
        runtime.block_on(async {
            let endpoint = Endpoint::client((manner.from, 0).into()).unwrap();
            let connecting = endpoint.connect_with(config, to, "127.0.0.1").unwrap();
            let connected = timeout(PATIENCE, connecting).await.expect("an answer");
            connected.map(|connection| Self { connection, endpoint })
        })
    }

    pub(super) fn log_in(&self, who: &str) {
        self.send(&auth(id(who), &token(SECRET, unix_now() + 3_600)));
        assert_eq!(self.read(), Some([b"\x01\x07", EXPOSED.as_bytes()].concat()));
    }

    pub(super) fn send(&self, datagram: &[u8]) {
        let _runtime = RUNTIME.enter();
        self.connection.send_datagram(Bytes::copy_from_slice(datagram)).unwrap();
    }

    /// The next datagram; nothing once the connection has ended.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        self.read_within(PATIENCE)
    }

    /// Waits for a datagram, which may not come.
    fn wait(&self, time: Duration) {
        let read = async { timeout(time, self.connection.read_datagram()).await };
        let _lost = RUNTIME.block_on(read);
    }

    fn read_within(&self, time: Duration) -> Option<Vec<u8>> {
        let read = async { timeout(time, self.connection.read_datagram()).await };
        let read = RUNTIME.block_on(read).expect("a datagram, or an end");
        read.ok().map(|datagram| datagram.to_vec())
    }

    /// The code and the reason that the relay has closed with.
    pub(super) fn close_reason(&self) -> (u64, String) {
        let closed = async { timeout(PATIENCE, self.connection.closed()).await };
        let ended = RUNTIME.block_on(closed).expect("an end");
        let ConnectionError::ApplicationClosed(close) = &ended else { panic!("{ended}") };
        let reason = String::from_utf8(close.reason.to_vec()).unwrap();
        (close.error_code.into_inner(), reason)
    }

    pub(super) fn close(&self) {
        let _runtime = RUNTIME.enter();
        self.connection.close(0_u32.into(), b"normal closure");
    }
}

impl Site {
    pub(super) fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A client over QUIC that has made the handshake.
    pub(super) fn dial(&self) -> QuicPeer {
        let dialled = QuicPeer::dial(self.quic.unwrap(), &self.ca(), &Manner::default());
        dialled.unwrap_or_else(|error| panic!("{error}\n{}", self.relay.log()))
    }

    /// A client over QUIC that has logged in.
    pub(super) fn log_in_by_quic(&self, who: &str) -> QuicPeer {
        let peer = self.dial();
        peer.log_in(who);
        peer
    }
}

fn normal_closure() -> (u64, String) {
    (0, "normal closure".to_owned())
}

#[test]
fn clients_over_quic_and_websocket_find_each_other_and_exchange_packets() {
    let site = Site::with_tls(&["--relay-rate", "0"]);
    let alice = site.log_in_by_quic("alice");
    alice.send(&message(8, "bob", b""));
    alice.send(&message(8, "carol", b""));
    let mut bob = site.log_in("bob");
    assert_eq!(alice.read(), Some(message(10, "bob", b"")));
    let carol = site.log_in_by_quic("carol");
    assert_eq!(alice.read(), Some(message(10, "carol", b"")));
    bob.send(2, &message(8, "alice", b""));
    assert_eq!(bob.read(), frame(10, "alice", b""));
    for number in 0..200_u32 {
        let payload = [&number.to_be_bytes()[..], &[7; 1_100]].concat();
        alice.send(&message(3, "bob", &payload));
        assert_eq!(bob.read(), frame(3, "alice", &payload));
        bob.send(2, &message(3, "alice", &payload));
        assert_eq!(alice.read(), Some(message(3, "bob", &payload)));
        alice.send(&message(3, "carol", &payload));
        assert_eq!(carol.read(), Some(message(3, "alice", &payload)));
    }
    let over = |way: &str| format!("pilot_beacon_packets_out_total{{transport=\"{way}\"}}");
    assert_eq!(site.relay.metric(&over("quic")), 400.0);
    assert_eq!(site.relay.metric(&over("wss")), 200.0);

    // A client that closes is gone for all.
    carol.close();
    assert_eq!(alice.read(), Some(message(11, "carol", b"")));
    alice.close();
    assert_eq!(bob.read(), frame(11, "alice", b""));
    site.relay.wait_for_metric("beacon_relay_sessions{door=\"netbird\"}", 1.0);
    assert_balance(&site.relay);
}

#[test]
fn whoever_is_refused_or_breaks_the_rules_hears_the_same_normal_closure() {
    let site = Site::with_tls(&["--auth-timeout", "2s"]);
    let good = token(SECRET, unix_now() + 60);
    for login in [
        auth(id("eve"), &token("guessed", unix_now() + 60)),
        auth(id("eve"), &token(SECRET, unix_now() - 2)),
        vec![7; 213],
        vec![1, 5],
        vec![],
    ] {
        let eve = site.dial();
        eve.send(&login);
        assert_eq!(eve.close_reason(), normal_closure(), "{login:?}");
        assert_eq!(eve.read(), None, "nobody is told why");
    }
    let silent = site.dial();
    assert_eq!(silent.close_reason(), normal_closure());
    let witness = site.log_in_by_quic("witness");
    for bytes in [&b"\x02\x05"[..], b"\x01\x0c", b"\x01", b""] {
        let alice = site.dial();
        alice.send(&auth(id("alice"), &good));
        assert_eq!(alice.read().unwrap()[..2], [1, 7]);
        alice.send(bytes);
        assert_eq!(alice.close_reason(), normal_closure(), "{bytes:?}");
    }
    let outcomes = |outcome: &str| {
        format!("beacon_relay_logins_total{{door=\"netbird\",outcome=\"{outcome}\"}}")
    };
    site.relay.wait_for_metric(&outcomes("auth_fail"), 4.0);
    site.relay.wait_for_metric(&outcomes("violation"), 1.0);
    site.relay.wait_for_metric(&outcomes("auth_timeout"), 1.0);
    let malformed = "beacon_relay_packets_dropped_total{door=\"netbird\",reason=\"malformed\"}";
    site.relay.wait_for_metric(malformed, 4.0);

    // A message that is wrong costs a message, as over WebSocket.
    witness.send(&[1, 3, 9]);
    witness.send(&message(3, "witness", b"unharmed"));
    assert_eq!(witness.read(), Some(message(3, "witness", b"unharmed")));
    assert_balance(&site.relay);
}

#[test]
fn who_asks_for_another_protocol_or_does_not_trust_the_certificate_is_no_client() {
    let site = Site::with_tls(&[]);
    let http = Manner { protocol: b"h3", ..Manner::default() };
    let refused = QuicPeer::dial(site.quic.unwrap(), &site.ca(), &http);
    assert!(matches!(refused, Err(ConnectionError::ConnectionClosed(_))), "no such protocol");
    let stranger = crate::tls::certificates();
    let ca = stranger.path().join("ca.pem");
    assert!(QuicPeer::dial(site.quic.unwrap(), &ca, &Manner::default()).is_err());
    let handshakes = |outcome| crate::tls::handshakes(outcome);
    site.relay.wait_for_metric(&handshakes("incompatible"), 1.0);
    site.relay.wait_for_metric(&handshakes("client_refused"), 1.0);
    site.log_in_by_quic("alice");
}
