//! What carries the messages of one session: a WebSocket, or QUIC datagrams.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::Largest;
use super::driven::{Driven, Reason};
use super::error::SessionError;
#[cfg(feature = "quic")]
use super::quic;
use crate::socket::Socket;
use crate::wire::netbird::MAX_MESSAGE;

/// Longest wait for our own close to leave.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// One connection.
pub(super) enum Carrier {
    WebSocket(Box<Socket>),
    #[cfg(feature = "quic")]
    Quic(quic::Datagrams),
}

impl Carrier {
    pub(super) fn of(socket: Socket) -> Self {
        Self::WebSocket(Box::new(socket))
    }

    /// How long a message may be.
    pub(super) fn largest(&self) -> Largest {
        match self {
            Self::WebSocket(_) => Largest::Fixed(MAX_MESSAGE),
            #[cfg(feature = "quic")]
            Self::Quic(datagrams) => Largest::Path(datagrams.path()),
        }
    }

    /// Whether a message may be lost on the way.
    pub(super) const fn may_lose(&self) -> bool {
        match self {
            Self::WebSocket(_) => false,
            #[cfg(feature = "quic")]
            Self::Quic(_) => true,
        }
    }

    /// Takes a message; [`Self::drive`] sends it.
    pub(super) fn feed(&mut self, message: Bytes) -> Result<(), SessionError> {
        match self {
            Self::WebSocket(socket) => Ok(socket.start_send_unpin(Message::Binary(message))?),
            #[cfg(feature = "quic")]
            Self::Quic(datagrams) => {
                datagrams.feed(message);
                Ok(())
            }
        }
    }

    /// Flushes what waits, and reads if there is room. Cancel-safe.
    pub(super) async fn drive(
        &mut self,
        is_reading: bool,
        is_flushing: bool,
    ) -> Result<Driven, SessionError> {
        let socket = match self {
            Self::WebSocket(socket) => socket,
            #[cfg(feature = "quic")]
            Self::Quic(datagrams) => return datagrams.drive(is_reading, is_flushing).await,
        };
        poll_fn(|cx| {
            if is_flushing && socket.poll_flush_unpin(cx)?.is_ready() {
                return Poll::Ready(Ok(Driven::Flushed));
            }
            if !is_reading {
                return Poll::Pending;
            }
            socket.poll_next_unpin(cx).map(|message| {
                Ok(match message.transpose()? {
                    Some(Message::Binary(message)) => Driven::Message(message),
                    Some(Message::Close(frame)) => Driven::Ended(frame.map(|frame| Reason {
                        code: u16::from(frame.code).into(),
                        text: frame.reason.as_str().to_owned(),
                    })),
                    None => Driven::Ended(None),
                    // The library answers pings; no text is known.
                    Some(
                        Message::Ping(_) | Message::Pong(_) | Message::Text(_) | Message::Frame(_),
                    ) => Driven::Nothing,
                })
            })
        })
        .await
    }

    /// Ends the connection, and gives what says so a moment to leave.
    pub(super) async fn end(mut self) {
        match &mut self {
            Self::WebSocket(socket) => {
                // The library has queued the answer to a close.
                let _ = timeout(CLOSE_GRACE, socket.flush()).await;
            }
            #[cfg(feature = "quic")]
            Self::Quic(datagrams) => {
                let _ = timeout(CLOSE_GRACE, datagrams.end()).await;
            }
        }
    }
}
