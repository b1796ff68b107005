//! One session: moves records between the hub and the queues, in batches of which one is under way
//! in each direction, and notices when the hub is gone.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::QUEUE;
use super::batch::{Acked, Batch};
use super::error::{Interruption, Over};
use super::event::Event;
use super::letter::{Letter, Published};
use super::link::Link;
use super::options::Timeouts;
use crate::SessionError;

/// Longest wait for our leave to be taken.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Most records of a batch, and most of their bytes where there are several.
const MAX_RECORDS: usize = 1_024;
const MAX_BYTES: usize = 1 << 20;

/// Batches that a hub may send without an acknowledgement before it is taken for none: one is the
/// protocol's number.
const MAX_UNACKNOWLEDGED: usize = 4;

/// What the application hands to the sessions.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A record.
    Letter(Letter),
    /// The end.
    Close,
}

/// The queues of a client, which outlive its sessions.
pub(super) struct Queues {
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) acks: mpsc::Receiver<Acked>,
    /// What each batch is acknowledged with.
    pub(super) acknowledge: mpsc::Sender<Acked>,
}

/// What is known from one session to the next.
#[derive(Default)]
pub(super) struct Memory {
    /// Records without an acknowledgement, in the order in which they are published.
    letters: VecDeque<Letter>,
    /// Nothing is published any more but `letters`.
    is_leaving: bool,
    /// The number of the session.
    session: u64,
}

impl Memory {
    /// Whether the application has ended the client and nothing of its is left to publish.
    pub(super) fn is_done(&self) -> bool {
        self.is_leaving && self.letters.is_empty()
    }
}

/// Runs a session to its end; `Ok` after our own close, or when nobody receives any more.
pub(super) async fn run(
    link: Link,
    queues: &mut Queues,
    memory: &mut Memory,
    timeouts: &Timeouts,
) -> Result<(), Over> {
    memory.session += 1;
    let mut session = Session {
        link,
        memory,
        timeouts: *timeouts,
        in_flight: None,
        arrived: VecDeque::new(),
        last: (Vec::new(), Weak::new()),
        unacknowledged: 0,
        next_ping: Instant::now() + timeouts.ping_interval,
        silent_since: None,
    };
    let ended = session.go_on(queues).await;
    if ended.is_ok() {
        let _ = timeout(CLOSE_GRACE, session.link.close()).await;
    }
    ended
}

/// A batch that was published.
struct InFlight {
    records: usize,
    /// Until when its acknowledgement is awaited.
    until: Instant,
}

struct Session<'a> {
    link: Link,
    memory: &'a mut Memory,
    timeouts: Timeouts,
    in_flight: Option<InFlight>,
    /// Batches that the application has not taken; at most [`MAX_UNACKNOWLEDGED`].
    arrived: VecDeque<Batch>,
    unacknowledged: usize,
    /// The records of the last batch that came, and whether somebody has it.
    last: (Vec<Bytes>, Weak<()>),
    next_ping: Instant,
    /// When the oldest ping was sent that nothing has followed.
    silent_since: Option<Instant>,
}

