//! From a URL to a session: TCP or a tunnel through a proxy, TLS for `wss://`, the upgrade, the
//! login.
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
use super::proxy::{ProxyError, Tunnel};
use super::socket::{BUFFER, Socket, Stream};
use super::target::{InvalidUrl, Target};
use crate::net::dial::Destination;
use crate::net::tls::{TlsError, Trust, client_config};
use crate::wire::beacon::MAX_WSS_PACKET;

const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("pilot.v1");

/// What can be prepared once for all redials: the checked URL and the TLS configuration.
pub(super) struct Dialer {
    target: Target,
    route: Route,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    headers: HeaderMap,
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
    let mut request = uri.into_client_request()?;
    request.headers_mut().extend(headers.clone());
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL);
    Ok(request)
}

impl Dialer {
    pub(super) fn new(options: &Options) -> Result<Self, ConnectError> {
        let target = Target::parse(&options.url)?;
        let tls = if target.tls { Some(tls(&target.host, &options.trust)?) } else { None };
        let resolver = options.resolver.clone();
        if let Some(variable) = options.proxy.passed_over(&target) {
            warn!(variable, "passed over a proxy that is none of HTTP");
        }
        let route = match options.proxy.towards(&target)? {
            Some(url) => Route::Proxy(Box::new(Tunnel::new(url, &options.trust, resolver)?)),
            None => Route::Direct(Destination::new(&target.host, target.port, resolver)),
        };
        Ok(Self { target, route, tls, headers: options.headers.clone() })
    }

    /// Without TLS or a proxy, for [`Self::dial_over`].
    pub(super) fn over_streams(options: &Options) -> Result<Self, ConnectError> {
        let target = Target::parse(&options.url)?;
        let resolver = options.resolver.clone();
        let route = Route::Direct(Destination::new(&target.host, target.port, resolver));
        Ok(Self { target, route, tls: None, headers: options.headers.clone() })
    }

    /// Dials and logs in.
    pub(super) async fn dial(&self, options: &Options) -> Result<Socket, ConnectError> {
        let mut reached = None;
        let logged_in = self.dial_noting(&mut reached, options).await;
        if logged_in.is_err()
            && let Some(address) = reached
        {
            match &self.route {
                Route::Direct(destination) => destination.demote(address),
                Route::Proxy(tunnel) => tunnel.demote(address),
            }
        }
        logged_in
    }

    /// Dials and logs in; `reached` is the address that took a connection.
    async fn dial_noting(
        &self,
        reached: &mut Option<SocketAddr>,
        options: &Options,
    ) -> Result<Socket, ConnectError> {
        let limit = options.timeouts.connect;
        let step = match self.route {
            Route::Direct(_) => "connecting",
            Route::Proxy(_) => "connecting through the proxy",
        };
        let late = |_| ConnectError::Timeout { step, limit };
        let upgraded = async { self.upgrade(self.connect(reached).await?).await };
        let socket = timeout(limit, upgraded).await.map_err(late)??;
        self.log_in(socket, options).await
    }

    /// Logs in over a stream that leads to the relay.
    pub(super) async fn dial_over(
        &self,
        stream: Box<dyn Stream>,
        options: &Options,
    ) -> Result<Socket, ConnectError> {
        let limit = options.timeouts.connect;
        let late = |_| ConnectError::Timeout { step: "connecting", limit };
        let socket = timeout(limit, self.upgrade(stream)).await.map_err(late)??;
        self.log_in(socket, options).await
    }

    async fn log_in(&self, mut socket: Socket, options: &Options) -> Result<Socket, ConnectError> {
        let limit = options.timeouts.login;
        let late = |_| ConnectError::Timeout { step: "the login", limit };
        let login = login::login(&mut socket, options, &self.target.host);
        timeout(limit, login).await.map_err(late)??;
        Ok(socket)
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
        let request =
            upgrade_request(&self.target.uri, &self.headers).map_err(ConnectError::upgrade)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(4 * MAX_WSS_PACKET)
            .max_message_size(Some(MAX_WSS_PACKET))
            .max_frame_size(Some(MAX_WSS_PACKET));
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
    #[error("the TLS handshake failed: {source}")]
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
    fn upgrade(error: WsError) -> Self {
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
