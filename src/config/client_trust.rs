//! The authorities of a listener's clients: those that sign their certificates, and what these
//! authorities have revoked.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;

use super::certificate::{CERTIFICATES, certificates};
use super::small_file::contents;
use super::{Error, Layers, UnusablePair};

/// The files that say which clients' certificates are good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientTrust {
    /// The certificates of the authorities that sign them.
    pub ca: PathBuf,
    /// What they have revoked: a list of each of them.
    pub crl: Option<PathBuf>,
}

impl ClientTrust {
    /// That of two settings; none without authorities.
    pub(super) fn of(
        layers: &Layers,
        (ca_key, ca): (&str, &Option<PathBuf>),
        (crl_key, crl): (&str, &Option<PathBuf>),
    ) -> Result<Option<Self>, Error> {
        let Some(ca) = ca else {
            return match crl {
                Some(_) => Err(layers.refuse(crl_key, format!("needs {ca_key} as well"))),
                None => Ok(None),
            };
        };
        let trust = Self { ca: ca.clone(), crl: crl.clone() };
        trust.load().map_err(|UnusablePair { path, reason }| {
            let setting = if path == trust.ca { ca_key } else { crl_key };
            layers.refuse_file(setting, &path, reason)
        })?;
        Ok(Some(trust))
    }

    /// Reads the files; blocks.
    ///
    /// # Errors
    /// The file that is wrong, and why.
    pub fn load(&self) -> Result<TrustedAuthorities, UnusablePair> {
        let of = |path: &Path, reason| UnusablePair { path: path.to_owned(), reason };
        let certificates = certificates(&self.ca).map_err(|reason| of(&self.ca, reason))?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            let added = roots.add(certificate.clone());
            added.map_err(|error| {
                of(&self.ca, format!("an unusable certificate: {error}; {CERTIFICATES}"))
            })?;
        }
        let revoked = match &self.crl {
            Some(crl) => revocations(crl, roots).map_err(|reason| of(crl, reason))?,
            None => Vec::new(),
        };
        Ok(TrustedAuthorities { certificates, revoked })
    }

    /// Its files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.ca).chain(&self.crl).map(PathBuf::as_path)
    }
}

/// What the files of a [`ClientTrust`] hold, which can be used.
#[derive(Debug)]
pub struct TrustedAuthorities {
    /// The certificates of the authorities.
    pub certificates: Vec<CertificateDer<'static>>,
    /// What they have revoked.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
}

/// What to do about a file of revocations that has none.
const LISTS: &str = "name a PEM file with lists of these authorities";

/// The lists of a file, which has some that can be read.
fn revocations(
    path: &Path,
    roots: RootCertStore,
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let text = contents(path)?;
    let lists: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_slice_iter(text.as_bytes()).collect();
    let lists = lists.map_err(|error| format!("not a PEM file: {error}; {LISTS}"))?;
    if lists.is_empty() {
        return Err(format!("no list of revocations (X509 CRL) in it; {LISTS}"));
    }
    let provider = aws_lc_rs::default_provider().into();
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let built = builder.with_crls(lists.iter().cloned()).build();
    built.map(|_| lists).map_err(|error| format!("an unusable list: {error}; {LISTS}"))
}
