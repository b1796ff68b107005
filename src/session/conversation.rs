//! A connection during its login, over WebSocket or in datagrams: small buffers, no queue, and
//! whoever speaks waits.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::coop::consume_budget;

use super::http2::Connection;
use super::{Client, Close, Dialect, Kind, Outcome, Refusal};
use crate::net::Stream;
use crate::net::quic::{Lost, Receiver};
use crate::net::tls::Certified;
use crate::wire::websocket::{
    CloseCode, Decoder, LONGEST_IN_PLACE, MAX_HEADER, Message, Opcode, Role, close_payload,
    frame_header,
};

/// Bytes that may be read at a time beside the longest message: its header, and a control frame
/// before it.
const BESIDE_MESSAGE: usize = MAX_HEADER + 256;

/// Why a message is where the decoder says.
const IN_BUFFER: &str = "the decoder found it in the buffer";

/// What a client and a door say to each other before there is a session.
#[derive(Debug)]
pub struct Conversation<'a> {
    client: Client,
    certified: Option<Arc<Certified>>,
    wire: Wire<'a>,
}

/// What carries it.
#[derive(Debug)]
enum Wire<'a> {
    WebSocket(WebSocket<'a>),
    Quic(Datagrams<'a>),
    Http2(&'a mut Connection),
}

impl<'a> Conversation<'a> {
    /// A conversation that begins with `response`, the end of the HTTP, in messages of so many
    /// bytes at most.
    pub(super) fn new(
        stream: &'a dyn Stream,
        client: Client,
        (longest, dialect): (usize, Dialect),
        response: Vec<u8>,
        early: &[u8],
    ) -> Self {
        let decoder = Decoder::new(Role::Server, longest);
        let decoder = if dialect.takes_any_text { decoder.with_any_text() } else { decoder };
        let wire = WebSocket { stream, decoder, dialect, longest, response, read: early.to_vec() };
        Self { client, certified: None, wire: Wire::WebSocket(wire) }
    }

    /// A conversation in datagrams of `longest` bytes at most.
    pub(super) const fn in_datagrams(
        sender: &'a dyn Stream,
        receiver: &'a mut Receiver,
        client: Client,
        longest: usize,
    ) -> Self {
        let wire = Wire::Quic(Datagrams { sender, receiver, longest });
        Self { client, certified: None, wire }
    }

    /// A conversation over HTTP/2, where the client has proved who it is, and says nothing before it
    /// calls.
    pub(super) const fn over_http2(connection: &'a mut Connection, client: Client) -> Self {
        Self { client, certified: None, wire: Wire::Http2(connection) }
    }

    /// The same, of a client that has shown a certificate.
    pub(super) fn of(self, certified: Option<Arc<Certified>>) -> Self {
        Self { certified, ..self }
    }

    /// Who is spoken to.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Who the client has proved to be, where the listener takes only clients with a certificate.
    #[must_use]
    pub const fn certified(&self) -> Option<&Arc<Certified>> {
        self.certified.as_ref()
    }

    /// Whether it is over HTTP/2, where a client calls methods and no messages are exchanged.
    #[must_use]
    pub const fn is_over_http2(&self) -> bool {
        matches!(self.wire, Wire::Http2(_))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&mut self, kind: Kind, message: &[u8]) -> Result<(), Refusal> {
        match &mut self.wire {
            Wire::WebSocket(wire) => wire.send(kind, message).await,
            Wire::Quic(wire) => write_all(wire.sender, message).await.map_err(|_| Refusal::gone()),
            Wire::Http2(_) => Err(Refusal::new(Outcome::Violation, None)),
        }
    }

    /// Waits for the next message. Pings are answered.
    ///
    /// # Errors
    /// The client is gone, says goodbye, or breaks the framing rules.
    pub async fn receive(&mut self) -> Result<(Kind, Vec<u8>), Refusal> {
        match &mut self.wire {
            Wire::WebSocket(wire) => wire.receive().await,
            Wire::Quic(wire) => Ok((Kind::Binary, wire.receive().await?.to_vec())),
            Wire::Http2(_) => Err(Refusal::new(Outcome::Violation, None)),
        }
    }

    /// What a session over WebSocket goes on with: the bytes that are not taken yet, and the
    /// decoder.
    pub(super) fn into_rest(self, longest: usize) -> Option<(Vec<u8>, Decoder)> {
        match self.wire {
            Wire::WebSocket(mut wire) => {
                wire.decoder.limit_messages(longest);
                // It had room for the longest greeting, and a session may never say more.
                wire.read.shrink_to_fit();
                Some((wire.read, wire.decoder))
            }
            Wire::Quic(_) | Wire::Http2(_) => None,
        }
    }

    /// Listens to a client that waits for its acceptance, whose messages are judged; returns
    /// when it does so no more. May be dropped at any time: what is sent is sent whole.
    pub(super) async fn listen(
        &mut self,
        judge: impl Fn(Kind, &[u8]) -> Result<(), Refusal>,
    ) -> Refusal {
        match &mut self.wire {
            Wire::WebSocket(wire) => wire.listen(judge).await,
            Wire::Quic(wire) => wire.listen(judge).await,
            Wire::Http2(connection) => connection.listen().await,
        }
    }
}

/// A conversation over datagrams.
#[derive(Debug)]
struct Datagrams<'a> {
    sender: &'a dyn Stream,
    receiver: &'a mut Receiver,
    longest: usize,
}

impl Datagrams<'_> {
    async fn receive(&mut self) -> Result<Bytes, Refusal> {
        let received = self.receiver.receive().await.map_err(|lost| match lost {
            Lost::Closed(_) => Refusal::goodbye(),
            Lost::Silent | Lost::Broken | Lost::Gone => Refusal::gone(),
        })?;
        if received.len() > self.longest {
            return Err(Refusal::new(Outcome::Violation, None));
        }
        Ok(received)
    }

    async fn listen(&mut self, judge: impl Fn(Kind, &[u8]) -> Result<(), Refusal>) -> Refusal {
        loop {
            // A client that never stops talking must not keep the wait from ending.
            consume_budget().await;
            let heard = self.receive().await.and_then(|datagram| judge(Kind::Binary, &datagram));
            if let Err(refusal) = heard {
                return refusal;
            }
        }
    }
}

