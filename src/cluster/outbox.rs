//! What waits for one relay of the cluster: words of presence in one lane, packets in
//! another, so that neither keeps the other waiting.
//!
//! Packets are coalesced into batches while the link is busy. The lanes are bounded: of the
//! packets the oldest batch goes first, counted; words beyond the bound are dropped, since
//! presence repeats what matters.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Counters;
use crate::metrics::{Drop, Origin, Shard, Traffic, Transport, Whose};
use crate::wire::cluster::{
    Channel, ChannelWord, Frame, MAX_BATCH, MAX_PART, MAX_PAYLOAD, PART_COST, Run, add_packet,
    begin_packets, encode,
};
use crate::wire::name::Name;

/// Bytes that words may take: those of 30,000 moves at once.
const WORDS_ROOM: usize = 4 << 20;

/// Bytes that packets may take: 30 ms of a link of 1 Gbit/s.
const PACKETS_ROOM: usize = 4 << 20;

/// How long packets may wait: as long as a peer's own.
const AGE: Duration = Duration::from_secs(2);

/// Most bytes that a run's head adds to a batch: its header, two ids and the epoch.
const RUN_COST: usize = 5 + 2 * 66 + 8;

/// What goes to the relay in one piece.
///
/// Whoever takes one says what became of it, with [`Outbox::sent`] or [`Outbox::lost`].
#[derive(Debug)]
pub struct Batch {
    /// Frames, [`MAX_BATCH`] bytes of them at most.
    pub bytes: Vec<u8>,
    packets: u64,
    /// Whose the packets are, in their order.
    runs: Vec<Packets>,
    arrived: Instant,
}

/// Packets of one flow in a batch, as far as they are remembered when they are dropped.
#[derive(Debug)]
struct Packets {
    whose: Whose,
    count: u64,
}

impl Batch {
    /// How many packets it holds.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    fn new(spare: Spare, now: Instant) -> Self {
        let Spare { bytes, runs } = spare;
        Self { bytes, packets: 0, runs, arrived: now }
    }

    /// Notes whose the next packet is.
    fn count(&mut self, whose: Whose) {
        self.packets += 1;
        match self.runs.last_mut() {
            Some(run) if run.whose == whose => run.count += 1,
            Some(_) | None => self.runs.push(Packets { whose, count: 1 }),
        }
    }
}

/// What a batch that has left gives to the next one.
#[derive(Debug, Default)]
struct Spare {
    bytes: Vec<u8>,
    runs: Vec<Packets>,
}

/// The two lanes.
#[derive(Debug)]
pub struct Outbox {
    traffic: Arc<Traffic>,
    counters: Arc<Counters>,
    words: Mutex<Lane>,
    /// What doors tell each other, behind words.
    channels: Mutex<Channels>,
    packets: Mutex<Lane>,
    words_wait: Notify,
    packets_wait: Notify,
}

#[derive(Debug)]
struct Lane {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// The memory of one batch that has left: under load none is allocated for the next.
    spare: Spare,
    /// The run whose packets end the last batch, and its position.
    open: Option<(Run<Name>, usize)>,
    closed: bool,
}

impl Lane {
    const fn new() -> Self {
        let spare = Spare { bytes: Vec::new(), runs: Vec::new() };
        Self { batches: VecDeque::new(), bytes: 0, spare, open: None, closed: false }
    }

    /// The batch that takes so many bytes more, a new one if need be.
    fn batch(&mut self, bytes: usize, now: Instant) -> Option<&mut Batch> {
        if self.batches.back().is_none_or(|last| last.bytes.len() + bytes > MAX_BATCH) {
            self.batches.push_back(Batch::new(std::mem::take(&mut self.spare), now));
            self.open = None;
        }
        self.batches.back_mut()
    }

