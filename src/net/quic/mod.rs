//! Datagrams over QUIC (RFC 9221): a UDP port, the connections that come to it, and their halves.
//!
//! A connection carries datagrams and no streams. What waits to be sent waits with the caller:
//! QUIC gets as little as keeps it busy, and drops nothing of it.

mod receiver;
mod sender;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{
    ConnectionError, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::bind::{FreeBind, bind};
use super::options::Wish;
use super::udp::canonical;

pub use receiver::{Lost, Receiver};
pub use sender::Sender;

/// Connections that QUIC keeps until we look at them; it refuses more, and does not tell us.
const MAX_INCOMING: usize = 1_024;

/// What QUIC may hold of a connection before it is taken up, in bytes: a few datagrams.
const INCOMING_BUFFER: u64 = 16 << 10;

/// Socket buffers, in bytes, as far as the system gives them: all connections share one socket.
const SOCKET_BUFFER: usize = 4 << 20;

/// Payload of the first UDP datagrams, in bytes, and the most that is tried on a path.
///
/// 1_452 = 1_500 (Ethernet) - 40 (IPv6) - 8 (UDP). Clients announce that they take no more.
const MTU: u16 = 1_452;

/// From which difference on discovery goes on looking, in bytes.
const MTU_STEP: u16 = 10;

/// How long QUIC waits before it looks again for what a path carries, after much of its packets
/// was lost for their size.
const MTU_PAUSE: Duration = Duration::from_millis(500);

/// Datagrams that QUIC may hold on their way out, in bytes: as much as the kernel may hold unsent
/// of a TCP connection. More waits in the outbox, where it has an age.
const SEND_BUFFER: usize = 65_536;

/// Datagrams that QUIC may hold until their session reads them, in bytes: as much as the kernel
/// may of a TCP connection. It drops the oldest beyond that.
const RECEIVE_BUFFER: usize = 524_288;

/// Time without a packet after which a connection is dead. Clients send one every 30 s.
const IDLE: Duration = Duration::from_secs(240);

/// A UDP port that clients connect to by QUIC.
#[derive(Debug)]
pub struct Port {
    endpoint: Endpoint,
    address: SocketAddr,
}

impl Port {
    /// Binds the port. Must be called within the runtime.
    ///
    /// # Errors
    /// What the kernel says; what TLS lacks for QUIC.
    pub fn open(
        address: SocketAddr,
        free: FreeBind,
        tls: Arc<rustls::ServerConfig>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        bind(&socket, address, free)?;
        Self::adopt(socket, tls)
    }

    /// Takes over a socket that is bound. Must be called within the runtime.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn adopt(socket: Socket, tls: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        Wish::ReceiveBuffer.settle(socket.set_recv_buffer_size(SOCKET_BUFFER));
        Wish::SendBuffer.settle(socket.set_send_buffer_size(SOCKET_BUFFER));
        let runtime = quinn::default_runtime()
            .ok_or_else(|| io::Error::other("a port is bound on the runtime that it runs on"))?;
        let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(Arc::new(transport()))
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * 64)
            // Clients change networks, and NATs their ports: each new path is validated first.
            .migration(true);
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), socket.into(), runtime)?;
        Ok(Self { address: endpoint.local_addr()?, endpoint })
    }

    /// The address that is bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a client; `None` where the port has failed.
    pub async fn accept(&self) -> Option<Incoming> {
        self.endpoint.accept().await.map(Incoming)
    }

    /// Takes no new connection from here on.
    pub fn stop_accepting(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Waits until all connections have ended on both sides.
    pub async fn idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// Bounds and times of a connection.
fn transport() -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MTU).minimum_change(MTU_STEP).black_hole_cooldown(MTU_PAUSE);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(IDLE.try_into().ok())
        .initial_mtu(MTU)
        .mtu_discovery_config(Some(discovery))
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER))
        .datagram_send_buffer_size(SEND_BUFFER);
    config
}

/// A client that has sent its first packet.
#[derive(Debug)]
pub struct Incoming(quinn::Incoming);

