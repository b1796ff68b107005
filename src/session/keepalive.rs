//! The times of a session: pings or heartbeats, silence, and a peer that takes nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::Sleep;

use super::{Door, Heartbeat, Session, Settings, Timing};
use crate::peers::{End, State};
use crate::wire::websocket::Opcode;

/// A time that no session lasts, and that clocks can be set by.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What a session's own task waits for, but for what its peer says.
pub(super) struct Keepalive<'a> {
    pub(super) session: Arc<Session>,
    pub(super) door: &'a dyn Door,
    settings: &'a ArcSwap<Settings>,
    /// What a ping has in it.
    ping: &'static [u8],
    timing: Timing,
    pub(super) last_heard: Instant,
    next_ping: Instant,
    pub(super) pong_due: Option<Instant>,
}

/// What the task woke up for.
pub(super) enum Event {
    Readable,
    Timer,
    /// The session is held no more.
    Released,
    Ending(End),
}

impl<'a> Keepalive<'a> {
    /// That of a session that begins now.
    pub(super) fn new(
        session: Arc<Session>,
        door: &'a dyn Door,
        settings: &'a ArcSwap<Settings>,
    ) -> Self {
        let now = Instant::now();
        let timing = timing(settings, door, &session);
        Self {
            session,
            door,
            settings,
            ping: b"",
            timing,
            last_heard: now,
            next_ping: now + timing.ping_interval,
            pong_due: None,
        }
    }

    /// The same, where this record is a ping.
    pub(super) fn with_ping(self, ping: &'static [u8]) -> Self {
        Self { ping, ..self }
    }

    /// What comes next; `readable` says when there is something to read.
    pub(super) fn poll_event(
        &self,
        cx: &mut Context<'_>,
        timer: Pin<&mut Sleep>,
        readable: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), End>>,
    ) -> Poll<Event> {
        // Until nothing is to be written, or the kernel takes no more.
        while self.session.poll_flush(cx).is_ready() {}
        match self.session.state() {
            State::Open => {}
            State::Held => return self.poll_timer(cx, timer),
            State::Released => return Poll::Ready(Event::Released),
            State::Ending(end) => return Poll::Ready(Event::Ending(end)),
        }
        if let Poll::Ready(event) = self.poll_timer(cx, timer) {
            return Poll::Ready(event);
        }
        readable(cx).map(|read| match read {
            Ok(()) => Event::Readable,
            Err(end) => Event::Ending(end),
        })
    }

    /// Whether it is time for something.
    fn poll_timer(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Event> {
        if let Some(stuck) = self.session.stuck_since() {
            let due = tokio::time::Instant::from(stuck + self.timing.write_timeout);
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
        }
        timer.poll(cx).map(|()| Event::Timer)
    }

    /// The next moment at which silence means something. Life only moves the moments away,
    /// so the timer is not touched for each packet.
    pub(super) fn next_deadline(&self) -> Instant {
        let idle = self.last_heard + self.timing.idle_timeout;
        let stuck = self.session.stuck_since().map(|since| since + self.timing.write_timeout);
        [Some(idle), Some(self.next_ping), self.pong_due, stuck]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(idle)
    }

    /// Begins to wait anew for what the peer may have said, and nobody has read.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.last_heard = now;
        self.await_pong_longer(now);
    }

    /// Gives the peer all its time again for the pong that is due.
    pub(super) fn await_pong_longer(&mut self, now: Instant) {
        self.pong_due = self.pong_due.map(|due| due.max(now + self.timing.pong_timeout));
    }

    /// Notes that the session is held no more.
    pub(super) fn resume(&mut self, now: Instant) {
        self.session.resumed();
        self.excuse(now);
    }

    /// Does what is due; true where that was a sign of life of ours.
    pub(super) fn keep_time(&mut self, now: Instant) -> bool {
        let timing = timing(self.settings, self.door, &self.session);
        if timing != self.timing {
            // A peer that was silent by the times before is not idle by these yet.
            self.timing = timing;
            self.last_heard = now;
            self.next_ping = self.next_ping.min(now + timing.ping_interval);
            self.await_pong_longer(now);
        }
        if self.session.state() == State::Held {
            self.excuse(now);
        }
        let stuck = |since: Instant| now >= since + self.timing.write_timeout;
        if self.session.stuck_since().is_some_and(stuck) {
            self.session.end(End::WriteTimeout);
            return false;
        }
        if now >= self.last_heard + self.timing.idle_timeout
            || self.pong_due.is_some_and(|due| now >= due)
        {
            self.session.end(End::Idle);
            return false;
        }
        let is_due = now >= self.next_ping;
        if is_due {
            self.next_ping = now + self.timing.ping_interval;
            if let Some(Heartbeat { message, .. }) = self.door.heartbeat() {
                self.session.push_notice(message);
                self.session.flush(now);
            } else if self.pong_due.is_none() {
                // One that is not answered yet stands for this one.
                self.session.push_control(Opcode::Ping, self.ping);
                self.session.flush(now);
                self.pong_due = Some(now + self.timing.pong_timeout);
            }
        }
        is_due
    }
}

