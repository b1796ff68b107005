//! TLS of the links: each side shows its Ed25519 key as a raw public key (RFC 7250) and
//! signs the handshake with it.
//!
//! Which keys may link is decided here when there is an allow list, and by the hello's MAC
//! when there is a secret. Signatures are checked by rustls' own functions. TLS 1.3 only, no
//! tickets and no early data, so every link is a fresh handshake of both keys.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use quinn::Connection;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};

use super::tcp;
use crate::ids::{PublicKey, RelayId};

/// The protocol that both sides must offer.
const ALPN: &[u8] = b"beacon-cluster/1";

/// rustls asks for a name to dial; keys have none, and it is not sent.
pub(super) const SERVER_NAME: &str = "cluster.invalid";

/// DER of a SubjectPublicKeyInfo before the 32 bytes of an Ed25519 key (RFC 8410 §4).
const SPKI_HEAD: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// DER of a PKCS#8 private key before the 32 bytes of an Ed25519 seed (RFC 8410 §7).
const PKCS8_HEAD: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Our key as rustls takes it.
///
/// # Errors
/// The provider refuses the key.
pub(super) fn certified(key: &SigningKey) -> Result<CertifiedKey, rustls::Error> {
    let seed = key.to_bytes();
    let signer = [PKCS8_HEAD, &seed].concat();
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(signer))?;
    let public = [SPKI_HEAD, &crate::cluster::relay_id(key).0.0].concat();
    Ok(CertifiedKey::new(vec![CertificateDer::from(public)], signer))
}

/// Who may show a key.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Empty where every key may: the hello decides then.
    allow: Vec<RelayId>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Lets the listed relays pass, and `own`: that an address leads to ourselves is told
    /// apart after the handshake. An empty list lets every key pass.
    pub(super) fn new(own: RelayId, mut allow: Vec<RelayId>) -> Arc<Self> {
        if !allow.is_empty() {
            allow.push(own);
        }
        Arc::new(Self { allow, provider: Arc::new(aws_lc_rs::default_provider()) })
    }

    fn check(&self, key: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let relay = from_spki(key).ok_or(CertificateError::BadEncoding)?;
        if self.allow.is_empty() || self.allow.contains(&relay) {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

const NO_TLS12: rustls::Error =
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// TLS of the links that we dial.
///
/// # Errors
/// The provider lacks what QUIC needs.
pub(super) fn client(
    verifier: &Arc<Verifier>,
    key: Arc<CertifiedKey>,
) -> Result<QuicClientConfig, TlsError> {
    Ok(client_of(ALPN, verifier, key)?.try_into()?)
}

/// TLS of the links that others dial.
///
/// # Errors
/// The provider lacks what QUIC needs.
pub(super) fn server(
    verifier: &Arc<Verifier>,
    key: Arc<CertifiedKey>,
) -> Result<QuicServerConfig, TlsError> {
    Ok(server_of(ALPN, verifier, key)?.try_into()?)
}

/// TLS of lanes over TCP.
///
/// # Errors
/// The provider lacks what we ask of it.
pub(super) fn lanes(
    verifier: &Arc<Verifier>,
    key: Arc<CertifiedKey>,
) -> Result<tcp::Configs, TlsError> {
    let client = client_of(tcp::ALPN, verifier, Arc::clone(&key))?;
    let server = server_of(tcp::ALPN, verifier, key)?;
    Ok(tcp::Configs { client: Arc::new(client), server: Arc::new(server) })
}

fn client_of(
    protocol: &[u8],
    verifier: &Arc<Verifier>,
    key: Arc<CertifiedKey>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

fn server_of(
    protocol: &[u8],
    verifier: &Arc<Verifier>,
    key: Arc<CertifiedKey>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::clone(verifier) as Arc<dyn ClientCertVerifier>)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TlsError {
    /// The provider does not support what we ask of it.
    #[error(transparent)]
    Provider(#[from] rustls::Error),
    /// The provider lacks the cipher of QUIC's first packets.
    #[error(transparent)]
    Initial(#[from] NoInitialCipherSuite),
}

/// The relay whose key the other side of `connection` has proved to own; `None` before the
/// handshake is complete.
pub(super) fn proven(connection: &Connection) -> Option<RelayId> {
    let identity = connection.peer_identity()?;
    from_spki(identity.downcast_ref::<Vec<CertificateDer<'static>>>()?.first()?)
}

/// The relay whose key this is.
pub(super) fn from_spki(key: &CertificateDer<'_>) -> Option<RelayId> {
    let key = key.as_ref().strip_prefix(SPKI_HEAD)?;
    Some(RelayId(PublicKey(key.try_into().ok()?)))
}