/// A conversation over WebSocket: small buffers, no queue.
#[derive(Debug)]
struct WebSocket<'a> {
    stream: &'a dyn Stream,
    decoder: Decoder,
    dialect: Dialect,
    longest: usize,
    /// The end of the HTTP, which goes before the first message.
    response: Vec<u8>,
    /// Bytes that were read and not taken yet.
    read: Vec<u8>,
}

impl WebSocket<'_> {
    async fn send(&mut self, kind: Kind, message: &[u8]) -> Result<(), Refusal> {
        let opcode = match kind {
            Kind::Binary => Opcode::Binary,
            Kind::Text => Opcode::Text,
        };
        self.send_frame(opcode, message).await
    }

    async fn receive(&mut self) -> Result<(Kind, Vec<u8>), Refusal> {
        let response = std::mem::take(&mut self.response);
        write_all(self.stream, &response).await.map_err(|_| Refusal::gone())?;
        loop {
            let mut at = 0;
            while let Some(message) = self.decoder.next(&mut self.read, &mut at)? {
                match message {
                    Message::Text(range) => {
                        let text = self.read.get(range).expect(IN_BUFFER).to_vec();
                        self.read.drain(..at);
                        return Ok((Kind::Text, text));
                    }
                    Message::Binary(range) => {
                        let bytes = self.read.get(range).expect(IN_BUFFER).to_vec();
                        self.read.drain(..at);
                        return Ok((Kind::Binary, bytes));
                    }
                    Message::FragmentedText(text) => {
                        self.read.drain(..at);
                        return Ok((Kind::Text, text));
                    }
                    Message::FragmentedBinary(bytes) => {
                        self.read.drain(..at);
                        return Ok((Kind::Binary, bytes));
                    }
                    Message::Ping(range) => {
                        let payload = self.read.get(range).expect(IN_BUFFER).to_vec();
                        self.send_frame(Opcode::Pong, &payload).await?;
                    }
                    Message::Close(range) => return Err(self.goodbye(range).await),
                    Message::Fragment | Message::Pong(_) => {}
                }
            }
            self.read.drain(..at);
            self.read_more().await?;
        }
    }

    async fn listen(&mut self, judge: impl Fn(Kind, &[u8]) -> Result<(), Refusal>) -> Refusal {
        loop {
            let mut at = 0;
            loop {
                let message = match self.decoder.next(&mut self.read, &mut at) {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(violation) => return violation.into(),
                };
                let judged = match message {
                    Message::Ping(range) => {
                        let payload = self.read.get(range).expect(IN_BUFFER);
                        if pong_at_once(self.stream, payload) {
                            Ok(())
                        } else {
                            Err(Refusal::gone())
                        }
                    }
                    Message::Close(range) => Err(self.goodbye(range).await),
                    Message::Text(range) => {
                        let text = self.read.get(range).expect(IN_BUFFER);
                        judge(Kind::Text, text)
                    }
                    Message::Binary(range) => {
                        let bytes = self.read.get(range).expect(IN_BUFFER);
                        judge(Kind::Binary, bytes)
                    }
                    Message::FragmentedText(text) => judge(Kind::Text, &text),
                    Message::FragmentedBinary(bytes) => judge(Kind::Binary, &bytes),
                    Message::Fragment | Message::Pong(_) => Ok(()),
                };
                if let Err(refusal) = judged {
                    return refusal;
                }
            }
            self.read.drain(..at);
            if let Err(refusal) = self.read_more().await {
                return refusal;
            }
        }
    }

    /// Answers a Close frame, unless the caller has to.
    async fn goodbye(&mut self, payload: Range<usize>) -> Refusal {
        if !self.dialect.echoes_close {
            return Refusal::goodbye();
        }
        let said = self.read.get(payload).expect(IN_BUFFER).to_vec();
        // A client that is gone needs no answer.
        let _ = self.send_frame(Opcode::Close, &said).await;
        self.stream.shutdown_write();
        Refusal::gone()
    }

    async fn read_more(&mut self) -> Result<(), Refusal> {
        let before = self.read.len();
        let room = self.longest.min(LONGEST_IN_PLACE) + BESIDE_MESSAGE;
        loop {
            // A client that never stops talking must not keep the deadline from being looked at.
            consume_budget().await;
            self.read.resize(room.max(before + 1), 0);
            let room = self.read.get_mut(before..).expect("the buffer has grown");
            match self.stream.try_read(room) {
                Ok(0) => return Err(Refusal::gone()),
                Ok(read) => {
                    self.read.truncate(before + read);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.read.truncate(before);
                    let readable = poll_fn(|cx| self.stream.poll_readable(cx));
                    readable.await.map_err(|_| Refusal::gone())?;
                }
                Err(_) => return Err(Refusal::gone()),
            }
        }
    }

    async fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Refusal> {
        let mut bytes = std::mem::take(&mut self.response);
        push_frame(opcode, payload, &mut bytes);
        write_all(self.stream, &bytes).await.map_err(|_| Refusal::gone())
    }
}

