//! A session's stream over TLS.
//!
//! **Buffers.** Ciphertext is read into and written from buffers of the thread; a connection
//! keeps only what is not whole: a record that has come in part, plaintext that its reader had
//! no room for, ciphertext that the kernel has not taken. An idle one keeps nothing.
//!
//! **Locks.** One lock guards the connection, and is held while bytes are encrypted or decrypted,
//! never across a system call. A flag admits one writer at a time, so that ciphertext leaves in the
//! order in which it was made; the outbox above admits one flusher, and the other writer is the
//! reading task, which answers key updates.
//!
//! **Partial writes.** What is encrypted cannot be taken back. The stream therefore owns ciphertext
//! that the kernel has not taken, and reports the plaintext as written once *all* of it has left:
//! until then a write returns 0 if the kernel has taken something, which counts as progress, and
//! `WouldBlock` if nothing. The caller comes again with the same bytes, as the outbox does with
//! what is in flight; so the outbox holds them as in flight for as long as the ciphertext is in
//! this process, its bound counts them once, and its write deadline ends a reader that is stuck.
//!
//! **The end.** A close_notify and an end of the stream below are both the end: WebSocket says itself
//! where a message is cut off.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::{Mutex, MutexGuard};
use rustls::{HandshakeKind, ServerConfig};
use tokio::task::coop::consume_budget;

use super::super::stream::{Records as OfPeer, Stream};
use super::clients::{Certified, Clients};
use super::engine::{Ciphertext, broken};
use super::records::{MAX_RECORD, MOST_CARRIED, Records};
use crate::net::words::of_tls;

/// What a first byte says: a record of a handshake.
const HANDSHAKE: u8 = 22;

/// Least room for a read behind bytes that are carried.
const LEAST_READ: usize = 1_024;

/// What a client hears that speaks HTTP where TLS is spoken.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 41\r\nConnection: close\r\n\r\nthis port speaks TLS: use https or wss \r\n";

thread_local! {
    /// Ciphertext that comes in.
    static INCOMING: RefCell<Vec<u8>> = RefCell::default();
    /// Ciphertext that goes out.
    static OUTGOING: RefCell<Ciphertext> = RefCell::default();
}

/// Which handshake it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A whole one.
    Full,
    /// With the ticket of an earlier one.
    Resumed,
}

/// Why there is no TLS connection, or none any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The client went away.
    #[error("the client went away")]
    Gone,
    /// The stream below has ended with an error.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// What came first is no TLS.
    #[error("the client does not speak TLS")]
    NotTls,
    /// No failure: the challenge of an ACME authority was answered, and nothing more is said.
    #[error("a challenge of an ACME authority was answered")]
    Challenge,
    /// There is no certificate to show.
    #[error("the listener has no certificate yet")]
    NoCertificate,
    /// A message is longer than any that makes sense.
    #[error("a handshake message is too long")]
    TooLong,
    /// The two sides do not agree, or one has broken the rules.
    #[error("{}", of_tls(.0))]
    Tls(#[from] rustls::Error),
}

/// What a read came to.
enum Received {
    /// So many bytes of plaintext; none where no record is whole yet.
    Plain(usize),
    /// Nothing more comes.
    End,
}

/// How far ciphertext has left that the kernel had not taken.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Left {
    All,
    Part,
    Nothing,
}

