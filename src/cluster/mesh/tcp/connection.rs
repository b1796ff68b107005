//! A TLS connection of a lane: the handshake, and what both sides say before packets go.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::Configs;
use super::hello::HelloError;
use crate::cluster::Reject;
use crate::cluster::mesh::tls;
use crate::ids::RelayId;
use crate::net::tls::{Ciphertext, Engine};
use crate::net::words::of_tls;

/// Ciphertext that is kept since it is no whole record or message yet, at most: a whole record of
/// TLS 1.3, twice.
pub(super) const MOST_CARRIED: usize = 40_960;

/// Bytes of one read before packets go.
const READ: usize = 4_096;

/// Plaintext that waits before packets go, at most: nobody has more to say by then but its first
/// packets.
const MOST_PLAIN: usize = 32_768;

/// A lane whose bytes are not acknowledged for so long is lost: its packets go over QUIC.
pub(in crate::cluster::mesh) const LOST_AFTER: Duration = Duration::from_secs(3);

/// A lane on which nothing goes is asked for a sign of life so often.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Bytes that the kernel holds and has not sent: what cannot leave soon waits in the outbox,
/// where it has an age.
const NOTSENT_LOWAT: u32 = 512 << 10;

impl Configs {
    /// One end of a connection that we dial.
    pub(super) fn client(&self) -> Result<Engine, rustls::Error> {
        // It is not sent.
        let name = ServerName::try_from(tls::SERVER_NAME)
            .map_err(|_| rustls::Error::General("the name is none".to_owned()))?;
        Engine::client(Arc::clone(&self.client), name)
    }
}

/// Why there is no lane, or none any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::cluster::mesh) enum Failure {
    /// The connection has ended.
    #[error("the connection has ended")]
    Gone,
    /// The connection has ended with an error.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// The two sides do not agree, the other has no key that we know, or it broke the rules.
    #[error("{}", of_tls(.0))]
    Tls(#[from] rustls::Error),
    /// More than anybody has to say at that point.
    #[error("too many bytes before the first packet")]
    TooMuch,
    /// It is another relay than that of the link.
    #[error("another relay answers there")]
    OtherRelay,
    /// No link to the relay that it has dialled is up.
    #[error("there is no link that it has dialled")]
    NoLink,
    /// What it says first.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It was not ready in time.
    #[error("no hello in time")]
    Timeout,
}

impl Failure {
    /// As what it counts where somebody has dialled us; `None` where the other side is not to
    /// blame.
    pub(super) const fn reject(&self) -> Option<Reject> {
        match self {
            Self::Gone | Self::Lost(_) => None,
            Self::Tls(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
            | Self::OtherRelay => Some(Reject::Stranger),
            Self::Tls(_) | Self::TooMuch | Self::Hello(HelloError::Malformed) => {
                Some(Reject::BadHello)
            }
            Self::Hello(HelloError::WrongMac) => Some(Reject::WrongSecret),
            Self::NoLink => Some(Reject::NoMember),
            Self::Timeout => Some(Reject::Timeout),
        }
    }
}

/// A connection whose two sides have agreed on keys.
pub(in crate::cluster::mesh) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) tls: Engine,
    /// Ciphertext that came and is no whole record.
    pub(super) carry: Vec<u8>,
    /// Plaintext that came and that nobody has taken.
    pub(super) plain: Vec<u8>,
    pub(super) out: Ciphertext,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes the handshake; the caller keeps the time.
    ///
    /// # Errors
    /// Why there is no connection; the other side has been told as far as it listens.
    pub(super) async fn handshake(stream: TcpStream, tls: Engine) -> Result<Self, Failure> {
        prepare(&stream);
        let (carry, plain, out) = (Vec::new(), Vec::new(), Ciphertext::default());
        let mut connection = Self { stream, tls, carry, plain, out };
        connection.take(0)?;
        loop {
            connection.flush().await?;
            if !connection.tls.is_handshaking() {
                return Ok(connection);
            }
            connection.receive().await?;
        }
    }

    /// The relay whose key the other side has proved to own.
    pub(super) fn proven(&self) -> Option<RelayId> {
        tls::from_spki(self.tls.peer_certificates()?.first()?)
    }

    /// Sends bytes before packets go.
    pub(in crate::cluster::mesh) async fn say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.tls.seal(bytes, &mut self.carry, &mut self.out)?;
        Ok(self.flush().await?)
    }

    /// Waits for so many bytes; what follows them stays. Cancel-safe.
    pub(super) async fn hear<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        loop {
            if let Some((said, rest)) = self.plain.split_first_chunk::<N>() {
                let said = *said;
                self.plain = rest.to_vec();
                return Ok(said);
            }
            self.receive().await?;
            self.flush().await?;
        }
    }

    /// Reads once and takes what came.
    pub(super) async fn receive(&mut self) -> Result<(), Failure> {
        let carried = self.carry.len();
        loop {
            self.stream.readable().await?;
            self.carry.resize(carried + READ, 0);
            let room = self.carry.get_mut(carried..).unwrap_or_default();
            let read = self.stream.try_read(room);
            self.carry.truncate(carried + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => return Err(Failure::Gone),
                Ok(_) => return self.take(MOST_PLAIN),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the whole records that have come; not more plaintext than `most`.
    fn take(&mut self, most: usize) -> Result<(), Failure> {
        let Self { plain, .. } = self;
        let opened = |payload: &[u8]| plain.extend_from_slice(payload);
        let done = match self.tls.open(&mut self.carry, opened, &mut self.out) {
            Ok(done) => done,
            Err(error) => {
                // The alert; whoever is gone hears nothing.
                let _told = self.stream.try_write(self.out.waiting());
                return Err(error.into());
            }
        };
        self.carry.drain(..done);
        if self.tls.has_ended() {
            return Err(Failure::Gone);
        }
        if self.carry.len() > MOST_CARRIED || self.plain.len() > most {
            return Err(Failure::TooMuch);
        }
        Ok(())
    }

    /// Sends all that waits.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.out.waiting().is_empty() {
            match self.stream.try_write(self.out.waiting()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.out.sent(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sets a socket up; what the system does not have costs speed, and is no reason to fail.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(LOST_AFTER / 3);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_user_timeout(Some(LOST_AFTER));
        let _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
    }
}
