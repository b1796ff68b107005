//! Binds the addresses of the configuration.

use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::warn;

use super::{Sockets, StartError};
use crate::config::{self, Config, WssBind};
use crate::net::bind::{FreeBind, bind, is_missing};
use crate::net::inherited::{Inherited, Kind};
use crate::net::listener::Listener;
use crate::net::notify::ServiceManager;
use crate::net::quic;
use crate::net::tls::Acceptor;
use crate::net::udp::Datagrams;

/// An address that cannot be bound to.
#[derive(Debug, thiserror::Error)]
#[error("{setting} = {address}: {error}")]
pub struct BindError {
    /// The flag, without its dashes; in a table of the file, as in `listener[1].bind`.
    pub setting: Cow<'static, str>,
    /// The address.
    pub address: String,
    /// What the system said.
    pub error: io::Error,
}

impl BindError {
    pub(super) fn of<A: ToString>(
        setting: impl Into<Cow<'static, str>>,
        address: &A,
    ) -> impl FnOnce(io::Error) -> Self {
        let setting = setting.into();
        let address = address.to_string();
        move |error| Self { setting, address, error }
    }

    /// The setting as an operator writes it: `--wss-bind`, or `listener[1].bind`.
    #[must_use]
    pub fn written(&self) -> String {
        let setting = &self.setting;
        if setting.contains('[') { setting.to_string() } else { format!("--{setting}") }
    }
}

/// Connections of operators that the kernel completes ahead of the relay.
const ADMIN_BACKLOG: i32 = 128;

/// The port that ACME authorities connect to.
const HTTPS: u16 = 443;

