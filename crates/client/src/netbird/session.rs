//! One session after its login: moves messages between the carrier and two queues, answers the
//! relay's health checks, and notices when none comes any more.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Event;
use super::carrier::Carrier;
use super::driven::Driven;
use super::error::SessionError;
use super::options::Timeouts;
use crate::socket::BUFFER;
use crate::wire::netbird::{CLOSING, FromRelay, HEALTHY};

/// Longest wait for the relay to end the connection after our own close.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What the application hands to the session.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A whole message.
    Message(Bytes),
    /// The graceful end.
    Close,
}

/// Runs a session to its end; `Ok` after our own close, or when nobody receives any more.
pub(super) async fn run(
    carrier: Carrier,
    mut outgoing: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<Event>,
    timeouts: Timeouts,
) -> Result<(), SessionError> {
    let mut session = Session {
        carrier,
        timeouts,
        heard_by: Instant::now() + timeouts.silence,
        flush_by: None,
        leave_by: None,
    };
    let ended = session.go_on(&mut outgoing, &events).await;
    session.carrier.end().await;
    ended
}

struct Session {
    carrier: Carrier,
    timeouts: Timeouts,
    /// By when a health check must have come.
    heard_by: Instant,
    /// Set while messages wait for the socket.
    flush_by: Option<Instant>,
    /// Set after our own close.
    leave_by: Option<Instant>,
}

impl Session {
    async fn go_on(
        &mut self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), SessionError> {
        let mut room = None;
        let mut can_send = true;
        loop {
            let is_reading = room.is_some();
            let is_flushing = self.flush_by.is_some();
            let may_send = !is_flushing && self.leave_by.is_none();
            let deadline = self.deadline(is_reading);
            tokio::select! {
                // What the relay sent comes first: it may be the health check that is waited for.
                biased;
                driven = self.carrier.drive(is_reading, is_flushing) => match driven {
                    Ok(Driven::Message(message)) => {
                        if let Some(event) = self.received(&message)?
                            && let Some(room) = room.take()
                        {
                            mpsc::Permit::send(room, event);
                        }
                    }
                    Ok(Driven::Flushed) => self.flush_by = None,
                    Ok(Driven::Nothing) => {}
                    Ok(Driven::Ended(_)) if self.leave_by.is_some() => return Ok(()),
                    Ok(Driven::Ended(reason)) => return Err(SessionError::ended(reason)),
                    Err(_) if self.leave_by.is_some() => return Ok(()),
                    Err(error) => return Err(error),
                },
                permit = events.reserve(), if !is_reading => match permit {
                    Ok(permit) => room = Some(permit),
                    Err(_nobody_receives) => return Ok(()),
                },
                next = outgoing.recv(), if can_send && may_send => match next {
                    Some(first) => self.send(first, outgoing)?,
                    None => can_send = false,
                },
                () = sleep_until(deadline) => {
                    if self.passed(Instant::now(), is_reading)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// What a message comes to for the application.
    fn received(&mut self, message: &Bytes) -> Result<Option<Event>, SessionError> {
        Ok(match FromRelay::decode(message) {
            Ok(FromRelay::Transport { source, payload }) => {
                Some(Event::Packet { sender: source, payload: message.slice_ref(payload) })
            }
            Ok(FromRelay::PeersOnline(peers)) => Some(Event::Online(peers.iter().collect())),
            Ok(FromRelay::PeersWentOffline(peers)) => Some(Event::Offline(peers.iter().collect())),
            Ok(FromRelay::HealthCheck) => {
                self.heard_by = Instant::now() + self.timeouts.silence;
                if self.leave_by.is_none() {
                    self.feed(Bytes::from_static(&HEALTHY))?;
                }
                None
            }
            Ok(FromRelay::Close) if self.leave_by.is_none() => return Err(SessionError::Closed),
            // A later version may say more.
            Ok(FromRelay::Close | FromRelay::AuthResponse(_)) | Err(_) => None,
        })
    }

    /// Hands `first` and what is queued behind it to the carrier, as much as it buffers.
    fn send(
        &mut self,
        first: Outgoing,
        queue: &mut mpsc::Receiver<Outgoing>,
    ) -> Result<(), SessionError> {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(outgoing) = next {
            match outgoing {
                Outgoing::Message(message) => {
                    bytes += message.len();
                    self.feed(message)?;
                }
                Outgoing::Close => {
                    self.leave_by = Some(Instant::now() + CLOSE_GRACE);
                    return self.feed(Bytes::from_static(&CLOSING));
                }
            }
            next = if bytes < BUFFER { queue.try_recv().ok() } else { None };
        }
        Ok(())
    }

    fn feed(&mut self, message: Bytes) -> Result<(), SessionError> {
        let write = self.timeouts.write;
        self.flush_by.get_or_insert_with(|| Instant::now() + write);
        self.carrier.feed(message)
    }

    /// The next moment at which something is due; silence counts only while we listen.
    fn deadline(&self, is_reading: bool) -> Instant {
        let silent_by = is_reading.then_some(self.heard_by);
        let all = [self.flush_by, self.leave_by, silent_by];
        let never = Instant::now() + Duration::from_secs(86_400);
        all.into_iter().flatten().min().unwrap_or(never)
    }

    /// Does what is due at `now`; true when our close has waited long enough.
    fn passed(&self, now: Instant, is_reading: bool) -> Result<bool, SessionError> {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.leave_by) {
            return Ok(true);
        }
        if due(self.flush_by) {
            return Err(SessionError::Stuck(self.timeouts.write));
        }
        if due(is_reading.then_some(self.heard_by)) {
            return Err(SessionError::Silent(self.timeouts.silence));
        }
        Ok(false)
    }
}
