//! TLS of the load and of the floor: rustls without buffers of its own, as in the relay.
//!
//! `Tls` is a connection without IO; `TlsStream` is one over a blocking socket.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};

/// The name that the certificate is for.
pub(super) const NAME: &str = "localhost";

/// The cipher that everything negotiates, as tables name it.
pub const CIPHER: &str = "AES-128-GCM";

/// Key exchanges, in the relay's order.
const KEY_EXCHANGES: [&dyn SupportedKxGroup; 2] = [kx_group::X25519MLKEM768, kx_group::X25519];

/// AES-128 first: Go's servers and clients, Caddy among them, choose it before AES-256.
const CIPHERS: [SupportedCipherSuite; 2] =
    [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];

/// Plaintext of one record.
const FRAGMENT: usize = 16_384;

/// What a record adds to its plaintext: header, type, tag.
const RECORD_OVERHEAD: usize = 22;

/// Bytes of the first reads of a stream, and of those of a stream that is busy.
const FIRST_READ: usize = 17_000;
const LARGE_READ: usize = 262_144;

/// A self-signed certificate and its key, in two files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificate {
    /// The files of that folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") }
    }

    /// Makes one with an ECDSA key on P-256.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let files = Self::in_folder(folder);
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([NAME.to_owned(), "127.0.0.1".to_owned()])?;
        fs::write(&files.certificate, params.self_signed(&key)?.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }

    /// A server that shows it, with the parameters of the relay's.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn server(&self) -> anyhow::Result<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate)?];
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// A client that trusts it alone; each connection makes a whole handshake.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn client(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.certificate)?)?;
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: KEY_EXCHANGES.to_vec(),
        cipher_suites: CIPHERS.to_vec(),
        ..aws_lc_rs::default_provider()
    })
}

/// One side of a connection, without IO.
pub(super) enum Tls {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What became of bytes that came in.
pub(super) struct Opened {
    /// How many are done with.
    pub(super) used: usize,
    /// The handshake is made.
    pub(super) is_ready: bool,
    /// Nothing more comes.
    pub(super) is_over: bool,
}

impl Tls {
    pub(super) fn client(config: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let name = ServerName::try_from(NAME).context("the name is one")?;
        Ok(Self::Client(UnbufferedClientConnection::new(config, name)?))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> anyhow::Result<Self> {
        Ok(Self::Server(UnbufferedServerConnection::new(config)?))
    }

    /// Decrypts what came, and appends the plaintext to `plain`, and what is to be sent for it to
    /// `answer`.
    pub(super) fn open(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> io::Result<Opened> {
        match self {
            Self::Client(side) => open(side, incoming, plain, answer),
            Self::Server(side) => open(side, incoming, plain, answer),
        }
    }

    /// Encrypts `plain` to the front of `out`, in records as long as there are; how much that is.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Client(side) => seal(side, plain, out),
            Self::Server(side) => seal(side, plain, out),
        }
    }

