//! QUIC datagrams (RFC 9221): one message each, without streams.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, SendDatagramError, TransportConfig,
    TransportErrorCode, VarInt,
};
use tokio::time::{Instant, timeout_at};

use super::driven::{Driven, Reason};
use super::error::{ConnectError, QuicError, SessionError};
use super::options::Options;
use crate::net::tls::client_config;
use crate::target::Target;

/// What a client and a relay agree on in the handshake.
const ALPN: &[u8] = b"nb-quic";

/// The alert of a server that speaks none of the protocols that it was offered (RFC 7301).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Times of NetBird's clients.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(240);

/// What the path is taken to carry before more is known, in bytes, as openZro's clients do: the
/// message of a packet of WireGuard's smallest MTU is larger than QUIC's own 1,200.
const INITIAL_MTU: u16 = 1_452;

/// The code of every end of a connection.
const NORMAL: VarInt = VarInt::from_u32(0);

/// Dials each address of the relay in turn until one shakes hands.
pub(super) async fn dial(target: &Target, options: &Options) -> Result<Datagrams, ConnectError> {
    if !target.tls {
        return Err(QuicError::NoTls.into());
    }
    let mut tls = (*client_config(&options.trust).map_err(crate::ConnectError::from)?).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls).expect("the provider has what QUIC begins with");
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport());

    let limit = options.timeouts.connect;
    let until = Instant::now() + limit;
    let authority = || format!("{}:{}", target.host, target.port);
    let unreachable = |source| QuicError::Unreachable { authority: authority(), source };
    let resolving = options.resolver.resolve(&target.host, target.port);
    let late = |_| QuicError::NoAnswer(limit);
    let addresses = timeout_at(until, resolving).await.map_err(late)?.map_err(unreachable)?;
    let mut failure = QuicError::NoAnswer(limit);
    for (tried, address) in addresses.iter().enumerate() {
        // Each has an equal share of the time that is left.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / left;
        let dialled = shake_hands(&config, *address, &target.host);
        match timeout_at(Instant::now() + share, dialled).await {
            Ok(Ok(datagrams)) => return Ok(datagrams),
            Ok(Err(error)) => failure = error,
            Err(_late) => {}
        }
    }
    Err(failure.into())
}

async fn shake_hands(
    config: &ClientConfig,
    address: SocketAddr,
    host: &str,
) -> Result<Datagrams, QuicError> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let unreachable = |source| QuicError::Unreachable { authority: address.to_string(), source };
    let endpoint = Endpoint::client(any).map_err(unreachable)?;
    let connecting = endpoint.connect_with(config.clone(), address, host)?;
    let connection = connecting.await.map_err(refused)?;
    if connection.max_datagram_size().is_none() {
        return Err(QuicError::NoDatagrams);
    }
    Ok(Datagrams { connection, endpoint, waiting: VecDeque::new() })
}

fn refused(error: ConnectionError) -> QuicError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these have a code of TLS")]
    let code = match &error {
        ConnectionError::TransportError(error) => Some(error.code),
        ConnectionError::ConnectionClosed(close) => Some(close.error_code),
        _ => None,
    };
    if code == Some(TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL)) {
        QuicError::OtherProtocol
    } else {
        QuicError::Handshake(error)
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IDLE.try_into().ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_mtu(INITIAL_MTU)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// What the path of a connection carries.
#[derive(Clone)]
pub(super) struct Path(Connection);

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Path").field(&self.largest()).finish()
    }
}

impl Path {
    /// Length of the longest datagram at the moment, in bytes.
    pub(super) fn largest(&self) -> usize {
        self.0.max_datagram_size().unwrap_or_default()
    }
}

/// A connection whose messages are datagrams.
pub(super) struct Datagrams {
    connection: Connection,
    endpoint: Endpoint,
    /// What has not left; no more than a session buffers.
    waiting: VecDeque<Bytes>,
}

impl Datagrams {
    pub(super) fn path(&self) -> Path {
        Path(self.connection.clone())
    }

    pub(super) fn feed(&mut self, message: Bytes) {
        self.waiting.push_back(message);
    }

    pub(super) async fn drive(
        &mut self,
        is_reading: bool,
        is_flushing: bool,
    ) -> Result<Driven, SessionError> {
        let Self { connection, waiting, .. } = self;
        let sending = async {
            while let Some(message) = waiting.front() {
                match connection.send_datagram_wait(message.clone()).await {
                    // The path has become narrower since: it is lost, as a datagram may be.
                    Ok(()) | Err(SendDatagramError::TooLarge) => drop(waiting.pop_front()),
                    Err(SendDatagramError::ConnectionLost(error)) => return ended(error),
                    Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                        return Err(SessionError::Lost);
                    }
                }
            }
            Ok(Driven::Flushed)
        };
        tokio::select! {
            biased;
            sent = sending, if is_flushing => sent,
            received = connection.read_datagram(), if is_reading => {
                received.map(Driven::Message).or_else(ended)
            }
            () = pending() => Ok(Driven::Nothing),
        }
    }

    /// Says that the connection ends, and waits until that has left.
    pub(super) async fn end(&mut self) {
        self.connection.close(NORMAL, b"normal closure");
        self.endpoint.wait_idle().await;
    }
}

/// How the end of a connection reads.
fn ended(error: ConnectionError) -> Result<Driven, SessionError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says itself what it is")]
    match error {
        // Every end of the protocol has this code, and says nothing by it.
        ConnectionError::ApplicationClosed(close) if close.error_code == NORMAL => {
            Ok(Driven::Ended(None))
        }
        ConnectionError::ApplicationClosed(close) => Ok(Driven::Ended(Some(Reason {
            code: close.error_code.into_inner(),
            text: String::from_utf8_lossy(&close.reason).into_owned(),
        }))),
        ConnectionError::Reset => Ok(Driven::Ended(None)),
        other => Err(SessionError::Quic(other)),
    }
}
