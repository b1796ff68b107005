//! The certificates of a listener, exchanged while it serves.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};

use super::provider;

/// The last second of the year 9999, the last that a certificate can name.
const FAR: u64 = 253_402_300_799;

/// The certificates of a listener, the one for clients that name no server first.
#[derive(Debug)]
pub struct Certificates(ArcSwap<Shown>);

/// What new connections are shown.
#[derive(Debug)]
struct Shown {
    certificates: Vec<Arc<CertifiedKey>>,
    /// Found out once: a scrape parses nothing.
    ends: Vec<End>,
}

impl Certificates {
    /// These; without any, handshakes are refused.
    #[must_use]
    pub fn new(certificates: Vec<Arc<CertifiedKey>>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(Shown::new(certificates))))
    }

    /// Shows these from here on; connections that are there stay.
    pub fn exchange(&self, certificates: Vec<Arc<CertifiedKey>>) {
        self.0.store(Arc::new(Shown::new(certificates)));
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load().certificates.is_empty()
    }

    /// Whose each is, and when it ends.
    #[must_use]
    pub fn ends(&self) -> Vec<End> {
        self.0.load().ends.clone()
    }

    /// The certificate that a client gets which names no server.
    pub(super) fn first(&self) -> Option<CertificateDer<'static>> {
        let shown = self.0.load();
        shown.certificates.first().and_then(|first| first.cert.first()).cloned()
    }
}

impl Shown {
    fn new(certificates: Vec<Arc<CertifiedKey>>) -> Self {
        let ends = certificates.iter().filter_map(|certificate| end(certificate)).collect();
        Self { certificates, ends }
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that is for the name and whose key the client can check, else the first for the
    /// name, else the first.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = &self.0.load().certificates;
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

/// From when to when a certificate is good, and the names that it is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Term {
    /// The names, in the order in which it has them.
    pub names: Vec<String>,
    /// Unix time, in seconds.
    pub not_before: u64,
    /// Unix time, in seconds.
    pub not_after: u64,
}

/// The end of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End {
    /// The first name that it is for.
    pub name: String,
    /// From when on it is good: Unix time, in seconds.
    pub since: u64,
    /// Unix time, in seconds.
    pub at: u64,
}

/// The end of a certificate, and the first name that it is for.
fn end(certificate: &CertifiedKey) -> Option<End> {
    let Term { names, not_before, not_after } = Term::of(certificate)?;
    let name = names.into_iter().next().unwrap_or_default();
    Some(End { name, since: not_before, at: not_after })
}

impl Term {
    /// That of a certificate; `None` where the library cannot read it.
    ///
    /// Asked about a time when it is not good, the verifier names the end before it looks at who
    /// signed it; asked about a name that nobody has, the names.
    #[must_use]
    pub fn of(certificate: &CertifiedKey) -> Option<Self> {
        let leaf = certificate.cert.first()?;
        let mut roots = RootCertStore::empty();
        roots.add(leaf.clone()).ok()?;
        let judge = WebPkiServerVerifier::builder_with_provider(roots.into(), provider());
        let judge = judge.build().ok()?;
        let nobody = ServerName::try_from("nobody.invalid").ok()?;
        let parsed = ParsedCertificate::try_from(leaf).ok()?;
        let presented = match verify_server_name(&parsed, &nobody) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented,
                ..
            })) => presented,
            Ok(()) | Err(_) => Vec::new(),
        };
        // The library shows them as `DnsName("relay.example.org")`.
        let plain = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
        let names = presented.iter().map(plain).collect();
        let judged = |seconds| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            judge.verify_server_cert(leaf, &[], &nobody, &[], time)
        };
        let not_after = match judged(FAR) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => not_after.as_secs(),
            Ok(_) | Err(_) => return None,
        };
        let not_before = match judged(0) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => not_before.as_secs(),
            Ok(_) | Err(_) => 0,
        };
        Some(Self { names, not_before, not_after })
    }
}

/// Whether a certificate is for this name.
fn is_for(certificate: &CertifiedKey, name: &ServerName<'_>) -> bool {
    certificate.cert.first().is_some_and(|certificate| {
        ParsedCertificate::try_from(certificate)
            .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    })
}
