//! How room is made in an outbox: what goes for what comes, and what stays whatever comes.

use std::time::Instant;

use super::chunk::{RECORD_COST, RUN_COST, Run};
use super::{Arrival, Limits, Outbox, Pushed, Record, Source};
use crate::metrics::{Drop, Origin, Shard, Whose};

impl Outbox {
    /// Drops the oldest records until one of this source that costs so much fits.
    #[allow(clippy::inline_always)] // each packet into a full outbox comes by here
    #[inline(always)]
    pub(super) fn make_room(
        &mut self,
        source: Source,
        cost: usize,
        limits: &Limits,
        at: Instant,
        shard: &Shard,
    ) -> Result<(), Drop> {
        // Judged by what it holds as it comes: not again behind each record that goes, or
        // others would lose theirs for an arrival that is refused in the end.
        let holds_most = self.holds_most(source);
        while self.held() + cost > limits.bytes {
            let oldest = self.oldest_source().expect("pending records, or it would fit");
            // A source that fills the outbox makes room only at its own cost.
            if holds_most && oldest != source && oldest != Source::Kept {
                return Err(Drop::OUTBOX_SHARE);
            }
            self.drop_oldest(Drop::OUTBOX_FULL, at, shard);
        }
        Ok(())
    }

    /// Queues a message of the door's own behind all that waits, which no record pushes out: those
    /// before it make room, the oldest first. It overflows where the peer has not read as many
    /// bytes of such as the outbox may hold.
    pub(in crate::peers) fn push_kept(
        &mut self,
        limits: &Limits,
        message: &[u8],
        now: Instant,
        shard: &Shard,
    ) -> Pushed {
        let mut pushed = Pushed::default();
        if self.ending || self.closed {
            return pushed;
        }
        let cost = message.len() + 4 + RECORD_COST + RUN_COST;
        if self.held() + cost > limits.bytes {
            pushed.evicted = self.evict(cost, limits, now, shard);
        }
        if self.notices + cost > limits.bytes {
            pushed.overflowed = true;
        } else if self.pending.is_empty() {
            pushed.overflowed = !self.push_notice(limits, message);
        } else {
            let arrival = Arrival { source: Source::Kept, ..Arrival::ours(now) };
            let record = Record { head: &[], body: message };
            self.append(record, &arrival, message.len() + 4);
        }
        pushed.queued = u64::from(!pushed.overflowed);
        pushed
    }

    /// Drops the oldest records until one that costs so much fits, or none is left; says how many.
    #[cold]
    pub(super) fn evict(
        &mut self,
        cost: usize,
        limits: &Limits,
        now: Instant,
        shard: &Shard,
    ) -> u64 {
        let mut evicted = 0;
        while self.held() + cost > limits.bytes
            && let Some(oldest) = self.oldest_source()
        {
            evicted += u64::from(oldest != Source::Kept);
            self.drop_oldest(Drop::OUTBOX_FULL, now, shard);
        }
        evicted
    }

    /// Drops the oldest record. One that is kept is the next to leave instead: what was before it
    /// has gone.
    #[inline]
    pub(super) fn drop_oldest(&mut self, reason: Drop, now: Instant, shard: &Shard) {
        let chunk = self.pending.front_mut().expect("the caller saw a pending record");
        let &Run { source, origin, sender, .. } =
            chunk.oldest().expect("no pending chunk is empty");
        if source == Source::Kept {
            return self.let_oldest_lead();
        }
        let cost = chunk.drop_oldest().expect("no pending chunk is empty");
        self.waiting = self.waiting.saturating_sub(cost);
        if let Some(shares) = &mut self.shares {
            shares.left(source, cost);
        }
        match origin {
            Origin::Relayed => {
                let whose = Whose { sender, dest: Some(self.dest) };
                shard.dropped_of(whose, reason, 1, now);
                shard.unqueued(1);
            }
            Origin::Ours => shard.ours_dropped(1),
        }
        if chunk.is_empty()
            && let Some(chunk) = self.pending.pop_front()
        {
            chunk.give_back();
        }
    }

    /// Has the oldest record, which is kept, be the next to leave.
    #[cold]
    fn let_oldest_lead(&mut self) {
        let chunk = self.pending.front_mut().expect("the caller saw a pending record");
        let (_, framed) = chunk.each().next().expect("no pending chunk is empty");
        self.notices += framed.len();
        self.control.get_or_insert_default().push([framed, &[], &[]]);
        let cost = chunk.drop_oldest().expect("no pending chunk is empty");
        self.waiting = self.waiting.saturating_sub(cost);
        if let Some(shares) = &mut self.shares {
            shares.left(Source::Kept, cost);
        }
        if chunk.is_empty()
            && let Some(chunk) = self.pending.pop_front()
        {
            chunk.give_back();
        }
    }
}
