//! From a URL to a session: TCP or a tunnel through a proxy, TLS for `wss://`, the upgrade, and the
//! login of whichever protocol.
//!
//! Which address of the name is taken decides `net::dial`; one that leads to no session is
//! tried last the next time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, Request, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error as WsError};
use tracing::warn;

use super::login::{self, LoginError};
use super::options::Options;
use super::proxy::{Proxy, ProxyError, Tunnel};
use super::socket::{BUFFER, Socket, Stream};
use super::target::{InvalidUrl, Target};
use crate::net::dial::Destination;
use crate::net::resolve::Resolver;
use crate::net::tls::{TlsError, Trust, client_config};
use crate::net::words::of_handshake;
use crate::wire::beacon::MAX_WSS_PACKET;

const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("pilot.v1");

/// What can be prepared once for all redials: the checked URL and the TLS configuration.
pub(super) struct Dialer {
    target: Target,
    route: Route,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    upgrade: Upgrade,
}

/// What a protocol asks of the WebSocket.
pub(super) struct Upgrade {
    /// The headers of the request, with that of the subprotocol, if there is one.
    pub(super) headers: HeaderMap,
    /// Longest message in either direction, in bytes.
    pub(super) max_message: usize,
}

/// Whom a connection trusts, and how it gets out.
pub(super) struct Surroundings<'a> {
    pub(super) trust: &'a Trust,
    pub(super) proxy: &'a Proxy,
    pub(super) resolver: &'a Resolver,
}

/// How a connection to the relay is made.
enum Route {
    Direct(Destination),
    Proxy(Box<Tunnel>),
}

/// The request that asks a relay for a WebSocket, with further headers.
///
/// # Errors
/// A URI without a host, which [`Target::parse`] does not return.
pub fn upgrade_request(uri: &Uri, headers: &HeaderMap) -> Result<Request<()>, WsError> {
    request(uri, &pilot_headers(headers))
}

pub(super) fn request(uri: &Uri, headers: &HeaderMap) -> Result<Request<()>, WsError> {
    let mut request = uri.into_client_request()?;
    request.headers_mut().extend(headers.clone());
    Ok(request)
}

fn pilot_headers(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.insert("sec-websocket-protocol", SUBPROTOCOL);
    headers
}

impl Upgrade {
    fn of_pilot(options: &Options) -> Self {
        Self { headers: pilot_headers(&options.headers), max_message: MAX_WSS_PACKET }
    }
}

/// For a node of the Pilot overlay.
impl Dialer {
    pub(super) fn new(options: &Options) -> Result<Self, ConnectError> {
        let target = Target::parse(&options.url)?;
        let Options { trust, proxy, resolver, .. } = options;
        let surroundings = Surroundings { trust, proxy, resolver };
        Self::towards(target, Upgrade::of_pilot(options), &surroundings)
    }

    /// Without TLS or a proxy, for [`Self::log_in_over`].
    pub(super) fn over_streams(options: &Options) -> Result<Self, ConnectError> {
        let target = Target::parse(&options.url)?;
        Ok(Self::over_streams_of(target, Upgrade::of_pilot(options), &options.resolver))
    }

    /// Dials and logs in.
    pub(super) async fn log_in(&self, options: &Options) -> Result<Socket, ConnectError> {
        let mut reached = None;
        let dialled = self.dial(&mut reached, options.timeouts.connect);
        let logged_in = async { self.greet(dialled.await?, options).await }.await;
        if logged_in.is_err() {
            self.demote(reached);
        }
        logged_in
    }

    /// Logs in over a stream that leads to the relay.
    pub(super) async fn log_in_over(
        &self,
        stream: Box<dyn Stream>,
        options: &Options,
    ) -> Result<Socket, ConnectError> {
        let socket = self.dial_over(stream, options.timeouts.connect).await?;
        self.greet(socket, options).await
    }

    async fn greet(&self, mut socket: Socket, options: &Options) -> Result<Socket, ConnectError> {
        let limit = options.timeouts.login;
        let late = |_| ConnectError::Timeout { step: "the login", limit };
        let login = login::login(&mut socket, options, &self.target.host);
        timeout(limit, login).await.map_err(late)??;
        Ok(socket)
    }
}

