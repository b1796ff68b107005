//! Channels: logs that any number of peers read, each from a cursor of its own.
//!
//! What is published is kept until all cursors have passed it, or its channel has too much. A peer
//! gets one batch at a time over all of its channels, in turn, and the next once it has acknowledged
//! that: its cursors move with the acknowledgement. Who is caught up gets records from memory;
//! who is behind has them read, a bounded number of sessions at a time, and costs the others nothing.

mod channel;
mod compose;
mod operators;
mod reader;
mod retention;
#[cfg(test)]
mod simulation;
mod subscriber;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashMap;

use super::turn::{Turn, Withdrawn};
use super::types::{
    Change, ChannelState, Event, EventKind, MailboxId, Message, Millis, Recovered, Seq,
};
use channel::Channel;
use reader::{Reader, ReaderId};
use subscriber::{Loading, Subscriber};

pub use types::{
    ChannelLimits, ChannelTotals, ChannelView, CursorPeer, CursorView, DEAD_LETTERS, Subscription,
};

/// What the newest records of all channels take in memory, in bytes, at most.
const TAILS_BYTES: usize = 64 << 20;

/// Channels that one session is subscribed to, and cursors of one peer: nobody takes all that
/// there may be.
pub const MOST_CHANNELS_OF_PEER: usize = 1_000;

/// The number that the next mailbox or channel gets.
pub(super) type Numbers = u64;

/// A session that subscribes.
pub(super) struct Session {
    pub(super) peer: MailboxId,
    pub(super) generation: u64,
    pub(super) realm: u8,
    pub(super) name: Arc<str>,
    pub(super) is_ephemeral: bool,
}

/// The channels of a bus.
#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: BTreeMap<MailboxId, Channel>,
    names: HashMap<(u8, Arc<str>), MailboxId, foldhash::fast::RandomState>,
    /// The sessions that are subscribed, by their mailbox.
    subscribers: BTreeMap<MailboxId, Subscriber>,
    /// Of each peer with cursors its name, and how many.
    peers: BTreeMap<MailboxId, (Arc<str>, usize)>,
    cursors: usize,
    /// Sessions that may get a batch at the end of this turn.
    ready: BTreeSet<MailboxId>,
    /// Channels that this turn has changed.
    touched: BTreeSet<MailboxId>,
    /// Channels of which records may be removed; that of which some were last.
    trimming: BTreeSet<MailboxId>,
    trimmed: MailboxId,
    /// Records that this turn has appended.
    appended: u64,
    /// Sessions that wait for a reading, in turn.
    queue: VecDeque<MailboxId>,
    /// Readings that are under way, or whose records wait for their session.
    readings: usize,
    in_flight_bytes: usize,
    tails_bytes: usize,
    /// The channel whose oldest records leave memory next.
    evicted: MailboxId,
    totals: ChannelTotals,
    /// When a bus before this one was last known to run: the time since is nobody's absence.
    stopped: Option<Millis>,
    is_begun: bool,
    swept: Millis,
}

impl Channels {
    /// The channels that a store has.
    pub(super) fn recover(recovered: &Recovered, limits: &ChannelLimits) -> Self {
        let mut channels = Self { stopped: recovered.newest(), ..Self::default() };
        for state in &recovered.channels {
            channels.totals.recovered += state.records();
            channels.insert(Channel::new(state.clone()));
        }
        let names = recovered.names.iter().map(|(named, _)| (named.mailbox, &named.name));
        let names: BTreeMap<_, _> = names.collect();
        for (id, peer, cursor) in &recovered.cursors {
            let Some(channel) = channels.channels.get_mut(id) else { continue };
            let reader_id = ReaderId { peer: *peer, is_ephemeral: false };
            let mut cursor = *cursor;
            cursor.seq = cursor.seq.clamp(channel.state.head, channel.state.next);
            channel.insert(reader_id, Reader::new(cursor, limits));
            let name = names.get(peer).map_or_else(|| "".into(), |name| Arc::clone(name));
            channels.add_cursor(*peer, name);
        }
        // What only sessions have read, which are over, goes.
        channels.trimming.extend(channels.channels.keys());
        channels
    }

    fn insert(&mut self, channel: Channel) {
        let place = (channel.state.realm, Arc::clone(&channel.state.name));
        self.names.insert(place, channel.id());
        self.channels.insert(channel.id(), channel);
    }

