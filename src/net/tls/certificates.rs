//! The certificates of a listener, exchanged while it serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of a listener, the one for clients that name no server first.
#[derive(Debug)]
pub struct Certificates(ArcSwap<Vec<Arc<CertifiedKey>>>);

impl Certificates {
    /// These, one at least.
    #[must_use]
    pub fn new(certificates: Vec<Arc<CertifiedKey>>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(certificates)))
    }

    /// The certificate that a client gets which names no server.
    pub(super) fn first(&self) -> Option<CertificateDer<'static>> {
        self.0.load().first().and_then(|first| first.cert.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that is for the name and whose key the client can check, else the first for the
    /// name, else the first.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        let first = certificates.first()?;
        if certificates.len() == 1 {
            return Some(Arc::clone(first));
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let suits = |certificate: &&Arc<CertifiedKey>| {
            certificate.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let named = certificates
            .iter()
            .filter(|certificate| name.as_ref().is_some_and(|name| is_for(certificate, name)));
        let chosen = named.clone().find(suits).or_else(|| named.clone().next());
        Some(Arc::clone(chosen.unwrap_or(first)))
    }
}

/// Whether a certificate is for this name.
fn is_for(certificate: &CertifiedKey, name: &ServerName<'_>) -> bool {
    certificate.cert.first().is_some_and(|certificate| {
        ParsedCertificate::try_from(certificate)
            .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    })
}