    /// Encrypts `plain` into the thread's buffer and passes it on.
    pub(super) fn sealed<T>(
        &mut self,
        plain: &[u8],
        then: impl FnOnce(&[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        thread_local! {
            static SEALED: RefCell<Vec<u8>> = RefCell::default();
        }
        SEALED.with_borrow_mut(|out| {
            let sealed = self.seal(plain, out)?;
            then(out.get(..sealed).unwrap_or_default())
        })
    }
}

/// What both sides of the library can do.
trait Side {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

fn open<S: Side>(
    side: &mut S,
    incoming: &mut [u8],
    plain: &mut Vec<u8>,
    answer: &mut Vec<u8>,
) -> io::Result<Opened> {
    let mut opened = Opened { used: 0, is_ready: false, is_over: false };
    loop {
        let rest = incoming.get_mut(opened.used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = side.process(rest);
        let has_more = match state.map_err(io::Error::other)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(io::Error::other)?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                true
            }
            ConnectionState::EncodeTlsData(mut data) => {
                encode(&mut data, answer);
                true
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                true
            }
            ConnectionState::WriteTraffic(_) => {
                opened.is_ready = true;
                false
            }
            ConnectionState::BlockedHandshake => false,
            ConnectionState::PeerClosed
            | ConnectionState::Closed
            | ConnectionState::ReadEarlyData(_) => {
                opened.is_over = true;
                false
            }
            _ => return Err(io::Error::other("a state that rustls did not have")),
        };
        opened.used += discard;
        if !has_more {
            return Ok(opened);
        }
    }
}

fn encode<T>(data: &mut EncodeTlsData<'_, T>, out: &mut Vec<u8>) {
    let used = out.len();
    loop {
        match data.encode(out.get_mut(used..).unwrap_or_default()) {
            Ok(encoded) => return out.truncate(used + encoded),
            Err(EncodeError::InsufficientSize(error)) => out.resize(used + error.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return out.truncate(used),
        }
    }
}

fn seal<S: Side>(side: &mut S, plain: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
    let most = plain.len() + (plain.len() / FRAGMENT + 1) * RECORD_OVERHEAD;
    if out.len() < most {
        out.resize(most, 0);
    }
    match side.process(&mut []).state.map_err(io::Error::other)? {
        ConnectionState::WriteTraffic(mut traffic) => {
            traffic.encrypt(plain, out).map_err(io::Error::other)
        }
        ConnectionState::ReadTraffic(_)
        | ConnectionState::ReadEarlyData(_)
        | ConnectionState::EncodeTlsData(_)
        | ConnectionState::TransmitTlsData(_)
        | ConnectionState::BlockedHandshake
        | ConnectionState::PeerClosed
        | ConnectionState::Closed
        | _ => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// A connection over a blocking socket, in large reads and writes.
pub(super) struct TlsStream {
    stream: TcpStream,
    tls: Tls,
    /// Ciphertext that came; the first `filled` bytes are no whole record yet.
    incoming: Vec<u8>,
    filled: usize,
    /// Plaintext that came, of which the first `taken` bytes are done with.
    plain: Vec<u8>,
    taken: usize,
    is_over: bool,
}

impl TlsStream {
    /// Makes the handshake.
    pub(super) fn new(stream: TcpStream, tls: Tls) -> io::Result<Self> {
        let incoming = vec![0; FIRST_READ];
        let plain = Vec::new();
        let mut made = Self { stream, tls, incoming, filled: 0, plain, taken: 0, is_over: false };
        while !made.advance()? {
            if made.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(made)
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether something is decrypted that nobody has taken.
    pub(super) const fn has_more(&self) -> bool {
        self.taken < self.plain.len()
    }

    /// The socket and the connection, once nothing waits between them.
    pub(super) fn into_parts(self) -> io::Result<(TcpStream, Tls)> {
        if self.filled > 0 || self.has_more() {
            return Err(io::Error::other("the other side did not wait for an answer"));
        }
        Ok((self.stream, self.tls))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let room = self.incoming.get_mut(self.filled..).unwrap_or_default();
        let is_large = room.len() > FIRST_READ;
        let read = self.stream.read(room)?;
        self.filled += read;
        if !is_large && read > FIRST_READ / 2 {
            self.incoming.resize(LARGE_READ, 0);
        }
        Ok(read)
    }

    /// Decrypts what came; whether the handshake is made.
    fn advance(&mut self) -> io::Result<bool> {
        let mut answer = Vec::new();
        let incoming = self.incoming.get_mut(..self.filled).unwrap_or_default();
        let opened = self.tls.open(incoming, &mut self.plain, &mut answer)?;
        self.incoming.copy_within(opened.used..self.filled, 0);
        self.filled -= opened.used;
        self.is_over |= opened.is_over;
        self.stream.write_all(&answer)?;
        Ok(opened.is_ready)
    }
}

impl Read for TlsStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.plain.len() {
            self.plain.clear();
            self.taken = 0;
            if self.is_over || self.fill()? == 0 {
                return Ok(0);
            }
            self.advance()?;
        }
        let read = self.plain.get(self.taken..).unwrap_or_default().read(out)?;
        self.taken += read;
        Ok(read)
    }
}

impl Write for TlsStream {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.tls.sealed(plain, |sealed| self.stream.write_all(sealed))?;
        Ok(plain.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
