//! The way into a listener of ours from this very process, with an address that tells such a
//! connection from all others.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, UnixStream};
use tokio_rustls::TlsConnector;

use super::options::Wish;
use super::udp::canonical;

/// A stream to a listener.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// Where a listener is reached.
#[derive(Clone, Debug)]
pub enum Entrance {
    /// At this address of this machine.
    Tcp(SocketAddr),
    /// At this name.
    Unix(SockAddr),
}

/// The address of one end of a connection; nobody else has it while that end is open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin(SockAddr);

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        Self(canonical(address).into())
    }
}

impl From<SockAddr> for Origin {
    fn from(address: SockAddr) -> Self {
        Self(address)
    }
}

/// A socket that has its address and is about to connect.
#[derive(Debug)]
pub struct Dialling {
    socket: Bound,
    origin: Origin,
    tls: Option<Arc<ClientConfig>>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpSocket, SocketAddr),
    Unix(Socket, SockAddr),
}

impl Entrance {
    /// The way into a TCP listener; one of a wildcard is reached over loopback.
    #[must_use]
    pub fn tcp(bound: SocketAddr, only_v6: bool) -> Self {
        let ip = match bound {
            SocketAddr::V6(v6) if v6.ip().is_unspecified() && only_v6 => Ipv6Addr::LOCALHOST.into(),
            // A wildcard takes IPv4 as well, and not every machine has an IPv6 loopback.
            _ if bound.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V4(_) | SocketAddr::V6(_) => bound.ip(),
        };
        let mut address = bound;
        address.set_ip(ip);
        Self::Tcp(address)
    }

    /// A socket for it, whose address is known before the listener can see it. Must be called
    /// within the runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn dial(&self) -> io::Result<Dialling> {
        match self {
            Self::Tcp(to) => {
                let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                let mut from = *to;
                from.set_port(0);
                socket.bind(from)?;
                let origin = socket.local_addr()?.into();
                Ok(Dialling { socket: Bound::Tcp(socket, *to), origin, tls: None })
            }
            Self::Unix(to) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                // A name that is no file, and that nobody else has.
                let name = format!("\0beacon-relay-{:016x}", getrandom::u64()?);
                socket.bind(&SockAddr::unix(name)?)?;
                let origin = socket.local_addr()?.into();
                let socket = Bound::Unix(socket, to.clone());
                Ok(Dialling { socket, origin, tls: None })
            }
        }
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(to) => to.fmt(f),
            Self::Unix(to) => match to.as_pathname() {
                Some(path) => write!(f, "unix:{}", path.display()),
                None => f.write_str("a Unix socket without a path"),
            },
        }
    }
}

impl Dialling {
    /// What the listener will see the connection come from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The same, with TLS over it.
    #[must_use]
    pub fn over_tls(self, config: Arc<ClientConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// Connects, and makes the handshake where there is TLS.
    ///
    /// # Errors
    /// What the system or TLS says; `WouldBlock` where the backlog of a Unix socket is full.
    pub async fn connect(self) -> io::Result<Box<dyn Duplex>> {
        let stream: Box<dyn Duplex> = match self.socket {
            Bound::Tcp(socket, to) => {
                let stream = socket.connect(to).await?;
                Wish::NoDelay.settle(stream.set_nodelay(true));
                Box::new(stream)
            }
            Bound::Unix(socket, to) => {
                socket.connect(&to)?;
                Box::new(UnixStream::from_std(socket.into())?)
            }
        };
        let Some(config) = self.tls else { return Ok(stream) };
        // Of an address there is no server name to send, and none is checked.
        let name = IpAddr::V4(Ipv4Addr::LOCALHOST).into();
        Ok(Box::new(TlsConnector::from(config).connect(name, stream).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listener::Listener;

    /// What a listener sees a connection of ours come from, beside what we know of it.
    async fn origins(listener: &Listener) -> (Origin, Origin) {
        let dialling = listener.entrance().unwrap().dial().unwrap();
        let known = dialling.origin().clone();
        let _stream = dialling.connect().await.unwrap();
        (listener.accept().await.unwrap().origin().unwrap(), known)
    }

    #[tokio::test]
    async fn listener_sees_the_address_that_was_known_before() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = Listener::tcp(address.parse().unwrap()).unwrap();
            let (seen, known) = origins(&listener).await;
            assert_eq!(seen, known, "{address}");
            assert_ne!(origins(&listener).await.0, known);
        }
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::unix(&folder.path().join("relay.sock")).unwrap();
        let (seen, known) = origins(&listener).await;
        assert_eq!(seen, known);
        assert_ne!(origins(&listener).await.0, known);
    }

    #[test]
    fn wildcard_is_reached_over_the_loopback_that_it_takes() {
        for (bound, only_v6, reached) in [
            ("0.0.0.0:7", false, "127.0.0.1:7"),
            ("[::]:7", false, "127.0.0.1:7"),
            ("[::]:7", true, "[::1]:7"),
            ("192.0.2.1:7", false, "192.0.2.1:7"),
        ] {
            let entrance = Entrance::tcp(bound.parse().unwrap(), only_v6);
            assert!(matches!(entrance, Entrance::Tcp(to) if to == reached.parse().unwrap()));
        }
    }
}