    /// Appends a frame that takes so many bytes.
    fn append(&mut self, frame: &Frame<'_, Name>, bytes: usize, now: Instant) {
        let Some(batch) = self.batch(bytes, now) else { return };
        let before = batch.bytes.len();
        encode(frame, &mut batch.bytes);
        let grown = batch.bytes.len() - before;
        self.bytes += grown;
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.bytes.len();
        if self.batches.is_empty() {
            self.open = None;
        }
        Some(batch)
    }

    fn close(&mut self) -> VecDeque<Batch> {
        self.closed = true;
        self.spare = Spare::default();
        self.bytes = 0;
        std::mem::take(&mut self.batches)
    }
}

/// A lane for each realm whose doors talk, which take turns: none waits for another's.
#[derive(Debug, Default)]
struct Channels {
    lanes: BTreeMap<u8, Lane>,
    /// Whose turn it was last.
    last: u8,
    closed: bool,
}

impl Channels {
    /// The lane of a realm; none once the link is gone.
    fn lane(&mut self, realm: u8) -> Option<&mut Lane> {
        (!self.closed).then(|| self.lanes.entry(realm).or_insert_with(Lane::new))
    }

    fn pop(&mut self) -> Option<Batch> {
        let behind = self.lanes.range((Excluded(self.last), Unbounded));
        let mut turns = behind.chain(self.lanes.range(..=self.last));
        let realm = *turns.find(|(_, lane)| !lane.batches.is_empty())?.0;
        self.last = realm;
        self.lanes.get_mut(&realm)?.pop()
    }

    fn close(&mut self) {
        self.closed = true;
        self.lanes.clear();
    }

    fn bytes(&self) -> usize {
        self.lanes.values().map(|lane| lane.bytes).sum()
    }
}

impl Outbox {
    pub(super) fn new(traffic: Arc<Traffic>, counters: Arc<Counters>) -> Self {
        Self {
            traffic,
            counters,
            words: Mutex::new(Lane::new()),
            channels: Mutex::default(),
            packets: Mutex::new(Lane::new()),
            words_wait: Notify::new(),
            packets_wait: Notify::new(),
        }
    }

    /// Queues a word; false where it does not fit, or the link is gone.
    pub(super) fn say(&self, frame: &Frame<'_, Name>, now: Instant) -> bool {
        let mut lane = self.words.lock();
        if lane.closed || lane.bytes >= WORDS_ROOM {
            return false;
        }
        // No word is longer than a claim with the longest id.
        let Some(batch) = lane.batch(200, now) else { return false };
        let before = batch.bytes.len();
        encode(frame, &mut batch.bytes);
        let grown = batch.bytes.len() - before;
        lane.bytes += grown;
        drop(lane);
        self.words_wait.notify_one();
        true
    }

    /// Queues what is said of a channel of a realm, whatever waits.
    pub(super) fn say_of_channel(&self, realm: u8, frame: &Frame<'_, Name>, now: Instant) {
        let mut channels = self.channels.lock();
        if let Some(lane) = channels.lane(realm) {
            lane.append(frame, PART_COST, now);
        }
        drop(channels);
        self.words_wait.notify_one();
    }

