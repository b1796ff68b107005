//! Where the registry is, and how a connection to it is made.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Failure, Problem};
use crate::directory::OpenError;
use crate::net::tls::{Trust, client_config};

/// How long name resolution, TCP and TLS may take together.
const DIAL: Duration = Duration::from_secs(3);

/// After how long without traffic the kernel checks that the registry is still there: a
/// NAT or firewall in between forgets idle connections without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) struct Target {
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Checks `host:port` and reads the certificates; blocks.
    pub(super) fn new(address: String, trust: Option<&Trust>) -> Result<Self, OpenError> {
        let invalid = || OpenError::RegistryAddress(address.clone());
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(invalid());
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| invalid())?;
        let tls = match trust {
            Some(trust) => Some((TlsConnector::from(client_config(trust)?), name)),
            None => None,
        };
        Ok(Self { address, tls })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn dial(&self) -> Result<Box<dyn Stream>, Problem> {
        timeout(DIAL, self.connect()).await.unwrap_or_else(|_| {
            Err(Problem::new(Failure::Connect, format!("no connection within {DIAL:?}")))
        })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Problem> {
        let failed = |error: io::Error| Problem::new(Failure::Connect, error);
        let stream = TcpStream::connect(&self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(failed)?;
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
            assert!(Target::new(address.to_owned(), None).is_ok(), "{address}");
        }
        for address in ["", "host", ":9000", "host:", "host:0", "host:65536", "a b:1", "[::1]"] {
            let error = Target::new(address.to_owned(), None).err();
            assert!(matches!(error, Some(OpenError::RegistryAddress(_))), "{address}");
        }
    }
}
