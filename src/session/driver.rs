//! One session over WebSocket, from its acceptance to its close: reads batches, answers pings,
//! and writes what others could not.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};
use tracing::debug;

use super::conversation::hear_out;
use super::keepalive::{Event, Keepalive};
use super::{Kind, Messages};
use crate::peers::End;
use crate::wire::Frames;
use crate::wire::websocket::{
    Decoder, LONGEST_IN_PLACE, MAX_HEADER, Message, Opcode, Violation, close_code, close_payload,
};

/// Bytes that one read takes at most.
const READ: usize = 65_536;

/// Room for a frame that is not whole, and a read behind it.
const BUFFER: usize = LONGEST_IN_PLACE + MAX_HEADER + READ;

/// Why what is carried and read has room: of frames beyond [`LONGEST_IN_PLACE`] the decoder takes
/// parts.
const ROOM: &str = "the buffer holds a frame that is not whole and a read";

/// Time for the close frame to leave and for the peer to close its side.
const CLOSE_GRACE: Duration = Duration::from_millis(700);

/// A thread's read buffer, lent to the session that reads.
#[derive(Default)]
struct Lent {
    bytes: Vec<u8>,
    batch: Batch,
}

/// Messages of one kind that are handed over together.
#[derive(Default)]
struct Batch {
    kind: Kind,
    ranges: Vec<Range<usize>>,
}

thread_local! {
    static LENT: RefCell<Lent> = RefCell::default();
}

/// What a session's own task keeps.
pub(super) struct Driver<'a> {
    times: Keepalive<'a>,
    decoder: Decoder,
    /// The beginning of a frame that is not whole.
    carry: Vec<u8>,
    violation: Option<Violation>,
    /// The payload of the peer's Close frame, which is answered with the same code.
    peer_close: Option<Box<[u8]>>,
}

impl<'a> Driver<'a> {
    pub(super) const fn new(times: Keepalive<'a>, decoder: Decoder, early: Vec<u8>) -> Self {
        Self { times, decoder, carry: early, violation: None, peer_close: None }
    }

