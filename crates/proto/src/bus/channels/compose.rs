//! What a session gets next: records of its channels in turn, as much as a batch holds.

use std::sync::Arc;

use super::super::turn::{Effect, Load, Purpose, Turn};
use super::super::types::{Event, EventKind, MailboxId, Message, Millis, Reading, Seq};
use super::channel::{Channel, write_cursor};
use super::reader::{BATCH_RECORDS, ReaderId};
use super::subscriber::{InFlight, Loading, Part};
use super::types::ChannelLimits;
use super::{Channels, Numbers};

/// What the records of a batch count as, in bytes, at most; one record whatever it counts as.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// What the batches of all sessions count as: from there on each is small.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// What a small batch counts as.
const SMALL_BATCH_BYTES: usize = 64 << 10;

/// Readings that are under way, or whose records wait for their session: each of a batch at most.
pub(super) const READINGS: usize = 16;

/// How long what was read waits for its session where others wait to be read, in milliseconds.
const HELD: u64 = 2_000;

/// A batch that is being composed.
#[derive(Default)]
struct Draft {
    parts: Vec<Part>,
    records: Vec<Arc<Message>>,
    bytes: usize,
    /// It is to have nothing more.
    is_complete: bool,
}

impl Draft {
    /// Whether a record of this cost fits.
    fn has_room(&self, cost: usize, most: usize) -> bool {
        self.records.is_empty() || self.records.len() < BATCH_RECORDS && self.bytes + cost <= most
    }

    /// Takes records of a channel: as many as are in memory, or were read for its reader.
    fn fill(
        &mut self,
        (id, reader_id): (MailboxId, ReaderId),
        channel: &mut Channel,
        loading: &mut Loading,
        (share, most): (Share, usize),
        (limits, now): (&ChannelLimits, Millis),
        turn: &mut Turn,
    ) -> Taken {
        let mut taken = Taken::default();
        let reader = channel.readers.get_mut(&reader_id).expect("who waits reads");
        let is_first = reader.sent == reader.cursor.seq;
        while !self.is_complete {
            let sent = channel.readers[&reader_id].sent;
            let tailed = channel.in_tail(sent).map(|record| (sent, Arc::clone(record)));
            let Some((seq, record)) = tailed.or_else(|| loading.first(id, sent)) else { break };
            let cost = record.cost();
            if taken.records > 0 && taken.would_exceed(cost, share) {
                break;
            }
            if !self.has_room(cost, most) {
                // It begins the next batch.
                self.is_complete = true;
                break;
            }
            let reader = channel.readers.get_mut(&reader_id).expect("who waits reads");
            if taken.records == 0 && is_first {
                if reader.note_try(limits, now) {
                    write_cursor(id, reader_id, &reader.cursor, turn);
                }
                reader.take_apart(Seq(sent.0 + BATCH_RECORDS as u64), limits);
                if reader.gives_up(limits) {
                    taken.given_up = Some((seq, record));
                    break;
                }
            }
            let is_alone = reader.is_alone();
            if is_alone && !self.records.is_empty() {
                self.is_complete = true;
                break;
            }
            reader.sent = seq.next();
            taken.lost += seq.0 - sent.0;
            taken.records += 1;
            taken.bytes += cost;
            self.bytes += cost;
            self.records.push(record);
            self.is_complete = is_alone;
        }
        taken
    }
}

/// What a batch has taken of a channel.
#[derive(Default)]
struct Taken {
    records: usize,
    bytes: usize,
    /// Records before them that cannot be read any more.
    lost: u64,
    /// The first record, where it was tried often enough.
    given_up: Option<(Seq, Arc<Message>)>,
}

impl Taken {
    /// Whether a record of this cost would be more than the channel's share.
    const fn would_exceed(&self, cost: usize, share: Share) -> bool {
        self.records >= share.records || self.bytes + cost > share.bytes
    }
}

/// What a channel may have of a batch.
#[derive(Clone, Copy)]
struct Share {
    records: usize,
    bytes: usize,
}

