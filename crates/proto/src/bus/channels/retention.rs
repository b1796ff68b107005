//! The end of records, cursors and channels, and of batches that nobody acknowledges.

use std::ops::Bound;
use std::sync::Arc;

use super::super::turn::{Effect, Load, Purpose, Turn};
use super::super::types::{Change, Event, EventKind, MailboxId, Message, Millis, Reading, Seq};
use super::channel::{Channel, write_cursor};
use super::types::{ChannelLimits, DEAD_LETTERS};
use super::{Channels, Numbers};

/// Records that one turn removes because all have passed them; beyond that, twice what it appends.
const TRIMMED: u64 = 128;

/// Records that are read at a time to remove those that are too old or too many.
const RETAINED: usize = 256;

/// What they count as, in bytes.
const RETAINED_BYTES: usize = 4 << 20;

/// Where a channel has too much, this part of what it may have goes at once.
const PIECE: u64 = 64;

/// How exactly it is written down when a peer was connected last, in milliseconds.
const SEEN: u64 = 3_600_000;

/// How often cursors and channels that are of no use are looked for, in milliseconds.
const SWEEP: u64 = 10_000;

/// Channels that a tick forgets.
const FORGOTTEN: usize = 256;

/// Why records of a channel are removed that not all have passed.
#[derive(Clone, Copy)]
struct Excess {
    /// Those accepted before.
    before: Millis,
    records: u64,
    bytes: u64,
}

impl Excess {
    fn of(channel: &Channel, limits: &ChannelLimits, now: Millis) -> Option<Self> {
        let state = &channel.state;
        let age =
            if channel.has_dead_letters { limits.dead_letter_retention } else { limits.retention };
        // A little more, so that not each record that comes has one be read that goes.
        let over = |has: u64, most: u64| if has > most { has - (most - most / PIECE) } else { 0 };
        // Records behind all cursors are trimmed without this, and count until then.
        let is_settled = !channel.is_trimmable();
        let records = if is_settled { over(state.records(), limits.records) } else { 0 };
        let bytes = if is_settled { over(state.bytes, limits.bytes) } else { 0 };
        let is_old = now.since(state.oldest) >= age;
        let is_any = state.records() > 0 && (is_old || records > 0 || bytes > 0);
        is_any.then(|| Self { before: Millis(now.0.saturating_sub(age)), records, bytes })
    }
}

