//! What did not leave of a flush of datagrams.
//!
//! A datagram leaves whole or not at all. What has not left waits in front again, where age and
//! overflow count for it as before, so that none is in flight for long. One that is longer than
//! what the path carries at this moment waits aside, so that it holds nobody up, as long as the
//! path may turn out to carry it and it is not too old.

use std::time::{Duration, Instant};

use super::chunk::{CHUNK, Chunk, Run};
use super::{Arrival, InFlight, Outbox, Record, Write};
use crate::metrics::{Drop, Origin, Shard, Traffic};
use crate::net::Longest;
use crate::wire::Framing;

/// Longest datagram that each path carries, in bytes: notices cannot wait for a wider one.
///
/// 1_150 = 1_200 (least packet of QUIC) - 50 (its headers, at most).
pub(super) const LEAST_DATAGRAM: usize = 1_150;

impl Outbox {
    /// Puts back the records that did not leave.
    pub(in crate::peers) fn put_back_datagrams(
        &mut self,
        rest: Write,
        longest: Longest,
        now: Instant,
        traffic: &Traffic,
    ) {
        let is_control =
            self.in_flight.as_ref().is_some_and(|in_flight| in_flight.chunk.runs().is_empty());
        if self.closed || is_control {
            return self.put_back(rest, traffic);
        }
        let InFlight { mut chunk, written, .. } = self.land(rest);
        let shard = traffic.shard();
        self.taken = self.taken.saturating_sub(chunk.cost());
        self.count_left(&mut chunk, written, now, shard);
        let chunk = self.without_longer(chunk, longest, now, shard);
        // What is in front goes on only when the stream says so.
        self.blocked = self.put_in_front(chunk);
    }

    /// Looks again at the records that wait for a path that carries them: those that it carries
    /// go on, those that are too old are dropped.
    pub(in crate::peers) fn retry_aside(
        &mut self,
        longest: Longest,
        age: Duration,
        now: Instant,
        shard: &Shard,
    ) {
        let Some(mut chunk) = self.aside.take() else { return };
        while let Some(run) = chunk.oldest()
            && now.saturating_duration_since(run.arrived) > age
        {
            self.drop_too_long(&mut chunk, now, shard);
        }
        let chunk = self.without_longer(chunk, longest, now, shard);
        self.put_in_front(chunk);
    }

    /// Whether records wait for a path that carries them.
    pub(in crate::peers) const fn has_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// False where there is nothing to put.
    fn put_in_front(&mut self, chunk: Box<Chunk>) -> bool {
        if chunk.is_empty() {
            chunk.give_back();
            return false;
        }
        self.waiting += chunk.cost();
        self.pending.push_front(chunk);
        true
    }

    /// Accounts for the first `written` bytes of a chunk, which have left.
    fn count_left(&mut self, chunk: &mut Chunk, written: usize, now: Instant, shard: &Shard) {
        let end = chunk.start() + written;
        if let Some(run) = chunk.oldest().filter(|_| written > 0) {
            shard.waited(now.saturating_duration_since(run.arrived));
        }
        while chunk.start() < end {
            let start = chunk.start();
            let Some(&Run { source, origin, .. }) = chunk.oldest() else { return };
            let Some(cost) = chunk.drop_oldest() else { return };
            let bytes = chunk.start() - start;
            shard.went_out(self.transport, origin, 1, bytes as u64);
            if origin == Origin::Relayed {
                shard.unqueued(1);
            }
            if let Some(shares) = &mut self.shares {
                shares.left(source, cost);
            }
        }
    }

    /// The chunk without records that are longer, which wait aside, or are dropped where no path
    /// can carry them.
    fn without_longer(
        &mut self,
        chunk: Box<Chunk>,
        longest: Longest,
        now: Instant,
        shard: &Shard,
    ) -> Box<Chunk> {
        if chunk.each().all(|(_, record)| record.len() <= longest.now) {
            return chunk;
        }
        // Who holds how much is counted anew when somebody asks.
        self.shares = None;
        let mut kept = Chunk::lend();
        for (run, body) in chunk.each() {
            let &Run { source, origin, sender, arrived, .. } = run;
            let arrival = Arrival { source, origin, sender, at: arrived };
            let record = Record { head: &[], body };
            if body.len() <= longest.now {
                kept.push(record, &arrival, Framing::Datagram);
            } else if body.len() <= longest.soon {
                self.put_aside(record, &arrival, now, shard);
            } else {
                self.count_too_long(run, now, shard);
            }
        }
        chunk.give_back();
        kept
    }

    /// Has a record wait aside, where the oldest make room for it.
    fn put_aside(&mut self, record: Record<'_>, arrival: &Arrival, now: Instant, shard: &Shard) {
        let mut aside = self.aside.take().unwrap_or_else(Chunk::lend);
        if !aside.has_room(record.body.len()) {
            while aside.cost() > CHUNK / 2 {
                self.drop_too_long(&mut aside, now, shard);
            }
            // What is gone has its bytes in there until then.
            let mut rest = Chunk::lend();
            for (&Run { source, origin, sender, arrived, .. }, body) in aside.each() {
                let arrival = Arrival { source, origin, sender, at: arrived };
                rest.push(Record { head: &[], body }, &arrival, Framing::Datagram);
            }
            aside.give_back();
            aside = rest;
        }
        aside.push(record, arrival, Framing::Datagram);
        self.aside = Some(aside);
    }

    /// Drops the oldest record of a chunk that is not in the queue.
    fn drop_too_long(&self, chunk: &mut Chunk, now: Instant, shard: &Shard) {
        if let Some(run) = chunk.oldest() {
            self.count_too_long(run, now, shard);
        }
        chunk.drop_oldest();
    }

    /// Accounts for a record that no datagram carries.
    fn count_too_long(&self, run: &Run, now: Instant, shard: &Shard) {
        match run.origin {
            Origin::Relayed => {
                shard.dropped_of(self.whose(run.sender), Drop::TOO_LARGE_FOR_PATH, 1, now);
                shard.unqueued(1);
            }
            Origin::Ours => shard.ours_dropped(1),
        }
    }
}