impl Channels {
    /// Hands a session its next batch, if it has none and something waits for it.
    pub(super) fn compose(
        &mut self,
        peer: MailboxId,
        limits: &ChannelLimits,
        now: Millis,
        numbers: &mut Numbers,
        turn: &mut Turn,
    ) {
        let most =
            if self.in_flight_bytes > IN_FLIGHT_BYTES { SMALL_BATCH_BYTES } else { BATCH_BYTES };
        let mut draft = Draft::default();
        let Some(subscriber) = self.subscribers.get(&peer) else { return };
        if subscriber.batch.is_some() {
            return;
        }
        let mut wanted = None;
        for left in (1..=subscriber.waiting.len()).rev() {
            let subscriber = self.subscribers.get_mut(&peer).expect("it was there");
            let Some(id) = subscriber.waiting.pop_front() else { break };
            let share = Share {
                records: (BATCH_RECORDS - draft.records.len()).div_ceil(left),
                bytes: most.saturating_sub(draft.bytes) / left,
            };
            let before = draft.records.len();
            self.take(peer, id, (share, most), &mut draft, limits, now, numbers, turn);
            if draft.records.len() == before && !draft.is_complete {
                wanted = wanted.or(Some(id));
            }
            if draft.is_complete {
                break;
            }
        }
        let subscriber = self.subscribers.get_mut(&peer).expect("it was there");
        if let (Some(channel), Loading::No) = (wanted, &subscriber.loading)
            && subscriber.waiting.contains(&channel)
        {
            subscriber.loading = Loading::Queued { channel };
            self.queue.push_back(peer);
        }
        if !draft.records.is_empty() {
            self.hand_over(peer, draft, now, turn);
        }
    }

    /// Takes records of a channel into a batch: as many as are in memory, or were read for it.
    #[expect(clippy::too_many_arguments, reason = "the bounds and the time are everybody's")]
    fn take(
        &mut self,
        peer: MailboxId,
        id: MailboxId,
        (share, most): (Share, usize),
        draft: &mut Draft,
        limits: &ChannelLimits,
        now: Millis,
        numbers: &mut Numbers,
        turn: &mut Turn,
    ) {
        let subscriber = self.subscribers.get_mut(&peer).expect("it composes a batch");
        let reader_id = subscriber.reader();
        let channel = self.channels.get_mut(&id).expect("what a session waits for is there");
        let of = (id, reader_id);
        let loading = &mut subscriber.loading;
        let taken = draft.fill(of, channel, loading, (share, most), (limits, now), turn);
        self.totals.lost += taken.lost;
        let reader = channel.readers.get_mut(&reader_id).expect("who waits reads");
        let sent = reader.sent;
        if taken.records > 0 {
            let name = Arc::clone(&channel.state.name);
            let offset = reader.cursor.offset + taken.bytes as u64;
            let records = taken.records;
            draft.parts.push(Part { channel: id, name, before: sent, offset, records });
        }
        if subscriber.loading.first(id, sent).is_none() && subscriber.loading.is_used_up(id) {
            subscriber.loading = Loading::No;
            self.readings -= 1;
        }
        if let Some((seq, record)) = taken.given_up {
            self.give_up(peer, id, (seq, &record), limits, now, numbers, turn);
        }
        self.wait_again(peer, id, taken.records == 0 && draft.is_complete);
    }

    /// Puts a channel back among those that a session waits for, at the front or in turn, or among
    /// those that it has all of.
    fn wait_again(&mut self, peer: MailboxId, id: MailboxId, is_next: bool) {
        let subscriber = self.subscribers.get_mut(&peer).expect("it composes a batch");
        let reader_id = subscriber.reader();
        let channel = self.channels.get_mut(&id).expect("what a session waits for is there");
        let reader = channel.readers.get_mut(&reader_id).expect("who waits reads");
        reader.is_waiting = reader.sent < channel.state.next;
        match (reader.is_waiting, is_next) {
            (false, _) => {
                channel.idle.insert(reader_id);
            }
            (true, true) => subscriber.waiting.push_front(id),
            (true, false) => subscriber.waiting.push_back(id),
        }
    }

