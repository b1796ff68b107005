//! What did not leave of a flush of datagrams.
//!
//! A datagram leaves whole or not at all. What has not left waits in front again, where age and
//! overflow count for it as before, so that none is in flight for long.

use std::time::Instant;

use super::chunk::{Chunk, Run};
use super::{Arrival, InFlight, Outbox, Record, Write};
use crate::metrics::{Drop, Origin, Shard, Traffic};
use crate::wire::Framing;

impl Outbox {
    /// Puts back the records that did not leave, but for those longer than `longest`, which no
    /// datagram carries.
    pub(in crate::peers) fn put_back_datagrams(
        &mut self,
        rest: Write,
        longest: usize,
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
        if chunk.is_empty() {
            chunk.give_back();
            return;
        }
        self.waiting += chunk.cost();
        self.pending.push_front(chunk);
        self.blocked = true;
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

    /// The chunk without records that are longer, which are dropped.
    fn without_longer(
        &mut self,
        chunk: Box<Chunk>,
        longest: usize,
        now: Instant,
        shard: &Shard,
    ) -> Box<Chunk> {
        if chunk.each().all(|(_, record)| record.len() <= longest) {
            return chunk;
        }
        let mut kept = Chunk::lend();
        for (run, body) in chunk.each() {
            let Run { source, origin, sender, arrived, .. } = *run;
            if body.len() <= longest {
                let arrival = Arrival { source, origin, sender, at: arrived };
                kept.push(Record { head: &[], body }, &arrival, Framing::Datagram);
            } else {
                match origin {
                    Origin::Relayed => {
                        let whose = self.whose(sender);
                        shard.dropped_of(whose, Drop::TOO_LARGE_FOR_PATH, 1, now);
                        shard.unqueued(1);
                    }
                    Origin::Ours => shard.ours_dropped(1),
                }
            }
        }
        chunk.give_back();
        // Who holds how much is counted anew when somebody asks.
        self.shares = None;
        kept
    }
}
