//! One session, from its acceptance to its close: reads batches, answers pings, keeps the
//! time, and writes what others could not.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::coop::consume_budget;
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::debug;

use super::{Door, Heartbeat, Kind, MAX_MESSAGE, Messages, Session, Settings, Timing};
use crate::peers::End;
use crate::wire::Frames;
use crate::wire::websocket::{Decoder, MAX_HEADER, Message, Opcode, Violation, close_payload};

/// Bytes that one read takes at most.
const READ: usize = 65_536;

/// Room for a frame that is not whole, and a read behind it.
const BUFFER: usize = MAX_MESSAGE + MAX_HEADER + READ;

/// Why what is carried and read has room: the decoder refuses messages beyond the longest.
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
    session: Arc<Session>,
    door: &'a dyn Door,
    settings: &'a ArcSwap<Settings>,
    timing: Timing,
    decoder: Decoder,
    /// The beginning of a frame that is not whole.
    carry: Vec<u8>,
    last_heard: Instant,
    next_ping: Instant,
    pong_due: Option<Instant>,
    violation: Option<Violation>,
    /// The peer's Close frame and its code, which is answered with the same.
    peer_close: Option<Option<u16>>,
}

/// What the task woke up for.
enum Event {
    Readable,
    Timer,
    Ending(End),
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        session: Arc<Session>,
        door: &'a dyn Door,
        settings: &'a ArcSwap<Settings>,
        decoder: Decoder,
        early: Vec<u8>,
    ) -> Self {
        let now = Instant::now();
        let timing = timing(settings, door);
        Self {
            session,
            door,
            settings,
            timing,
            decoder,
            carry: early,
            last_heard: now,
            next_ping: now + timing.ping_interval,
            pong_due: None,
            violation: None,
            peer_close: None,
        }
    }

    /// Runs until the session is to end; [`Self::close`] comes next.
    pub(super) async fn run(&mut self) -> End {
        if !self.carry.is_empty() {
            self.take_early();
        }
        let mut timer = std::pin::pin!(sleep_until(self.next_deadline().into()));
        loop {
            match poll_fn(|cx| self.poll_event(cx, timer.as_mut())).await {
                Event::Readable => {
                    if self.read() {
                        // More is there already: the others of this thread come first.
                        tokio::task::yield_now().await;
                    }
                }
                Event::Timer => {
                    self.keep_time(Instant::now());
                    timer.as_mut().reset(self.next_deadline().into());
                }
                Event::Ending(end) => return end,
            }
        }
    }

    fn poll_event(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Event> {
        // Until nothing is to be written, or the kernel takes no more.
        while self.session.poll_flush(cx).is_ready() {}
        if let Some(end) = self.session.ending() {
            return Poll::Ready(Event::Ending(end));
        }
        if let Some(stuck) = self.session.stuck_since() {
            let due = tokio::time::Instant::from(stuck + self.timing.write_timeout);
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
        }
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Event::Timer);
        }
        match self.session.stream().poll_readable(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Event::Readable),
            Poll::Ready(Err(_)) => Poll::Ready(Event::Ending(End::ConnectionLost)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The next moment at which silence means something. Life only moves the moments away,
    /// so the timer is not touched for each packet.
    fn next_deadline(&self) -> Instant {
        let idle = self.last_heard + self.timing.idle_timeout;
        let stuck = self.session.stuck_since().map(|since| since + self.timing.write_timeout);
        [Some(idle), Some(self.next_ping), self.pong_due, stuck]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(idle)
    }

    fn keep_time(&mut self, now: Instant) {
        let timing = timing(self.settings, self.door);
        if timing != self.timing {
            // A peer that was silent by the times before is not idle by these yet.
            self.timing = timing;
            self.last_heard = now;
            self.next_ping = self.next_ping.min(now + timing.ping_interval);
            self.pong_due = self.pong_due.map(|due| due.max(now + timing.pong_timeout));
        }
        let stuck = |since: Instant| now >= since + self.timing.write_timeout;
        if self.session.stuck_since().is_some_and(stuck) {
            return self.session.end(End::WriteTimeout);
        }
        if now >= self.last_heard + self.timing.idle_timeout
            || self.pong_due.is_some_and(|due| now >= due)
        {
            return self.session.end(End::Idle);
        }
        if now >= self.next_ping {
            self.next_ping = now + self.timing.ping_interval;
            if let Some(Heartbeat { message, .. }) = self.door.heartbeat() {
                self.session.push_notice(message);
                self.session.flush(now);
            } else if self.pong_due.is_none() {
                // One that is not answered yet stands for this one.
                self.session.push_control(Opcode::Ping, b"");
                self.session.flush(now);
                self.pong_due = Some(now + self.timing.pong_timeout);
            }
            // An idle session owns no buffer.
            self.carry.shrink_to_fit();
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
        match self.session.stream().try_read(room) {
            Ok(0) => self.session.end(End::ConnectionLost),
            Ok(read) => {
                full = read == READ;
                self.carry.clear();
                self.take(&mut lent, carried + read);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.session.end(End::ConnectionLost),
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
                self.last_heard = now;
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
                    answered |= self.session.push_control(Opcode::Pong, payload);
                }
                Ok(Some(Message::Pong(_))) => self.pong_due = None,
                Ok(Some(Message::Fragment)) => {}
                Ok(Some(Message::Close(code))) => {
                    self.peer_close = Some(code);
                    self.hand_over(bytes, batch, now);
                    return self.session.end(end_of_close(code));
                }
                Ok(None) => break,
                Err(violation) => {
                    debug!(node = %self.session.id(), error = %violation, "a peer broke the framing rules");
                    self.violation = Some(violation);
                    self.hand_over(bytes, batch, now);
                    return self.session.end(End::Violation);
                }
            }
        }
        self.hand_over(bytes, batch, now);
        if answered {
            self.session.flush(now);
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
        self.door.messages(&self.session, Messages { kind: *kind, frames }, now);
        ranges.clear();
    }

    /// Says goodbye as far as the peer still listens, within 0.7 s.
    pub(super) async fn close(self, end: End) {
        let parting = self.door.parting(end);
        let farewell = self.door.farewell(end, self.violation);
        let payload = farewell.map(|close| close_payload(close.code, close.reason));
        let close = match (end, self.peer_close) {
            (End::PeerLeft | End::PeerClosed, Some(Some(code))) => {
                Some(code.to_be_bytes().to_vec())
            }
            (End::PeerLeft | End::PeerClosed, Some(None)) => Some(payload.unwrap_or_default()),
            _ => payload,
        };
        if parting.is_none() && close.is_none() {
            // Nobody is there to hear it.
            return;
        }
        self.session.close_with(parting, close.as_deref(), Instant::now());
        let expired = timeout(CLOSE_GRACE, self.farewell()).await.is_err();
        if expired && !self.session.is_drained() {
            // Or the kernel would keep what the peer never took, long after the session.
            self.session.stream().give_up();
        }
    }

    async fn farewell(&self) {
        poll_fn(|cx| {
            while self.session.poll_flush(cx).is_ready() {}
            if self.session.is_drained() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let stream = self.session.stream();
        stream.shutdown_write();
        // Unread bytes would turn our end into a reset, which can overtake the close frame.
        let mut discarded = [0; 1_024];
        loop {
            // A peer that never stops talking must not keep the grace from ending.
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
}

/// The times of a session, of which a door with a heartbeat says two itself.
fn timing(settings: &ArcSwap<Settings>, door: &dyn Door) -> Timing {
    let timing = settings.load().timing;
    match door.heartbeat() {
        Some(Heartbeat { interval, silence, .. }) => {
            Timing { ping_interval: interval, idle_timeout: silence, ..timing }
        }
        None => timing,
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

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;
    use crate::peers::testing;
    use crate::session::door::testing::Deaf;
    use crate::wire::websocket::Role;

    const TIMING: Timing = Timing {
        auth_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(90),
        ping_interval: Duration::from_secs(30),
        pong_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(5),
    };

    fn settings(timing: Timing) -> ArcSwap<Settings> {
        let settings = Settings::new(([127, 0, 0, 1], 0).into());
        ArcSwap::from_pointee(Settings { timing, ..settings })
    }

    fn driver(settings: &ArcSwap<Settings>) -> (Driver<'_>, UnixStream) {
        let (stream, peer) = UnixStream::pair().unwrap();
        let session = testing::session(testing::name(1), 1, testing::link(stream));
        let decoder = Decoder::new(Role::Server, MAX_MESSAGE);
        (Driver::new(session, &Deaf, settings, decoder, Vec::new()), peer)
    }

    #[tokio::test]
    async fn pings_keep_their_interval_when_a_pong_may_take_longer() {
        let second = Duration::from_secs(1);
        let settings = settings(Timing { ping_interval: second, ..TIMING });
        let (mut driver, _peer) = driver(&settings);
        let first = driver.next_deadline();
        driver.keep_time(first);
        assert_eq!(driver.pong_due, Some(first + 10 * second));
        assert_eq!(driver.next_deadline(), first + second);

        driver.keep_time(first + second);
        assert_eq!(driver.pong_due, Some(first + 10 * second), "one ping at a time");
        assert_eq!(driver.next_deadline(), first + 2 * second);
        driver.pong_due = None;
        driver.keep_time(first + 2 * second);
        assert_eq!(driver.pong_due, Some(first + 12 * second));
    }

    #[tokio::test]
    async fn shorter_times_hold_from_the_next_ping_on_and_end_nobody_at_once() {
        let second = Duration::from_secs(1);
        let settings = settings(TIMING);
        let (mut driver, _peer) = driver(&settings);
        let first = driver.next_deadline();
        let shorter = Timing { idle_timeout: 3 * second, ping_interval: second, ..TIMING };
        let mut new = Settings::clone(&settings.load());
        new.timing = shorter;
        settings.store(Arc::new(new));
        assert_eq!(driver.next_deadline(), first);

        // Silent for 30 s, which was fine.
        driver.keep_time(first);
        assert!(driver.session.is_open());
        assert_eq!(driver.next_deadline(), first + second);
        driver.keep_time(first + 3 * second);
        assert_eq!(driver.session.ending(), Some(End::Idle));
    }
}