    /// Runs until the session is to end; [`Self::close`] comes next.
    pub(super) async fn run(&mut self) -> End {
        if !self.carry.is_empty() {
            self.take_early();
        }
        let mut timer = std::pin::pin!(sleep_until(self.times.next_deadline().into()));
        loop {
            let stream = self.times.session.stream();
            let readable = |cx: &mut Context<'_>| {
                let lost = |_| End::ConnectionLost;
                stream.poll_readable(cx).map_err(lost)
            };
            match poll_fn(|cx| self.times.poll_event(cx, timer.as_mut(), readable)).await {
                Event::Readable => {
                    if self.read() {
                        // More is there already: the others of this thread come first.
                        tokio::task::yield_now().await;
                    }
                }
                Event::Timer => {
                    if self.times.keep_time(Instant::now()) {
                        // An idle session owns no buffer.
                        self.carry.shrink_to_fit();
                    }
                    timer.as_mut().reset(self.times.next_deadline().into());
                }
                Event::Released => self.times.resume(Instant::now()),
                Event::Ending(end) => return end,
            }
        }
    }

    /// Reads what is there, once, and hands over the packets in it; true where that was all
    /// that a read takes.
    fn read(&mut self) -> bool {
        let mut lent = LENT.take();
        lent.bytes.resize(BUFFER, 0);
        let carried = self.carry.len();
        lent.bytes.get_mut(..carried).expect(ROOM).copy_from_slice(&self.carry);
        let room = lent.bytes.get_mut(carried..carried + READ).expect(ROOM);
        let mut full = false;
        match self.times.session.stream().try_read(room) {
            Ok(0) => self.times.session.end(End::ConnectionLost),
            Ok(read) => {
                full = read == READ;
                self.carry.clear();
                self.take(&mut lent, carried + read);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.times.session.end(End::ConnectionLost),
        }
        LENT.set(lent);
        full
    }

    /// Takes the bytes that came before the session began.
    fn take_early(&mut self) {
        let mut lent = LENT.take();
        let early = std::mem::take(&mut self.carry);
        lent.bytes.resize(early.len().max(BUFFER), 0);
        lent.bytes.get_mut(..early.len()).expect(ROOM).copy_from_slice(&early);
        self.take(&mut lent, early.len());
        LENT.set(lent);
    }

    /// Decodes the first `filled` bytes, hands the packets over in one batch, and carries
    /// the rest.
    fn take(&mut self, lent: &mut Lent, filled: usize) {
        let now = Instant::now();
        let Lent { bytes, batch } = lent;
        let bytes = bytes.get_mut(..filled).expect(ROOM);
        batch.ranges.clear();
        let mut at = 0;
        let mut answered = false;
        loop {
            let before = at;
            let next = self.decoder.next(bytes, &mut at);
            // A whole frame is a sign of life, and a byte of one is none.
            if at > before {
                self.times.last_heard = now;
            }
            match next {
                Ok(Some(Message::Binary(range))) => {
                    self.add(Kind::Binary, range, bytes, batch, now)
                }
                Ok(Some(Message::Text(range))) => self.add(Kind::Text, range, bytes, batch, now),
                Ok(Some(Message::FragmentedBinary(message))) => {
                    self.whole(Kind::Binary, &message, bytes, batch, now);
                }
                Ok(Some(Message::FragmentedText(message))) => {
                    self.whole(Kind::Text, &message, bytes, batch, now);
                }
                Ok(Some(Message::Ping(range))) => {
                    let payload = bytes.get(range).expect("the decoder found it in the buffer");
                    answered |= self.times.session.push_control(Opcode::Pong, payload);
                }
                Ok(Some(Message::Pong(_))) => self.times.pong_due = None,
                // Nobody can answer a ping within a frame.
                Ok(Some(Message::Fragment)) => self.times.await_pong_longer(now),
                Ok(Some(Message::Close(range))) => {
                    let payload = bytes.get(range).expect("the decoder found it in the buffer");
                    self.peer_close = Some(payload.into());
                    let end = end_of_close(close_code(payload));
                    self.hand_over(bytes, batch, now);
                    return self.times.session.end(end);
                }
                Ok(None) => break,
                Err(violation) => {
                    debug!(node = %self.times.session.id(), error = %violation, "a peer broke the framing rules");
                    self.violation = Some(violation);
                    self.hand_over(bytes, batch, now);
                    return self.times.session.end(End::Violation);
                }
            }
        }
        self.hand_over(bytes, batch, now);
        if answered {
            self.times.session.flush(now);
        }
        let rest = bytes.get(at..).expect("the decoder stays in the buffer");
        self.carry.extend_from_slice(rest);
    }

    /// Adds a message to the batch, which is handed over before one of another kind.
    fn add(&self, kind: Kind, range: Range<usize>, bytes: &[u8], batch: &mut Batch, now: Instant) {
        if kind != batch.kind {
            self.hand_over(bytes, batch, now);
            batch.kind = kind;
        }
        batch.ranges.push(range);
    }

    /// Hands over what came before a message that came in parts, and that message.
    fn whole(&self, kind: Kind, message: &[u8], bytes: &[u8], batch: &mut Batch, now: Instant) {
        self.hand_over(bytes, batch, now);
        let mut whole = Batch { kind, ranges: Vec::with_capacity(1) };
        whole.ranges.push(0..message.len());
        self.hand_over(message, &mut whole, now);
    }

    fn hand_over(&self, bytes: &[u8], batch: &mut Batch, now: Instant) {
        let Batch { kind, ranges } = batch;
        if ranges.is_empty() {
            return;
        }
        let frames = Frames::new(bytes, ranges);
        self.times.door.messages(&self.times.session, Messages { kind: *kind, frames }, now);
        ranges.clear();
    }

    /// Says goodbye as far as the peer still listens, within 0.7 s.
    pub(super) async fn close(self, end: End) {
        let parting = self.times.door.parting(end);
        let farewell = self.times.door.farewell(end, self.violation);
        let payload = farewell.map(|close| close_payload(close.code, close.reason));
        let close = match (end, &self.peer_close) {
            (End::PeerLeft | End::PeerClosed, Some(said)) => {
                let answer = self.times.door.dialect().answer_to_close(said);
                Some(answer.map_or_else(|| payload.unwrap_or_default(), <[u8]>::to_vec))
            }
            _ => payload,
        };
        if parting.is_none() && close.is_none() {
            // Nobody is there to hear it.
            return;
        }
        self.times.session.close_with(parting, close.as_deref(), Instant::now());
        let expired = timeout(CLOSE_GRACE, self.farewell()).await.is_err();
        if expired && !self.times.session.is_drained() {
            // Or the kernel would keep what the peer never took, long after the session.
            self.times.session.stream().give_up();
        }
    }

    async fn farewell(&self) {
        poll_fn(|cx| {
            while self.times.session.poll_flush(cx).is_ready() {}
            if self.times.session.is_drained() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let stream = self.times.session.stream();
        stream.shutdown_write();
        hear_out(stream).await;
    }
}

/// What a close frame says of the end. A proxy that restarts closes with 1001 as well, so only
/// what a daemon says that leaves (1000, or no code) is taken for its own wish.
const fn end_of_close(code: Option<u16>) -> End {
    match code {
        None | Some(1_000) => End::PeerLeft,
        Some(_) => End::PeerClosed,
    }
}