    /// Queues a message of a channel in parts, all or none: false where more than `room` bytes
    /// would wait.
    pub(super) fn say_in_parts(
        &self,
        (realm, number): (u8, u64),
        seq: &mut u32,
        message: &[u8],
        room: usize,
        now: Instant,
    ) -> bool {
        let mut channels = self.channels.lock();
        let Some(lane) = channels.lane(realm) else { return true };
        let parts = message.len().div_ceil(MAX_PART).max(1);
        if lane.bytes + message.len() + parts * PART_COST > room {
            return false;
        }
        let mut rest = message;
        loop {
            let (bytes, behind) = rest.split_at(rest.len().min(MAX_PART));
            let word = ChannelWord::Part { seq: *seq, is_last: behind.is_empty(), bytes };
            let frame = Frame::Channel(Channel { realm, number, word });
            lane.append(&frame, PART_COST + bytes.len(), now);
            *seq = seq.wrapping_add(1);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        drop(channels);
        self.words_wait.notify_one();
        true
    }

    /// Takes what waits of a channel.
    #[cfg(test)]
    pub(super) fn pop_channel(&self) -> Option<Vec<u8>> {
        self.channels.lock().pop().map(|batch| batch.bytes)
    }

    /// Forgets what waits of the channel of a realm that is over.
    pub(super) fn clear_channel(&self, realm: u8) {
        if let Some(lane) = self.channels.lock().lane(realm) {
            lane.batches.clear();
            lane.bytes = 0;
        }
    }

    /// Queues packets of one flow; what makes room for them is counted as dropped. They
    /// leave at the next [`Self::wake`] at the latest.
    pub(super) fn push<'a>(
        &self,
        run: &Run<Name>,
        payloads: impl Iterator<Item = &'a [u8]>,
        now: Instant,
    ) {
        let shard = self.traffic.shard();
        let whose = Whose::packet(run.sender, run.dest);
        let mut lane = self.packets.lock();
        expire(&mut lane, now, shard);
        for payload in payloads {
            if lane.closed {
                shard.dropped_of(whose, Drop::CLUSTER_LOST, 1, now);
                continue;
            }
            if payload.len() > MAX_PAYLOAD {
                shard.dropped_of(whose, Drop::TOO_LARGE_FOR_PEER, 1, now);
                continue;
            }
            while lane.bytes + RUN_COST + 2 + payload.len() > PACKETS_ROOM {
                let Some(oldest) = lane.pop() else { break };
                drop_batch(&oldest, Drop::CLUSTER_FULL, shard, now);
            }
            let Some(batch) = lane.batch(RUN_COST + 2 + payload.len(), now) else { continue };
            let before = batch.bytes.len();
            batch.count(whose);
            let mut bytes = std::mem::take(&mut batch.bytes);
            let at = match lane.open {
                Some((open, at)) if open == *run => at,
                _ => begin_packets(run, &mut bytes),
            };
            add_packet(at, payload, &mut bytes);
            lane.bytes += bytes.len() - before;
            lane.open = Some((*run, at));
            if let Some(batch) = lane.batches.back_mut() {
                batch.bytes = bytes;
            }
            shard.queued(1);
        }
    }

    /// Has the link take what was pushed.
    pub fn wake(&self) {
        self.packets_wait.notify_one();
    }

    /// Waits for words; `None` once the link is gone. Cancel-safe.
    pub async fn next_words(&self) -> Option<Batch> {
        loop {
            {
                let mut lane = self.words.lock();
                let next = lane.pop().or_else(|| self.channels.lock().pop());
                if let Some(batch) = next {
                    return Some(batch);
                }
                if lane.closed {
                    return None;
                }
            }
            self.words_wait.notified().await;
        }
    }

    /// Waits for packets that are young enough; `None` once the link is gone. Cancel-safe.
    pub async fn next_packets(&self) -> Option<Batch> {
        loop {
            {
                let mut lane = self.packets.lock();
                expire(&mut lane, Instant::now(), self.traffic.shard());
                if let Some(batch) = lane.pop() {
                    return Some(batch);
                }
                if lane.closed {
                    return None;
                }
            }
            self.packets_wait.notified().await;
        }
    }

    /// Refuses everything from here on; what waits is counted as lost.
    pub(super) fn close(&self) {
        self.words.lock().close();
        self.channels.lock().close();
        let lost = self.packets.lock().close();
        lost.iter().for_each(|batch| self.lost(batch));
        self.words_wait.notify_one();
        self.packets_wait.notify_one();
    }

    /// Accounts for a batch that the link took whole.
    pub fn sent(&self, batch: Batch) {
        if batch.packets > 0 {
            let (shard, bytes) = (self.traffic.shard(), batch.bytes.len() as u64);
            shard.went_out(Transport::Cluster, Origin::Relayed, batch.packets, bytes);
            shard.unqueued(batch.packets);
            self.counters.batches.increment();
            self.counters.batched_packets.add(batch.packets);
            let Batch { mut bytes, mut runs, .. } = batch;
            bytes.clear();
            runs.clear();
            let mut lane = self.packets.lock();
            if !lane.closed {
                lane.spare = Spare { bytes, runs };
            }
        }
    }