/// Answers a ping without waiting: where the client takes nothing, not at all. False where it has
/// taken a part, so that nothing can follow.
fn pong_at_once(stream: &dyn Stream, payload: &[u8]) -> bool {
    let mut frame = Vec::new();
    push_frame(Opcode::Pong, payload, &mut frame);
    match stream.try_write(&frame) {
        Ok(written) => written == frame.len(),
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn push_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let (header, used) = frame_header(opcode, payload.len());
    out.extend_from_slice(header.get(..used).expect("a header has its length"));
    out.extend_from_slice(payload);
}

/// Writes all of it, waiting as long as the client takes nothing.
pub(super) async fn write_all(stream: &dyn Stream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(written) => {
                rest = rest.get(written..).expect("no more is written than there is");
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_writable(cx)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends a close frame and the end of the stream. Whoever has more to say than was read goes on
/// reading only as long as it is heard.
pub(super) async fn close(stream: &dyn Stream, close: Close) {
    let mut frame = Vec::new();
    push_frame(Opcode::Close, &close_payload(close.code, close.reason), &mut frame);
    // A client that is gone needs no close frame.
    let _ = write_all(stream, &frame).await;
    stream.shutdown_write();
    if close.code == CloseCode::TooLarge {
        hear_out(stream).await;
    }
}

/// Reads until the peer has closed its side: unread bytes would turn our end into a reset, which
/// can overtake a close frame.
pub(super) async fn hear_out(stream: &dyn Stream) {
    let mut discarded = [0; 1_024];
    loop {
        // A peer that never stops talking must not keep the caller's deadline from ending it.
        consume_budget().await;
        match stream.try_read(&mut discarded) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if poll_fn(|cx| stream.poll_readable(cx)).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::peers::testing::FakeStream;
    use crate::session::Door as _;
    use crate::session::door::testing::Deaf;

    /// A client that sends pongs as fast as they are read, a million reads long.
    fn chatter() -> impl Stream {
        let reads = AtomicUsize::new(0);
        let pongs = move |buffer: &mut [u8]| {
            if reads.fetch_add(1, Ordering::Relaxed) > 1_000_000 {
                return Ok(0);
            }
            let pong = [0x8a, 0x80, 0, 0, 0, 0];
            let (frames, _) = buffer.as_chunks_mut::<6>();
            frames.iter_mut().for_each(|frame| *frame = pong);
            Ok(frames.len() * pong.len())
        };
        FakeStream::talking(pongs, |records| Ok(records.bytes().len()))
    }

    #[tokio::test]
    async fn client_that_never_stops_talking_does_not_outlive_the_deadline() {
        let chatter = chatter();
        let client = Client { address: ([192, 0, 2, 1], 1).into(), is_probe: false };
        let terms = (1_024, Dialect::default());
        let mut conversation = Conversation::new(&chatter, client, terms, Vec::new(), &[]);

        let login = Deaf.greet(&mut conversation);
        let outcome = tokio::time::timeout(Duration::from_millis(10), login).await;
        assert!(outcome.is_err(), "the deadline passed unnoticed");

        let listening = conversation.listen(|kind, message| Deaf.while_waiting(kind, message));
        let outcome = tokio::time::timeout(Duration::from_millis(10), listening).await;
        assert!(outcome.is_err(), "the end of the wait passed unnoticed");
    }
}
