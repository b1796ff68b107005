//! The login: challenge, reply, verdict (SPEC §4), on a connection that has no session yet.

use std::future::poll_fn;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::TryRng as _;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use super::counters::RefusalReason;
use super::{Outcome, Settings};
use crate::directory::{Keys, Lookup};
use crate::net::Stream;
use crate::proto::login::{self, Refusal};
use crate::wire::auth::{Challenge, Control, Generation, MAX_REPLY, Nonce, Reply};
use crate::wire::websocket::{
    CloseCode, Decoder, MAX_HEADER, Message, Opcode, Role, Violation, close_payload, frame_header,
};

/// From a reply to its refusal: longer than any look-up at hand, so that an unknown node and
/// a wrong signature look alike (SPEC §4.4).
const REFUSAL_DELAY: Duration = Duration::from_millis(250);

/// Bytes that a login may read at a time: the longest reply, and a control frame before it.
const BUFFER: usize = MAX_REPLY + MAX_HEADER + 256;

/// How a login that did not succeed ended; the close code that the client is sent.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) outcome: Outcome,
    pub(super) refusal: Option<RefusalReason>,
    pub(super) close: Option<(CloseCode, &'static str)>,
    pub(super) node: Option<crate::ids::NodeId>,
}

impl Failed {
    pub(super) const fn new(outcome: Outcome, close: Option<(CloseCode, &'static str)>) -> Self {
        Self { outcome, refusal: None, close, node: None }
    }

    const fn gone() -> Self {
        Self::new(Outcome::Gone, None)
    }

    pub(super) const fn refused(outcome: Outcome, refusal: Option<RefusalReason>) -> Self {
        Self { outcome, refusal, close: Some((CloseCode::Policy, "auth failed")), node: None }
    }
}

impl From<Violation> for Failed {
    fn from(violation: Violation) -> Self {
        Self::new(Outcome::Violation, Some((violation.close_code(), "protocol violation")))
    }
}

/// A login that succeeded.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) reply: Reply,
    pub(super) generation: Generation,
    /// When it had.
    pub(super) at: Instant,
}

/// A connection during its login: small buffers, and no queue.
pub(super) struct Conversation<'a> {
    stream: &'a dyn Stream,
    decoder: Decoder,
    /// What goes before the challenge.
    response: Vec<u8>,
    /// Bytes that were read and not taken yet.
    read: Vec<u8>,
}

impl<'a> Conversation<'a> {
    /// A conversation that begins with `response`, the end of the HTTP.
    pub(super) fn new(stream: &'a dyn Stream, response: Vec<u8>, early: &[u8]) -> Self {
        let decoder = Decoder::new(Role::Server, MAX_REPLY);
        Self { stream, decoder, response, read: early.to_vec() }
    }

    /// Challenges the client and judges its reply.
    pub(super) async fn log_in(
        &mut self,
        settings: &Settings,
        keys: &dyn Keys,
    ) -> Result<Accepted, Failed> {
        let challenge = challenge(settings.relay_name.clone());
        let mut opening = std::mem::take(&mut self.response);
        push_frame(Opcode::Text, challenge.encode().as_bytes(), &mut opening);
        write_all(self.stream, &opening).await.map_err(|_| Failed::gone())?;
        let reply = self.reply().await?;
        let replied = Instant::now();
        match judge(&challenge, &reply, settings.min_generation, keys).await {
            Ok((reply, generation)) => Ok(Accepted { reply, generation, at: Instant::now() }),
            Err(failed) => {
                // The client may go on talking meanwhile; nobody listens.
                sleep_until(replied + REFUSAL_DELAY).await;
                Err(failed)
            }
        }
    }

    /// What a session goes on with: the bytes that are not taken yet, and the decoder.
    pub(super) fn into_rest(mut self) -> (Vec<u8>, Decoder) {
        self.decoder.limit_messages(super::MAX_MESSAGE);
        (self.read, self.decoder)
    }

    /// Listens to a client that waits for its acceptance; returns when it does so no more.
    /// May be dropped at any time: what is sent is sent whole.
    pub(super) async fn listen(&mut self) -> Failed {
        loop {
            let mut at = 0;
            loop {
                let message = match self.decoder.next(&mut self.read, &mut at) {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(violation) => return violation.into(),
                };
                match message {
                    Message::Ping(range) => {
                        let payload = self.read.get(range).unwrap_or_default();
                        if !pong_at_once(self.stream, payload) {
                            return Failed::gone();
                        }
                    }
                    Message::Close(_) => {
                        let close = Some((CloseCode::Normal, "bye"));
                        return Failed::new(Outcome::Gone, close);
                    }
                    Message::Text(range) => {
                        let text = self.read.get(range).unwrap_or_default();
                        if Control::decode(text) == Control::Bye {
                            let close = Some((CloseCode::Normal, "bye"));
                            return Failed::new(Outcome::Gone, close);
                        }
                    }
                    // Packets before the acceptance are nobody's.
                    Message::Binary(_) | Message::FragmentedBinary(_) => {
                        let malformed = Some(RefusalReason::Malformed);
                        return Failed::refused(Outcome::AuthFail, malformed);
                    }
                    Message::FragmentedText(_) | Message::Fragment | Message::Pong(_) => {}
                }
            }
            self.read.drain(..at);
            if let Err(failed) = self.read_more().await {
                return failed;
            }
        }
    }

