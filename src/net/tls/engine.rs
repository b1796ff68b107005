//! One TLS connection without IO, on either side: records to plaintext, plaintext to records.
//!
//! It is rustls' unbuffered connection: it owns neither what comes nor what goes.

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{ClientConfig, Error, HandshakeKind, ServerConfig};

/// Plaintext of one record, in bytes.
const FRAGMENT: usize = 16_384;

/// What a record adds to its plaintext at most, in TLS 1.2 and 1.3: header, nonce or type, tag.
const RECORD_OVERHEAD: usize = 64;

/// Room for what the library wants to say before our own, such as a key update.
const CONTROL_ROOM: usize = 256;

/// Ciphertext that waits to be sent. Its memory is kept; what is in it behind the end is none of
/// the caller's.
#[derive(Debug, Default)]
pub struct Ciphertext {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Ciphertext {
    /// What waits.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// So much of it has been sent.
    pub const fn sent(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.end {
            self.clear();
        }
    }

    /// Nothing of it waits any more.
    pub const fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Room for so many bytes behind what waits.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.end + bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }
}

/// All of it waits.
impl From<Vec<u8>> for Ciphertext {
    fn from(bytes: Vec<u8>) -> Self {
        Self { start: 0, end: bytes.len(), bytes }
    }
}

/// What waits, in memory of its size.
impl From<Ciphertext> for Vec<u8> {
    fn from(Ciphertext { mut bytes, start, end }: Ciphertext) -> Self {
        bytes.truncate(end);
        bytes.drain(..start);
        bytes.shrink_to_fit();
        bytes
    }
}

/// One end of a TLS connection.
pub struct Engine {
    side: Side,
    has_ended: bool,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Does the same on either side.
macro_rules! on {
    ($side:expr, $connection:ident => $what:expr) => {
        match $side {
            Side::Client($connection) => $what,
            Side::Server($connection) => $what,
        }
    };
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl Engine {
    /// The end that dials this server.
    ///
    /// # Errors
    /// The configuration does not do.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self { side: Side::Client(connection), has_ended: false })
    }

    /// The end that is dialled.
    ///
    /// # Errors
    /// The configuration does not do.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { side: Side::Server(connection), has_ended: false })
    }

    /// Whether it has yet to be agreed on anything.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        on!(&self.side, connection => connection.is_handshaking())
    }

    /// Which handshake it was, once that is known.
    #[must_use]
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        on!(&self.side, connection => connection.handshake_kind())
    }

    /// The protocol that both sides have chosen, where they have.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        on!(&self.side, connection => connection.alpn_protocol())
    }

    /// What the other side has proved to own, once the handshake is complete.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        on!(&self.side, connection => connection.peer_certificates())
    }

    /// Whether the other side has said that nothing more comes.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes the whole records of `incoming`: their plaintext goes to `opened`, and what is to be
    /// answered behind `out`. Returns how many bytes are done with; what is left has to come
    /// again, with more behind it.
    ///
    /// # Errors
    /// The other side broke the rules; what it is told is in `out`. Nothing may be opened after
    /// that.
    pub fn open(
        &mut self,
        incoming: &mut [u8],
        mut opened: impl FnMut(&[u8]),
        out: &mut Ciphertext,
    ) -> Result<usize, Error> {
        let mut done = 0;
        loop {
            let rest = incoming.get_mut(done..).unwrap_or_default();
            let (discard, step) = on!(&mut self.side, connection => {
                read(connection.process_tls_records(rest), &mut opened, out)
            });
            done += discard;
            match step {
                Ok(Step::More) => {}
                Ok(Step::Told) => self.has_ended = true,
                Ok(Step::All) => return Ok(done),
                Ok(Step::Ended) => {
                    self.has_ended = true;
                    return Ok(done);
                }
                Err(error) => {
                    self.tell(out);
                    return Err(error);
                }
            }
        }
    }

    /// Puts the alert for what went wrong behind `out`, and before it what was answered until then.
    fn tell(&mut self, out: &mut Ciphertext) {
        // It comes before the library looks at what came: that must not be, once it was wrong.
        while on!(&mut self.side, connection => connection.wants_write()) {
            let (_, step) = on!(&mut self.side, connection => {
                read(connection.process_tls_records(&mut []), &mut |_| {}, out)
            });
            if step.is_err() {
                return;
            }
        }
    }

    /// Encrypts `plain` behind `out`. `carried` is what has come and is no whole record.
    ///
    /// # Errors
    /// The connection is over.
    pub fn seal(
        &mut self,
        plain: &[u8],
        carried: &mut Vec<u8>,
        out: &mut Ciphertext,
    ) -> io::Result<()> {
        self.say(Said::Data(plain), carried, out)
    }

    /// Puts behind `out` that nothing more comes. `carried` is what has come and is no whole
    /// record.
    ///
    /// # Errors
    /// The connection is over.
    pub fn seal_end(&mut self, carried: &mut Vec<u8>, out: &mut Ciphertext) -> io::Result<()> {
        self.say(Said::End, carried, out)
    }

    fn say(
        &mut self,
        said: Said<'_>,
        carried: &mut Vec<u8>,
        out: &mut Ciphertext,
    ) -> io::Result<()> {
        loop {
            // What the library has seen of a message has to be where it was.
            let (discard, step) = on!(&mut self.side, connection => {
                write(connection.process_tls_records(carried), said, out)
            });
            carried.drain(..discard);
            match step? {
                Step::All => return Ok(()),
                Step::Told | Step::Ended => self.has_ended = true,
                Step::More => {}
            }
        }
    }
}

