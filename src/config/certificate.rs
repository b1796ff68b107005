//! Certificates of listeners, each with its key.

use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};

use super::small_file::contents;
use super::value::{Kind, Value};
use super::{Error, Invalid, Layers};

/// The files of a certificate with its chain, and of its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsPair {
    /// The certificate, the intermediate ones behind it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a pair, or what judges the certificates of clients, is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct UnusablePair {
    /// Which of its files is wrong.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl TlsPair {
    /// Reads both files, which have to belong together; blocks.
    ///
    /// # Errors
    /// The file that is wrong, and why.
    pub fn load(&self) -> Result<CertifiedKey, UnusablePair> {
        let of_cert = |reason| UnusablePair { path: self.cert.clone(), reason };
        let of_key = |reason| UnusablePair { path: self.key.clone(), reason };
        let chain = certificates(&self.cert).map_err(of_cert)?;
        let key = private_key(&self.key).map_err(of_key)?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
            if error == TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) {
                let cert = self.cert.display();
                of_key(format!("not the key of the certificate in {cert}; name that one"))
            } else if let TlsError::InvalidCertificate(error) = error {
                of_cert(format!("an unusable certificate: {error}; {CERTIFICATES}"))
            } else {
                of_key(format!("an unusable key: {error}; write PKCS#8, SEC1 or PKCS#1"))
            }
        })
    }
}

/// What to do about a file of certificates that has none.
pub(super) const CERTIFICATES: &str = "name a PEM file with certificates";

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = contents(path)?;
    let chain: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("not a PEM file: {error}; {CERTIFICATES}"))?;
    if chain.is_empty() { Err(format!("no certificate in it; {CERTIFICATES}")) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = contents(path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            "no private key without a password in it; name the key's PEM file".to_owned()
        } else {
            format!("not a PEM file: {error}; name the key's PEM file")
        }
    })
}

/// The pairs of a `[[listener]]` table: each item has a line for each key of one.
impl Value for Vec<TlsPair> {
    const KIND: Kind = Kind::Tables;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        items.iter().map(|item| pair(item)).collect()
    }
}

fn pair(item: &str) -> Result<TlsPair, Invalid> {
    let (mut cert, mut key) = (None, None);
    for line in item.lines() {
        match line.split_once('=') {
            Some(("cert", path)) if !path.is_empty() => cert = Some(path.into()),
            Some(("key", path)) if !path.is_empty() => key = Some(path.into()),
            _ => return Err(HOW.into()),
        }
    }
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(TlsPair { cert, key }),
        _ => Err(HOW.into()),
    }
}

/// How pairs are written.
const HOW: &str = "not tables of files; write tls = [{ cert = \"FILE\", key = \"FILE\" }]";

/// The settings that name the files of a pair.
pub(super) struct PairOf {
    cert: &'static str,
    key: &'static str,
}

impl PairOf {
    /// Those of the listener of `wss_bind`.
    pub(super) const WSS_BIND: Self = Self { cert: "wss_tls_cert", key: "wss_tls_key" };

    /// Those of the listener of `netbird_bind`.
    pub(super) const NETBIRD_BIND: Self = Self { cert: "netbird_tls_cert", key: "netbird_tls_key" };

    /// Those of the listener of `keyop_bind`.
    pub(super) const KEYOP_BIND: Self = Self { cert: "keyop_cert", key: "keyop_key" };
}

/// That of the listener of `wss_bind`.
pub(super) fn of_wss_bind(layers: &Layers) -> Result<Vec<TlsPair>, Error> {
    of_files(&PairOf::WSS_BIND, layers)
}

/// The pair of these settings, which is loaded to see whether it can be.
pub(super) fn of_files(settings: &PairOf, layers: &Layers) -> Result<Vec<TlsPair>, Error> {
    let PairOf { cert: cert_key, key: key_key } = settings;
    let cert: Option<PathBuf> = layers.read(cert_key)?;
    let key: Option<PathBuf> = layers.read(key_key)?;
    let needs = |missing: &str| format!("needs --{} as well", missing.replace('_', "-"));
    let pair = match (cert, key) {
        (None, None) => return Ok(Vec::new()),
        (Some(_), None) => return Err(layers.refuse(cert_key, needs(key_key))),
        (None, Some(_)) => return Err(layers.refuse(key_key, needs(cert_key))),
        (Some(cert), Some(key)) => TlsPair { cert, key },
    };
    pair.load().map_err(|UnusablePair { path, reason }| {
        let setting = if path == pair.cert { cert_key } else { key_key };
        layers.refuse_file(setting, &path, reason)
    })?;
    Ok(vec![pair])
}

/// Loads those of a table, to see whether they can be.
pub(super) fn check(pairs: &[TlsPair], layers: &Layers) -> Result<(), Error> {
    for pair in pairs {
        pair.load()
            .map_err(|UnusablePair { path, reason }| layers.refuse_file("tls", &path, reason))?;
    }
    Ok(())
}