impl Incoming {
    /// Where it comes from, as it says.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        canonical(self.0.remote_address())
    }

    /// Whether it is sure to be there: it has sent back what it was sent.
    #[must_use]
    pub fn is_validated(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Has it send back a token first, which costs no memory and less than it has sent.
    pub fn retry(self) {
        // Who has come with a token already is left alone: the caller has looked.
        if let Err(error) = self.0.retry() {
            error.into_incoming().ignore();
        }
    }

    /// Sends it away.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Makes the handshake; the caller keeps the time.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn accept(self) -> Result<Connection, Failure> {
        let connection = self.0.accept()?.await?;
        if connection.max_datagram_size().is_none() {
            connection.close(VarInt::from_u32(0), b"no datagrams");
            return Err(Failure::NoDatagrams);
        }
        let empty = connection.datagram_send_buffer_space();
        Ok(Connection { connection, empty, given: Arc::default(), taken: Arc::default() })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The client takes no datagrams.
    #[error("the client takes no datagrams")]
    NoDatagrams,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] ConnectionError),
}

/// How a handshake failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Blame {
    /// No version, cipher, key exchange or protocol that both sides have.
    Incompatible,
    /// The client has refused what it was shown.
    Client,
    /// The client broke the rules.
    Rules,
    /// The client went away.
    Gone,
}

impl Failure {
    /// How it failed.
    #[must_use]
    pub fn blame(&self) -> Blame {
        /// TLS alerts are errors of their own range (RFC 9001 §4.8).
        const ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
        match self {
            Self::NoDatagrams | Self::Handshake(ConnectionError::VersionMismatch) => {
                Blame::Incompatible
            }
            Self::Handshake(ConnectionError::TransportError(error)) => {
                if ALERTS.contains(&u64::from(error.code)) {
                    Blame::Incompatible
                } else {
                    Blame::Rules
                }
            }
            Self::Handshake(ConnectionError::ConnectionClosed(close)) => {
                if ALERTS.contains(&u64::from(close.error_code)) {
                    Blame::Client
                } else {
                    Blame::Gone
                }
            }
            Self::Handshake(_) => Blame::Gone,
        }
    }
}

/// A connection whose handshake is done.
#[derive(Clone, Debug)]
pub struct Connection {
    connection: quinn::Connection,
    /// The room of a send buffer with nothing in it.
    empty: usize,
    /// Datagrams that QUIC was given to send.
    given: Arc<AtomicU64>,
    /// Datagrams that were received from it.
    taken: Arc<AtomicU64>,
}

/// Datagrams that QUIC has lost, of a connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    /// They had come, and more came before they were read.
    pub unread: u64,
    /// They were to be sent, and were longer than what the path was then found to carry.
    pub unsent: u64,
}

impl Connection {
    /// The protocol that was agreed on (ALPN).
    #[must_use]
    pub fn protocol(&self) -> Option<Vec<u8>> {
        let data = self.connection.handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }

    /// What sends over it.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::new(self.connection.clone(), Arc::clone(&self.given))
    }

    /// What receives from it: one at a time.
    #[must_use]
    pub fn receiver(&self) -> Receiver {
        Receiver::new(self.connection.clone(), Arc::clone(&self.taken))
    }

    /// What QUIC has lost, once it holds nothing any more: what waits is no loss yet.
    #[must_use]
    pub fn losses(&self) -> Losses {
        // Before what was counted: what passes meanwhile must not show as a loss.
        let given = self.given.load(Ordering::Relaxed);
        let stats = self.connection.stats();
        let taken = self.taken.load(Ordering::Relaxed);
        Losses {
            unread: stats.frame_rx.datagram.saturating_sub(taken),
            unsent: given.saturating_sub(stats.frame_tx.datagram),
        }
    }

    /// Waits until QUIC has sent what it was given.
    pub async fn flushed(&self) {
        /// How often it looks; QUIC tells of room, and not of the end.
        const LOOK: Duration = Duration::from_millis(2);
        let Self { connection, empty, .. } = self;
        while connection.close_reason().is_none()
            && connection.datagram_send_buffer_space() < *empty
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it; the other side hears a code and a reason.
    pub fn close(&self, code: u32, reason: &str) {
        self.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }
}
