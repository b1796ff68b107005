//! Answers to the challenges of ACME authorities by TLS-ALPN-01 (RFC 8737).
//!
//! Only a client that offers `acme-tls/1` and nothing else, for a name whose challenge is pending,
//! gets the certificate of the challenge, and the connection ends with the handshake. While no
//! challenge is pending, listeners do not know the protocol at all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Certificates, HTTP, provider};

/// The protocol of challenges.
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// The challenges that are pending, of all listeners.
#[derive(Debug, Default)]
pub struct Challenges(ArcSwap<Vec<Pending>>);

#[derive(Clone, Debug)]
struct Pending {
    name: String,
    certificate: Arc<CertifiedKey>,
}

/// Why a challenge cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of a challenge cannot be made: {0}")]
pub struct ChallengeError(Box<dyn std::error::Error + Send + Sync>);

/// Answers a challenge for as long as this lives.
#[derive(Debug)]
#[must_use = "the challenge is answered for as long as this lives"]
pub struct Answer {
    challenges: Arc<Challenges>,
    certificate: Arc<CertifiedKey>,
}

impl Challenges {
    /// Answers the challenge for a name, in lower case, by the digest of its key authorization.
    ///
    /// # Errors
    /// The certificate of the challenge cannot be made.
    pub fn answer(self: &Arc<Self>, name: &str, digest: &[u8]) -> Result<Answer, ChallengeError> {
        let certificate = Arc::new(certificate(name, digest)?);
        let pending = Pending { name: name.to_owned(), certificate: Arc::clone(&certificate) };
        self.0.rcu(|before| {
            let mut all = Vec::clone(before);
            all.push(pending.clone());
            all
        });
        Ok(Answer { challenges: Arc::clone(self), certificate })
    }

    /// Whether none is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    fn of(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let all = self.0.load();
        // The last is that of the latest order.
        let pending = all.iter().rev().find(|pending| pending.name.eq_ignore_ascii_case(name))?;
        Some(Arc::clone(&pending.certificate))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let is_other = |pending: &&Pending| !Arc::ptr_eq(&pending.certificate, &self.certificate);
        self.challenges.0.rcu(|all| all.iter().filter(is_other).cloned().collect::<Vec<_>>());
    }
}

/// The certificate that proves the name: signed by itself, with the digest in an extension.
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, ChallengeError> {
    let made = || -> Result<_, rcgen::Error> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate: CertificateDer<'static> = params.self_signed(&key)?.into();
        Ok((certificate, key.serialize_der()))
    };
    let (certificate, key) = made().map_err(|error| ChallengeError(error.into()))?;
    let key = PrivateKeyDer::try_from(key).map_err(|error| ChallengeError(error.into()))?;
    // The library's own check of the two knows no such extension, which is critical.
    let key = provider().key_provider.load_private_key(key);
    let key = key.map_err(|error| ChallengeError(error.into()))?;
    Ok(CertifiedKey::new(vec![certificate], key))
}

/// Resolves while a challenge is pending.
#[derive(Debug)]
pub(super) struct WhilePending {
    pub(super) challenges: Arc<Challenges>,
    pub(super) certificates: Arc<Certificates>,
}

impl ResolvesServerCert for WhilePending {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = || hello.alpn().into_iter().flatten();
        if !offered().any(|protocol| protocol == ACME_TLS) {
            return self.certificates.resolve(hello);
        }
        if offered().any(|protocol| protocol == HTTP) {
            // That is what it gets: it stands first in ours.
            return self.certificates.resolve(hello);
        }
        let is_alone = offered().count() == 1;
        hello.server_name().filter(|_| is_alone).and_then(|name| self.challenges.of(name))
    }
}
