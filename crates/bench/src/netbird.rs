//! Peers of NetBird's protocol over WebSocket and QUIC: the same load for the relay's door and its
//! floors.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use beacon_relay::client::netbird::token;
use beacon_wire::netbird::{FromRelay, PeerId, auth, transport_header};
use beacon_wire::websocket::Opcode;
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use crate::closed_loop::Window;
use crate::peer::{Node, connect, push_frame, upgrade};
use crate::tls::NAME;

/// The secret of all tokens.
pub(super) const SECRET: &str = "a secret for as long as a measurement lasts";

/// Where the servers say that they are.
pub(super) const EXPOSED: &str = "rel://127.0.0.1:33080";

/// When tokens end, in Unix seconds: far from now.
const EXPIRY: u64 = 9_999_999_999;

/// What client and relay agree on over QUIC.
pub(super) const ALPN: &[u8] = b"nb-quic";

/// What the path is taken to carry before more is known: a packet of the load fits.
const INITIAL_MTU: u16 = 1_452;

/// A login in a datagram may be lost: so many are sent,
const ATTEMPTS: u32 = 10;

/// each with this time for its answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Datagrams that a sender hands over at once.
const BATCH: u64 = 64;

/// Runs the load's QUIC.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("the load may thread"));

/// The payload that a packet of WireGuard makes at MTU 1,280, in bytes.
pub(super) const PAYLOAD: usize = 1_312;

/// The id of a node of the load.
pub(super) fn id(node: &Node) -> PeerId {
    PeerId::of_name(&node.id.to_string())
}

/// What a sender says to have `size` bytes delivered to a node.
pub(super) fn packet(to: &Node, size: usize) -> Vec<u8> {
    [&transport_header(id(to))[..], &vec![0xa5; size]].concat()
}

/// Logs a node in, which then has its place at the server.
pub(super) fn log_in(server: SocketAddr, node: &Node) -> anyhow::Result<TcpStream> {
    let mut reader = BufReader::with_capacity(2_048, connect(server)?);
    upgrade(
        &mut reader,
        "GET /relay HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut frame = Vec::new();
    let login = auth(id(node), &token(SECRET, EXPIRY));
    push_frame(Opcode::Binary, &login, [1, 2, 3, 4], &mut frame);
    reader.get_mut().write_all(&frame)?;
    let mut head = [0; 2];
    reader.read_exact(&mut head).context("the server refuses the login")?;
    let mut answer = vec![0; usize::from(head[1])];
    reader.read_exact(&mut answer)?;
    match FromRelay::decode(&answer) {
        Ok(FromRelay::AuthResponse(EXPOSED)) if head[0] == 0x82 => {}
        other => bail!("not logged in: {other:?}"),
    }
    let stream = reader.into_inner();
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// How both sides of the load and its floor use QUIC.
pub(super) fn quic_transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.initial_mtu(INITIAL_MTU);
    Arc::new(config)
}

/// A peer over QUIC.
pub(super) struct QuicPeer {
    connection: Connection,
    _endpoint: Endpoint,
}

impl QuicPeer {
    /// Logs a node in.
    pub(super) fn log_in(
        server: SocketAddr,
        tls: &ClientConfig,
        node: &Node,
    ) -> anyhow::Result<Self> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(quic_transport());
        RUNTIME.block_on(async {
            let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let connection = endpoint.connect_with(config, server, NAME)?.await?;
            let login = Bytes::from(auth(id(node), &token(SECRET, EXPIRY)));
            let mut answer = None;
            for _ in 0..ATTEMPTS {
                connection.send_datagram(login.clone())?;
                let read = tokio::time::timeout(ANSWER, connection.read_datagram()).await;
                if let Ok(read) = read {
                    answer = Some(read?);
                    break;
                }
            }
            match FromRelay::decode(&answer.context("no answer to the login")?) {
                Ok(FromRelay::AuthResponse(EXPOSED)) => {}
                other => bail!("not logged in: {other:?}"),
            }
            Ok(Self { connection, _endpoint: endpoint })
        })
    }

    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Receives until the connection ends, and tells of each datagram.
    pub(super) fn receive(&self, mut each: impl FnMut(&[u8])) {
        RUNTIME.block_on(async {
            while let Ok(datagram) = self.connection.read_datagram().await {
                each(&datagram);
            }
        });
    }

    /// Sends as the window allows until told to stop.
    pub(super) fn send(&self, packet: &[u8], window: &Window, stop: &AtomicBool) {
        let packet = Bytes::copy_from_slice(packet);
        while !stop.load(Ordering::Relaxed) {
            let count = window.take(BATCH);
            let sent = RUNTIME.block_on(async {
                for _ in 0..count {
                    self.connection.send_datagram_wait(packet.clone()).await?;
                }
                anyhow::Ok(())
            });
            if sent.is_err() {
                return;
            }
        }
    }
}

/// Ends a connection, whatever still waits for it.
pub(super) fn close(connection: &Connection) {
    connection.close(VarInt::from_u32(0), b"");
}