    fn hand_over(&mut self, peer: MailboxId, draft: Draft, now: Millis, turn: &mut Turn) {
        let Draft { parts, records, bytes, .. } = draft;
        let subscriber = self.subscribers.get_mut(&peer).expect("it composes a batch");
        let number = subscriber.next_batch();
        self.in_flight_bytes += bytes;
        subscriber.batch = Some(InFlight { number, parts, records, bytes, at: now });
        self.deliver(peer, turn);
    }

    /// Has the batch in flight of a session be delivered.
    pub(super) fn deliver(&mut self, peer: MailboxId, turn: &mut Turn) {
        let subscriber = &self.subscribers[&peer];
        let batch = subscriber.batch.as_ref().expect("there is a batch to deliver");
        self.totals.delivered += batch.records.len() as u64;
        for (part, last) in batch.parts_with_last() {
            turn.events.push(Event {
                kind: EventKind::Deliver,
                key: Arc::clone(&last.key),
                from: Arc::clone(&part.name),
                to: Arc::clone(&subscriber.name),
            });
        }
        turn.effects.push(Effect::Records {
            mailbox: peer,
            generation: subscriber.generation,
            batch: batch.number,
            records: batch.records.clone(),
        });
    }

    /// Begins readings, as many as may be under way: those that have waited longest.
    pub(super) fn start_readings(&mut self, turn: &mut Turn) {
        while self.readings < READINGS {
            let Some(peer) = self.queue.pop_front() else { break };
            let Some(subscriber) = self.subscribers.get_mut(&peer) else { continue };
            let Loading::Queued { channel: id } = subscriber.loading else { continue };
            let channel = self.channels.get(&id).expect("what a session waits for is there");
            let from = channel.readers[&subscriber.reader()].sent;
            subscriber.loading = Loading::Reading { channel: id, from };
            self.readings += 1;
            turn.effects.push(Effect::Load(Load {
                mailbox: id,
                from,
                messages: BATCH_RECORDS,
                bytes: BATCH_BYTES,
                purpose: Purpose::Records { peer, generation: subscriber.generation },
                next: channel.state.next,
                removals: 0,
            }));
        }
    }

    /// Takes records that were read for a session.
    pub(in super::super) fn records_loaded(
        &mut self,
        load: &Load,
        (peer, generation): (MailboxId, u64),
        reading: Reading,
        limits: &ChannelLimits,
        now: Millis,
        turn: &mut Turn,
    ) {
        let subscriber = self.subscribers.get_mut(&peer);
        let subscriber = subscriber.filter(|subscriber| subscriber.generation == generation);
        let is_awaited = |subscriber: &&mut super::Subscriber| matches!(subscriber.loading, Loading::Reading { channel, from } if channel == load.mailbox && from == load.from);
        let Some(subscriber) = subscriber.filter(is_awaited) else {
            self.readings -= 1;
            return;
        };
        self.ready.insert(peer);
        let last = reading.last();
        if !reading.stored.is_empty() {
            let stored = reading.stored.into();
            subscriber.loading = Loading::Loaded { channel: load.mailbox, stored, since: now };
            return;
        }
        // The store has nothing there that can be read, and is right.
        subscriber.loading = Loading::No;
        self.readings -= 1;
        let id = subscriber.reader();
        let before = last.map_or(load.next, Seq::next);
        let channel = self.channels.get_mut(&load.mailbox).expect("a session waits for it");
        let cursor = channel.readers[&id].cursor;
        if cursor.seq < before {
            self.totals.lost += before.0 - cursor.seq.0;
            channel.move_on(id, (before, cursor.offset), limits, turn);
            self.trimming.insert(load.mailbox);
        }
    }

    /// Drops what was read for sessions that do not take it, where others wait to be read.
    pub(super) fn drop_held(&mut self, now: Millis) {
        if self.queue.is_empty() {
            return;
        }
        for subscriber in self.subscribers.values_mut() {
            if let Loading::Loaded { since, .. } = &subscriber.loading
                && now.since(*since) >= HELD
            {
                subscriber.loading = Loading::No;
                self.readings -= 1;
            }
        }
    }
}
