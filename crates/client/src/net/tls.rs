//! TLS of the connections that we open: whom a server's certificate has to satisfy.
//!
//! Configuration only; the handshake is the caller's. The cryptography provider is
//! passed explicitly, since the process default panics when two are compiled in.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest as _, Sha256};

use crate::wire::mark::MARK;

/// Most that is read of a PEM file, in bytes: a hundred times what systems have.
const MAX_PEM: u64 = 16 << 20;

/// Which server certificates a connection accepts.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Trust {
    /// Those of the platform's certificate authorities, for the name that was dialled.
    System,
    /// Those of the authorities in this PEM file, for the name that was dialled.
    CaFile(PathBuf),
    /// The one certificate with this SHA-256 of its DER form, whatever its name and dates.
    Fingerprint([u8; 32]),
}

/// Makes the client configuration for `trust`: TLS 1.2 and 1.3, no client certificate.
///
/// Reads the authorities from disk, so it blocks.
///
/// # Errors
/// A CA file that cannot be read or holds no usable certificate; a platform without any.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let config = match trust {
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::CaFile(path) => builder.with_root_certificates(file_roots(path)?),
        Trust::Fingerprint(fingerprint) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pin {
                fingerprint: *fingerprint,
                provider,
            }))
        }
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

/// The platform's certificate authorities.
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Platform stores hold a few certificates that webpki cannot use; one good one is enough.
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

/// The certificate authorities in a PEM file.
///
/// # Errors
/// A file that cannot be read or holds no usable certificate.
pub fn file_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let text = read_pem(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| TlsError::from_pem(path, error))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|source| TlsError::BadCertificate { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// The text of a PEM file.
pub(crate) fn read_pem(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM).read_to_end(&mut text))
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    // Behind a mark, the first certificate would be overlooked.
    if text.starts_with(MARK.as_bytes()) {
        text.drain(..MARK.len());
    }
    Ok(text)
}

/// Accepts one certificate by its fingerprint. The peer must still prove that it has the
/// certificate's key: the handshake signature goes through rustls' own checks.
#[derive(Debug)]
struct Pin {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found: [u8; 32] = Sha256::digest(end_entity).into();
        if found == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            let other = OtherError(Arc::new(OtherFingerprint(found)));
            Err(CertificateError::Other(other).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The server showed a certificate with this fingerprint instead of the pinned one.
struct OtherFingerprint([u8; 32]);

// rustls shows the cause of an invalid certificate in its debug form only.
impl fmt::Debug for OtherFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for OtherFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate's SHA-256 is ")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(", not the pinned one")
    }
}

impl std::error::Error for OtherFingerprint {}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The CA file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The CA file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The CA file is not PEM.
    #[error("{} is not PEM: {source}", path.display())]
    Pem {
        /// The CA file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The CA file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The CA file.
        path: PathBuf,
    },
    /// A certificate of the CA file cannot be used as an authority.
    #[error("{} holds an unusable certificate: {source}", path.display())]
    BadCertificate {
        /// The CA file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The platform has no usable authority.
    #[error("this system has no certificate authorities: name a CA file or a fingerprint")]
    NoSystemRoots,
    /// The provider does not support what we ask of it.
    #[error(transparent)]
    Provider(#[from] rustls::Error),
}

impl TlsError {
    pub(crate) fn from_pem(path: &Path, error: pem::Error) -> Self {
        let path = path.to_owned();
        if let pem::Error::Io(source) = error {
            Self::Read { path, source }
        } else {
            Self::Pem { path, source: error }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::ResolvesServerCert;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::*;

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn self_signed(key: &KeyPair) -> CertificateDer<'static> {
        let params = CertificateParams::new(["registry.test".to_owned()]).unwrap();
        params.self_signed(key).unwrap().into()
    }

    fn fingerprint(certificate: &CertificateDer<'_>) -> Trust {
        Trust::Fingerprint(Sha256::digest(certificate).into())
    }

    /// A server that shows `certificate` and signs with `key`, which may belong to another.
    fn server(
        certificate: CertificateDer<'static>,
        key: &KeyPair,
        version: &'static SupportedProtocolVersion,
    ) -> ServerConfig {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let resolver: Arc<dyn ResolvesServerCert> =
            Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(resolver)
    }

    /// Runs a handshake in memory; the client's verdict.
    fn handshake(trust: &Trust, server: ServerConfig, name: &str) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(client_config(trust).unwrap(), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn ca() -> (CertifiedIssuer<'static, KeyPair>, tempfile::TempDir, Trust) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, key()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        // As some editors write it, which hides the first certificate from who does not expect it.
        std::fs::write(&path, format!("\u{feff}{}", ca.pem())).unwrap();
        (ca, directory, Trust::CaFile(path))
    }

    #[test]
    fn pinned_certificate_is_accepted_under_any_name() {
        for version in [&TLS12, &TLS13] {
            let key = key();
            let certificate = self_signed(&key);
            let trust = fingerprint(&certificate);
            handshake(&trust, server(certificate, &key, version), "another.test").unwrap();
        }
    }

    #[test]
    fn certificate_with_another_fingerprint_is_refused() {
        let key = key();
        let other = fingerprint(&self_signed(&key));
        let error = handshake(&other, server(self_signed(&key), &key, &TLS13), "registry.test")
            .unwrap_err();
        assert!(error.to_string().contains("not the pinned one"), "{error}");
    }

    #[test]
    fn pinned_certificate_without_its_key_is_refused() {
        for version in [&TLS12, &TLS13] {
            let certificate = self_signed(&key());
            let trust = fingerprint(&certificate);
            let thief = server(certificate, &key(), version);
            let error = handshake(&trust, thief, "registry.test").unwrap_err();
            assert_eq!(
                error,
                rustls::Error::InvalidCertificate(CertificateError::BadSignature),
                "{version:?}"
            );
        }
    }

    #[test]
    fn ca_file_accepts_its_own_certificates_for_their_name_only() {
        let (ca, _directory, trust) = ca();
        let key = key();
        let params = CertificateParams::new(["registry.test".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = params.signed_by(&key, &ca).unwrap().into();
        let server = |certificate| server(certificate, &key, &TLS13);
        handshake(&trust, server(certificate.clone()), "registry.test").unwrap();
        handshake(&trust, server(certificate), "another.test").unwrap_err();
        handshake(&trust, server(self_signed(&key)), "registry.test").unwrap_err();
    }

    #[test]
    fn unusable_ca_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let trust = Trust::CaFile(path.clone());
        let error = client_config(&trust).unwrap_err();
        assert!(matches!(error, TlsError::Read { .. }), "{error:?}");
        for (text, expected) in [
            ("nothing of use\n", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "is not PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "holds an unusable certificate",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = client_config(&trust).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("ca.pem"), "{error}");
        }
    }
}
