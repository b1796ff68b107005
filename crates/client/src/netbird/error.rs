//! Why there is no session, and why one ended.

use std::io;
use std::time::Duration;

use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::driven::Reason;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no connection, or the relay took too long.
    #[error(transparent)]
    Dial(#[from] crate::ConnectError),
    /// There is no connection over QUIC.
    #[cfg(feature = "quic")]
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// The relay ended the connection instead of an answer. It says to nobody why: the token may be
    /// of another secret or have expired, a clock may be wrong, or the server be no relay.
    #[error("the relay ended the connection at the login, as it does where a token is not good")]
    Refused,
    /// The token is longer than any relay takes.
    #[error("a token of {bytes} bytes is longer than a login holds")]
    Token {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The relay does not keep to the protocol.
    #[error("the server is no relay: it sent {what}")]
    Unexpected {
        /// What it sent.
        what: &'static str,
    },
    /// The connection broke.
    #[error("the connection broke during the login: {0}")]
    Transport(#[from] SessionError),
}

impl ConnectError {
    /// Whether a person has to change something before it can work, here or at the relay.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        match self {
            Self::Dial(error) => error.needs_attention(),
            #[cfg(feature = "quic")]
            Self::Quic(error) => error.needs_attention(),
            Self::Refused | Self::Token { .. } | Self::Unexpected { .. } => true,
            Self::Transport(_) => false,
        }
    }
}

/// Why there is no connection over QUIC.
#[cfg(feature = "quic")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuicError {
    /// The URL is one without TLS.
    #[error("QUIC needs TLS: the scheme must be rels or wss")]
    NoTls,
    /// The name does not resolve, or there is no socket.
    #[error("cannot reach {authority}: {source}")]
    Unreachable {
        /// Host and port as in the URL.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection cannot even be begun.
    #[error("cannot dial over QUIC: {0}")]
    Dial(#[from] quinn::ConnectError),
    /// What answers does not speak the relay's protocol, as a server of HTTP/3.
    #[error("the server over QUIC does not speak nb-quic: it is no relay")]
    OtherProtocol,
    /// The handshake failed.
    #[error("the handshake over QUIC failed: {0}")]
    Handshake(#[source] quinn::ConnectionError),
    /// Nobody answers at any address.
    #[error("no answer over QUIC within {0:?}")]
    NoAnswer(Duration),
    /// The relay takes no datagrams.
    #[error("the server takes no datagrams: it is no relay")]
    NoDatagrams,
}

#[cfg(feature = "quic")]
impl QuicError {
    /// Whether a person has to change something before it can work, here or at the relay.
    pub(super) const fn needs_attention(&self) -> bool {
        match self {
            Self::NoTls | Self::NoDatagrams | Self::OtherProtocol => true,
            // A refused certificate, for one (RFC 9001, section 4.8).
            Self::Handshake(quinn::ConnectionError::TransportError(_)) => true,
            Self::Unreachable { .. } | Self::Dial(_) | Self::Handshake(_) | Self::NoAnswer(_) => {
                false
            }
        }
    }
}

/// Why a session ended, other than by our own close.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The relay said that it ends the session: it shuts down, or an operator wants it so.
    #[error("the relay closed the session")]
    Closed,
    /// The relay ended the connection and said why: WebSocket code 1009 for a message that is too
    /// large.
    #[error("the relay ended the connection ({code}, {reason:?})")]
    Ended {
        /// The code of the close.
        code: u64,
        /// What the relay said.
        reason: String,
    },
    /// The connection ended without a word: a newer session of the same peer has taken the place,
    /// the relay found a message of ours to break the protocol, or there is no relay any more.
    #[error("the relay ended the connection without a word")]
    Lost,
    /// No health check of the relay came.
    #[error("the relay sent no health check for {0:?}")]
    Silent(Duration),
    /// The socket took nothing.
    #[error("the relay took no message for {0:?}")]
    Stuck(Duration),
    /// The WebSocket broke.
    #[error("the connection broke: {0}")]
    Transport(#[source] Box<tungstenite::Error>),
    /// QUIC broke.
    #[cfg(feature = "quic")]
    #[error("the connection broke: {0}")]
    Quic(#[source] quinn::ConnectionError),
}

impl SessionError {
    pub(super) fn ended(reason: Option<Reason>) -> Self {
        match reason {
            Some(Reason { code, text }) => Self::Ended { code, reason: text },
            None => Self::Lost,
        }
    }

    /// Whether the other side has ended the connection.
    pub(super) const fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Ended { .. } | Self::Lost)
    }
}

impl From<tungstenite::Error> for SessionError {
    fn from(error: tungstenite::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says itself what it is")]
        match error {
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed => Self::Lost,
            tungstenite::Error::Io(error) if is_end(error.kind()) => Self::Lost,
            other => Self::Transport(Box::new(other)),
        }
    }
}

/// Whether an error of a socket only says that the other side has gone.
fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
