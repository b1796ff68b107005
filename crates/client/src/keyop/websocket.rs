//! Hubs up to v1.4.1: batches in binary messages, acknowledgements in text.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::error::{Interruption, Over, Refused};
use super::event::Event;
use super::options::Options;
use crate::SessionError;
use crate::dial::{ConnectError, request};
use crate::socket::{BUFFER, Socket, Stream};
use crate::target::{InvalidUrl, Target};
use crate::wire::keyop::websocket::{Hello, Records, ack, client_hello, push_record, read_ack};
use crate::wire::keyop::{NOT_ALLOWED_CODE, grpc};

pub(super) struct WebSocket {
    socket: Socket,
    /// Something waits to be flushed.
    is_dirty: bool,
}

/// Upgrades a stream, and exchanges the first messages.
pub(super) async fn open(
    stream: Box<dyn Stream>,
    target: &Target,
    options: &Options,
) -> Result<WebSocket, Over> {
    let request = request(&target.uri, &HeaderMap::new()).map_err(|_| InvalidUrl::Form);
    let request = request.map_err(ConnectError::from)?;
    let longest = grpc::max_message(options.max_record);
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(2 * longest)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest));
    let upgraded = client_async_with_config(request, stream, Some(config)).await;
    let (mut socket, _response) = upgraded.map_err(ConnectError::upgrade)?;

    let channels: Vec<_> = options.subscribe.iter().map(String::as_str).collect();
    let hello = client_hello(&options.name, &channels, options.is_ephemeral);
    socket.send(text(hello)).await.map_err(SessionError::from)?;
    match socket.next().await.transpose().map_err(SessionError::from)? {
        Some(Message::Text(hello)) if Hello::parse(hello.as_bytes()).is_ok() => {
            Ok(WebSocket { socket, is_dirty: false })
        }
        Some(Message::Close(frame)) => Err(closed(frame)),
        None => Err(closed(None)),
        Some(_) => Err(Interruption::NoHub("it answered the first message with another").into()),
    }
}

fn text(json: Vec<u8>) -> Message {
    Message::text(String::from_utf8(json).expect("made of strings"))
}

fn closed(frame: Option<CloseFrame>) -> Over {
    match frame {
        Some(frame) if u16::from(frame.code) == NOT_ALLOWED_CODE => {
            Over::Refused(Refused { reason: frame.reason.as_str().to_owned() })
        }
        frame => SessionError::closed(frame).into(),
    }
}

impl WebSocket {
    pub(super) fn publish<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), Over> {
        let mut batch = Vec::new();
        records.for_each(|record| push_record(&mut batch, record));
        self.feed(Message::binary(batch))
    }

    pub(super) fn acknowledge(&mut self, last_id: &str) -> Result<(), Over> {
        self.feed(text(ack(last_id)))
    }

    pub(super) fn ping(&mut self) -> Result<(), Over> {
        self.feed(Message::Ping(Bytes::new()))
    }

    fn feed(&mut self, message: Message) -> Result<(), Over> {
        self.socket.start_send_unpin(message).map_err(SessionError::from)?;
        self.is_dirty = true;
        Ok(())
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Over>> {
        if self.is_dirty {
            match self.socket.poll_flush_unpin(cx) {
                Poll::Ready(flushed) => {
                    flushed.map_err(SessionError::from)?;
                    self.is_dirty = false;
                }
                // Read on: a hub that waits for our reading could not read otherwise.
                Poll::Pending => {}
            }
        }
        self.socket.poll_next_unpin(cx).map(|message| match message {
            Some(message) => event(message.map_err(SessionError::from)?),
            None => Err(closed(None)),
        })
    }

    /// The original takes the end of the connection for one; a close frame is more polite.
    pub(super) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        // It is over in any case.
        let _ = self.socket.close(Some(frame)).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

fn event(message: Message) -> Result<Event, Over> {
    match message {
        Message::Binary(batch) => {
            let records = Records::parse(&batch)
                .map_err(|_| Interruption::NoHub("it sent a batch that ends within a record"))?;
            Ok(Event::Batch(records.iter().map(|record| batch.slice_ref(record)).collect()))
        }
        // The original ignores what is none, and so does this.
        Message::Text(text) => Ok(read_ack(text.as_bytes())
            .map_or(Event::Alive, |id| Event::Acknowledged { is_new: !id.is_empty() })),
        Message::Close(frame) => Err(closed(frame)),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(Event::Alive),
    }
}
