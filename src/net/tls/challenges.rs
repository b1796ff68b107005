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

#[cfg(test)]
mod tests {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
    use tokio::net::UnixStream;
    use tokio_rustls::TlsConnector;

    use super::super::tests::certificate as ordinary;
    use super::super::{Acceptor, Failure};
    use super::*;

    const DIGEST: [u8; 32] = [0xa5; 32];

    /// Trusts whatever it is shown, as an authority does.
    #[derive(Debug)]
    struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp_response: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    }

    /// What a client gets that offers these protocols for a name: the protocol and whether the
    /// certificate has the digest; and what the listener says of it.
    async fn ask(
        acceptor: &Acceptor,
        version: &'static SupportedProtocolVersion,
        name: &str,
        protocols: &[&[u8]],
    ) -> (Option<(Option<Vec<u8>>, bool)>, Result<(), Failure>) {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[version]).unwrap().dangerous();
        let builder = builder.with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, theirs);
        let (accepted, client) = tokio::join!(acceptor.accept(Box::new(ours)), connecting);
        let got = client.ok().map(|client| {
            let connection = client.get_ref().1;
            let shown = &connection.peer_certificates().unwrap()[0];
            let has_digest = shown.windows(DIGEST.len()).any(|bytes| bytes == DIGEST);
            (connection.alpn_protocol().map(<[u8]>::to_vec), has_digest)
        });
        (got, accepted.map(drop))
    }

    #[tokio::test]
    async fn challenge_is_answered_to_who_asks_for_nothing_else_and_for_no_other_name() {
        const H2: &[u8] = b"h2";
        for version in [&TLS12, &TLS13] {
            let challenges = Arc::<Challenges>::default();
            let acceptor = Acceptor::new(Certificates::new(vec![ordinary("a.test").0])).unwrap();
            let acceptor = acceptor.with_challenges(Arc::clone(&challenges));
            let (got, said) = ask(&acceptor, version, "a.test", &[ACME_TLS]).await;
            assert!(got.is_none() && matches!(said, Err(Failure::Tls(_))), "none is pending");

            let answer = challenges.answer("a.test", &DIGEST).unwrap();
            for name in ["a.test", "A.Test"] {
                let (got, said) = ask(&acceptor, version, name, &[ACME_TLS]).await;
                assert_eq!(got, Some((Some(ACME_TLS.to_vec()), true)), "{version:?} {name}");
                assert!(matches!(said, Err(Failure::Challenge)), "{said:?}");
            }
            for (name, protocols) in [
                ("b.test", &[ACME_TLS][..]),
                ("127.0.0.1", &[ACME_TLS]),
                ("a.test", &[ACME_TLS, H2]),
                ("a.test", &[H2, ACME_TLS]),
            ] {
                let (got, said) = ask(&acceptor, version, name, protocols).await;
                assert!(got.is_none() && matches!(said, Err(Failure::Tls(_))), "{name}: {got:?}");
            }
            // Everybody else is served as ever.
            for (protocols, chosen) in [
                (&[][..], None),
                (&[HTTP], Some(HTTP.to_vec())),
                (&[ACME_TLS, HTTP], Some(HTTP.to_vec())),
            ] {
                let (got, said) = ask(&acceptor, version, "a.test", protocols).await;
                assert_eq!(got, Some((chosen, false)), "{version:?} {protocols:?}");
                said.unwrap();
            }
            drop(answer);
            assert!(challenges.is_empty());
            assert!(ask(&acceptor, version, "a.test", &[ACME_TLS]).await.0.is_none());
        }
    }

    #[tokio::test]
    async fn listener_without_a_certificate_answers_challenges_and_nobody_else() {
        let challenges = Arc::<Challenges>::default();
        let acceptor = Acceptor::new(Certificates::new(Vec::new())).unwrap();
        let acceptor = acceptor.with_challenges(Arc::clone(&challenges));
        let refused = async || {
            let (got, said) = ask(&acceptor, &TLS13, "a.test", &[HTTP]).await;
            assert!(got.is_none() && matches!(said, Err(Failure::NoCertificate)), "{said:?}");
        };
        refused().await;
        let first = challenges.answer("a.test", &[1; 32]).unwrap();
        let second = challenges.answer("a.test", &DIGEST).unwrap();
        refused().await;
        let (got, _) = ask(&acceptor, &TLS13, "a.test", &[ACME_TLS]).await;
        assert_eq!(got, Some((Some(ACME_TLS.to_vec()), true)), "the latest order's");
        drop(second);
        let (got, _) = ask(&acceptor, &TLS13, "a.test", &[ACME_TLS]).await;
        assert_eq!(got, Some((Some(ACME_TLS.to_vec()), false)), "that of the one that is left");
        drop(first);
        assert!(acceptor.own_client().is_err());
    }
}
