//! What a session does over either transport.

use std::task::{Context, Poll};

use super::error::Over;
use super::event::Event;
#[cfg(feature = "grpc")]
use super::grpc::Grpc;
use super::websocket::WebSocket;

/// A connection to a hub.
///
/// What is written is buffered, and leaves while the next event is awaited: its caller bounds it by
/// what it expects an answer to.
pub(super) enum Link {
    WebSocket(Box<WebSocket>),
    #[cfg(feature = "grpc")]
    Grpc(Box<Grpc>),
}

impl Link {
    /// Writes a batch.
    pub(super) fn publish<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<(), Over> {
        match self {
            Self::WebSocket(link) => link.publish(records),
            #[cfg(feature = "grpc")]
            Self::Grpc(link) => {
                link.publish(records);
                Ok(())
            }
        }
    }

    /// Acknowledges a batch of the hub.
    pub(super) fn acknowledge(&mut self, last_id: &str) -> Result<(), Over> {
        match self {
            Self::WebSocket(link) => link.acknowledge(last_id),
            #[cfg(feature = "grpc")]
            Self::Grpc(link) => {
                link.acknowledge(last_id);
                Ok(())
            }
        }
    }

    /// Asks the hub for a sign of life.
    pub(super) fn ping(&mut self) -> Result<(), Over> {
        match self {
            Self::WebSocket(link) => link.ping(),
            #[cfg(feature = "grpc")]
            Self::Grpc(link) => link.ping(),
        }
    }

    /// Awaits the next event.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Over>> {
        match self {
            Self::WebSocket(link) => link.poll_next(cx),
            #[cfg(feature = "grpc")]
            Self::Grpc(link) => link.poll_next(cx),
        }
    }

    /// Takes leave; the caller bounds the time.
    pub(super) async fn close(self) {
        match self {
            Self::WebSocket(link) => link.close().await,
            #[cfg(feature = "grpc")]
            Self::Grpc(link) => link.close().await,
        }
    }
}
