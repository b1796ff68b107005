//! Binds the addresses of the configuration.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use socket2::Socket;
use tokio::net::TcpListener;

use crate::config::{Config, WssBind};
use crate::net::inherited::{Inherited, Kind};
use crate::net::listener::Listener;
use crate::net::udp::Datagrams;

/// An address that cannot be bound to.
#[derive(Debug, thiserror::Error)]
#[error("{setting} = {address}: {error}")]
pub struct BindError {
    /// The flag, without its dashes.
    pub setting: &'static str,
    /// The address.
    pub address: String,
    /// What the system said.
    pub error: io::Error,
}

impl BindError {
    pub(super) fn of<A: ToString>(
        setting: &'static str,
        address: &A,
    ) -> impl FnOnce(io::Error) -> Self {
        let address = address.to_string();
        move |error| Self { setting, address, error }
    }
}

/// The inherited sockets; else one socket a core. Where nobody chose the address, a machine
/// without IPv6 gets 0.0.0.0.
pub(super) fn udp(
    inherited: Vec<Socket>,
    config: &Config,
) -> Result<Vec<Arc<dyn Datagrams>>, BindError> {
    let address = config.udp_bind;
    if !inherited.is_empty() {
        return crate::udp::adopt(inherited).map_err(BindError::of("udp-bind", &"inherited"));
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let opened = crate::udp::open(address, count).or_else(|error| {
        let no_ipv6 =
            matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
        if config.udp_bind_default && no_ipv6 {
            crate::udp::open((Ipv4Addr::UNSPECIFIED, address.port()).into(), count)
        } else {
            Err(error)
        }
    });
    opened.map_err(BindError::of("udp-bind", &address))
}

/// The inherited listener, else that of the setting.
pub(super) fn wss(inherited: Option<Inherited>, bind: &WssBind) -> Result<Listener, BindError> {
    let listener = match (inherited, bind) {
        (Some(Inherited { socket, kind: Kind::Unix, .. }), _) => Listener::adopt_unix(socket),
        (Some(Inherited { socket, .. }), _) => Listener::adopt_tcp(socket),
        (None, WssBind::Tcp(address)) => Listener::tcp(*address),
        (None, WssBind::Unix(path)) => Listener::unix(path),
    };
    listener.map_err(BindError::of("wss-bind", bind))
}

/// The inherited listener, else that of the setting.
pub(super) fn admin(
    inherited: Option<Socket>,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let bind = || {
        let listener = match inherited {
            Some(socket) => socket.into(),
            None => std::net::TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, bound))
    };
    bind().map_err(BindError::of("admin-bind", &address))
}
