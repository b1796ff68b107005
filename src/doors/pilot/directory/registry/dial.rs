//! Where the registry is, and how a connection to it is made.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Failure, Problem};
use crate::doors::pilot::directory::OpenError;
use crate::net::dial::Destination;
use crate::net::options::Wish;
use crate::net::resolve::Resolver;
use crate::net::tls::{Trust, client_config};

/// How long name resolution, TCP and TLS may take together.
const DIAL: Duration = Duration::from_secs(3);

/// After how long without traffic the kernel checks that the registry is still there: a
/// NAT or firewall in between forgets idle connections without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection that was made.
pub(super) struct Dialled {
    pub(super) stream: Box<dyn Stream>,
    /// Whose it is, for [`Target::demote`].
    pub(super) address: Option<SocketAddr>,
}

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) struct Target {
    /// Takes the other end of each connection, in place of a network.
    #[cfg(test)]
    pub(super) memory: Option<tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>>,
    destination: Destination,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Checks `host:port` and reads the certificates; blocks.
    pub(super) fn new(address: &str, trust: Option<&Trust>) -> Result<Self, OpenError> {
        let invalid = || OpenError::RegistryAddress(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port > 0 && !host.is_empty());
        let port = port.ok_or_else(invalid)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| invalid())?;
        let tls = match trust {
            Some(trust) => Some((TlsConnector::from(client_config(trust)?), name)),
            None => None,
        };
        let destination = Destination::new(bare, port, Resolver::system());
        Ok(Self {
            #[cfg(test)]
            memory: None,
            destination,
            tls,
        })
    }

    /// A registry at whatever `destination` resolves to, over plain TCP.
    #[cfg(test)]
    pub(super) const fn at(destination: Destination) -> Self {
        Self { memory: None, destination, tls: None }
    }

    /// Has this address tried after the others, since it took a connection and answered nothing.
    pub(super) fn demote(&self, address: SocketAddr) {
        self.destination.demote(address);
    }

    pub(super) async fn dial(&self) -> Result<Dialled, Problem> {
        #[cfg(test)]
        if let Some(memory) = &self.memory {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            return match memory.send(theirs) {
                Ok(()) => Ok(Dialled { stream: Box::new(ours), address: None }),
                Err(_) => Err(Problem::new(Failure::Connect, "nobody listens")),
            };
        }
        let mut reached = None;
        let dialled = timeout(DIAL, self.connect(&mut reached)).await.unwrap_or_else(|_| {
            Err(Problem::new(Failure::Connect, format!("no connection within {DIAL:?}")))
        });
        match (dialled, reached) {
            (Ok(stream), address) => Ok(Dialled { stream, address }),
            (Err(problem), Some(address)) => {
                self.demote(address);
                Err(problem)
            }
            (Err(problem), None) => Err(problem),
        }
    }

    /// Connects; `reached` is the address that took a connection.
    async fn connect(&self, reached: &mut Option<SocketAddr>) -> Result<Box<dyn Stream>, Problem> {
        let failed = |error: io::Error| Problem::new(Failure::Connect, error);
        let stream = self.destination.connect().await.map_err(failed)?;
        *reached = stream.peer_addr().ok();
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        Wish::KeepAlive.settle(SockRef::from(&stream).set_tcp_keepalive(&keepalive));
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                Ok(Box::new(stream.map_err(|error| Problem::new(Failure::Tls, error))?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_needs_a_host_and_a_port() {
        for address in ["localhost:9000", "192.0.2.1:1", "[::1]:65535", "registry.example.net:9000"]
        {
            assert!(Target::new(address, None).is_ok(), "{address}");
        }
        for address in ["", "host", ":9000", "host:", "host:0", "host:65536", "a b:1", "[::1]"] {
            let error = Target::new(address, None).err();
            assert!(matches!(error, Some(OpenError::RegistryAddress(_))), "{address}");
        }
    }
}