impl Session<'_> {
    async fn go_on(&mut self, queues: &mut Queues) -> Result<(), Over> {
        let Queues { outgoing, batches, acks, acknowledge } = queues;
        let mut can_take = true;
        loop {
            self.publish()?;
            if self.memory.is_done() {
                return Ok(());
            }
            let deadline = self.deadline();
            let may_take = can_take && !self.memory.is_leaving && self.memory.letters.len() < QUEUE;
            tokio::select! {
                // What the hub said comes first: it may be the sign of life that is waited for.
                biased;
                event = poll_fn(|cx| self.link.poll_next(cx)) => {
                    self.silent_since = None;
                    match event? {
                        Event::Acknowledged { is_new } => self.acknowledged(is_new),
                        Event::Batch(records) => self.received(records, acknowledge)?,
                        Event::Alive => {}
                    }
                }
                Some(Acked { session, last_id }) = acks.recv() => {
                    if session == self.memory.session {
                        // Of a batch that came again while its acknowledgement was on its way
                        // there are two.
                        self.unacknowledged = self.unacknowledged.saturating_sub(1);
                        self.link.acknowledge(&last_id)?;
                    }
                }
                room = batches.reserve(), if !self.arrived.is_empty() => match room {
                    Ok(room) => {
                        if let Some(batch) = self.arrived.pop_front() {
                            room.send(batch);
                        }
                    }
                    Err(_nobody_receives) => return Ok(()),
                },
                next = outgoing.recv(), if may_take => {
                    let mut next = next;
                    can_take = next.is_some();
                    while let Some(outgoing_next) = next {
                        self.take(outgoing_next);
                        let has_room = self.memory.letters.len() < QUEUE;
                        next = if has_room { outgoing.try_recv().ok() } else { None };
                    }
                }
                () = sleep_until(deadline) => self.passed(Instant::now())?,
            }
        }
    }

    fn take(&mut self, outgoing: Outgoing) {
        match outgoing {
            // What is behind the end is not published.
            Outgoing::Letter(letter) if !self.memory.is_leaving => {
                self.memory.letters.push_back(letter);
            }
            Outgoing::Letter(_) => {}
            Outgoing::Close => self.memory.is_leaving = true,
        }
    }

    /// Takes a batch, unless the application has it: a hub may send it again while that deals with
    /// it.
    fn received(
        &mut self,
        records: Vec<Bytes>,
        acknowledge: &mpsc::Sender<Acked>,
    ) -> Result<(), Over> {
        let (last, life) = &self.last;
        let is_again = self.unacknowledged > 0 && records == *last;
        if is_again && life.strong_count() > 0 {
            return Ok(());
        }
        if !is_again {
            if self.unacknowledged == MAX_UNACKNOWLEDGED {
                return Err(Interruption::NoHub("it does not wait for acknowledgements").into());
            }
            self.unacknowledged += 1;
        }
        let batch = Batch::new(records.clone(), self.memory.session, acknowledge.clone());
        self.last = (records, batch.life());
        self.arrived.push_back(batch);
        Ok(())
    }

    /// Publishes the next batch, once the last is acknowledged.
    fn publish(&mut self) -> Result<(), Over> {
        if self.in_flight.is_some() || self.memory.letters.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        let fits = |letter: &&Letter| {
            bytes += letter.record.len();
            bytes <= MAX_BYTES
        };
        let letters = &self.memory.letters;
        let records = letters.iter().take(MAX_RECORDS).take_while(fits).count().max(1);
        self.link.publish(letters.iter().take(records).map(|letter| &letter.record[..]))?;
        let until = Instant::now() + self.timeouts.acknowledgement;
        self.in_flight = Some(InFlight { records, until });
        Ok(())
    }

    /// The batch in flight is acknowledged. One that nobody waits for changes nothing.
    fn acknowledged(&mut self, is_new: bool) {
        let Some(InFlight { records, .. }) = self.in_flight.take() else { return };
        let published = if is_new { Published::Acknowledged } else { Published::NothingNew };
        for letter in self.memory.letters.drain(..records) {
            // Who published it may have given up.
            let _ = letter.answer.send(published);
        }
    }

    /// The next moment at which something is due.
    fn deadline(&self) -> Instant {
        let acknowledged_by = self.in_flight.as_ref().map(|batch| batch.until);
        [acknowledged_by, self.silent_by()].into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    fn silent_by(&self) -> Option<Instant> {
        self.silent_since.map(|since| since + self.timeouts.pong)
    }

    /// Does what is due at `now`.
    fn passed(&mut self, now: Instant) -> Result<(), Over> {
        if self.in_flight.as_ref().is_some_and(|batch| batch.until <= now) {
            return Err(Interruption::Unacknowledged(self.timeouts.acknowledgement).into());
        }
        if self.silent_by().is_some_and(|until| until <= now) {
            return Err(SessionError::Silent(self.timeouts.pong).into());
        }
        if self.next_ping <= now {
            self.next_ping = now + self.timeouts.ping_interval;
            self.silent_since.get_or_insert(now);
            self.link.ping()?;
        }
        Ok(())
    }
}
