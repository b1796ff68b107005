//! TLS to the relay and to a proxy, and proxies that say nothing.

use std::sync::Arc;

use beacon_client::net::tls::Trust;
use beacon_client::{Client, ConnectError, ProxyError};
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::relay::Relay;
use super::{SHORT, node, options};

/// The server's side of TLS with a certificate of its own for `localhost`.
fn tls_acceptor() -> (tokio_rustls::TlsAcceptor, rcgen::Certificate) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), certified.cert)
}

#[tokio::test]
async fn wss_needs_a_certificate_that_is_trusted() {
    let (acceptor, certificate) = tls_acceptor();
    let fingerprint = Sha256::digest(certificate.der()).into();
    let relay = Relay::start(u32::MAX).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let behind = relay.url.trim_start_matches("ws://").to_owned();
    let proxy = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        let mut plain = TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
        let (tcp, _) = listener.accept().await.unwrap();
        acceptor.accept(tcp).await.map(drop)
    });

    let mut pinned = options(&url, 1);
    pinned.trust = Trust::Fingerprint(fingerprint);
    let mut client = Client::connect(&pinned).await.unwrap();
    client.send_to(node(1), b"through TLS").await.unwrap();
    assert_eq!(&*client.recv().await.unwrap().unwrap().payload, b"through TLS");
    client.bye().await.unwrap();

    pinned.trust = Trust::Fingerprint([0; 32]);
    let error = Client::connect(&pinned).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
    assert!(error.needs_attention(), "{error}");
    assert!(proxy.await.unwrap().is_err());
}

#[tokio::test]
async fn https_proxy_gets_its_credentials_under_tls_only() {
    let (acceptor, certificate) = tls_acceptor();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate.pem()).unwrap();
    let relay = Relay::start(u32::MAX).await;
    let behind = relay.url.trim_start_matches("ws://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = tokio::spawn(async move {
        // Whoever does not trust the certificate says nothing.
        let (tcp, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(tcp).await.is_err());
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tls.read_u8().await.unwrap());
        }
        tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut plain = TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
        String::from_utf8(head).unwrap()
    });

    let mut options = options("ws://relay.test:7", 1);
    options.proxy = format!("https://me:secret@localhost:{port}").parse().unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let wrong = folder.path().join("wrong.pem");
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    options.trust = Trust::CaFile(wrong);
    let error = Client::connect(&options).await.unwrap_err();
    let expected = matches!(&error, ConnectError::Proxy(ProxyError::Handshake { .. }));
    assert!(expected && error.needs_attention(), "{error}");

    options.trust = Trust::CaFile(ca);
    let mut client = Client::connect(&options).await.unwrap();
    client.send_to(node(1), b"through a proxy").await.unwrap();
    assert_eq!(&*client.recv().await.unwrap().unwrap().payload, b"through a proxy");
    client.bye().await.unwrap();
    let head = proxy.await.unwrap();
    assert!(head.starts_with("CONNECT relay.test:7 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{head}");
}

#[tokio::test]
async fn proxy_that_stays_silent_is_a_timeout_of_its_step() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options("ws://relay.test", 1);
    options.proxy = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    options.timeouts.connect = SHORT;
    let error = Client::connect(&options).await.unwrap_err();
    let through = "connecting through the proxy";
    assert!(matches!(error, ConnectError::Timeout { step, .. } if step == through), "{error}");
}
