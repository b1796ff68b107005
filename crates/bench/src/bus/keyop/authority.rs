//! An authority that signs the certificates of a hub and of its peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::client::Resumption;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

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
        let file = folder.join("ca.crt");
        fs::write(&file, issuer.pem())?;
        let hub = Certificate { certificate: folder.join("hub.crt"), key: folder.join("hub.key") };
        let made = Self { issuer, file, hub };
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