/// A TLS connection that was accepted, over the stream below it.
pub struct TlsStream {
    stream: Box<dyn Stream>,
    records: Mutex<Records>,
    certified: Option<Arc<Certified>>,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Makes the handshake with a client, which has to be one of `clients` where there are such.
    pub(super) async fn accept(
        stream: Box<dyn Stream>,
        config: Arc<ServerConfig>,
        clients: Option<&Arc<Clients>>,
    ) -> Result<Self, Failure> {
        let records = Mutex::new(Records::new(config)?);
        let mut tls = Self { stream, records, certified: None };
        let failure = match tls.handshake().await {
            Ok(()) => {
                tls.certified = clients.and_then(|clients| tls.certify(clients));
                return Ok(tls);
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::NotTls) {
            // A client that is gone needs no answer.
            let _ = tls.stream.try_write(PLAIN_HTTP);
        }
        tls.stream.shutdown_write();
        Err(failure)
    }

    async fn handshake(&self) -> Result<(), Failure> {
        loop {
            // A client that sends a byte at a time must not keep the deadline from being looked at.
            consume_budget().await;
            while self.send_tail()? != Left::All {
                poll_fn(|cx| self.stream.poll_writable(cx)).await?;
            }
            if !self.records.lock().engine.is_handshaking() {
                return Ok(());
            }
            match self.receive(&mut []) {
                Ok(Received::Plain(_)) => {}
                Ok(Received::End) => return Err(Failure::Gone),
                Err(Failure::Lost(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.stream.poll_readable(cx)).await?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn certify(&self, clients: &Arc<Clients>) -> Option<Arc<Certified>> {
        let records = self.records.lock();
        let certified = Certified::new(records.engine.peer_certificates()?, clients)?;
        Some(Arc::new(certified))
    }

    /// Who the client has proved to be, where the listener takes only those that do.
    #[must_use]
    pub const fn certified(&self) -> Option<&Arc<Certified>> {
        self.certified.as_ref()
    }

    /// Which handshake it was.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.records.lock().engine.handshake_kind() {
            Some(HandshakeKind::Resumed) => Kind::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
                Kind::Full
            }
        }
    }

    /// Whether this is the protocol that both sides have chosen.
    pub(super) fn protocol_is(&self, protocol: &[u8]) -> bool {
        self.records.lock().engine.protocol() == Some(protocol)
    }

    /// What the connection keeps of bytes, in bytes.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        self.records.lock().buffers()
    }

    /// Reads ciphertext once, and answers what the protocol wants answered.
    fn receive(&self, out: &mut [u8]) -> Result<Received, Failure> {
        let carried = {
            let mut records = self.records.lock();
            if records.has_plain() && !out.is_empty() {
                return Ok(Received::Plain(records.take_plain(out)));
            }
            if records.ended {
                return Ok(Received::End);
            }
            if records.failed {
                return Err(io::Error::from(io::ErrorKind::NotConnected).into());
            }
            records.carry.len()
        };
        let mut incoming = INCOMING.take();
        let received = self.receive_behind(carried, &mut incoming, out);
        INCOMING.set(incoming);
        received
    }

    fn receive_behind(
        &self,
        carried: usize,
        incoming: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Result<Received, Failure> {
        // No more than the plaintext of what comes has room for.
        let room = out.len().max(MAX_RECORD).saturating_sub(carried).max(LEAST_READ);
        let end = carried + room;
        if incoming.len() < end {
            incoming.resize(end, 0);
        }
        let read = incoming.get_mut(carried..end).expect("it was made long enough");
        let read = self.stream.try_read(read)?;
        let mut records = self.records.lock();
        if read == 0 {
            records.ended = true;
            return Ok(Received::End);
        }
        let incoming = incoming.get_mut(..carried + read).expect("it was read there");
        let (before, _) = incoming.split_at_mut(carried);
        before.copy_from_slice(&records.carry);
        if records.engine.is_handshaking() && incoming.first() != Some(&HANDSHAKE) {
            let first = incoming.first().copied().unwrap_or_default();
            if first.is_ascii_alphabetic() {
                records.failed = true;
                return Err(Failure::NotTls);
            }
        }
        let opened = records.open(incoming, out);
        let is_too_long = records.carry.len() > MOST_CARRIED;
        records.failed |= opened.is_err() || is_too_long;
        // What is left goes with the next write; one that fails shows there, or in the next read.
        if !records.tail.is_empty() && !records.writing {
            let _ = self.drain(&mut records);
        }
        match opened {
            Ok(_) if is_too_long => Err(Failure::TooLong),
            Ok(filled) => Ok(Received::Plain(filled)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what is left of ciphertext.
    fn send_tail(&self) -> io::Result<Left> {
        let mut records = self.records.lock();
        self.drain(&mut records)
    }

    /// Sends the ciphertext that the kernel has not taken, as far as it takes it now.
    fn drain(&self, records: &mut MutexGuard<'_, Records>) -> io::Result<Left> {
        let mut progress = Left::Nothing;
        while !records.tail.is_empty() {
            let tail = mem::take(&mut records.tail);
            let taken = self.send(records, &tail)?;
            if taken > 0 {
                progress = Left::Part;
            }
            if taken < tail.len() {
                return Ok(progress);
            }
        }
        Ok(Left::All)
    }

    /// Writes the ciphertext that is next, without the lock; what the kernel does not take is put
    /// before what was made meanwhile.
    fn send(&self, records: &mut MutexGuard<'_, Records>, next: &[u8]) -> io::Result<usize> {
        records.writing = true;
        let written = MutexGuard::unlocked(records, || self.stream.try_write(next));
        records.writing = false;
        let taken = match written {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                records.failed = true;
                return Err(error);
            }
        };
        let rest = next.get(taken..).expect("no more is taken than there is");
        if !rest.is_empty() {
            let mut rest = rest.to_vec();
            rest.append(&mut records.tail);
            records.tail = rest;
        }
        Ok(taken)
    }

    /// Encrypts `plain` and writes it, unless that was done before: see the module.
    fn write(&self, plain: &[u8]) -> io::Result<usize> {
        let mut records = self.records.lock();
        if records.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if records.writing {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.drain(&mut records)? {
            Left::All => {}
            Left::Part => return Ok(0),
            Left::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
        }
        if records.owed > 0 {
            let told = records.owed.min(plain.len());
            records.owed -= told;
            return Ok(told);
        }
        if plain.is_empty() {
            return Ok(0);
        }
        let mut outgoing = OUTGOING.take();
        let sealed = records.seal(plain, &mut outgoing);
        records.failed |= sealed.is_err();
        let sent = sealed.and_then(|()| {
            let sealed = outgoing.waiting();
            Ok(self.send(&mut records, sealed)? == sealed.len())
        });
        outgoing.clear();
        OUTGOING.set(outgoing);
        if sent? {
            return Ok(plain.len());
        }
        records.owed = plain.len();
        Ok(0)
    }
}

impl Stream for TlsStream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.receive(buffer) {
            Ok(Received::Plain(0)) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(Received::Plain(read)) => Ok(read),
            Ok(Received::End) => Ok(0),
            Err(Failure::Lost(error)) => Err(error),
            Err(error) => Err(broken(error)),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn try_write_records(&self, records: &OfPeer<'_>) -> io::Result<usize> {
        self.write(records.bytes())
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let records = self.records.lock();
        if records.has_plain() || records.ended {
            return Poll::Ready(Ok(()));
        }
        drop(records);
        self.stream.poll_readable(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_writable(cx)
    }

    fn shutdown_write(&self) {
        let mut records = self.records.lock();
        // The other side may be gone, or read nothing: then it is not told.
        if !records.writing && !records.failed && records.seal_end().is_ok() {
            let _ = self.drain(&mut records);
        }
        drop(records);
        self.stream.shutdown_write();
    }

    fn keep_alive(&self) {
        self.stream.keep_alive();
    }

    fn give_up(&self) {
        self.stream.give_up();
    }
}
