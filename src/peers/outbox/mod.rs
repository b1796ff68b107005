//! The bounded queue in front of one peer's socket.
//!
//! Records wait in `pending`, whole and framed. A flush takes the oldest chunk of them in
//! flight; what is in flight goes out whole or ends with the session, since its first bytes
//! may be at the peer. Overflow and age drop only from `pending`, the oldest first; an outbox
//! whose door wants no record dropped refuses the new one instead.
//! Control frames have a lane of their own and go before records.

mod chunk;
mod datagrams;
mod records;
mod room;
mod shares;
mod source;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chunk::{Chunk, Framed, RECORD_COST, RUN_COST};
use shares::Shares;

use crate::metrics::{Drop, Origin, Shard, Traffic, Transport, Whose};
use crate::net::Records;
use crate::wire::Framing;
use crate::wire::name::Name;
use crate::wire::websocket::Opcode;

pub use records::{Arrival, Limits, Overflow, Pushed, Record};
pub use source::Source;

/// Bytes that control frames may take: a challenge of the longest kind (400), or two pings
/// and two pongs of 127 and a close.
const CONTROL_ROOM: usize = 640;

/// Pongs stop here, so that a peer that floods pings and reads nothing cannot keep a close
/// out.
const PONG_ROOM: usize = 254;

/// What waits in an outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backlog {
    /// Records, those of our own among them.
    pub records: usize,
    /// Bytes with their bookkeeping, as the bound counts them.
    pub bytes: usize,
    /// How long the oldest record has waited.
    pub age: Duration,
    /// For how long the kernel has taken nothing of what is in flight.
    pub stuck: Option<Duration>,
}

/// The queue of one session; its bytes go out in the order in which they came.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Whom the records are for.
    dest: Name,
    transport: Transport,
    framing: Framing,
    overflow: Overflow,
    control: Option<Box<Framed>>,
    /// Bytes of notices among them.
    notices: usize,
    pending: VecDeque<Box<Chunk>>,
    in_flight: Option<InFlight>,
    /// Datagrams that the path does not carry yet, one chunk of them; no part of the bound.
    aside: Option<Box<Chunk>>,
    /// What `pending` costs.
    waiting: usize,
    /// What was taken from it costs until the kernel has all of it.
    taken: usize,
    /// Who holds how much of it, since it was full; none as long as nobody asked.
    shares: Option<Shares>,
    /// Runs that were looked at to count the shares.
    #[cfg(test)]
    looked_at: usize,
    /// Somebody is in the system call with what is in flight.
    pub(super) flushing: bool,
    /// The kernel took less than it was given: only the peer's own task goes on.
    pub(super) blocked: bool,
    /// The session ends: what is in flight and control frames still leave.
    ending: bool,
    pub(super) closed: bool,
}

/// The records that are being written. While a flusher has their bytes, what they are and
/// whose stays here, so that the shares of the queue can be counted at any time.
#[derive(Debug)]
struct InFlight {
    chunk: Box<Chunk>,
    written: usize,
    /// When the kernel last took a byte of it.
    progress: Instant,
}

/// The bytes that a flusher writes.
#[derive(Debug)]
pub(super) struct Write {
    framed: Framed,
    /// Where the bytes begin that are left to write.
    at: usize,
    progress: Instant,
}

impl Write {
    /// The records that are left to write.
    pub(super) fn rest(&self) -> Records<'_> {
        self.framed.records(self.at)
    }

    /// Counts written bytes; true when nothing is left.
    pub(super) fn wrote(&mut self, bytes: usize, now: Instant) -> bool {
        self.at += bytes;
        self.progress = now;
        self.rest().bytes().is_empty()
    }
}

impl Outbox {
    pub(super) const fn new(
        dest: Name,
        transport: Transport,
        framing: Framing,
        overflow: Overflow,
    ) -> Self {
        Self {
            dest,
            transport,
            framing,
            overflow,
            control: None,
            notices: 0,
            pending: VecDeque::new(),
            in_flight: None,
            aside: None,
            waiting: 0,
            taken: 0,
            shares: None,
            #[cfg(test)]
            looked_at: 0,
            flushing: false,
            blocked: false,
            ending: false,
            closed: false,
        }
    }

