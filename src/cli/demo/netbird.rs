//! The listener for NetBird's clients that the demo's relay has besides: its certificate and its
//! secret, which last as long as the demo.

use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use sha2::{Digest as _, Sha256};

use super::TemporaryState;
use super::access::new_secret;
use crate::client::netbird::{Client, Credential, Options, PeerId, Transport};
use crate::ids::NodeId;
use crate::net::tls::Trust;

/// The files of the listener.
pub(super) struct Files {
    folder: TemporaryState,
    secret: String,
    fingerprint: [u8; 32],
}

impl Files {
    /// Makes a certificate for this machine alone, and a secret.
    pub(super) fn create() -> anyhow::Result<Self> {
        let folder = TemporaryState::create().context("cannot make a temporary folder")?;
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()])
                .context("cannot make a certificate")?;
        let secret = new_secret()?;
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("cert.pem", cert.pem())?;
        write("key.pem", signing_key.serialize_pem())?;
        write("secret", secret.clone())?;
        let fingerprint = Sha256::digest(cert.der()).into();
        Ok(Self { folder, secret, fingerprint })
    }

    /// The settings of the listener.
    pub(super) fn settings(&self) -> [(&'static str, String); 5] {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("netbird_bind", "127.0.0.1:0".to_owned()),
            ("netbird_tls_cert", path("cert.pem")),
            ("netbird_tls_key", path("key.pem")),
            ("netbird_auth_secret_file", path("secret")),
            // Whom it is told goes nowhere by it.
            ("netbird_exposed_address", "rels://127.0.0.1:443".to_owned()),
        ]
    }

    /// How clients find it at its address.
    pub(super) fn site(&self, address: SocketAddr) -> Site {
        let trust = Trust::Fingerprint(self.fingerprint);
        Site { url: format!("rels://{address}"), secret: self.secret.clone(), trust }
    }
}

/// A listener for NetBird's clients, as these know it.
#[derive(Clone)]
pub struct Site {
    url: String,
    secret: String,
    trust: Trust,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Site {
    /// Logs a client in that goes by a node's number.
    pub(super) async fn connect(
        &self,
        transport: Transport,
        node: NodeId,
    ) -> anyhow::Result<Client> {
        let secret = Credential::Secret(self.secret.clone());
        let mut options = Options::new(&self.url, peer(node), secret);
        options.transport = transport;
        options.trust = self.trust.clone();
        Ok(Client::connect(&options).await?)
    }
}

/// The id of a client that goes by a node's number.
pub(super) fn peer(node: NodeId) -> PeerId {
    PeerId::of_name(&node.to_string())
}
