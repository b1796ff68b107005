//! One TLS connection without IO: records to plaintext, plaintext to records.
//!
//! What is queued here owns memory only while something waits: ciphertext that is no whole
//! record, plaintext that its reader had no room for, and ciphertext that the kernel has not
//! taken.

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{HandshakeKind, ServerConfig};

/// Longest record with its header, of TLS 1.2, in bytes.
pub(super) const MAX_RECORD: usize = 5 + 16_384 + 2_048;

/// Ciphertext that is kept since it is no whole record or message yet, at most: a hello in the
/// smallest records that make sense. Records of a session are whole below that.
pub(super) const MOST_CARRIED: usize = 32_768;

/// What a record adds to its plaintext at most, in TLS 1.2 and 1.3: header, nonce or type, tag.
const RECORD_OVERHEAD: usize = 64;

/// Plaintext of one record.
const FRAGMENT: usize = 16_384;

/// Room for what the library wants to say before our own, such as a key update.
const CONTROL_ROOM: usize = 256;

/// A connection and what waits on both of its sides.
pub(super) struct Records {
    connection: UnbufferedServerConnection,
    /// Ciphertext that came and is no whole record.
    pub(super) carry: Vec<u8>,
    /// Plaintext that came and that nobody has taken.
    plain: Vec<u8>,
    /// Ciphertext that the kernel has not taken.
    pub(super) tail: Vec<u8>,
    /// Bytes of the caller's that are encrypted and of which the caller has not heard.
    pub(super) owed: usize,
    /// Somebody is in the system call with what goes before the tail.
    pub(super) writing: bool,
    /// The peer has said that nothing more comes, or has gone.
    pub(super) ended: bool,
    /// Nothing can be read or written any more.
    pub(super) failed: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("carry", &self.carry.len())
            .field("plain", &self.plain.len())
            .field("tail", &self.tail.len())
            .field("owed", &self.owed)
            .finish_non_exhaustive()
    }
}

impl Records {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            carry: Vec::new(),
            plain: Vec::new(),
            tail: Vec::new(),
            owed: 0,
            writing: false,
            ended: false,
            failed: false,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.connection.handshake_kind()
    }

    /// The protocol that both sides have chosen, where they have.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Whether plaintext waits to be read.
    pub(super) const fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Moves plaintext that waits to `out`; how much.
    pub(super) fn take_plain(&mut self, out: &mut [u8]) -> usize {
        let taken = self.plain.len().min(out.len());
        let (now, later) = self.plain.split_at(taken);
        out.get_mut(..taken).expect("no more is taken than fits").copy_from_slice(now);
        // What stays goes into a buffer of its own size, or none.
        self.plain = later.to_vec();
        taken
    }

    /// What is kept, in bytes.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        self.carry.capacity() + self.plain.capacity() + self.tail.capacity()
    }

    /// Takes what came, the carried bytes first, and writes its plaintext to `out`, what does
    /// not fit behind what waits. Returns how much is in `out`.
    pub(super) fn open(
        &mut self,
        incoming: &mut [u8],
        out: &mut [u8],
    ) -> Result<usize, rustls::Error> {
        let mut start = 0;
        let mut filled = 0;
        loop {
            let rest = incoming.get_mut(start..).expect("no more is discarded than there is");
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            let is_all = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let room = out.get_mut(filled..).expect("it is filled from the start");
                        let fits = record.payload.len().min(room.len());
                        let (now, later) = record.payload.split_at(fits);
                        room.get_mut(..fits).expect("it fits").copy_from_slice(now);
                        self.plain.extend_from_slice(later);
                        filled += fits;
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let end = self.tail.len();
                    encode(&mut data, &mut self.tail, end);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    false
                }
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    true
                }
                // Early data is off.
                Ok(ConnectionState::ReadEarlyData(_)) => return Err(out_of_turn()),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => true,
                Ok(_) => return Err(out_of_turn()),
                Err(error) => {
                    self.tell();
                    return Err(error);
                }
            };
            start += discard;
            if is_all {
                break;
            }
        }
        let rest = incoming.get(start..).expect("no more is discarded than there is");
        if rest.is_empty() {
            self.carry = Vec::new();
        } else {
            self.carry.clear();
            self.carry.extend_from_slice(rest);
        }
        Ok(filled)
    }

    /// Queues what the library has to say of what went wrong: the alert, and before it what it
    /// had answered until then.
    fn tell(&mut self) {
        // It comes before the library looks at what came: that must not be, once it was wrong.
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { return };
            let end = self.tail.len();
            encode(&mut data, &mut self.tail, end);
        }
    }

    /// Encrypts `plain` to the front of `out`, behind what the library has to say; how much
    /// ciphertext that is.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let most = plain.len() + (plain.len() / FRAGMENT + 1) * RECORD_OVERHEAD + CONTROL_ROOM;
        if out.len() < most {
            out.resize(most, 0);
        }
        self.say(Said::Data(plain), out, 0)
    }

    /// Queues that nothing more comes.
    pub(super) fn seal_end(&mut self) -> io::Result<()> {
        let mut tail = mem::take(&mut self.tail);
        let used = tail.len();
        let said = self.say(Said::End, &mut tail, used);
        self.tail = tail;
        said.map(drop)
    }

    /// Writes to `out` from `used` on; where it ends there.
    fn say(&mut self, said: Said<'_>, out: &mut Vec<u8>, mut used: usize) -> io::Result<usize> {
        loop {
            // What the library has seen of a message has to be where it was.
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.carry);
            match state.map_err(broken)? {
                ConnectionState::WriteTraffic(mut traffic) => loop {
                    let room = out.get_mut(used..).expect("what is used is there");
                    let sealed = match said {
                        Said::Data(plain) => traffic.encrypt(plain, room),
                        Said::End => traffic.queue_close_notify(room),
                    };
                    match sealed {
                        Ok(sealed) => return Ok(used + sealed),
                        Err(EncryptError::InsufficientSize(error)) => {
                            out.resize(used + error.required_size, 0);
                        }
                        Err(error @ EncryptError::EncryptExhausted) => return Err(broken(error)),
                    }
                },
                ConnectionState::EncodeTlsData(mut data) => used = encode(&mut data, out, used),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                ConnectionState::ReadTraffic(_)
                | ConnectionState::ReadEarlyData(_)
                | ConnectionState::BlockedHandshake
                | ConnectionState::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
                _ => return Err(broken(out_of_turn())),
            }
            self.carry.drain(..discard);
        }
    }
}

/// What we say.
#[derive(Clone, Copy)]
enum Said<'a> {
    Data(&'a [u8]),
    End,
}

/// Writes what the library says to `out` from `used` on; where it ends there.
fn encode<T>(data: &mut EncodeTlsData<'_, T>, out: &mut Vec<u8>, used: usize) -> usize {
    loop {
        match data.encode(out.get_mut(used..).expect("what is used is there")) {
            Ok(encoded) => return used + encoded,
            Err(EncodeError::InsufficientSize(error)) => {
                out.resize(used + error.required_size, 0);
            }
            Err(EncodeError::AlreadyEncoded) => return used,
        }
    }
}

/// The library is in a state that it has no reason for.
fn out_of_turn() -> rustls::Error {
    rustls::Error::General("a state that cannot be at this point".to_owned())
}

/// The stream ends by this error.
pub(super) fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
