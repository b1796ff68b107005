//! An authority that signs the certificates of a hub and of its peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::tls::{Certificate, NAME, provider};

/// The authority, with its certificate in a file.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) file: PathBuf,
    /// Certificate and key of the hub, whose name is that of the machine.
    pub(crate) hub: Certificate,
}

impl Authority {
    /// Makes one, with a certificate for the hub, in this folder.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let file = authority_file(folder);
        fs::write(&file, issuer.pem())?;
        let made = Self { issuer, file, hub: hub_files(folder) };
        let (certificate, key) = made.sign(NAME)?;
        fs::write(&made.hub.certificate, certificate.pem())?;
        fs::write(&made.hub.key, key.serialize_pem())?;
        Ok(made)
    }

    fn sign(&self, name: &str) -> anyhow::Result<(rcgen::Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    /// What a peer of this name connects with.
    pub(crate) fn client(&self, name: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let (certificate, key) = self.sign(name)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

fn authority_file(folder: &Path) -> PathBuf {
    folder.join("ca.crt")
}

fn hub_files(folder: &Path) -> Certificate {
    Certificate { certificate: folder.join("hub.crt"), key: folder.join("hub.key") }
}

/// What a hub of the authority in this folder speaks TLS with.
pub(crate) fn hub_config(folder: &Path) -> anyhow::Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority_file(folder))?)?;
    let peers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    let hub = hub_files(folder);
    let chain = vec![CertificateDer::from_pem_file(&hub.certificate)?];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(peers)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&hub.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}
