//! What the tests of all TLS proxies share: a client that trusts one CA only, comes from an
//! address of its own, and lies about it; and somebody who stands where the relay does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::harness::PATIENCE;

/// Where the client of a test comes from: not the address that the proxy comes from.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// What a client claims about itself; nobody may believe it.
pub(crate) const FORGED: &str = "203.0.113.7";

/// What makes a request an upgrade.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: pilot.v1\r\n";

/// A connection to a proxy.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection from `client` to a proxy as `localhost`, trusting nobody but this CA.
pub(crate) fn dial(client: Ipv4Addr, proxy: SocketAddr, ca: &Path) -> io::Result<Tls> {
    dial_as("localhost", client, proxy, ca)
}

/// The same, to a proxy of this name.
pub(crate) fn dial_as(
    host: &str,
    client: Ipv4Addr,
    proxy: SocketAddr,
    ca: &Path,
) -> io::Result<Tls> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
    socket.connect(&proxy.into())?;
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// Sends a request that claims to come from [`FORGED`].
pub(crate) fn request(tls: &mut Tls, path: &str, headers: &str) {
    let port = tls.sock.peer_addr().unwrap().port();
    write!(
        tls,
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nX-Forwarded-For: {FORGED}\r\n{headers}\r\n"
    )
    .unwrap();
}

/// Stands where the relay does, answers 200 to everything, and hands out the request heads.
pub(crate) fn recorder() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, received) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = read_head(&mut stream);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            if heads.send(head).is_err() || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (address, received)
}

/// Reads up to the empty line, and not a byte further.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}