/// How far a connection is.
enum Step {
    /// There may be more to do.
    More,
    /// That was all.
    All,
    /// The other side has said that no more comes from it.
    Told,
    /// That was all, and no more comes.
    Ended,
}

/// What we say.
#[derive(Clone, Copy)]
enum Said<'a> {
    Data(&'a [u8]),
    End,
}

/// Does what is next with what came; how many bytes of it are done with.
fn read<D>(
    status: UnbufferedStatus<'_, '_, D>,
    opened: &mut impl FnMut(&[u8]),
    out: &mut Ciphertext,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    opened(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::More),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut data, out);
            Ok(Step::More)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::More)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Told),
        Ok(ConnectionState::Closed) => Ok(Step::Ended),
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Step::All),
        // Early data is off.
        Ok(_) => Err(out_of_turn()),
        Err(error) => Err(error),
    };
    (discard, step)
}

/// Says it, or what the library says before; how many bytes of what is carried are done with.
fn write<D>(
    status: UnbufferedStatus<'_, '_, D>,
    said: Said<'_>,
    out: &mut Ciphertext,
) -> (usize, io::Result<Step>) {
    let UnbufferedStatus { discard, state } = status;
    let step = match state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let mut most = match said {
                Said::Data(plain) => {
                    plain.len() + (plain.len() / FRAGMENT + 1) * RECORD_OVERHEAD + CONTROL_ROOM
                }
                Said::End => CONTROL_ROOM,
            };
            loop {
                let sealed = match said {
                    Said::Data(plain) => traffic.encrypt(plain, out.room(most)),
                    Said::End => traffic.queue_close_notify(out.room(most)),
                };
                match sealed {
                    Ok(sealed) => {
                        out.end += sealed;
                        break Ok(Step::All);
                    }
                    Err(EncryptError::InsufficientSize(size)) => most = size.required_size,
                    Err(error @ EncryptError::EncryptExhausted) => break Err(broken(error)),
                }
            }
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut data, out);
            Ok(Step::More)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::More)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Told),
        Ok(
            ConnectionState::ReadTraffic(_)
            | ConnectionState::ReadEarlyData(_)
            | ConnectionState::BlockedHandshake
            | ConnectionState::Closed,
        ) => Err(io::ErrorKind::BrokenPipe.into()),
        Ok(_) => Err(broken(out_of_turn())),
        Err(error) => Err(broken(error)),
    };
    (discard, step)
}

/// Puts what the library says behind `out`.
fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Ciphertext) {
    let mut encoded = data.encode(out.room(CONTROL_ROOM));
    if let Err(EncodeError::InsufficientSize(size)) = &encoded {
        let size = size.required_size;
        encoded = data.encode(out.room(size));
    }
    // It is encoded once, into the room that it needs.
    out.end += encoded.unwrap_or(0);
}

/// The library is in a state that it has no reason for.
fn out_of_turn() -> Error {
    Error::General("a state that cannot be at this point".to_owned())
}

/// The stream ends by this error.
pub(super) fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
