//! TLS of one lane without IO: plaintext to records, records to plaintext, on either side.

use std::io;
use std::mem;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{ClientConfig, Error, ServerConfig};

use crate::cluster::mesh::tls;
use crate::ids::RelayId;

/// Plaintext of one record, in bytes.
const FRAGMENT: usize = 16_384;

/// What a record adds to its plaintext at most: header, type, tag.
const RECORD_OVERHEAD: usize = 64;

/// Room for what the library wants to say before our own, such as a key update.
const CONTROL_ROOM: usize = 256;

/// Bytes that wait to be sent. Its memory is kept, and its length is none of the caller's.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// What waits.
    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// So much of it has been sent.
    pub(super) const fn sent(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.end {
            self.start = 0;
            self.end = 0;
        }
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

/// One end of a TLS connection.
pub(super) enum Tls {
    /// Of the relay that has dialled.
    Client(UnbufferedClientConnection),
    /// Of the relay that was dialled.
    Server(UnbufferedServerConnection),
}

impl Tls {
    /// The end that dials.
    pub(super) fn client(config: Arc<ClientConfig>) -> Result<Self, Error> {
        // It is not sent.
        let name = ServerName::try_from(tls::SERVER_NAME)
            .map_err(|_| Error::General("the name is none".to_owned()))?;
        UnbufferedClientConnection::new(config, name).map(Self::Client)
    }

    /// The end that is dialled.
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(Self::Server)
    }

    /// Whether it has yet to be agreed on anything.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(connection) => connection.is_handshaking(),
            Self::Server(connection) => connection.is_handshaking(),
        }
    }

    /// The relay whose key the other side has proved to own, once the handshake is complete.
    pub(super) fn proven(&self) -> Option<RelayId> {
        let keys = match self {
            Self::Client(connection) => connection.peer_certificates(),
            Self::Server(connection) => connection.peer_certificates(),
        };
        tls::from_spki(keys?.first()?)
    }

    /// Takes the whole records of `incoming`: their plaintext goes behind `plain`, and what is to
    /// be answered behind `out`. Returns how many bytes are done with, and whether the other side
    /// has said that no more come.
    ///
    /// # Errors
    /// The other side broke the rules; what it is told is in `out`.
    pub(super) fn open(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Outgoing,
    ) -> Result<(usize, bool), Error> {
        let mut start = 0;
        loop {
            let rest = incoming.get_mut(start..).unwrap_or_default();
            let (discard, step) = match self {
                Self::Client(c) => read_step(c.process_tls_records(rest), plain, out),
                Self::Server(c) => read_step(c.process_tls_records(rest), plain, out),
            };
            start += discard;
            match step {
                Ok(Step::More) => {}
                Ok(Step::All) => return Ok((start, false)),
                Ok(Step::Ended) => return Ok((start, true)),
                Err(error) => {
                    self.tell(plain, out);
                    return Err(error);
                }
            }
        }
    }

    /// Puts the alert for what went wrong behind `out`, and before it what was answered until then.
    fn tell(&mut self, plain: &mut Vec<u8>, out: &mut Outgoing) {
        // What is queued comes before the library looks at what came, which was wrong.
        loop {
            let (_, step) = match self {
                Self::Client(c) if c.wants_write() => {
                    read_step(c.process_tls_records(&mut []), plain, out)
                }
                Self::Server(c) if c.wants_write() => {
                    read_step(c.process_tls_records(&mut []), plain, out)
                }
                Self::Client(_) | Self::Server(_) => return,
            };
            if step.is_err() {
                return;
            }
        }
    }

    /// Encrypts `plain` behind `out`. `carried` is what has come and is no whole record.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn seal(
        &mut self,
        plain: &[u8],
        carried: &mut [u8],
        out: &mut Outgoing,
    ) -> io::Result<()> {
        loop {
            // What the library has seen of a record has to be where it was.
            let is_sealed = match self {
                Self::Client(c) => write_step(c.process_tls_records(carried), plain, out),
                Self::Server(c) => write_step(c.process_tls_records(carried), plain, out),
            };
            if is_sealed? {
                return Ok(());
            }
        }
    }
}

/// How far a connection is with what came.
enum Step {
    /// There may be more in it.
    More,
    /// That was all.
    All,
    /// And no more comes.
    Ended,
}

fn read_step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut Vec<u8>,
    out: &mut Outgoing,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
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
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Step::All),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Ended),
        // Early data is off.
        Ok(_) => Err(Error::General("a state out of turn".to_owned())),
        Err(error) => Err(error),
    };
    (discard, step)
}

/// Whether `plain` is encrypted.
fn write_step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &[u8],
    out: &mut Outgoing,
) -> io::Result<bool> {
    match status.state.map_err(io::Error::other)? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let most = plain.len() + (plain.len() / FRAGMENT + 1) * RECORD_OVERHEAD + CONTROL_ROOM;
            let mut sealed = traffic.encrypt(plain, out.room(most));
            if let Err(EncryptError::InsufficientSize(size)) = &sealed {
                let size = size.required_size;
                sealed = traffic.encrypt(plain, out.room(size));
            }
            out.end += sealed.map_err(io::Error::other)?;
            Ok(true)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, out);
            Ok(false)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(false)
        }
        ConnectionState::ReadTraffic(_)
        | ConnectionState::ReadEarlyData(_)
        | ConnectionState::BlockedHandshake
        | ConnectionState::PeerClosed
        | ConnectionState::Closed
        | _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Outgoing) {
    let mut encoded = data.encode(out.room(CONTROL_ROOM));
    if let Err(EncodeError::InsufficientSize(size)) = &encoded {
        let size = size.required_size;
        encoded = data.encode(out.room(size));
    }
    // It is encoded once, into the room that it needs.
    out.end += encoded.unwrap_or(0);
}

/// A buffer that a thread lends to whoever reads or decrypts on it.
pub(super) type Scratch = std::thread::LocalKey<std::cell::RefCell<Vec<u8>>>;

/// Lends a thread's buffer; where it is lent already, an empty one.
pub(super) fn lend<T>(scratch: &'static Scratch, to: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = scratch.with(|buffer| mem::take(&mut *buffer.borrow_mut()));
    let result = to(&mut buffer);
    scratch.with(|kept| *kept.borrow_mut() = buffer);
    result
}
