//! Whole connections with the library's own client at the other end.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, NamedGroup, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::records::Records;
use super::{Acceptor, Certificates, Failure, Kind, TlsStream, provider};
use crate::net::Stream;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate of its own for this name.
pub(super) fn certificate(name: &str) -> (Arc<CertifiedKey>, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let certified = CertifiedKey::from_der(vec![certificate.clone()], key, &provider());
    (Arc::new(certified.unwrap()), certificate)
}

fn acceptor(certificates: Vec<Arc<CertifiedKey>>) -> Acceptor {
    Acceptor::new(Certificates::new(certificates)).unwrap()
}

fn trusting(
    certificates: &[CertificateDer<'static>],
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A stream that reads and writes a few bytes at a time, and no more than it has room for.
#[derive(Debug)]
struct Narrow {
    stream: UnixStream,
    width: usize,
    room: Arc<AtomicUsize>,
}

impl Stream for Narrow {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let width = buffer.len().min(self.width);
        UnixStream::try_read(&self.stream, &mut buffer[..width])
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let width = bytes.len().min(self.width).min(self.room.load(Ordering::Relaxed));
        if width == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = UnixStream::try_write(&self.stream, &bytes[..width])?;
        self.room.fetch_sub(written, Ordering::Relaxed);
        Ok(written)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_write_ready(cx)
    }

    fn shutdown_write(&self) {
        Stream::shutdown_write(&self.stream);
    }
}

/// A client that is connected through `stream`, which gets its end of a pair.
async fn connect(
    acceptor: &Acceptor,
    config: Arc<ClientConfig>,
    name: &str,
    stream: impl FnOnce(UnixStream) -> Box<dyn Stream>,
) -> (Result<TlsStream, Failure>, io::Result<ClientStream<UnixStream>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(config);
    tokio::join!(acceptor.accept(stream(ours)), connector.connect(name, theirs))
}

async fn connected(
    version: &'static SupportedProtocolVersion,
) -> (TlsStream, ClientStream<UnixStream>) {
    let (certified, certificate) = certificate("a.test");
    let config = trusting(&[certificate], version);
    let (server, client) =
        connect(&acceptor(vec![certified]), config, "a.test", |ours| Box::new(ours)).await;
    (server.unwrap(), client.unwrap())
}

async fn read(stream: &TlsStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4_096];
    while all.len() < length {
        match stream.try_read(&mut buffer) {
            Ok(0) => panic!("ended after {}", all.len()),
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    all
}

async fn write(stream: &TlsStream, mut rest: &[u8]) {
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_writable(cx)).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Sends so much both ways at once, and looks at it.
async fn exchange(server: &TlsStream, client: &mut ClientStream<UnixStream>, length: usize) {
    let sent = pattern(length);
    let (mut reads, mut writes) = tokio::io::split(client);
    let theirs = async {
        writes.write_all(&sent).await.unwrap();
        writes.flush().await.unwrap();
    };
    let heard = async {
        let mut heard = vec![0; length];
        reads.read_exact(&mut heard).await.unwrap();
        heard
    };
    let (got, (), heard, ()) =
        tokio::join!(read(server, length), write(server, &sent), heard, theirs);
    assert!(got == sent && heard == sent, "{length} bytes arrive as they were sent");
}

#[tokio::test]
async fn connection_holds_whatever_pieces_it_comes_in() {
    for version in VERSIONS {
        let (certified, certificate) = certificate("a.test");
        let acceptor = acceptor(vec![certified]);
        let config = trusting(&[certificate], version);
        for (width, expected) in [(1, Kind::Full), (7, Kind::Resumed), (65_536, Kind::Resumed)] {
            let narrow = |stream| -> Box<dyn Stream> {
                Box::new(Narrow { stream, width, room: Arc::new(usize::MAX.into()) })
            };
            let (server, client) = connect(&acceptor, Arc::clone(&config), "a.test", narrow).await;
            let (server, mut client) = (server.unwrap(), client.unwrap());
            assert_eq!(server.kind(), expected, "{version:?}");
            let most = if width == 1 { 20_000 } else { 100_000 };
            for length in [1, 16_384, most] {
                exchange(&server, &mut client, length).await;
            }
            if *version == TLS13 {
                let group = client.get_ref().1.negotiated_key_exchange_group().unwrap();
                assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
            }
        }
    }
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_written_once_all_of_it_has_left() {
    for version in VERSIONS {
        let (certified, certificate) = certificate("a.test");
        let room = Arc::new(AtomicUsize::new(usize::MAX));
        let narrow = |stream| -> Box<dyn Stream> {
            Box::new(Narrow { stream, width: 30_000, room: Arc::clone(&room) })
        };
        let config = trusting(&[certificate], version);
        let (server, client) = connect(&acceptor(vec![certified]), config, "a.test", narrow).await;
        let (server, mut client) = (server.unwrap(), client.unwrap());
        let sent = pattern(60_000);
        let blocks = |written: io::Result<usize>| {
            written.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };

        room.store(20_000, Ordering::Relaxed);
        assert_eq!(server.try_write(&sent).unwrap(), 0, "some of it has left");
        assert!(blocks(server.try_write(&sent)), "nothing has left since");
        room.store(30_000, Ordering::Relaxed);
        assert_eq!(server.try_write(&sent).unwrap(), 0, "more of it has left");
        assert!(blocks(server.try_write(&sent)));
        room.store(usize::MAX, Ordering::Relaxed);
        assert_eq!(server.try_write(&sent).unwrap(), sent.len());
        assert_eq!(server.try_write(&[]).unwrap(), 0);

        let mut heard = vec![0; sent.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert!(heard == sent, "each byte comes once");
        exchange(&server, &mut client, 1_000).await;
    }
}

#[tokio::test]
async fn idle_connection_owns_no_buffer() {
    for version in VERSIONS {
        let (server, mut client) = connected(version).await;
        exchange(&server, &mut client, 100_000).await;
        let buffers = server.buffers();
        assert_eq!(buffers, 0, "{version:?}");
        let size = size_of::<Records>() + size_of::<TlsStream>();
        println!("a connection is {size} bytes beside what the library has on the heap");
    }
}

#[tokio::test]
async fn key_updates_go_by_unnoticed() {
    let (server, mut client) = connected(&TLS13).await;
    for _ in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        exchange(&server, &mut client, 20_000).await;
    }
}

#[tokio::test]
async fn each_side_hears_of_the_end_of_the_other() {
    for version in VERSIONS {
        let (server, mut client) = connected(version).await;
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read(&server, 3).await, b"bye");
        poll_fn(|cx| server.poll_readable(cx)).await.unwrap();
        assert_eq!(server.try_read(&mut [0; 9]).unwrap(), 0, "{version:?}");

        server.shutdown_write();
        // An end without a close_notify would be an error.
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0, "{version:?}");
    }
}

/// What becomes of a client that says this, and what it hears.
async fn stranger(bytes: &[u8]) -> (Failure, Vec<u8>) {
    let (certified, _) = certificate("a.test");
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let acceptor = acceptor(vec![certified]);
    let client = async {
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut heard = Vec::new();
        // The rest of what was sent may be unread at the end.
        let _ = theirs.read_to_end(&mut heard).await;
        heard
    };
    let (failure, heard) =
        tokio::join!(async { acceptor.accept(Box::new(ours)).await.unwrap_err() }, client);
    (failure, heard)
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let (failure, heard) = stranger(b"GET /v1/compat HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(matches!(failure, Failure::NotTls), "{failure}");
    let heard = String::from_utf8(heard).unwrap();
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("speaks TLS"), "{heard}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{heard}");

    // Noise; a record that is too long; a message that is.
    let noise = [0x80; 40];
    let strangers: [&[u8]; 3] =
        [&noise, &[22, 3, 1, 0xff, 0xff, 1, 0, 0], &[22, 3, 1, 0, 5, 9, 9, 9, 9, 9]];
    for (bytes, hears_alert) in strangers.into_iter().zip([true, true, false]) {
        let (failure, heard) = stranger(bytes).await;
        assert!(matches!(failure, Failure::Tls(_)), "{failure}");
        assert_eq!(heard.first() == Some(&21), hears_alert, "{bytes:?}");
    }

    let (failure, _) = stranger(&[22, 3, 1]).await;
    assert!(matches!(failure, Failure::Gone), "{failure}");

    // A hello of 60,000 bytes, which needs no key share to be wrong.
    let mut hello = Vec::new();
    for record in 0..4 {
        let mut body = vec![0; 16_000];
        if record == 0 {
            body[..4].copy_from_slice(&[1, 0, 0xea, 0x60]);
        }
        hello.extend_from_slice(&[22, 3, 1, 0x3e, 0x80]);
        hello.extend_from_slice(&body);
    }
    let (failure, _) = stranger(&hello).await;
    assert!(matches!(failure, Failure::TooLong | Failure::Tls(_)), "{failure}");
}

#[tokio::test]
async fn garbage_in_a_connection_ends_it() {
    let (server, client) = connected(&TLS13).await;
    let (mut below, _) = client.into_inner();
    below.write_all(&[23, 3, 3, 0, 32]).await.unwrap();
    below.write_all(&[7; 32]).await.unwrap();
    poll_fn(|cx| server.poll_readable(cx)).await.unwrap();
    let error = server.try_read(&mut [0; 99]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(server.try_read(&mut [0; 99]).is_err() && server.try_write(b"x").is_err());
}

#[tokio::test]
async fn certificate_is_that_of_the_name_and_else_the_first() {
    let (first, of_first) = certificate("a.test");
    let (second, of_second) = certificate("b.test");
    let acceptor = acceptor(vec![first, second]);
    let config = trusting(&[of_first.clone(), of_second.clone()], &TLS13);
    for (name, expected) in
        [("a.test", Some(&of_first)), ("b.test", Some(&of_second)), ("c.test", None)]
    {
        let (_, client) =
            connect(&acceptor, Arc::clone(&config), name, |ours| Box::new(ours)).await;
        match expected {
            Some(expected) => {
                let client = client.unwrap();
                assert_eq!(&client.get_ref().1.peer_certificates().unwrap()[0], expected);
            }
            None => assert!(client.unwrap_err().to_string().contains("not valid for name")),
        }
    }
}

#[tokio::test]
async fn own_client_trusts_its_own_listener_alone() {
    let one = acceptor(vec![certificate("a.test").0, certificate("b.test").0]);
    let other = acceptor(vec![certificate("a.test").0]);
    let own = one.own_client().unwrap();
    let (server, client) =
        connect(&one, Arc::clone(&own), "127.0.0.1", |ours| Box::new(ours)).await;
    exchange(&server.unwrap(), &mut client.unwrap(), 100).await;
    let (server, client) = connect(&other, own, "127.0.0.1", |ours| Box::new(ours)).await;
    assert!(server.is_err() && client.is_err());
}

/// A hello in records of a byte each, up to the length that it announces and `more`.
fn in_bytes(announced: [u8; 3], more: usize) -> Vec<u8> {
    let bytes = [1].into_iter().chain(announced).chain(std::iter::repeat_n(1, more));
    bytes.flat_map(|byte| [22, 3, 1, 0, 1, byte]).collect()
}

#[test]
fn what_is_wrong_behind_records_that_were_not_is_answered_with_an_alert() {
    let config = acceptor(vec![certificate("a.test").0]).config;
    let mut records = Records::new(Arc::clone(&config)).unwrap();
    let mut bytes = in_bytes([0, 1, 0], 100);
    bytes.extend([22, 3, 1, 0xff, 0xff, 1, 0, 0]);
    records.open(&mut bytes, &mut []).unwrap_err();
    let alert = [21, 3, 3, 0, 2, 2];
    assert!(records.tail.starts_with(&alert) && records.tail.len() == 7, "{:?}", records.tail);
    // For this the library has none.
    let mut records = Records::new(config).unwrap();
    records.open(&mut in_bytes([1, 1, 1], 100), &mut []).unwrap_err();
    assert!(records.tail.is_empty(), "{:?}", records.tail);
}