impl Dialer {
    pub(super) fn towards(
        target: Target,
        upgrade: Upgrade,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, ConnectError> {
        let Surroundings { trust, proxy, resolver } = *surroundings;
        let tls = if target.tls { Some(tls(&target.host, trust)?) } else { None };
        let resolver = resolver.clone();
        if let Some(variable) = proxy.passed_over(&target) {
            warn!(variable, "passed over a proxy that is none of HTTP");
        }
        let route = match proxy.towards(&target)? {
            Some(url) => Route::Proxy(Box::new(Tunnel::new(url, trust, resolver)?)),
            None => Route::Direct(Destination::new(&target.host, target.port, resolver)),
        };
        Ok(Self { target, route, tls, upgrade })
    }

    /// Without TLS or a proxy, for [`Self::dial_over`].
    pub(super) fn over_streams_of(target: Target, upgrade: Upgrade, resolver: &Resolver) -> Self {
        let route = Route::Direct(Destination::new(&target.host, target.port, resolver.clone()));
        Self { target, route, tls: None, upgrade }
    }

    /// Dials for `limit` at most; `reached` is the address that took a connection.
    pub(super) async fn dial(
        &self,
        reached: &mut Option<SocketAddr>,
        limit: Duration,
    ) -> Result<Socket, ConnectError> {
        let step = match self.route {
            Route::Direct(_) => "connecting",
            Route::Proxy(_) => "connecting through the proxy",
        };
        let late = |_| ConnectError::Timeout { step, limit };
        let upgraded = async { self.upgrade(self.connect(reached).await?).await };
        timeout(limit, upgraded).await.map_err(late)?
    }

    /// Has an address that was reached, and of no use, tried last the next time.
    pub(super) fn demote(&self, reached: Option<SocketAddr>) {
        let Some(address) = reached else { return };
        match &self.route {
            Route::Direct(destination) => destination.demote(address),
            Route::Proxy(tunnel) => tunnel.demote(address),
        }
    }

    /// Makes a WebSocket of a stream that leads to the relay, for `limit` at most.
    pub(super) async fn dial_over(
        &self,
        stream: Box<dyn Stream>,
        limit: Duration,
    ) -> Result<Socket, ConnectError> {
        let late = |_| ConnectError::Timeout { step: "connecting", limit };
        timeout(limit, self.upgrade(stream)).await.map_err(late)?
    }

    async fn connect(
        &self,
        reached: &mut Option<SocketAddr>,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let unreachable =
            |source| ConnectError::Unreachable { authority: self.authority(), source };
        match &self.route {
            Route::Direct(destination) => {
                let tcp = destination.connect().await.map_err(unreachable)?;
                *reached = tcp.peer_addr().ok();
                self.secure(tcp).await
            }
            Route::Proxy(tunnel) => {
                self.secure(tunnel.open_noting(reached, &self.target).await?).await
            }
        }
    }

    async fn secure(&self, stream: impl Stream + 'static) -> Result<Box<dyn Stream>, ConnectError> {
        Ok(match &self.tls {
            Some((connector, name)) => {
                let connecting = connector.connect(name.clone(), stream);
                Box::new(connecting.await.map_err(|source| ConnectError::Handshake { source })?)
            }
            None => Box::new(stream),
        })
    }

    async fn upgrade(&self, stream: Box<dyn Stream>) -> Result<Socket, ConnectError> {
        let Upgrade { headers, max_message } = &self.upgrade;
        let request = request(&self.target.uri, headers).map_err(ConnectError::upgrade)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(4 * MAX_WSS_PACKET.max(*max_message))
            .max_message_size(Some(*max_message))
            .max_frame_size(Some(*max_message));
        let upgraded = client_async_with_config(request, stream, Some(config)).await;
        upgraded.map(|(socket, _response)| socket).map_err(ConnectError::upgrade)
    }

    fn authority(&self) -> String {
        self.target.uri.authority().map(ToString::to_string).unwrap_or_default()
    }
}

fn tls(host: &str, trust: &Trust) -> Result<(TlsConnector, ServerName<'static>), ConnectError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| InvalidUrl::Host)?;
    Ok((TlsConnector::from(client_config(trust)?), name))
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is of no use.
    #[error("the URL is of no use: {0}")]
    Url(#[from] InvalidUrl),
    /// The certificate authorities are of no use.
    #[error("cannot prepare TLS: {0}")]
    Trust(#[from] TlsError),
    /// The name does not resolve, or nobody answers there.
    #[error("cannot reach {authority}: {source}")]
    Unreachable {
        /// Host and port as in the URL.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no way through the HTTP proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {}", of_handshake(.source))]
    Handshake {
        /// What TLS or the system said.
        source: io::Error,
    },
    /// The server answered the upgrade with something else.
    #[error("the server refused the upgrade with HTTP status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The server's answer to the upgrade is none.
    #[error("the upgrade to a WebSocket failed: {source}")]
    Upgrade {
        /// What was wrong.
        source: Box<tungstenite::Error>,
    },
    /// The relay took too long.
    #[error("{step} took longer than {limit:?}")]
    Timeout {
        /// What took too long.
        step: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The relay did not let us in, or must not be answered.
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl ConnectError {
    pub(super) fn upgrade(error: WsError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "one answer for all broken upgrades")]
        match error {
            WsError::Http(response) => Self::Status { status: response.status().as_u16() },
            other => Self::Upgrade { source: Box::new(other) },
        }
    }

    /// Whether a person has to change something before it can work, here or at the relay.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        match self {
            Self::Url(_) | Self::Trust(_) => true,
            // Too many upgrades, or a relay that is full or starting, pass by themselves.
            Self::Status { status } => !matches!(status, 429 | 500..),
            Self::Login(error) => error.needs_attention(),
            Self::Proxy(error) => error.needs_attention(),
            Self::Handshake { source } => {
                source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
            }
            Self::Unreachable { .. } | Self::Upgrade { .. } | Self::Timeout { .. } => false,
        }
    }
}
