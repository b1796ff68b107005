//! The registry's settings, put together: where it is, whom to believe, and the token.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::certificate::CERTIFICATES;
use super::small_file::contents;
use super::table::settings;
use super::{Error, Fingerprint, HostPort, Layers, Secret};

settings! {
    /// What the registry's flags say, each for itself.
    #[derive(Debug)]
    pub(super) struct RegistryFlags {
        "Registry" {
            /// Registry to ask for public keys, and to register this beacon with
            registry: Option<HostPort> ["HOST:PORT"];
            /// Speak TLS to the registry, trusting what the system trusts
            registry_tls: bool ["BOOL"] or "false";
            /// Speak TLS to the registry, trusting the CAs of this PEM file
            registry_ca: Option<PathBuf> ["FILE"];
            /// Speak TLS to the registry, trusting the certificate with this SHA-256
            registry_fingerprint: Option<Fingerprint> ["HEX"];
            /// File with the admin token that the registry asks of beacons
            registry_admin_token_file: Option<PathBuf> ["FILE"];
            /// Most connections to the registry, each for 70 requests a second
            registry_connections: u8 ["N"] or "4" in 1..=16;
        }
    }
}

/// The registry to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registry {
    /// Where it is.
    pub address: HostPort,
    /// Whom to believe that it is the registry; `None` is plain TCP.
    pub tls: Option<RegistryTrust>,
    /// What it asks of beacons that register.
    pub admin_token: Option<Secret>,
    /// Most connections to it.
    pub connections: u8,
}

/// Which certificate the registry must show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegistryTrust {
    /// One that the system's authorities have signed.
    System,
    /// One that an authority in this PEM file has signed.
    CaFile(PathBuf),
    /// The one with this fingerprint.
    Fingerprint(Fingerprint),
}

impl Registry {
    /// Reads the registry's settings, and the files that they name.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let flags = RegistryFlags::read(layers)?;
        let Some(address) = flags.registry else {
            let alone = [
                ("registry_tls", flags.registry_tls),
                ("registry_ca", flags.registry_ca.is_some()),
                ("registry_fingerprint", flags.registry_fingerprint.is_some()),
                ("registry_admin_token_file", flags.registry_admin_token_file.is_some()),
            ];
            return match alone.into_iter().find(|(_, is_given)| *is_given) {
                Some((key, _)) => Err(layers.refuse(key, "needs --registry as well")),
                None => Ok(None),
            };
        };
        let tls = match (flags.registry_ca, flags.registry_fingerprint) {
            (Some(_), Some(_)) => {
                let reason = "cannot be combined with --registry-ca; choose one";
                return Err(layers.refuse("registry_fingerprint", reason));
            }
            (Some(path), None) => {
                check_ca(&path).map_err(|e| layers.refuse_file("registry_ca", &path, e))?;
                Some(RegistryTrust::CaFile(path))
            }
            (None, Some(fingerprint)) => Some(RegistryTrust::Fingerprint(fingerprint)),
            (None, None) => flags.registry_tls.then_some(RegistryTrust::System),
        };
        let key = "registry_admin_token_file";
        let token =
            |path: PathBuf| Secret::read(&path).map_err(|e| layers.refuse_file(key, &path, e));
        let admin_token = flags.registry_admin_token_file.map(token).transpose()?;
        Ok(Some(Self { address, tls, admin_token, connections: flags.registry_connections }))
    }
}

/// Refuses a file without a usable certificate, which would fail only at the first look-up.
fn check_ca(path: &Path) -> Result<(), String> {
    let text = contents(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate =
            certificate.map_err(|error| format!("not a PEM file: {error}; {CERTIFICATES}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("an unusable certificate: {error}; {CERTIFICATES}"))?;
    }
    if roots.is_empty() { Err(format!("no certificate in it; {CERTIFICATES}")) } else { Ok(()) }
}