/// The times of a session, of which a door with a heartbeat says two itself, and which never come
/// for one that the relay waits for.
fn timing(settings: &ArcSwap<Settings>, door: &dyn Door, session: &Session) -> Timing {
    let timing = settings.load().timing;
    if session.is_patient {
        let (idle_timeout, ping_interval, write_timeout) = (NEVER, NEVER, NEVER);
        return Timing { idle_timeout, ping_interval, write_timeout, ..timing };
    }
    match door.heartbeat() {
        Some(Heartbeat { interval, silence, .. }) => {
            Timing { ping_interval: interval, idle_timeout: silence, ..timing }
        }
        None => timing,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;
    use crate::peers::testing;
    use crate::session::door::testing::Deaf;

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

    fn keepalive(settings: &ArcSwap<Settings>) -> (Keepalive<'_>, UnixStream) {
        let (stream, peer) = UnixStream::pair().unwrap();
        let session = testing::session(testing::name(1), 1, testing::link(stream));
        (Keepalive::new(session, &Deaf, settings), peer)
    }

    #[tokio::test]
    async fn pings_keep_their_interval_when_a_pong_may_take_longer() {
        let second = Duration::from_secs(1);
        let settings = settings(Timing { ping_interval: second, ..TIMING });
        let (mut times, _peer) = keepalive(&settings);
        let first = times.next_deadline();
        times.keep_time(first);
        assert_eq!(times.pong_due, Some(first + 10 * second));
        assert_eq!(times.next_deadline(), first + second);

        times.keep_time(first + second);
        assert_eq!(times.pong_due, Some(first + 10 * second), "one ping at a time");
        assert_eq!(times.next_deadline(), first + 2 * second);
        times.pong_due = None;
        times.keep_time(first + 2 * second);
        assert_eq!(times.pong_due, Some(first + 12 * second));
    }

    /// What comes next, of a peer that has always said something.
    async fn event(times: &Keepalive<'_>) -> Option<Event> {
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::from_secs(3_600)));
        let readable = |_: &mut Context<'_>| Poll::Ready(Ok(()));
        std::future::poll_fn(|cx| match times.poll_event(cx, timer.as_mut(), readable) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn held_peer_is_not_read_until_it_is_released_and_not_ended_for_its_silence() {
        let settings = settings(TIMING);
        let (mut times, _peer) = keepalive(&settings);
        assert!(matches!(event(&times).await, Some(Event::Readable)));
        times.session.hold(true);
        assert!(event(&times).await.is_none());

        // Pings go out; the pong may be among what nobody reads.
        let mut now = times.next_deadline();
        times.keep_time(now);
        assert_eq!(times.pong_due, Some(now + TIMING.pong_timeout));
        for _ in 0..100 {
            now = times.next_deadline();
            times.keep_time(now);
        }
        assert!(times.session.is_open(), "it was ended for what nobody read");

        times.session.hold(false);
        assert!(matches!(event(&times).await, Some(Event::Released)));
        let later = now + TIMING.idle_timeout;
        times.resume(later);
        assert!(matches!(event(&times).await, Some(Event::Readable)));
        times.keep_time(later);
        assert!(times.session.is_open(), "it had no time to be heard");
        times.keep_time(later + TIMING.pong_timeout);
        assert_eq!(times.session.ending(), Some(End::Idle), "its time goes on");
    }

    #[tokio::test]
    async fn held_peer_that_takes_nothing_is_ended_all_the_same() {
        let settings = settings(TIMING);
        let link = testing::link(testing::stuck());
        let session = testing::session(testing::name(1), 1, link);
        let mut times = Keepalive::new(session, &Deaf, &settings);
        times.session.hold(true);
        let now = Instant::now();
        times.session.push_notice(b"x");
        times.session.flush(now);
        times.keep_time(now + TIMING.write_timeout);
        assert_eq!(times.session.ending(), Some(End::WriteTimeout));
        assert!(matches!(event(&times).await, Some(Event::Ending(End::WriteTimeout))));
    }

    #[tokio::test]
    async fn shorter_times_hold_from_the_next_ping_on_and_end_nobody_at_once() {
        let second = Duration::from_secs(1);
        let settings = settings(TIMING);
        let (mut times, _peer) = keepalive(&settings);
        let first = times.next_deadline();
        let shorter = Timing { idle_timeout: 3 * second, ping_interval: second, ..TIMING };
        let mut new = Settings::clone(&settings.load());
        new.timing = shorter;
        settings.store(Arc::new(new));
        assert_eq!(times.next_deadline(), first);

        // Silent for 30 s, which was fine.
        times.keep_time(first);
        assert!(times.session.is_open());
        assert_eq!(times.next_deadline(), first + second);
        times.keep_time(first + 3 * second);
        assert_eq!(times.session.ending(), Some(End::Idle));
    }
}
