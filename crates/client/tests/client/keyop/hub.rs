//! A hub that is made by hand: certificates, and one connection at a time over either transport.

use std::fs;
use std::sync::Arc;

use beacon_client::keyop::{Identity, Options, Transport};
use beacon_client::wire::keyop::websocket::{Hello, Records, hub_hello};
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::PATIENCE;

/// Awaits what happens at once.
pub(crate) async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, awaited).await.unwrap()
}

/// An authority, and the folder of its certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// A certificate for a name, with its key.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |ending| self.folder.path().join(format!("{name}.{ending}"));
        fs::write(path("crt"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        Identity::new(path("crt"), path("key"))
    }

    fn acceptor(&self, name: &str, alpn: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &self.issuer).unwrap().into();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A listener with a certificate for `name`.
pub(crate) struct Hub {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Hub {
    /// With options that lead to it.
    pub(crate) async fn listen(
        authority: &Authority,
        name: &str,
        transport: Transport,
    ) -> (Self, Options) {
        let alpn: &[&[u8]] = match transport {
            Transport::Grpc => &[b"h2"],
            Transport::WebSocket => &[],
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let identity = authority.identity("alpha");
        let authorities = authority.folder.path().join("ca.crt");
        let mut options = Options::new(address, "alpha", identity, authorities);
        options.transport = transport;
        (Self { listener, acceptor: authority.acceptor(name, alpn) }, options)
    }

    /// Takes a connection; none where the client does not like the certificate, or the hub that of
    /// the client.
    pub(crate) async fn accept(&self) -> Option<TlsStream<TcpStream>> {
        let (tcp, _) = soon(self.listener.accept()).await.unwrap();
        soon(self.acceptor.accept(tcp)).await.ok()
    }

    /// Takes a connection over WebSocket and its first message, which has to be this one.
    pub(crate) async fn greet(&self, hello: &str) -> Peer {
        let stream = self.accept().await.unwrap();
        let mut socket = soon(tokio_tungstenite::accept_async(stream)).await.unwrap();
        let Some(Ok(Message::Text(text))) = soon(socket.next()).await else { panic!() };
        assert_eq!(text.as_str(), hello);
        Hello::parse(text.as_bytes()).unwrap();
        Peer(socket)
    }
}

/// A client's connection over WebSocket.
pub(crate) struct Peer(WebSocketStream<TlsStream<TcpStream>>);

impl Peer {
    /// Lets the client in.
    pub(crate) async fn welcome(mut self) -> Self {
        let hello = String::from_utf8(hub_hello("localhost")).unwrap();
        self.0.send(Message::text(hello)).await.unwrap();
        self
    }

    /// The records of the next batch.
    pub(crate) async fn records(&mut self) -> Vec<Vec<u8>> {
        let Some(Ok(Message::Binary(batch))) = soon(self.0.next()).await else { panic!() };
        Records::parse(&batch).unwrap().iter().map(<[u8]>::to_vec).collect()
    }

    pub(crate) async fn text(&mut self) -> String {
        let Some(Ok(Message::Text(text))) = soon(self.0.next()).await else { panic!() };
        text.as_str().to_owned()
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = soon(self.0.next()).await {}
    }

    /// Whether the client closes.
    pub(crate) async fn is_closed(&mut self) -> bool {
        matches!(soon(self.0.next()).await, Some(Ok(Message::Close(_))))
    }
}
