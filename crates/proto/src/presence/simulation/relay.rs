//! One relay of a simulation: its presence, its table, its cache, and packets that wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use beacon_wire::cluster::{About, Frame, Location, Ownership, Takeover};
use beacon_wire::ids::{NodeId, RelayId};

use super::network::{Message, Network};
use super::{Presence, node, relay_id};
use crate::presence::takeovers::Rates;
use crate::presence::{Event, Here, Now};

/// How long a packet waits for a look-up, in microseconds.
const PATIENCE: u64 = 200_000;

/// How many packets wait for one.
const WAITING: usize = 32;

/// A relay of the cluster.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) index: usize,
    pub(super) presence: Presence<NodeId>,
    /// Which run of it this is; 0 and alive only after the first start.
    pub(super) boot: u32,
    pub(super) alive: bool,
    pub(super) draining: bool,
    start: Instant,
    /// How far its clock is ahead, in milliseconds.
    ahead_ms: u64,
    /// How many sessions a relay may take over, if that is few.
    rates: Option<Rates>,
    /// Who is here, and under which serial.
    pub(super) table: BTreeMap<NodeId, (u64, Ownership)>,
    pub(super) cache: BTreeMap<NodeId, Location>,
    waiting: BTreeMap<NodeId, Vec<(usize, u64)>>,
    serials: u64,
    /// Whether it knows no watches.
    pub(super) old: bool,
    /// Whom it watches, by which number, and whether they are elsewhere, as it was told.
    pub(super) watched: BTreeMap<NodeId, (u64, bool)>,
    numbers: u64,
    /// How many questions each look-up in flight has asked.
    questions: BTreeMap<NodeId, usize>,
}

/// Which packets have been delivered, and where.
pub(super) type Delivered = BTreeMap<usize, usize>;

impl Relay {
    pub(super) fn new(index: usize, start: Instant, ahead_ms: u64, rates: Option<Rates>) -> Self {
        let mut presence = Presence::new(relay_id(index), 1_000, start);
        if let Some(rates) = rates {
            presence.takeovers.limit(rates);
        }
        Self {
            index,
            presence,
            boot: 1,
            alive: true,
            draining: false,
            start,
            ahead_ms,
            rates,
            table: BTreeMap::new(),
            cache: BTreeMap::new(),
            waiting: BTreeMap::new(),
            serials: 0,
            old: false,
            watched: BTreeMap::new(),
            numbers: 0,
            questions: BTreeMap::new(),
        }
    }

    /// It dies, and all that it knows.
    pub(super) fn crash(&mut self) {
        let (boot, old) = (self.boot, self.old);
        *self = Self::new(self.index, self.start, self.ahead_ms, self.rates);
        (self.boot, self.alive, self.old) = (boot + 1, false, old);
    }

    /// The time here. Clocks are ahead by 0 to 4 s, which is ±2 s of their middle.
    pub(super) fn now(&self, now: u64) -> Now {
        let at = self.start + Duration::from_micros(now);
        Now { at, unix_ms: 1_700_000_000_000 + self.ahead_ms + now / 1_000 }
    }

    pub(super) fn next(&self) -> Option<u64> {
        let at = self.presence.poll_timeout().filter(|_| self.alive)?;
        let micros = at.saturating_duration_since(self.start).as_nanos().div_ceil(1_000);
        Some(u64::try_from(micros).unwrap())
    }

    /// A peer comes; returns its serial.
    pub(super) fn arrive(&mut self, id: NodeId, how: Ownership, network: &Network) -> u64 {
        self.serials += 1;
        self.set(id, self.serials, how, network);
        self.serials
    }

    /// The peer of this serial has this ownership kind from here on.
    pub(super) fn set(&mut self, id: NodeId, serial: u64, how: Ownership, network: &Network) {
        self.table.insert(id, (serial, how));
        self.cache.remove(&id);
        let takeover = Takeover::Always;
        let here = Here { serial, ownership: how, takeover, credential: 0, since: None };
        self.presence.arrived(id, here, self.now(network.now));
    }

    pub(super) fn depart(&mut self, id: NodeId, network: &Network) {
        if let Some((serial, _)) = self.table.remove(&id) {
            self.presence.departed(id, serial, self.now(network.now));
        }
    }

    pub(super) fn link(&mut self, peer: RelayId, up: bool, network: &mut Network) {
        let now = self.now(network.now);
        if !up {
            self.presence.left(peer, now);
            return;
        }
        self.presence.joined(peer, now);
        if !self.old {
            let about = About { features: About::WATCHES, told: 0, channels: None };
            network.send(self.index, index(peer), Message::Frame(Frame::About(about)));
        }
    }

    /// Watches a peer, or no longer if it did.
    pub(super) fn turn_watch(&mut self, id: NodeId, network: &Network) {
        let now = self.now(network.now);
        if let Some((number, _)) = self.watched.remove(&id) {
            self.presence.unwatch(id, number, now);
        } else {
            self.numbers += 1;
            self.watched.insert(id, (self.numbers, false));
            assert!(self.presence.watch(id, self.numbers, now), "there is room");
        }
        self.presence.timeout(now);
    }

