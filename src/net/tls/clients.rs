//! The certificates of clients: which authorities sign them, which are revoked, and who has one.
//!
//! What is checked is the library's: the chain, the times, what the key is for, the lists of
//! revocations. Beyond that a client is who the one common name of its certificate says
//! ([`Certified`]). Authorities and lists are exchanged while the listener serves, and nobody is
//! disconnected but who has been revoked: whoever keeps a [`Certified`] asks it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::provider;
use crate::wire::certificate::Certificate;

/// The authorities that sign the certificates of clients, and what they have revoked.
#[derive(Debug)]
pub struct Authorities {
    roots: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

/// Why authorities, or their lists, are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthoritiesError {
    /// A certificate among the authorities cannot be one.
    #[error("not an authority: {0}")]
    Root(Error),
    /// A list of revocations cannot be read, or there is no authority.
    #[error(transparent)]
    Lists(#[from] VerifierBuilderError),
}

impl Authorities {
    /// These authorities. Where there are lists, a certificate whose authority has none is refused.
    #[must_use]
    pub const fn new(
        roots: Vec<CertificateDer<'static>>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
    ) -> Self {
        Self { roots, revoked }
    }

    fn judge(self) -> Result<Judge, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for root in self.roots {
            roots.add(root).map_err(AuthoritiesError::Root)?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
        Ok(Judge(builder.with_crls(self.revoked).build()?))
    }
}

/// What judges certificates at this moment.
#[derive(Debug)]
struct Judge(Arc<dyn ClientCertVerifier>);

/// The authorities of a listener's clients, exchanged while it serves.
#[derive(Debug)]
pub struct Clients(ArcSwap<Judge>);

impl Clients {
    /// Certificates of these authorities are taken.
    ///
    /// # Errors
    /// They are of no use.
    pub fn new(authorities: Authorities) -> Result<Arc<Self>, AuthoritiesError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(authorities.judge()?))))
    }

    /// Takes those of these from here on; who is connected stays, unless it is
    /// [revoked](Certified::is_revoked).
    ///
    /// # Errors
    /// They are of no use; those before stay.
    pub fn exchange(&self, authorities: Authorities) -> Result<(), AuthoritiesError> {
        self.0.store(Arc::new(authorities.judge()?));
        Ok(())
    }

    fn verify(&self, chain: &[CertificateDer<'_>], at: UnixTime) -> Result<(), Error> {
        let Some((end, intermediates)) = chain.split_first() else {
            return Err(Error::NoCertificatesPresented);
        };
        self.0.load().0.verify_client_cert(end, intermediates, at).map(drop)
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client has one certificate, and shows it whoever may have signed it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.load().0.verify_client_cert(end_entity, intermediates, now)?;
        let named = Certificate::parse(end_entity).and_then(|read| read.common_name());
        let unnamed = |error| CertificateError::Other(OtherError(Arc::new(error)));
        named.map_err(unnamed)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.load().0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.load().0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().0.supported_verify_schemes()
    }
}

/// Who a client has proved to be, by a certificate that was good when it came.
#[derive(Debug)]
pub struct Certified {
    name: Arc<str>,
    chain: Box<[CertificateDer<'static>]>,
    at: UnixTime,
    clients: Arc<Clients>,
}

impl Certified {
    /// By the chain of a handshake that has just succeeded.
    pub(super) fn new(chain: &[CertificateDer<'static>], clients: &Arc<Clients>) -> Option<Self> {
        let name = Certificate::parse(chain.first()?).and_then(|read| read.common_name()).ok()?;
        Some(Self {
            name: name.into(),
            chain: chain.into(),
            at: UnixTime::now(),
            clients: Arc::clone(clients),
        })
    }

    /// The common name of its certificate.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether its certificate has been revoked since it came. One that has ended since, or whose
    /// authority is not taken any more, is good until the connection ends.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        let revoked = Error::InvalidCertificate(CertificateError::Revoked);
        self.clients.verify(&self.chain, self.at) == Err(revoked)
    }
}
