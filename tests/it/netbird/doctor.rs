//! `beacon-relay doctor rels://…` against the door, and against what can be wrong on the way.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use beacon_relay::net::tls::{Trust, client_config};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Site;
use crate::deploy::nginx::Nginx;
use crate::doctor::{Diagnosis, doctor};
use crate::ports::free_address;

impl Site {
    /// Examines a URL with this secret, or without.
    fn doctor(&self, url: &str, secret: Option<&str>, ca: &Path) -> Diagnosis {
        let file = self.folder.path().join("secret-of-the-doctor");
        let mut arguments = vec![url, "--ca", ca.to_str().unwrap()];
        if let Some(secret) = secret {
            fs::write(&file, format!("\n{secret}\n")).unwrap();
            arguments.extend(["--secret-file", file.to_str().unwrap()]);
        }
        doctor(arguments)
    }
}

#[test]
fn doctor_goes_the_way_of_a_client_over_websocket_and_quic() {
    let site = Site::with_tls(&[]);
    let url = format!("rels://{}", site.quic.unwrap());

    let diagnosis = site.doctor(&url, Some(super::SECRET), &site.ca());

    for (check, part) in [
        ("name", "127.0.0.1"),
        ("tcp", "answers"),
        ("tls", "trusted"),
        ("upgrade", "/relay"),
        ("login", "let in"),
        ("presence", "online"),
        ("packet", "1312 and 8782 bytes"),
        ("quic", "let in"),
        ("quic-packet", "1312 bytes"),
    ] {
        diagnosis.assert(check, "ok", part);
    }
    // The tests' relays say that they are elsewhere.
    diagnosis.assert("instance", "warning", "--netbird-exposed-address");
    diagnosis.assert_code(1);
}

#[test]
fn doctor_without_the_secret_finds_a_relay_and_with_a_wrong_one_says_so() {
    let site = Site::start(&[]);
    let url = format!("rel://{}", site.address);
    let diagnosis = site.doctor(&url, None, &site.folder.path().join("none"));
    diagnosis.assert("login", "ok", "--secret-file");
    diagnosis.assert("quic", "skipped", "no TLS");
    diagnosis.assert_code(0);

    let diagnosis = site.doctor(&url, Some("guessed"), &site.folder.path().join("none"));
    diagnosis.assert("login", "failed", "--netbird-auth-secret-file");
    diagnosis.assert_code(2);
}

#[test]
fn way_that_leads_to_no_relay_fails_at_its_step() {
    let site = Site::with_tls(&[]);
    let dead = free_address();
    let (plain, tls) = (site.address, site.quic.unwrap());
    for (url, check, part) in [
        (format!("rel://{dead}"), "tcp", "nobody answers"),
        ("rels://a..b".to_owned(), "name", "does not resolve"),
        (format!("rels://{plain}"), "tls", "handshake failed"),
        (format!("rels://localhost:{}", tls.port()), "tls", "not for localhost"),
        (format!("rel://{plain}/relay/"), "upgrade", "the relay's path is /relay"),
        (format!("rel://{}", site.relay.admin), "upgrade", "404"),
        ("rel://me@relay.test".to_owned(), "url", "user name"),
    ] {
        let diagnosis = site.doctor(&url, None, &site.ca());
        diagnosis.assert(check, "failed", part);
        diagnosis.assert_code(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_without_quic_is_told_from_one_with_another_protocol() {
    let site = Site::start(&[]);
    let path = ("location = /v1/compat {", "location = /relay {");
    let nginx = Nginx::with(site.address, &["localhost".to_owned()], 90, path);
    let url = format!("rels://localhost:{}", nginx.address.port());
    let examine = || site.doctor(&url, Some(super::SECRET), &nginx.ca());
    let diagnosis = tokio::task::block_in_place(examine);
    diagnosis.assert("packet", "ok", "8782");
    diagnosis.assert("quic", "warning", "open UDP");
    diagnosis.assert_code(1);

    let ca = nginx.ca();
    let _other = http3(nginx.address, ca.parent().unwrap());
    let diagnosis = tokio::task::block_in_place(examine);
    diagnosis.assert("quic", "warning", "nb-quic");
    diagnosis.assert_code(1);
}

/// A server of another protocol at this address, with the certificate of a folder.
fn http3(address: SocketAddr, folder: &Path) -> Endpoint {
    let certificates = CertificateDer::pem_file_iter(folder.join("cert.pem")).unwrap();
    let certificates = certificates.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    // That of a client, for its provider.
    let provider = client_config(&Trust::CaFile(folder.join("ca.pem"))).unwrap();
    let mut tls =
        rustls::ServerConfig::builder_with_provider(Arc::clone(provider.crypto_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = QuicServerConfig::try_from(tls).unwrap();
    let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(config)), address).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let _refused = incoming.await;
        }
    });
    endpoint
}
