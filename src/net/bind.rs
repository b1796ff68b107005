//! Binds sockets, also to addresses that the machine does not have yet.

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

/// Whether an address must be the machine's own at the moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FreeBind {
    /// It must.
    #[default]
    Off,
    /// It may come later, or move here from another machine (IP_FREEBIND).
    On,
}

impl From<bool> for FreeBind {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// Binds a socket to an address.
///
/// # Errors
/// What the kernel says; `Unsupported` where it cannot bind freely.
pub fn bind(socket: &Socket, address: SocketAddr, free: FreeBind) -> io::Result<()> {
    if free == FreeBind::On {
        allow_any(socket, address)?;
    }
    socket.bind(&address.into())
}

#[cfg(target_os = "linux")]
fn allow_any(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) }
}

#[cfg(not(target_os = "linux"))]
fn allow_any(_socket: &Socket, _address: SocketAddr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether this error says that the address, or its interface, is not there, which may change.
#[must_use]
pub fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::ENODEV)
}