    async fn reply(&mut self) -> Result<Vec<u8>, Failed> {
        loop {
            let mut at = 0;
            while let Some(message) = self.decoder.next(&mut self.read, &mut at)? {
                match message {
                    Message::Text(range) => {
                        let reply = self.read.get(range).unwrap_or_default().to_vec();
                        self.read.drain(..at);
                        return Ok(reply);
                    }
                    Message::FragmentedText(reply) => {
                        self.read.drain(..at);
                        return Ok(reply);
                    }
                    Message::Ping(range) => {
                        let payload = self.read.get(range).unwrap_or_default().to_vec();
                        self.send(Opcode::Pong, &payload).await?;
                    }
                    Message::Close(_) => {
                        let close = Some((CloseCode::Normal, "bye"));
                        return Err(Failed::new(Outcome::Gone, close));
                    }
                    // Packets before the login are nobody's.
                    Message::Binary(_) | Message::FragmentedBinary(_) => {
                        let malformed = Some(RefusalReason::Malformed);
                        return Err(Failed::refused(Outcome::AuthFail, malformed));
                    }
                    Message::Fragment | Message::Pong(_) => {}
                }
            }
            self.read.drain(..at);
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), Failed> {
        let before = self.read.len();
        loop {
            // A client that never stops talking must not keep the deadline from being looked at.
            consume_budget().await;
            self.read.resize(BUFFER.max(before + 1), 0);
            let room = self.read.get_mut(before..).unwrap_or_default();
            match self.stream.try_read(room) {
                Ok(0) => return Err(Failed::gone()),
                Ok(read) => {
                    self.read.truncate(before + read);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.read.truncate(before);
                    let readable = poll_fn(|cx| self.stream.poll_readable(cx));
                    readable.await.map_err(|_| Failed::gone())?;
                }
                Err(_) => return Err(Failed::gone()),
            }
        }
    }

    async fn send(&self, opcode: Opcode, payload: &[u8]) -> Result<(), Failed> {
        send(self.stream, opcode, payload).await.map_err(|_| Failed::gone())
    }
}

/// Sends one frame on a connection without a session.
pub(super) async fn send(stream: &dyn Stream, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::new();
    push_frame(opcode, payload, &mut frame);
    write_all(stream, &frame).await
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
    out.extend_from_slice(header.get(..used).unwrap_or_default());
    out.extend_from_slice(payload);
}

async fn write_all(stream: &dyn Stream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_writable(cx)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends a close frame and the end of the stream.
pub(super) async fn close(stream: &dyn Stream, code: CloseCode, reason: &str) {
    // A client that is gone needs no close frame.
    let _ = send(stream, Opcode::Close, &close_payload(code, reason)).await;
    stream.shutdown_write();
}

fn challenge(relay: Option<String>) -> Challenge {
    let mut nonce = [0; 32];
    SysRng.try_fill_bytes(&mut nonce).expect("the system has randomness once it has booted");
    Challenge { nonce: Nonce(nonce).to_string(), ts: unix_seconds(), relay }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn judge(
    challenge: &Challenge,
    reply: &[u8],
    min_generation: Generation,
    keys: &dyn Keys,
) -> Result<(Reply, Generation), Failed> {
    let refused = |reason| Failed::refused(Outcome::AuthFail, Some(reason));
    let reply = Reply::decode(reply).map_err(|_| refused(RefusalReason::Malformed))?;
    let named = |failed: Failed| Failed { node: Some(reply.node), ..failed };
    let key = match keys.lookup(reply.node).await {
        Lookup::Key(key) => key,
        Lookup::Unknown => return Err(named(refused(RefusalReason::UnknownNode))),
        Lookup::Unavailable => return Err(named(Failed::refused(Outcome::Unavailable, None))),
    };
    match login::check(challenge, &reply, &key, min_generation, unix_seconds()) {
        Ok(generation) => Ok((reply, generation)),
        Err(refusal) => Err(named(refused(reason(refusal)))),
    }
}

const fn reason(refusal: Refusal) -> RefusalReason {
    match refusal {
        Refusal::Stale => RefusalReason::Stale,
        Refusal::OtherKey => RefusalReason::OtherKey,
        Refusal::UnusableKey => RefusalReason::UnusableKey,
        Refusal::Signature => RefusalReason::Signature,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ids::NodeId;
    use crate::peers::testing::FakeStream;

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
        let (chatter, keys) = (chatter(), |_: NodeId| None);
        let settings = Settings::new("127.0.0.1:0".parse().unwrap());
        let mut conversation = Conversation::new(&chatter, Vec::new(), &[]);
        let login = conversation.log_in(&settings, &keys);
        let outcome = tokio::time::timeout(Duration::from_millis(10), login).await;
        assert!(outcome.is_err(), "the deadline passed unnoticed");

        let outcome = tokio::time::timeout(Duration::from_millis(10), conversation.listen()).await;
        assert!(outcome.is_err(), "the end of the wait passed unnoticed");
    }
}
