//! TLS, of the connections that we open and of those that we accept.
//!
//! What is accepted is served in process: [`Acceptor`] makes the handshake over any [`Stream`],
//! and what comes of it is a [`Stream`] again, whose idle connections own no buffers.
//!
//! [`Stream`]: super::Stream

mod certificates;
mod challenges;
mod clients;
mod engine;
mod records;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, Ticketer, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use sha2::{Digest as _, Sha256};

pub use beacon_client::net::tls::{TlsError, Trust, client_config, file_roots, system_roots};
pub use certificates::{Certificates, End, Term};
use challenges::{ACME_TLS, WhilePending};
pub use challenges::{Answer, ChallengeError, Challenges};
pub use clients::{Authorities, AuthoritiesError, Certified, Clients};
pub use engine::{Ciphertext, Engine};
pub use stream::{Failure, Kind, TlsStream};

use super::Stream;

/// Key exchanges in the order in which they are chosen: the one that withstands quantum
/// computers where the client has it.
const KEY_EXCHANGES: [&dyn SupportedKxGroup; 4] =
    [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// Tickets that a client of TLS 1.3 gets: one, for the one connection that it makes next.
const TICKETS: usize = 1;

/// What is spoken in TLS.
const HTTP: &[u8] = b"http/1.1";

/// What is spoken by clients of gRPC.
const HTTP_2: &[u8] = b"h2";

/// What a listener speaks TLS with: 1.2 and 1.3, tickets, no early data, no client
/// certificates; or [with those](Self::with_clients), 1.3 alone, and no tickets.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    challenged: Option<Challenged>,
    clients: Option<Arc<Clients>>,
}

/// What a listener speaks TLS with while a challenge is pending.
#[derive(Clone, Debug)]
struct Challenged {
    config: Arc<ServerConfig>,
    challenges: Arc<Challenges>,
}

impl Acceptor {
    /// An acceptor that shows these certificates.
    ///
    /// # Errors
    /// The provider has no randomness for tickets.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider());
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as _);
        // Tickets hold the state, and nothing here does.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new()?;
        config.send_tls13_tickets = TICKETS;
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Self { config: Arc::new(config), certificates, challenged: None, clients: None })
    }

    /// An acceptor that shows these certificates, and takes only clients that have one themselves:
    /// TLS 1.3 alone, and no tickets, since each connection is to prove who it is.
    ///
    /// # Errors
    /// The provider lacks TLS 1.3.
    pub fn with_clients(
        certificates: Arc<Certificates>,
        clients: Arc<Clients>,
    ) -> Result<Self, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider());
        let mut config = builder
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&clients) as _)
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP.to_vec()];
        let config = Arc::new(config);
        Ok(Self { config, certificates, challenged: None, clients: Some(clients) })
    }

    /// What the same certificates are shown by over QUIC, to clients that ask for one of these
    /// protocols: TLS 1.3 alone, and no tickets, which its clients do not keep.
    ///
    /// # Errors
    /// The provider lacks TLS 1.3.
    pub fn for_quic(&self, protocols: &[&str]) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider());
        let mut config = builder
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.certificates) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The same, which answers these challenges as well.
    #[must_use]
    pub fn with_challenges(self, challenges: Arc<Challenges>) -> Self {
        // Tickets are of one key: who connects while a challenge is pending comes back later.
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols.push(ACME_TLS.to_vec());
        let certificates = Arc::clone(&self.certificates);
        let resolver = WhilePending { challenges: Arc::clone(&challenges), certificates };
        config.cert_resolver = Arc::new(resolver);
        let challenged = Some(Challenged { config: Arc::new(config), challenges });
        Self { challenged, ..self }
    }

    /// Makes the handshake with a client; the caller keeps the time.
    ///
    /// # Errors
    /// Why there is no connection; the client has been told as far as it listens.
    pub async fn accept(&self, stream: Box<dyn Stream>) -> Result<TlsStream, Failure> {
        let challenged = self.challenged.as_ref();
        let challenged = challenged.filter(|challenged| !challenged.challenges.is_empty());
        let config = challenged.map_or(&self.config, |challenged| &challenged.config);
        let clients = self.clients.as_ref();
        let accepted = TlsStream::accept(stream, Arc::clone(config), clients).await;
        match accepted {
            Ok(stream) if challenged.is_some() && stream.protocol_is(ACME_TLS) => {
                stream.shutdown_write();
                Err(Failure::Challenge)
            }
            // The library has no error of its own for that.
            Err(Failure::Tls(rustls::Error::General(_))) if self.certificates.is_empty() => {
                Err(Failure::NoCertificate)
            }
            Ok(_) | Err(_) => accepted,
        }
    }

    /// What our own client connects to this listener with: it trusts the certificate that the
    /// listener shows at this moment to who names no server, and no other.
    ///
    /// # Errors
    /// The listener has no certificate, or the provider lacks a version of TLS.
    pub fn own_client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let none = || rustls::Error::General("the listener has no certificate yet".to_owned());
        let own = self.certificates.first().ok_or_else(none)?;
        client_config(&Trust::Fingerprint(Sha256::digest(own).into()))
    }
}

/// The cryptography of the connections that we accept.
fn provider() -> Arc<CryptoProvider> {
    let kx_groups = KEY_EXCHANGES.to_vec();
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}