    /// Accounts for a batch that the link did not take.
    pub fn lost(&self, batch: &Batch) {
        drop_batch(batch, Drop::CLUSTER_LOST, self.traffic.shard(), Instant::now());
    }

    /// Bytes that wait in both lanes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.words.lock().bytes + self.channels.lock().bytes() + self.packets.lock().bytes
    }
}

fn expire(lane: &mut Lane, now: Instant, shard: &Shard) {
    while lane
        .batches
        .front()
        .is_some_and(|batch| now.saturating_duration_since(batch.arrived) > AGE)
    {
        let Some(batch) = lane.pop() else { return };
        drop_batch(&batch, Drop::CLUSTER_AGED, shard, now);
    }
}

/// Accounts for a batch that goes nowhere.
fn drop_batch(batch: &Batch, reason: Drop, shard: &Shard, now: Instant) {
    for run in &batch.runs {
        shard.dropped_of(run.whose, reason, run.count, now);
    }
    shard.unqueued(batch.packets);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Dropped;
    use crate::wire::cluster::Frames;
    use crate::wire::name::testing::name;

    #[test]
    fn longest_message_of_a_door_broke_the_batch_of_all_who_shared_the_link() {
        let traffic = Arc::<Traffic>::default();
        let outbox = Outbox::new(Arc::clone(&traffic), Arc::default());
        let now = Instant::now();
        let run = Run { dest: name(7), sender: name(1), epoch: 1 };
        let longest = [0; MAX_PAYLOAD + 1];
        let payloads = [&b"before"[..], &longest, &longest[1..], b"behind"];
        traffic.shard().came_in(Transport::Wss, 4, 0);

        outbox.push(&run, payloads.into_iter(), now);

        assert_eq!(traffic.packets_dropped(Drop::TOO_LARGE_FOR_PEER), 1);
        assert_eq!((traffic.packets_queued(), traffic.unaccounted()), (3, 0));
        let batch = outbox.packets.lock().pop().unwrap();
        let mut frames = Frames::<Name>::new(&batch.bytes);
        let Some(Ok(Frame::Packets(packets))) = frames.next() else { panic!("no packets") };
        assert!(packets.iter().eq([&b"before"[..], &longest[1..], b"behind"]));
    }

    #[test]
    fn dropped_packets_are_remembered_by_flow() {
        let traffic = Arc::<Traffic>::default();
        let outbox = Outbox::new(Arc::clone(&traffic), Arc::default());
        let start = Instant::now();
        let push = |sender, dest, epoch, now| {
            let run = Run { dest: name(dest), sender: name(sender), epoch };
            outbox.push(&run, [&[0; 100][..]; 2].into_iter(), now);
        };
        push(1, 7, 1, start);
        // It has come back in the meantime, which makes it no other flow.
        push(1, 7, 2, start);
        push(2, 7, 1, start);
        let later = start + AGE + Duration::from_secs(1);
        push(3, 7, 1, later);

        outbox.close();

        let mut dropped: Vec<_> = traffic
            .drops_of(name(7), later)
            .iter()
            .map(|Dropped { reason, whose, packets, .. }| (whose.sender, *reason, *packets))
            .collect();
        dropped.sort_by_key(|(sender, ..)| *sender);
        let aged = Drop::CLUSTER_AGED;
        let expected = [(1, aged, 4), (2, aged, 2), (3, Drop::CLUSTER_LOST, 2)];
        assert_eq!(dropped, expected.map(|(sender, reason, n)| (Some(name(sender)), reason, n)));
        assert_eq!(traffic.packets_queued(), 0);
    }
}