    /// Queues records of one source; what does not fit is dropped and counted.
    pub(super) fn push<'a>(
        &mut self,
        records: impl Iterator<Item = Record<'a>>,
        arrival: &Arrival,
        limits: &Limits,
        shard: &Shard,
    ) -> Pushed {
        self.expire(limits.age, arrival.at, shard);
        let mut pushed = Pushed::default();
        for record in records {
            let result = if pushed.overflowed && self.overflow != Overflow::DropOldest {
                // Or what is pushed behind would come before it.
                Err(Drop::OUTBOX_FULL)
            } else {
                self.push_one(record, arrival, limits, shard, &mut pushed.evicted)
            };
            match result {
                Ok(()) => pushed.queued += 1,
                Err(reason) => {
                    pushed.refused += 1;
                    pushed.overflowed |=
                        reason == Drop::OUTBOX_FULL || reason == Drop::OUTBOX_SHARE;
                    match arrival.origin {
                        Origin::Relayed => {
                            shard.dropped_of(self.whose(arrival.sender), reason, 1, arrival.at)
                        }
                        Origin::Ours => shard.ours_dropped(1),
                    }
                }
            }
        }
        if arrival.origin == Origin::Relayed {
            shard.queued(pushed.queued);
        }
        if pushed.overflowed && self.overflow == Overflow::EndSession {
            self.ending = true;
        }
        pushed
    }

    fn push_one(
        &mut self,
        record: Record<'_>,
        arrival: &Arrival,
        limits: &Limits,
        shard: &Shard,
        evicted: &mut u64,
    ) -> Result<(), Drop> {
        let Arrival { source, at, .. } = *arrival;
        if self.ending || self.closed {
            return Err(Drop::PEER_GONE);
        }
        if record.head.len() + record.body.len() > limits.message {
            // The peer would end the session over it.
            return Err(Drop::TOO_LARGE_FOR_PEER);
        }
        // 4 = the header of every frame but the shortest and the longest.
        let framed = record.head.len() + record.body.len() + 4;
        let cost = framed + RECORD_COST + RUN_COST;
        if self.taken + cost > limits.bytes {
            // No room even if all that waits went.
            return Err(Drop::OUTBOX_FULL);
        }
        if self.held() + cost > limits.bytes {
            match self.overflow {
                Overflow::DropOldest => self.make_room(source, cost, limits, at, shard)?,
                Overflow::EvictOldest => *evicted += self.evict(cost, limits, at, shard),
                Overflow::Refuse | Overflow::EndSession => return Err(Drop::OUTBOX_FULL),
            }
        }
        self.append(record, arrival, framed);
        Ok(())
    }

    /// Queues a control frame; false where its lane is full.
    pub(super) fn push_control(&mut self, opcode: Opcode, payload: &[u8]) -> bool {
        let room = if opcode == Opcode::Pong { PONG_ROOM } else { CONTROL_ROOM };
        let (header, used) = self.framing.control_header(opcode, payload.len());
        let held = self.control.as_ref().map_or(0, |control| control.len()) - self.notices;
        if self.closed || held + used + payload.len() > room {
            return false;
        }
        let header = header.get(..used).expect("a header fits its place");
        self.control.get_or_insert_default().push([header, payload, &[]]);
        true
    }

    /// Queues a message in front of the records; false where the peer has not read as many bytes
    /// of such as the outbox may hold.
    pub(super) fn push_notice(&mut self, limits: &Limits, message: &[u8]) -> bool {
        let (header, used) = self.framing.header(message.len());
        let length = used + message.len();
        if self.closed {
            return true;
        }
        debug_assert!(
            self.framing != Framing::Datagram || message.len() <= datagrams::LEAST_DATAGRAM,
            "a notice that no datagram carries would keep all others from leaving"
        );
        if self.notices + length > limits.bytes {
            return false;
        }
        let header = header.get(..used).expect("a header fits its place");
        self.control.get_or_insert_default().push([header, message, &[]]);
        self.notices += length;
        true
    }

    /// Puts a record of so many framed bytes behind all others.
    #[allow(clippy::inline_always)] // each packet to a session comes by here
    #[inline(always)]
    fn append(&mut self, record: Record<'_>, arrival: &Arrival, framed: usize) {
        if !self.pending.back().is_some_and(|chunk| chunk.has_room(framed)) {
            self.pending.push_back(Chunk::lend());
        }
        let chunk = self.pending.back_mut().expect("one was pushed if there was none");
        let cost = chunk.push(record, arrival, self.framing);
        self.waiting += cost;
        if let Some(shares) = &mut self.shares {
            shares.came(arrival.source, cost);
        }
    }

    /// Takes what is next to write, unless somebody else has it; the caller puts it back with
    /// [`Self::put_back`] or ends it with [`Self::finish`].
    pub(super) fn take(&mut self, limits: &Limits, now: Instant, shard: &Shard) -> Option<Write> {
        if self.flushing || self.blocked || self.closed {
            return None;
        }
        if self.in_flight.is_none() {
            let chunk = self.next_chunk(limits, now, shard)?;
            self.taken += chunk.cost();
            self.in_flight = Some(InFlight { chunk, written: 0, progress: now });
        }
        let InFlight { chunk, written, progress } = self.in_flight.as_mut()?;
        let at = chunk.start() + *written;
        self.flushing = true;
        Some(Write { framed: chunk.take_framed(), at, progress: *progress })
    }

    /// Control frames if there are any, else the oldest pending chunk.
    fn next_chunk(&mut self, limits: &Limits, now: Instant, shard: &Shard) -> Option<Box<Chunk>> {
        if let Some(control) = self.control.take() {
            self.notices = 0;
            let mut chunk = Chunk::lend();
            chunk.push_control(&control);
            return Some(chunk);
        }
        self.expire(limits.age, now, shard);
        let chunk = self.pending.pop_front()?;
        self.waiting = self.waiting.saturating_sub(chunk.cost());
        Some(chunk)
    }

    /// Puts back what the kernel did not take whole, and leaves the rest to the peer's task.
    pub(super) fn put_back(&mut self, rest: Write, traffic: &Traffic) {
        let in_flight = self.land(rest);
        if self.closed {
            // The session ended while we were in the system call, and waited for this.
            self.taken = self.taken.saturating_sub(in_flight.chunk.cost());
            lose(&in_flight.chunk, self.dest, traffic.shard());
            in_flight.chunk.give_back();
            return;
        }
        self.blocked = true;
        self.in_flight = Some(in_flight);
    }

    /// Accounts for what the kernel took whole.
    pub(super) fn finish(&mut self, done: Write, now: Instant, traffic: &Traffic) {
        let chunk = self.land(done).chunk;
        let shard = traffic.shard();
        for run in chunk.runs() {
            let records = u64::from(run.records);
            shard.went_out(self.transport, run.origin, records, run.bytes as u64);
            if run.origin == Origin::Relayed {
                shard.unqueued(records);
            }
            if let Some(shares) = &mut self.shares {
                shares.left(run.source, run.cost());
            }
        }
        if let Some(run) = chunk.runs().first() {
            shard.waited(now.saturating_duration_since(run.arrived));
        }
        self.taken = self.taken.saturating_sub(chunk.cost());
        chunk.give_back();
        if self.held() == 0 {
            self.shares = None;
        }
    }

    /// Takes the records back from the flusher.
    fn land(&mut self, write: Write) -> InFlight {
        let Write { framed, at, progress } = write;
        let mut in_flight = self.in_flight.take().expect("what is written is in flight");
        in_flight.chunk.put_framed(framed);
        in_flight.written = at - in_flight.chunk.start();
        in_flight.progress = progress;
        self.flushing = false;
        in_flight
    }

    /// Refuses records from here on and gives up those that are pending; what is in flight
    /// still leaves whole, and control frames behind it.
    pub(super) fn end_records(&mut self, traffic: &Traffic) {
        self.ending = true;
        self.shares = None;
        if let Some(chunk) = self.aside.take() {
            lose(&chunk, self.dest, traffic.shard());
            chunk.give_back();
        }
        for chunk in std::mem::take(&mut self.pending) {
            self.waiting = self.waiting.saturating_sub(chunk.cost());
            lose(&chunk, self.dest, traffic.shard());
            chunk.give_back();
        }
    }

    /// Ends the queue: all that waits is lost, and nothing enters from here on.
    pub(super) fn close(&mut self, traffic: &Traffic) {
        self.end_records(traffic);
        self.closed = true;
        self.control = None;
        self.notices = 0;
        // A flusher that is in the system call accounts for it when it comes back.
        if !self.flushing
            && let Some(InFlight { chunk, .. }) = self.in_flight.take()
        {
            self.taken = self.taken.saturating_sub(chunk.cost());
            lose(&chunk, self.dest, traffic.shard());
            chunk.give_back();
        }
    }

    /// What waits at this moment.
    pub(super) fn backlog(&self, now: Instant) -> Backlog {
        let in_flight = self.in_flight.as_ref().map(|in_flight| &in_flight.chunk);
        let chunks = || self.aside.iter().chain(in_flight).chain(&self.pending);
        let oldest = chunks().find_map(|chunk| chunk.oldest());
        let since = |at| now.saturating_duration_since(at);
        Backlog {
            records: chunks().map(|chunk| chunk.records()).sum(),
            bytes: self.held(),
            age: oldest.map_or(Duration::ZERO, |run| since(run.arrived)),
            stuck: self.stuck_since().map(since),
        }
    }

    /// Since when what is in flight has made no progress.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|in_flight| in_flight.progress)
    }

    /// Whether the session is saying goodbye.
    pub(super) const fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether a flush would find something to write.
    pub(super) fn has_work(&self) -> bool {
        self.in_flight.is_some() || self.control.is_some() || !self.pending.is_empty()
    }

    /// What waits, in bytes with its bookkeeping.
    pub(super) const fn held(&self) -> usize {
        self.waiting + self.taken
    }

    fn oldest_source(&self) -> Option<Source> {
        self.pending.front().and_then(|chunk| chunk.oldest()).map(|run| run.source)
    }

    /// Whether a source holds more than half of the queue, in flight and pending.
    fn holds_most(&mut self, source: Source) -> bool {
        let half = self.held() / 2;
        if let Some(answer) = self.shares.as_ref().and_then(|shares| shares.exceeds(source, half)) {
            return answer;
        }
        let in_flight = self.in_flight.as_ref().map(|in_flight| &in_flight.chunk);
        let chunks = in_flight.into_iter().chain(&self.pending);
        let runs = chunks.flat_map(|chunk| chunk.runs());
        #[cfg(test)]
        {
            self.looked_at += runs.clone().count();
        }
        let shares = Shares::count(runs);
        let answer = shares.exceeds(source, half).expect("others are below a quarter");
        self.shares = Some(shares);
        answer
    }

    /// Drops what is too old, where records may be dropped at all.
    fn expire(&mut self, age: Duration, now: Instant, shard: &Shard) {
        if self.overflow != Overflow::DropOldest {
            return;
        }
        while let Some(run) = self.pending.front().and_then(|chunk| chunk.oldest())
            && now.saturating_duration_since(run.arrived) > age
        {
            self.drop_oldest(Drop::OUTBOX_AGED, now, shard);
        }
    }

    const fn whose(&self, sender: Option<Name>) -> Whose {
        Whose { sender, dest: Some(self.dest) }
    }
}

/// Accounts for records that will not leave.
fn lose(chunk: &Chunk, dest: Name, shard: &Shard) {
    let now = Instant::now();
    for run in chunk.runs() {
        let records = u64::from(run.records);
        match run.origin {
            Origin::Relayed => {
                let whose = Whose { sender: run.sender, dest: Some(dest) };
                shard.dropped_of(whose, Drop::PEER_GONE, records, now);
                shard.unqueued(records);
            }
            Origin::Ours => shard.ours_dropped(records),
        }
    }
}

#[cfg(test)]
mod tests;
