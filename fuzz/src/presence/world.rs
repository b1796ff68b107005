//! All relays, what is under way between them, and what happens to them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use beacon_wire::cluster::{Frame, Frames, Ownership};
use beacon_wire::ids::RelayId;
use beacon_wire::name::Name;

use super::relay::Relay;
use super::{NODES, name, relay_id, usual_ownership};

/// How long a message is under way at most, in milliseconds.
const LATEST: u64 = 3_000;

/// How long it is when the faults are over, in milliseconds.
const USUAL: u64 = 5;

/// How many messages are under way at most: a link holds no more, and the rest is lost.
const MAX_FLIGHT: usize = 10_000;

/// What is under way.
#[derive(Clone, Copy)]
struct Message {
    from: usize,
    to: usize,
    sent: u64,
    frame: Frame<'static, Name>,
}

/// The cluster.
pub(super) struct World {
    pub(super) relays: Vec<Relay>,
    /// Nodes that each relay may be the home of.
    pub(super) room: usize,
    now: u64,
    start: Instant,
    flight: VecDeque<Message>,
    /// The pairs that are linked, the lower one first.
    links: BTreeSet<(usize, usize)>,
    settled: bool,
}

impl World {
    pub(super) fn new(count: usize, clocks_differ: bool, is_hostile: bool) -> Self {
        let start = Instant::now();
        let room = if is_hostile { 16 } else { 1_000 };
        let ahead = |index: usize| if clocks_differ { index as u64 * 1_300 } else { 0 };
        let relays = (0..count).map(|index| Relay::new(index, ahead(index), room, start));
        let mut world = Self {
            relays: relays.collect(),
            room,
            now: 0,
            start,
            flight: VecDeque::new(),
            links: BTreeSet::new(),
            settled: false,
        };
        world.link_all();
        world
    }

    /// Does one operation on what `one` and `other` name.
    pub(super) fn act(&mut self, operation: u8, one: usize, other: usize) {
        let id = name(1 + one % NODES);
        let at = other % self.relays.len();
        match operation {
            0 | 1 => self.log_in(1 + one % NODES, at),
            2 => self.log_out(id, at, false),
            3 => self.log_out(id, at, true),
            4 | 5 => {
                if let Some(message) =
                    self.flight.remove((one | other << 8) % self.flight.len().max(1))
                {
                    self.deliver(message);
                }
            }
            6 => self.lose((one | other << 8) % self.flight.len().max(1)),
            7 => {
                for message in std::mem::take(&mut self.flight) {
                    self.deliver(message);
                }
            }
            8 | 9 => self.pass([1, 20, 300, 1_000][one % 4] * (other as u64 % 64)),
            10 => self.turn(one % self.relays.len(), at),
            11 => self.crash(at),
            12 if one.is_multiple_of(8) => self.drain_relay(at),
            13 if one & 0x80 != 0 => self.turn_watch(id, at),
            12 | 13 => {
                let relay = &mut self.relays[at];
                relay.presence.look_up(id, relay.now(self.now));
                self.collect(at);
            }
            14 if one.is_multiple_of(2) => self.change(1 + one % NODES, at),
            _ => self.packets_find_nobody(id, at),
        }
    }

    fn log_in(&mut self, node: usize, at: usize) {
        let relay = &mut self.relays[at];
        if !relay.drains {
            relay.serials += 1;
            relay.arrive(name(node), relay.serials, usual_ownership(node), self.now);
            self.collect(at);
        }
    }

    fn log_out(&mut self, id: Name, at: usize, by_itself: bool) {
        let relay = &mut self.relays[at];
        let now = relay.now(self.now);
        let Some((serial, _)) = relay.table.remove(&id) else { return };
        if by_itself {
            relay.presence.released(id, serial, now);
        } else {
            relay.presence.departed(id, serial, now);
        }
        self.collect(at);
    }

    /// A node whose ownership kind varies has another one, under the same serial.
    fn change(&mut self, node: usize, at: usize) {
        let relay = &mut self.relays[at];
        let Some((serial, ownership)) = relay.table.get(&name(node)).copied() else { return };
        if usual_ownership(node) == Ownership::Endpoint {
            let other = match ownership {
                Ownership::Endpoint => Ownership::Session,
                Ownership::Session | Ownership::Gateway => Ownership::Endpoint,
            };
            relay.arrive(name(node), serial, other, self.now);
            self.collect(at);
        }
    }

    pub(super) fn packets_find_nobody(&mut self, id: Name, at: usize) {
        let relay = &mut self.relays[at];
        relay.presence.not_here(id, relay.serials, relay.now(self.now));
        self.collect(at);
    }

    /// A relay watches a node, or no longer if it did.
    fn turn_watch(&mut self, id: Name, at: usize) {
        let relay = &mut self.relays[at];
        let now = relay.now(self.now);
        if relay.watched.remove(&id).is_some() {
            relay.presence.unwatch(id, 1, now);
        } else {
            relay.watched.insert(id, false);
            assert!(relay.presence.watch(id, 1, now), "there is room");
        }
        relay.presence.timeout(now);
        self.collect(at);
    }