    fn add_cursor(&mut self, peer: MailboxId, name: Arc<str>) {
        self.peers.entry(peer).or_insert((name, 0)).1 += 1;
        self.cursors += 1;
    }

    /// A cursor is no more.
    fn remove_cursor(&mut self, channel: MailboxId, peer: MailboxId, turn: &mut Turn) {
        let of = self.channels.get_mut(&channel).expect("a cursor is in a channel");
        of.remove(ReaderId { peer, is_ephemeral: false });
        turn.changes.push(Change::Cursor { channel, peer, cursor: None });
        self.trimming.insert(channel);
        self.cursors -= 1;
        if let Some((_, cursors)) = self.peers.get_mut(&peer) {
            *cursors -= 1;
            if *cursors == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// Whether a peer has cursors.
    pub(super) fn has_peer(&self, peer: MailboxId) -> bool {
        self.peers.contains_key(&peer)
    }

    /// The channel of a name, which is made where there is none.
    fn named(&mut self, place: (u8, Arc<str>), numbers: &mut Numbers, now: Millis) -> MailboxId {
        if let Some(id) = self.names.get(&place) {
            return *id;
        }
        let channel = MailboxId(*numbers);
        *numbers += 1;
        let (realm, name) = place;
        let state = ChannelState {
            channel,
            realm,
            name,
            head: Seq(1),
            next: Seq(1),
            bytes: 0,
            end: 0,
            oldest: now,
        };
        self.touched.insert(channel);
        self.insert(Channel::new(state));
        channel
    }

    /// A session is subscribed to these channels, and to no others.
    ///
    /// # Errors
    /// There are too many channels or cursors, and it is subscribed to some of them.
    pub(super) fn subscribe(
        &mut self,
        session: &Session,
        names: &[Arc<str>],
        limits: &ChannelLimits,
        now: Millis,
        numbers: &mut Numbers,
        turn: &mut Turn,
    ) -> Result<(), Withdrawn> {
        let peer = session.peer;
        let is_same = self.subscribers.get(&peer).is_some_and(|of| {
            of.generation == session.generation && of.is_ephemeral == session.is_ephemeral
        });
        if !is_same {
            self.leave(peer, now);
            if names.is_empty() {
                return Ok(());
            }
            let Session { generation, is_ephemeral, .. } = *session;
            let name = Arc::clone(&session.name);
            let subscriber = Subscriber::new(peer, generation, name, is_ephemeral);
            self.subscribers.insert(peer, subscriber);
        }
        let is_too_much = names.len() > MOST_CHANNELS_OF_PEER;
        let mut fits = if is_too_much { Err(Withdrawn::ChannelsOfPeer) } else { Ok(()) };
        let places = names.iter().take(MOST_CHANNELS_OF_PEER);
        let places: Vec<_> = places.map(|name| (session.realm, Arc::clone(name))).collect();
        let known = places.iter().filter_map(|place| self.names.get(place).copied());
        let known: BTreeSet<_> = known.collect();
        let had = self.subscribers[&peer].channels.clone();
        for left in had.difference(&known) {
            self.part(peer, *left, now);
        }
        // Whoever goes from channel to channel leaves no room to nobody.
        let beyond = (self.channels.len() + places.len()).saturating_sub(limits.channels);
        if beyond > 0 {
            self.forget_channels(beyond, turn);
        }
        let mut wanted = BTreeSet::new();
        for place in places {
            if !self.names.contains_key(&place) && self.channels.len() >= limits.channels {
                fits = Err(Withdrawn::Channels);
                continue;
            }
            wanted.insert(self.named(place, numbers, now));
        }
        for id in wanted.difference(&had) {
            let joined = self.join(peer, *id, limits, now, turn);
            fits = fits.and(joined);
        }
        fits
    }

    /// A session reads a channel from its cursor on, or from the end.
    ///
    /// # Errors
    /// There are too many cursors.
    fn join(
        &mut self,
        peer: MailboxId,
        id: MailboxId,
        limits: &ChannelLimits,
        now: Millis,
        turn: &mut Turn,
    ) -> Result<(), Withdrawn> {
        let subscriber = self.subscribers.get_mut(&peer).expect("it subscribes");
        let channel = self.channels.get_mut(&id).expect("it was named");
        let reader_id = subscriber.reader();
        if !channel.readers.contains_key(&reader_id) {
            let of_peer = self.peers.get(&peer).map_or(0, |(_, cursors)| *cursors);
            if !reader_id.is_ephemeral && of_peer >= MOST_CHANNELS_OF_PEER {
                return Err(Withdrawn::ChannelsOfPeer);
            }
            if !reader_id.is_ephemeral && self.cursors >= limits.cursors {
                return Err(Withdrawn::Cursors);
            }
            let cursor = channel.end(now);
            channel.insert(reader_id, Reader::new(cursor, limits));
            channel::write_cursor(id, reader_id, &cursor, turn);
            if !reader_id.is_ephemeral {
                let name = Arc::clone(&subscriber.name);
                self.peers.entry(peer).or_insert((name, 0)).1 += 1;
                self.cursors += 1;
            }
        }
        let parts = subscriber.batch.iter().flat_map(|batch| &batch.parts);
        let is_in_flight = parts.map(|part| part.channel).any(|channel| channel == id);
        let next = channel.state.next;
        let reader = channel.readers.get_mut(&reader_id).expect("it was inserted");
        reader.is_live = true;
        if !is_in_flight {
            reader.sent = reader.cursor.seq;
        }
        channel.live += 1;
        subscriber.channels.insert(id);
        reader.is_waiting = reader.sent < next;
        if reader.is_waiting {
            subscriber.waiting.push_back(id);
            self.ready.insert(peer);
        } else {
            channel.idle.insert(reader_id);
        }
        Ok(())
    }

    /// A session reads a channel no more.
    fn part(&mut self, peer: MailboxId, id: MailboxId, now: Millis) {
        let subscriber = self.subscribers.get_mut(&peer).expect("it was subscribed");
        let reader_id = subscriber.reader();
        subscriber.channels.remove(&id);
        subscriber.waiting.retain(|waiting| *waiting != id);
        if subscriber.loading.channel() == Some(id) {
            self.stop_loading(peer);
        }
        let channel = self.channels.get_mut(&id).expect("a session was subscribed to it");
        if reader_id.is_ephemeral {
            channel.remove(reader_id);
            self.trimming.insert(id);
        } else {
            let reader = channel.readers.get_mut(&reader_id).expect("it was subscribed");
            reader.is_live = false;
            reader.is_waiting = false;
            reader.cursor.seen = now;
            channel.idle.remove(&reader_id);
            channel.live -= 1;
            if channel.live == 0 {
                channel.drop_tail();
            }
        }
        self.touched_tail(id);
    }

    /// Nothing is read for a session any more.
    fn stop_loading(&mut self, peer: MailboxId) {
        let subscriber = self.subscribers.get_mut(&peer).expect("it was subscribed");
        match std::mem::replace(&mut subscriber.loading, Loading::No) {
            // One that is under way ends when it comes.
            Loading::No | Loading::Reading { .. } => {}
            Loading::Queued { .. } => self.queue.retain(|queued| *queued != peer),
            Loading::Loaded { .. } => self.readings -= 1,
        }
    }

    /// The session of a peer is over: what it has not acknowledged comes again to the next one.
    pub(super) fn leave(&mut self, peer: MailboxId, now: Millis) {
        let Some(subscriber) = self.subscribers.get(&peer) else { return };
        for id in subscriber.channels.clone() {
            self.part(peer, id, now);
        }
        let subscriber = self.subscribers.remove(&peer).expect("it was there");
        self.in_flight_bytes -= subscriber.batch.map_or(0, |batch| batch.bytes);
        self.ready.remove(&peer);
    }

    /// Takes a record for a channel; false where it is not stored, since nobody is to get it.
    pub(super) fn publish(
        &mut self,
        realm: u8,
        name: &Arc<str>,
        record: &Arc<Message>,
        turn: &mut Turn,
    ) -> bool {
        turn.events.push(Event {
            kind: EventKind::Send,
            key: Arc::clone(&record.key),
            from: Arc::clone(&record.from),
            to: Arc::clone(name),
        });
        let id = self.names.get(&(realm, Arc::clone(name))).copied();
        let channel = id.and_then(|id| self.channels.get(&id));
        let Some(id) = channel.filter(|channel| channel.is_read()).map(Channel::id) else {
            self.totals.unread += 1;
            return false;
        };
        self.append(id, record, turn);
        true
    }

    fn append(&mut self, id: MailboxId, record: &Arc<Message>, turn: &mut Turn) {
        let channel = self.channels.get_mut(&id).expect("it is appended to a channel");
        channel.append(record, turn);
        self.appended += 1;
        self.totals.stored += 1;
        self.touched.insert(id);
        for reader_id in std::mem::take(&mut channel.idle) {
            let reader = channel.readers.get_mut(&reader_id).expect("who is idle reads");
            reader.is_waiting = true;
            let subscriber = self.subscribers.get_mut(&reader_id.peer).expect("it is live");
            subscriber.waiting.push_back(id);
            self.ready.insert(reader_id.peer);
        }
    }

    /// A session has the batch of this number: its cursors move. False where that is not the one in
    /// flight.
    pub(super) fn acknowledge(
        &mut self,
        peer: MailboxId,
        generation: u64,
        number: u64,
        limits: &ChannelLimits,
        turn: &mut Turn,
    ) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(&peer) else { return false };
        let is_it = |batch: &mut subscriber::InFlight| batch.number == number;
        if subscriber.generation != generation {
            return false;
        }
        let Some(batch) = subscriber.batch.take_if(is_it) else { return false };
        self.in_flight_bytes -= batch.bytes;
        self.totals.acknowledged += batch.records.len() as u64;
        let reader_id = subscriber.reader();
        for (part, last) in batch.parts_with_last() {
            turn.events.push(Event {
                kind: EventKind::Ack,
                key: Arc::clone(&last.key),
                from: Arc::clone(&subscriber.name),
                to: Arc::clone(&part.name),
            });
            let Some(channel) = self.channels.get_mut(&part.channel) else { continue };
            let Some(reader) = channel.readers.get_mut(&reader_id) else { continue };
            if reader.cursor.seq < part.before {
                channel.move_on(reader_id, (part.before, part.offset), limits, turn);
                self.trimming.insert(part.channel);
            }
        }
        self.ready.insert(peer);
        true
    }

    /// Ends a turn: hands out batches, has records be read, and removes what all have passed.
    pub(super) fn finish(
        &mut self,
        limits: &ChannelLimits,
        now: Millis,
        numbers: &mut Numbers,
        turn: &mut Turn,
    ) {
        while let Some(peer) = self.ready.pop_first() {
            self.compose(peer, limits, now, numbers, turn);
        }
        self.start_readings(turn);
        self.trim(turn);
        for id in std::mem::take(&mut self.touched) {
            if let Some(channel) = self.channels.get(&id) {
                turn.changes.push(Change::Channel(channel.state.clone()));
            }
            self.touched_tail(id);
        }
        while self.tails_bytes > TAILS_BYTES {
            self.evict();
        }
    }

    /// Counts what a channel has in memory.
    fn touched_tail(&mut self, id: MailboxId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        self.tails_bytes += channel.tail_bytes;
        self.tails_bytes -= std::mem::replace(&mut channel.counted_bytes, channel.tail_bytes);
    }

    /// Has the oldest record of a channel leave memory: of one after the other.
    fn evict(&mut self) {
        let behind = (Bound::Excluded(self.evicted), Bound::Unbounded);
        let mut in_turn = self.channels.range(behind).chain(&self.channels);
        let next = in_turn.find(|(_, channel)| channel.tail_bytes > 0);
        let id = *next.expect("something is in memory").0;
        self.evicted = id;
        self.channels.get_mut(&id).expect("it was found").drop_oldest();
        self.touched_tail(id);
    }

    /// What was counted so far.
    pub(super) fn totals(&self) -> ChannelTotals {
        let channels = self.channels.values();
        let lag = |channel: &Channel| {
            let readers = channel.readers.values();
            readers.map(|reader| channel.state.next.0 - reader.cursor.seq.0).max().unwrap_or(0)
        };
        ChannelTotals {
            kept: channels.clone().map(|channel| channel.state.records()).sum(),
            bytes: channels.clone().map(|channel| channel.state.bytes).sum(),
            channels: self.channels.len() as u64,
            cursors: self.cursors as u64,
            live: channels.clone().map(|channel| channel.live as u64).sum(),
            lag: channels.map(lag).max().unwrap_or(0),
            ..self.totals
        }
    }
}