    /// A peer that is here, or a client of this relay, sends a packet.
    pub(super) fn send(
        &mut self,
        number: usize,
        dest: NodeId,
        network: &mut Network,
        delivered: &mut Delivered,
    ) {
        if self.table.contains_key(&dest) {
            self.deliver(number, delivered);
        } else if let Some(location) = self.cache.get(&dest) {
            let to = index(location.owner);
            network.send(self.index, to, Message::Packet { number, dest, epoch: location.epoch });
        } else {
            let waiting = self.waiting.entry(dest).or_default();
            waiting.retain(|(_, until)| *until >= network.now);
            if waiting.len() < WAITING {
                waiting.push((number, network.now + PATIENCE));
            }
            let before = self.presence.stats().lookups;
            let now = self.now(network.now);
            self.questions.entry(dest).or_insert(0);
            self.presence.look_up(dest, now);
            if self.presence.stats().lookups > before {
                self.questions.insert(dest, 0);
            }
        }
    }

    fn deliver(&self, number: usize, delivered: &mut Delivered) {
        let before = delivered.insert(number, self.index);
        assert_eq!(before, None, "packet {number} came twice");
    }

    pub(super) fn receive(
        &mut self,
        from: usize,
        message: Message,
        network: &mut Network,
        delivered: &mut Delivered,
    ) {
        let now = self.now(network.now);
        match message {
            Message::Frame(
                Frame::About(_) | Frame::Watch { .. } | Frame::Locate { .. } | Frame::Heard { .. },
            ) if self.old => {}
            Message::Frame(Frame::About(_)) => {
                self.presence.answers_watches(relay_id(from), now);
            }
            Message::Frame(frame) => self.presence.receive(relay_id(from), &frame, now),
            Message::Packet { number, dest, .. } if self.table.contains_key(&dest) => {
                self.deliver(number, delivered);
            }
            Message::Packet { dest: id, epoch, .. } => {
                network.send(self.index, from, Message::Nack { id, epoch });
                self.presence.not_here(id, self.serials, now);
            }
            Message::Nack { id, epoch } => self.forget(id, relay_id(from), epoch),
        }
    }

    fn forget(&mut self, id: NodeId, owner: RelayId, epoch: u64) {
        let location = self.cache.get(&id);
        if location.is_some_and(|location| location.owner == owner && location.epoch <= epoch) {
            self.cache.remove(&id);
        }
    }

    /// Carries out what presence has decided.
    pub(super) fn drain(&mut self, network: &mut Network) {
        while let Some((to, frame)) = self.presence.poll_transmit() {
            if let Frame::Find { id } = frame {
                let asked = self.questions.entry(id).or_insert(0);
                *asked += 1;
                // Each has one answer: four messages.
                assert!(*asked <= 2, "look-up of {id} asked too often");
            }
            network.send(self.index, index(to), Message::Frame(frame));
        }
        while let Some(event) = self.presence.poll_event() {
            match event {
                Event::Located { id, location, .. } => self.locate(id, location, network),
                Event::Missing { id, .. } => {
                    self.waiting.remove(&id);
                }
                Event::Gone { id, owner, epoch } => self.forget(id, owner, epoch),
                Event::RelayGone { relay } => {
                    self.cache.retain(|_, location| location.owner != relay)
                }
                Event::Watched { id, number, is_elsewhere } => {
                    let known = self.watched.get_mut(&id).expect("it is watched");
                    assert_eq!((number, !is_elsewhere), *known, "told twice of {id}");
                    known.1 = is_elsewhere;
                }
                Event::Superseded { id, serial, .. } => {
                    if self.table.get(&id).is_some_and(|(known, _)| *known <= serial) {
                        self.table.remove(&id);
                    }
                }
            }
        }
    }

    fn locate(&mut self, id: NodeId, location: Location, network: &mut Network) {
        if self.table.contains_key(&id) || index(location.owner) == self.index {
            // It has come in the meantime.
            self.waiting.remove(&id);
            return;
        }
        let known = self.cache.get(&id);
        if known.is_none_or(|known| (known.epoch, known.owner) < (location.epoch, location.owner)) {
            self.cache.insert(id, location);
        }
        for (number, until) in self.waiting.remove(&id).unwrap_or_default() {
            if until >= network.now {
                let (to, epoch) = (index(location.owner), location.epoch);
                network.send(self.index, to, Message::Packet { number, dest: id, epoch });
            }
        }
    }

    /// That nothing is left to be done.
    pub(super) fn assert_quiet(&self) {
        let stats = self.presence.stats();
        assert_eq!((stats.outstanding, stats.lookups), (0, 0), "relay {}", self.index);
        for number in 1..=super::NODES {
            let id = node(number);
            let here = self.table.get(&id).map(|(serial, _)| *serial);
            let claimed = self.presence.locals.get(&id).map(|local| local.serial);
            assert_eq!(here, claimed, "table and presence of relay {} on {id}", self.index);
        }
    }
}

/// The number of a relay, which is in all bytes of its id.
fn index(relay: RelayId) -> usize {
    usize::from(relay.0.0[0]) - 1
}
