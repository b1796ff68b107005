//! Logins with TLS for benches/counts.rs: both sides in one process, the servers on the thread
//! that is counted.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use beacon_wire::ids::{NodeId, PublicKey};
use rustls::{ClientConfig, ServerConfig};

use crate::connections::Signed;
use crate::floor;
use crate::peer::{Node, log_in_with_tls};
use crate::tls::Certificate;

/// A node that logs in, and its key.
#[must_use]
pub fn node(number: u32) -> (NodeId, PublicKey) {
    let node = Node::new(number);
    (node.id, node.public_key())
}

/// The clients.
#[derive(Clone, Debug)]
pub struct Clients(Arc<ClientConfig>);

impl Clients {
    /// Clients of servers that show this certificate.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn of(certificate: &Certificate) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(certificate.client()?)))
    }

    /// Logs so many nodes in, one after the other; each leaves before the next comes.
    ///
    /// # Errors
    /// A node is not let in.
    pub fn log_in(&self, server: SocketAddr, count: u32) -> anyhow::Result<()> {
        (1..=count)
            .try_for_each(|number| log_in_with_tls(server, &self.0, &Node::new(number)).map(drop))
    }
}

/// The floor with TLS, and one verification for each login.
#[derive(Debug)]
pub struct Floor {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Floor {
    /// A floor on a free port that shows the certificate of this folder.
    ///
    /// # Errors
    /// The certificate cannot be read, or no port be bound.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let config = Arc::new(Certificate::in_folder(folder).server()?);
        Ok(Self { listener: TcpListener::bind(("127.0.0.1", 0))?, config })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves so many logins.
    ///
    /// # Errors
    /// A client does not log in.
    pub fn serve(&self, count: u32) -> anyhow::Result<()> {
        let signed = Signed::new();
        for _ in 0..count {
            let (stream, _) = self.listener.accept()?;
            let (peer, _) = floor::accept(stream, Some(&self.config)).context("no login")?;
            signed.verify();
            peer.welcome()?;
        }
        Ok(())
    }
}