impl Channels {
    /// Does what is due: batches that are to be delivered again, records that are too old or too
    /// many, cursors whose peer never came back.
    pub(in super::super) fn tick(&mut self, limits: &ChannelLimits, now: Millis, turn: &mut Turn) {
        if !self.is_begun {
            self.begin(now);
        }
        let late = self.subscribers.values().filter(|subscriber| {
            let batch = subscriber.batch.as_ref();
            batch.is_some_and(|batch| now.since(batch.at) >= limits.ack_timeout)
        });
        let late: Vec<_> = late.map(|subscriber| subscriber.peer).collect();
        for peer in late {
            self.repeat(peer, limits, now, turn);
        }
        self.drop_held(now);
        let ids: Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            self.retain(id, limits, now, turn);
        }
        if now.since(self.swept) >= SWEEP.min(limits.cursor_expiry) {
            self.swept = now;
            self.sweep_cursors(limits, now, turn);
            self.forget_channels(FORGOTTEN, turn);
        }
    }

    /// The time in which no bus ran is nobody's absence.
    fn begin(&mut self, now: Millis) {
        self.is_begun = true;
        let paused = self.stopped.map_or(0, |stopped| now.since(stopped));
        for channel in self.channels.values_mut() {
            for reader in channel.readers.values_mut() {
                reader.cursor.seen = Millis(reader.cursor.seen.0.saturating_add(paused).min(now.0));
            }
        }
    }

    /// A batch stayed without an acknowledgement: it is delivered again, or taken apart.
    fn repeat(&mut self, peer: MailboxId, limits: &ChannelLimits, now: Millis, turn: &mut Turn) {
        let subscriber = self.subscribers.get_mut(&peer).expect("it has a batch");
        let reader_id = subscriber.reader();
        let batch = subscriber.batch.as_mut().expect("it has a batch");
        batch.at = now;
        let records = batch.records.len() as u64;
        let mut is_over = false;
        for part in batch.parts.clone() {
            let Some(channel) = self.channels.get_mut(&part.channel) else { continue };
            let Some(reader) = channel.readers.get_mut(&reader_id) else { continue };
            if reader.cursor.seq >= part.before {
                continue;
            }
            if reader.note_try(limits, now) {
                write_cursor(part.channel, reader_id, &reader.cursor, turn);
            }
            is_over |= reader.take_apart(part.before, limits) || reader.gives_up(limits);
        }
        if is_over {
            self.abandon(peer);
        } else {
            self.totals.redelivered += records;
            self.deliver(peer, turn);
        }
    }

    /// A batch is none any more: its records are delivered in others.
    fn abandon(&mut self, peer: MailboxId) {
        let subscriber = self.subscribers.get_mut(&peer).expect("it has a batch");
        let reader_id = subscriber.reader();
        let batch = subscriber.batch.take().expect("it has a batch");
        self.in_flight_bytes -= batch.bytes;
        self.ready.insert(peer);
        for part in &batch.parts {
            let Some(channel) = self.channels.get_mut(&part.channel) else { continue };
            let Some(reader) = channel.readers.get_mut(&reader_id) else { continue };
            reader.sent = reader.cursor.seq;
            if !reader.is_live || reader.is_waiting || reader.sent == channel.state.next {
                continue;
            }
            reader.is_waiting = true;
            channel.idle.remove(&reader_id);
            subscriber.waiting.push_front(part.channel);
        }
    }

    /// A peer never acknowledges a record: it becomes a dead letter, and what is behind it follows.
    #[expect(clippy::too_many_arguments, reason = "the bounds and the time are everybody's")]
    pub(super) fn give_up(
        &mut self,
        peer: MailboxId,
        id: MailboxId,
        (seq, record): (Seq, &Arc<Message>),
        limits: &ChannelLimits,
        now: Millis,
        numbers: &mut Numbers,
        turn: &mut Turn,
    ) {
        let subscriber = &self.subscribers[&peer];
        let (reader_id, peer_name) = (subscriber.reader(), Arc::clone(&subscriber.name));
        let channel = self.channels.get_mut(&id).expect("the record is of it");
        let cursor = channel.readers[&reader_id].cursor;
        let behind = (seq.next(), cursor.offset + record.cost() as u64);
        channel.move_on(reader_id, behind, limits, turn);
        self.trimming.insert(id);
        self.ready.insert(peer);
        self.totals.dead += 1;
        let name = Arc::clone(&channel.state.name);
        turn.events.push(Event {
            kind: EventKind::Expire,
            key: Arc::clone(&record.key),
            from: Arc::clone(&name),
            to: peer_name,
        });
        if channel.has_dead_letters {
            return;
        }
        let place = (channel.state.realm, format!("{name}{DEAD_LETTERS}").into());
        let letter = Arc::new(Message { accepted: now, ..Message::clone(record) });
        let letters = self.named(place, numbers, now);
        self.append(letters, &letter, turn);
    }

    /// Has the oldest records of a channel be read where some of them are to go.
    fn retain(&mut self, id: MailboxId, limits: &ChannelLimits, now: Millis, turn: &mut Turn) {
        let channel = self.channels.get_mut(&id).expect("it was there");
        if channel.is_trimmable() {
            self.trimming.insert(id);
        }
        if channel.is_retaining || Excess::of(channel, limits, now).is_none() {
            return;
        }
        channel.is_retaining = true;
        turn.effects.push(Effect::Load(Load {
            mailbox: id,
            from: channel.state.head,
            messages: RETAINED,
            bytes: RETAINED_BYTES,
            purpose: Purpose::Retain,
            next: channel.state.next,
            removals: 0,
        }));
    }

    /// Removes of the oldest records of a channel those that are too old or too many. Who has not
    /// got them goes on behind them.
    pub(in super::super) fn oldest_loaded(
        &mut self,
        load: &Load,
        reading: &Reading,
        limits: &ChannelLimits,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some(channel) = self.channels.get_mut(&load.mailbox) else { return };
        channel.is_retaining = false;
        let Some(excess) = Excess::of(channel, limits, now) else { return };
        let from = channel.state.head;
        if load.from != from {
            return self.retain(load.mailbox, limits, now, turn);
        }
        // Nothing that can be read is left of those that are not in the reading.
        let mut before = reading.last().map_or(load.next, Seq::next);
        let mut freed = 0;
        let mut oldest = channel.state.oldest;
        for stored in &reading.stored {
            let is_old = stored.message.accepted <= excess.before;
            let is_too_much = stored.seq.0 - from.0 < excess.records || freed < excess.bytes;
            if !is_old && !is_too_much {
                before = stored.seq;
                oldest = stored.message.accepted;
                break;
            }
            oldest = stored.message.accepted;
            freed += stored.message.cost() as u64;
            turn.events.push(Event {
                kind: EventKind::Expire,
                key: Arc::clone(&stored.message.key),
                from: Arc::clone(&channel.state.name),
                to: "".into(),
            });
        }
        let is_all = before == channel.state.next;
        let left = if is_all { 0 } else { channel.state.bytes.saturating_sub(freed) };
        channel.state.oldest = oldest;
        self.totals.expired += before.0 - from.0;
        self.undercut(load.mailbox, before, left, limits, turn);
        let channel = self.channels.get_mut(&load.mailbox).expect("it was there");
        if before > from {
            channel.cut(before, Some(left), turn);
        }
        self.touched.insert(load.mailbox);
        self.retain(load.mailbox, limits, now, turn);
    }

    /// Moves readers to a position that are before it; what is left behind it counts as so much.
    pub(super) fn undercut(
        &mut self,
        id: MailboxId,
        before: Seq,
        left: u64,
        limits: &ChannelLimits,
        turn: &mut Turn,
    ) {
        let Self { channels, peers, subscribers, .. } = self;
        let name = |peer: MailboxId| {
            let of_session = subscribers.get(&peer).map(|subscriber| &subscriber.name);
            let name = of_session.or_else(|| peers.get(&peer).map(|(name, _)| name));
            name.map_or_else(|| "".into(), Arc::clone)
        };
        let channel = channels.get_mut(&id).expect("it was there");
        let offset = channel.state.end - left.min(channel.state.end);
        self.totals.skipped += channel.undercut((before, offset), name, limits, turn);
    }

    /// Removes what all cursors have passed, or an operator has purged: of one channel after the
    /// other, and of all so little that nobody waits long for the turn to be committed. The rest
    /// goes in the next turns.
    pub(super) fn trim(&mut self, turn: &mut Turn) {
        // What comes is less than what may go, however busy the bus is.
        let mut room = TRIMMED + 2 * std::mem::take(&mut self.appended);
        while room > 0 {
            let behind = (Bound::Excluded(self.trimmed), Bound::Unbounded);
            let mut in_turn = self.trimming.range(behind).chain(&self.trimming);
            let Some(id) = in_turn.next().copied() else { break };
            let channel = self.channels.get_mut(&id).filter(|channel| channel.is_trimmable());
            let Some(channel) = channel else {
                self.trimming.remove(&id);
                continue;
            };
            let trimmed = channel.trim(room, turn);
            room -= trimmed.consumed + trimmed.purged;
            self.totals.consumed += trimmed.consumed;
            self.totals.purged += trimmed.purged;
            self.touched.insert(id);
            self.trimmed = id;
        }
    }

    /// Whether there is more to be removed.
    pub(in super::super) fn is_trimming(&self) -> bool {
        !self.trimming.is_empty()
    }

    /// Forgets cursors whose peer was away for too long, and notes of the others that it is here.
    fn sweep_cursors(&mut self, limits: &ChannelLimits, now: Millis, turn: &mut Turn) {
        let mut over = Vec::new();
        for (id, channel) in &mut self.channels {
            for (reader_id, reader) in &mut channel.readers {
                let away = now.since(reader.cursor.seen);
                if reader.is_live && away >= SEEN {
                    reader.cursor.seen = now;
                    write_cursor(*id, *reader_id, &reader.cursor, turn);
                } else if !reader.is_live && away >= limits.cursor_expiry {
                    over.push((*id, reader_id.peer));
                }
            }
        }
        for (id, peer) in over {
            let name =
                self.peers.get(&peer).map_or_else(|| "".into(), |(name, _)| Arc::clone(name));
            turn.events.push(Event {
                kind: EventKind::Expire,
                key: "cursor".into(),
                from: Arc::clone(&self.channels[&id].state.name),
                to: name,
            });
            self.remove_cursor(id, peer, turn);
            self.totals.forgotten += 1;
        }
    }

    /// Forgets channels that nobody reads and that have nothing, so many at most.
    pub(super) fn forget_channels(&mut self, most: usize, turn: &mut Turn) {
        let is_over = |channel: &&Channel| {
            channel.readers.is_empty() && channel.state.records() == 0 && !channel.is_retaining
        };
        let over = self.channels.values().filter(is_over).map(Channel::id).take(most);
        for id in over.collect::<Vec<_>>() {
            let channel = self.channels.remove(&id).expect("it was found");
            self.names.remove(&(channel.state.realm, Arc::clone(&channel.state.name)));
            self.touched.remove(&id);
            self.trimming.remove(&id);
            turn.changes.push(Change::DropChannel { channel: id });
        }
    }
}