    fn drain_relay(&mut self, at: usize) {
        let relay = &mut self.relays[at];
        relay.drains = true;
        relay.presence.draining(relay_id(at), relay.now(self.now));
        self.collect(at);
    }

    /// A member says what it likes.
    pub(super) fn say_anything(&mut self, from: u8, to: u8, said: &[u8]) {
        let to = usize::from(to) % self.relays.len();
        let from = (to + 1 + usize::from(from)) % self.relays.len();
        for frame in Frames::<Name>::new(said).flatten() {
            let relay = &mut self.relays[to];
            relay.presence.receive(relay_id(from), &frame, relay.now(self.now));
            self.collect(to);
        }
    }

    /// Takes what a relay has said on its way.
    fn collect(&mut self, from: usize) {
        let sent = self.now;
        for (to, frame) in self.relays[from].drain() {
            let Some(to) = (0..self.relays.len()).find(|index| relay_id(*index) == to) else {
                continue;
            };
            if self.links.contains(&(from.min(to), from.max(to))) && self.flight.len() < MAX_FLIGHT
            {
                self.flight.push_back(Message { from, to, sent, frame });
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        let Message { from, to, frame, .. } = message;
        let relay = &mut self.relays[to];
        relay.presence.receive(relay_id(from), &frame, relay.now(self.now));
        self.collect(to);
    }

    /// Loses a message, but not the one that is said once: a link that is up keeps that.
    fn lose(&mut self, at: usize) {
        let Some(message) = self.flight.remove(at) else { return };
        if message.frame == Frame::Draining {
            self.deliver(message);
        }
    }

    /// Links two relays, or cuts their link.
    fn turn(&mut self, one: usize, other: usize) {
        if self.links.contains(&(one.min(other), one.max(other))) {
            self.cut(one, other);
        } else {
            self.link(one, other);
        }
    }

    fn link(&mut self, one: usize, other: usize) {
        if one != other && self.links.insert((one.min(other), one.max(other))) {
            for (at, peer) in [(one, other), (other, one)] {
                let relay = &mut self.relays[at];
                relay.presence.joined(relay_id(peer), relay.now(self.now));
                relay.presence.answers_watches(relay_id(peer), relay.now(self.now));
            }
            self.collect(one);
            self.collect(other);
        }
    }

    fn cut(&mut self, one: usize, other: usize) {
        if !self.links.remove(&(one.min(other), one.max(other))) {
            return;
        }
        let both = [(one, other), (other, one)];
        self.flight.retain(|message| !both.contains(&(message.from, message.to)));
        for (at, peer) in both {
            let relay = &mut self.relays[at];
            relay.presence.left(relay_id(peer), relay.now(self.now));
            self.collect(at);
        }
    }

    /// A relay dies with all that it knows, and is back at once, without links.
    fn crash(&mut self, at: usize) {
        for other in 0..self.relays.len() {
            self.cut(at, other);
        }
        let ahead_ms = self.relays[at].now(0).unix_ms - 1_700_000_000_000;
        self.relays[at] = Relay::new(at, ahead_ms, self.room, self.start);
    }

    fn link_all(&mut self) {
        for one in 0..self.relays.len() {
            for other in one + 1..self.relays.len() {
                self.link(one, other);
            }
        }
    }

    /// Lets time pass, with all that is due in it.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        let delay = if self.settled { USUAL } else { LATEST };
        loop {
            let timer = self.relays.iter().enumerate();
            let timer = timer.filter_map(|(at, relay)| Some((relay.next()?, at))).min();
            let oldest = self.flight.front().map(|message| message.sent + delay);
            let is_message = oldest.is_some_and(|due| timer.is_none_or(|(next, _)| due < next));
            let next = if is_message { oldest } else { timer.map(|(next, _)| next) };
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if is_message && self.settled {
                if let Some(message) = self.flight.pop_front() {
                    self.deliver(message);
                }
            } else if is_message {
                self.lose(0);
            } else if let Some((_, at)) = timer {
                let relay = &mut self.relays[at];
                relay.presence.timeout(relay.now(self.now));
                let again = relay.next();
                assert!(again.is_none_or(|again| again > next), "timeout changes nothing");
                self.collect(at);
            }
        }
        self.now = end;
    }

    /// The faults end; nobody does anything for ten seconds.
    pub(super) fn settle(&mut self) {
        self.settled = true;
        self.link_all();
        self.pass(10_000);
    }

    /// The relays that have a node in their table.
    pub(super) fn owners(&self, id: Name) -> Vec<RelayId> {
        let all = self.relays.iter().enumerate();
        let have = all.filter(|(_, relay)| relay.table.contains_key(&id));
        have.map(|(index, _)| relay_id(index)).collect()
    }

    /// Asks at a relay for a node, forgetting what was answered before.
    pub(super) fn look_up(&mut self, at: usize, id: Name) {
        let relay = &mut self.relays[at];
        relay.answers.remove(&id);
        relay.presence.look_up(id, relay.now(self.now));
        self.collect(at);
    }
}