/// Longest pause between two attempts to bind to an address that is not there yet.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Waits at the start for addresses that the machine does not have yet, as after a boot whose
/// network takes its time.
pub(super) struct Patience<'a> {
    end: Instant,
    manager: Option<&'a ServiceManager>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(limit: Duration, manager: Option<&'a ServiceManager>) -> Self {
        Self { end: Instant::now() + limit, manager }
    }

    /// What `attempt` comes to; again and again while only the address is missing.
    pub(super) async fn bind<T, E: Into<StartError>>(
        &self,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, StartError> {
        let mut pause = Duration::from_millis(100);
        let mut is_told = false;
        loop {
            let error = match attempt().map_err(Into::into) {
                Ok(bound) => return Ok(bound),
                Err(StartError::Bind(error)) if is_missing(&error.error) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= self.end {
                return Err(error.into());
            }
            let written = error.written();
            let BindError { setting, address, error } = &error;
            if !is_told {
                warn!(setting = &**setting, %address, %error, "waits for an address that is not there yet");
                is_told = true;
            }
            if let Some(manager) = self.manager {
                let status = format!("Waiting for the address {address} of {written}: {error}");
                // With time for what comes after.
                manager.starting(&status, pause + Duration::from_secs(30));
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

/// The inherited sockets; else one socket a core. Where nobody chose the address, a machine
/// without IPv6 gets 0.0.0.0.
pub(super) fn udp(
    inherited: &mut Vec<Socket>,
    config: &Config,
) -> Result<Vec<Arc<dyn Datagrams>>, BindError> {
    let address = config.udp_bind;
    let free = FreeBind::from(config.free_bind);
    if !inherited.is_empty() {
        return crate::udp::adopt(std::mem::take(inherited))
            .map_err(BindError::of("udp-bind", &"inherited"));
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let opened = crate::udp::open(address, count, free).or_else(|error| {
        if config.udp_bind_default && has_no_ipv6(&error) {
            crate::udp::open((Ipv4Addr::UNSPECIFIED, address.port()).into(), count, free)
        } else {
            Err(error)
        }
    });
    opened.map_err(BindError::of("udp-bind", &address))
}

/// A socket for STUN; on a machine without IPv6, at all addresses of IPv4 instead of all.
pub(super) fn stun(address: SocketAddr, free: FreeBind) -> Result<Arc<dyn Datagrams>, BindError> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
    let opened = crate::udp::open(address, 1, free).or_else(|error| {
        if address == everywhere && has_no_ipv6(&error) {
            crate::udp::open((Ipv4Addr::UNSPECIFIED, address.port()).into(), 1, free)
        } else {
            Err(error)
        }
    });
    let opened = opened.map(|sockets| sockets.into_iter().next().expect("one was asked for"));
    opened.map_err(BindError::of("stun-bind", &address))
}

/// Whether the machine refuses an address of IPv6 since it has none.
fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// A listener for streams of peers, and its UDP port where its doors speak QUIC as well.
pub(super) struct Ports {
    pub(super) listener: Listener,
    pub(super) quic: Option<quic::Port>,
}

/// Attempts at a port that is free over TCP and UDP, where any will do.
const TRIES: usize = 16;

/// The listeners: each inherited, or else bound where its setting says.
pub(super) async fn listeners(
    patience: &Patience<'_>,
    inherited: &mut Sockets,
    listeners: &[(config::Listener, Option<Acceptor>)],
    free: FreeBind,
) -> Result<Vec<Ports>, StartError> {
    let mut bound = Vec::new();
    for (one, acceptor) in listeners {
        let protocols = one.quic_protocols();
        let tls = acceptor.as_ref().filter(|_| !protocols.is_empty());
        let tls = tls.map(|acceptor| acceptor.for_quic(&protocols)).transpose()?;
        bound.push(ports(patience, inherited, one, tls, free).await?);
    }
    Ok(bound)
}

/// One listener, with the UDP port at its address where there is TLS for it.
async fn ports(
    patience: &Patience<'_>,
    inherited: &mut Sockets,
    config: &config::Listener,
    tls: Option<Arc<ServerConfig>>,
    free: FreeBind,
) -> Result<Ports, StartError> {
    let mut handed = inherited.take_for(config);
    let mut handed_quic = inherited.take_quic_for(config);
    let is_any_port = matches!(config.bind, WssBind::Tcp(address) if address.port() == 0);
    let mut tries = if is_any_port && handed.is_none() { TRIES } else { 1 };
    loop {
        let listener = patience.bind(|| listener(handed.take(), config, free)).await?;
        // A Unix socket has no UDP port.
        let Some((tls, address)) = tls.as_ref().zip(listener.address()) else {
            return Ok(Ports { listener, quic: None });
        };
        let open = || {
            let tls = Arc::clone(tls);
            let port = match handed_quic.take() {
                Some(socket) => quic::Port::adopt(socket, tls),
                None => quic::Port::open(address, free, tls),
            };
            port.map_err(BindError::of(config.setting.clone(), &format!("{address} over UDP")))
        };
        tries -= 1;
        match patience.bind(open).await {
            Ok(port) => return Ok(Ports { listener, quic: Some(port) }),
            Err(StartError::Bind(BindError { error, .. }))
                if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

fn listener(
    inherited: Option<Inherited>,
    config: &config::Listener,
    free: FreeBind,
) -> Result<Listener, BindError> {
    let listener = match (inherited, &config.bind) {
        (Some(Inherited { socket, kind: Kind::Unix, .. }), _) => Listener::adopt_unix(socket),
        (Some(Inherited { socket, .. }), _) => Listener::adopt_tcp(socket),
        (None, WssBind::Tcp(address)) => Listener::tcp_at(*address, free).or_else(|error| {
            let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
            // That of a relay with names and nothing else, and what replaces another server's
            // listener, which takes `:443` on every machine.
            let is_default = address.port() == HTTPS && !config.acme.is_empty();
            let may_be_ipv4 = is_default || config.is_of_one_door();
            if *address == everywhere && may_be_ipv4 && has_no_ipv6(&error) {
                Listener::tcp_at((Ipv4Addr::UNSPECIFIED, address.port()).into(), free)
            } else {
                Err(error)
            }
        }),
        (None, WssBind::Unix(path)) => Listener::unix(path),
    };
    listener.map_err(BindError::of(config.setting.clone(), &config.bind))
}

/// A listener for operators, and its address.
type Operators = (TcpListener, SocketAddr);

/// The inherited listener, else that of the setting.
pub(super) fn admin(
    inherited: &mut Option<Socket>,
    config: &Config,
) -> Result<Operators, BindError> {
    operators("admin-bind", config.admin_bind, inherited, config)
}

/// The listener of those who ask for health.
pub(super) fn health(address: SocketAddr, config: &Config) -> Result<Operators, BindError> {
    operators("netbird-health-bind", address, &mut None, config)
}

fn operators(
    setting: &'static str,
    address: SocketAddr,
    inherited: &mut Option<Socket>,
    config: &Config,
) -> Result<Operators, BindError> {
    let mut open = || -> io::Result<_> {
        let listener: std::net::TcpListener = match inherited.take() {
            Some(socket) => socket.into(),
            None => listen_everywhere(address, config.free_bind.into())?.into(),
        };
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, bound))
    };
    open().map_err(BindError::of(setting, &address))
}

/// Listens on an address for operators; at all of IPv4 where the machine has no IPv6, and all are
/// asked for.
fn listen_everywhere(address: SocketAddr, free: FreeBind) -> io::Result<Socket> {
    listen(address, free).or_else(|error| {
        if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into(), free)
        } else {
            Err(error)
        }
    })
}

/// Listens on an address for operators.
fn listen(address: SocketAddr, free: FreeBind) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As the standard library does.
    socket.set_reuse_address(true)?;
    bind(&socket, address, free)?;
    socket.listen(ADMIN_BACKLOG)?;
    Ok(socket)
}
