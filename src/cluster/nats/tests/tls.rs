//! A server that speaks TLS: its certificate has to satisfy the authorities of the system.
//!
//! They are those of a file that the environment names, which a process cannot change for
//! itself: so the relay runs in a process of its own.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::task::spawn_blocking;

use super::{HOUR, Relay, Settings};
use crate::net::nats::servers;
use crate::net::nats::testing::Server;

/// Tells the process of the relay where the server is.
const URL: &str = "TEST_NATS_URL";

/// An authority that somebody made, and a server with its certificate for 127.0.0.1.
async fn server(folder: &Path) -> Server {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    for (name, pem) in
        [("ca", authority.pem()), ("server", certificate.pem()), ("key", key.serialize_pem())]
    {
        fs::write(folder.join(name), pem).unwrap();
    }
    let at = |name| folder.join(name).display().to_string();
    Server::start(&format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        at("server"),
        at("key")
    ))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of the test below, in a process of its own"]
async fn relay_connects_with_tls() {
    let a = Relay::start(1, &env::var(URL).unwrap(), HOUR);
    a.until_connected().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_of_the_server_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let name = "cluster::nats::tests::tls::relay_connects_with_tls";
    let tls_url = server.url().replace("nats://", "tls://");

    // Whether the URL asks for it or the server does.
    for url in [&server.url(), &tls_url] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "--ignored", name]).env(URL, url);
        command.env("SSL_CERT_FILE", folder.path().join("ca")).stdout(Stdio::null());
        let status = spawn_blocking(move || command.status()).await.unwrap().unwrap();
        assert!(status.success(), "{url}");
    }
    // In this process, nobody trusts that authority.
    let here = servers(&Settings { url: server.url(), credentials: None }).unwrap().remove(0);
    let error = here.options.connect(here.address).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}
