//! All relays and peers of a simulation, and what happens to them.

use std::time::Instant;

use beacon_wire::cluster::Ownership;
use beacon_wire::ids::NodeId;

use super::network::{DEAD_AFTER, Happening, Network};
use super::relay::{Delivered, Relay};
use super::{NODES, node, relay_id, usual_ownership};
use crate::limit::Rate;
use crate::presence::takeovers::Rates;
use crate::simulated::Random;

/// How often relays look at their links, in microseconds.
const MESH: u64 = 250_000;

/// A login of a peer, as far as the newest has to win.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    pub(super) at: u64,
    pub(super) relay: usize,
    pub(super) boot: u32,
    pub(super) serial: u64,
    /// Whether the peer left, or its relay died.
    pub(super) over: bool,
}

/// The cluster and its peers.
#[derive(Debug)]
pub(super) struct World {
    pub(super) network: Network,
    pub(super) relays: Vec<Relay>,
    pub(super) delivered: Delivered,
    /// Whether all clocks agree.
    pub(super) agreed: bool,
    /// Whether relays are slow at times; then a login may be no newer than it looks.
    pub(super) slows: bool,
    /// Whether all relays are members of each other all the time.
    pub(super) calm: bool,
    /// The logins of each peer.
    pub(super) logins: Vec<Vec<Login>>,
    /// How many acts are to come.
    acts: u64,
    packets: usize,
    /// What relays watch is drawn apart, so that all else is the same for a seed.
    watching: Random,
}

impl World {
    pub(super) fn new(seed: u64, start: Instant) -> Self {
        let mut random = Random::new(seed);
        let count = 2 + random.index(4);
        let agreed = random.percent(40);
        let slows = random.percent(40);
        let calm = random.percent(30);
        // So few that takeovers are held back all the time.
        let few = Rates {
            of_one: Rate::per_second(2).with_burst(1),
            of_all: Rate::per_second(4).with_burst(2),
        };
        let rates = seed.is_multiple_of(4).then_some(few);
        let mut ahead = || if agreed { 0 } else { random.below(4_001) };
        let relays = (0..count).map(|index| Relay::new(index, start, ahead(), rates));
        let mut relays: Vec<_> = relays.collect();
        let mut watching = Random::new(seed ^ 0x5747_4348);
        if watching.percent(20) {
            relays.iter_mut().for_each(|relay| relay.old = watching.percent(40));
        }
        let acts = 40 + random.below(160);
        Self {
            network: Network::new(count, random),
            relays,
            delivered: Delivered::new(),
            agreed,
            slows,
            calm,
            logins: vec![Vec::new(); NODES + 1],
            acts,
            packets: 0,
            watching,
        }
    }

    /// The time of faults.
    pub(super) fn live(&mut self) {
        self.network.schedule(0, Happening::Mesh);
        self.network.schedule(0, Happening::Act);
        while self.acts > 0 {
            self.step();
        }
    }

    /// The faults end; nobody does anything for ten seconds.
    pub(super) fn settle(&mut self) {
        self.network.loss = 0;
        self.network.slow = None;
        // Packets wait for 200 ms: a look-up has to have an answer by then.
        self.network.delay = self.network.delay.min(20_000);
        for (a, b) in self.network.pairs() {
            self.network.link(a, b).cut = None;
        }
        self.relays.iter_mut().for_each(|relay| relay.alive = true);
        self.run_for(10_000_000);
    }

    pub(super) fn run_for(&mut self, micros: u64) {
        let end = self.network.now + micros;
        while self.next().is_some_and(|next| next <= end) {
            self.step();
        }
        self.network.now = end;
    }

    fn next(&self) -> Option<u64> {
        self.relays.iter().filter_map(Relay::next).chain(self.network.next()).min()
    }

    /// Does what comes next.
    fn step(&mut self) {
        let next = self.next().unwrap();
        self.network.now = self.network.now.max(next);
        let due = self.relays.iter_mut().find(|relay| relay.next() == Some(next));
        if let Some(relay) = due {
            relay.presence.timeout(relay.now(self.network.now));
            relay.drain(&mut self.network);
            assert!(relay.next().is_none_or(|again| again > next), "timeout changes nothing");
            return;
        }
        match self.network.pop().unwrap() {
            happening @ Happening::Message { from, to, message, .. } => {
                let is_up = self.relays[to].presence.members.slot(relay_id(from)).is_some();
                if self.network.passes(happening, is_up) && self.relays[to].alive {
                    let relay = &mut self.relays[to];
                    relay.receive(from, message, &mut self.network, &mut self.delivered);
                    self.drain(to);
                }
            }
            Happening::Link { at, peer, generation, up } => {
                // A connection that broke while it was made was never there.
                let is_up = self.network.link(at, peer).generation == generation;
                if (is_up || !up) && self.relays[at].alive {
                    self.relays[at].link(relay_id(peer), up, &mut self.network);
                    self.drain(at);
                }
            }
            Happening::Mesh => {
                self.mesh();
                self.network.schedule(MESH, Happening::Mesh);
            }
            Happening::Act => {
                self.acts = self.acts.saturating_sub(1);
                if self.acts > 0 {
                    self.act();
                    self.turn_watches();
                    let after = self.network.random.below(500_000);
                    self.network.schedule(after, Happening::Act);
                }
            }
            Happening::Login { node, relay } => self.log_in(node, relay),
            Happening::Logout { node } => self.log_out(node),
        }
    }

    fn drain(&mut self, relay: usize) {
        self.relays[relay].drain(&mut self.network);
    }

    /// Links that are dead for too long break; those that can be made are made.
    fn mesh(&mut self) {
        for (a, b) in self.network.pairs() {
            let boots = (self.relays[a].boot, self.relays[b].boot);
            let alive = self.relays[a].alive && self.relays[b].alive;
            let now = self.network.now;
            let link = self.network.link(a, b);
            let dead = link.cut.is_some_and(|since| since + DEAD_AFTER <= now);
            let other = link.boots != boots && link.cut.is_none() && alive;
            if link.connected && (dead || other) {
                self.network.turn(a, b, false, boots);
            } else if !link.connected && link.cut.is_none() && alive {
                self.network.turn(a, b, true, boots);
            }
        }
    }

    fn act(&mut self) {
        // Some peers are busier than others, so that what happens to one meets itself.
        let busy = self.network.random.percent(50);
        let node = 1 + self.network.random.index(if busy { 5 } else { NODES });
        let relay = self.network.random.index(self.relays.len());
        match self.network.random.below(100) {
            0..40 => self.log_in(node, relay),
            40..46 => {
                for _ in 0..4 {
                    let relay = self.network.random.index(self.relays.len());
                    let after = self.network.random.below(600_000);
                    self.network.schedule(after, Happening::Login { node, relay });
                    let after = self.network.random.below(1_200_000);
                    self.network.schedule(after, Happening::Logout { node });
                }
            }
            46..50 => self.return_quickly(node),
            50..52 if self.slows => {
                self.network.slow = Some((relay, self.network.now + 5_000_000));
            }
            50..58 => self.log_out(node),
            58..62 => self.change(node, relay),
            62..88 => {
                self.send(relay, node);
            }
            88..99 if self.calm => self.return_quickly(node),
            88..91 => self.cut(relay),
            91..95 => {
                for (a, b) in self.network.pairs() {
                    self.network.link(a, b).cut = None;
                }
            }
            95 => self.crash(relay),
            96 | 97 => self.relays.iter_mut().for_each(|relay| relay.alive = true),
            98 => {
                let relay = &mut self.relays[relay];
                if relay.alive {
                    relay.draining = true;
                    relay.presence.draining(relay_id(relay.index), relay.now(self.network.now));
                    relay.drain(&mut self.network);
                }
            }
            // Time passes: what takes a minute happens too.
            _ => {
                let now = self.network.now + 1_000_000 * self.network.random.below(40);
                self.run_for(now - self.network.now);
            }
        }
    }

    /// Relays begin to watch peers, or no longer do.
    fn turn_watches(&mut self) {
        while self.watching.percent(40) {
            let number = 1 + self.watching.index(NODES);
            let at = self.watching.index(self.relays.len());
            let relay = &mut self.relays[at];
            if relay.alive && !relay.old {
                relay.turn_watch(node(number), &self.network);
                self.drain(at);
            }
        }
    }

    fn log_in(&mut self, number: usize, at: usize) {
        let relay = &mut self.relays[at];
        if !relay.alive || relay.draining {
            return;
        }
        let serial = relay.arrive(node(number), usual_ownership(number), &self.network);
        let (now, boot) = (self.network.now, relay.boot);
        let login = Login { at: now, relay: at, boot, serial, over: false };
        self.logins[number].push(login);
        self.drain(at);
    }

    /// A peer goes to another relay, and comes back before anybody has heard of that.
    fn return_quickly(&mut self, node: usize) {
        let relays = self.relays.len();
        let relay = self.network.random.index(relays);
        let other = (relay + 1 + self.network.random.index(relays - 1)) % relays;
        let mut after = 0;
        for relay in [relay, other, relay] {
            self.network.schedule(after, Happening::Login { node, relay });
            after += self.network.random.below(300_000);
        }
    }

    /// A peer leaves one of the relays that have it.
    fn log_out(&mut self, number: usize) {
        let id = node(number);
        let from: Vec<_> = self.owners(id);
        if from.is_empty() {
            return;
        }
        let at = from[self.network.random.index(from.len())];
        let boot = self.relays[at].boot;
        self.relays[at].depart(id, &self.network);
        for login in &mut self.logins[number] {
            login.over |= (login.relay, login.boot) == (at, boot);
        }
        self.drain(at);
    }

    /// A peer whose ownership kind varies has another one, under the same serial.
    fn change(&mut self, number: usize, at: usize) {
        let relay = &mut self.relays[at];
        let Some((serial, ownership)) = relay.table.get(&node(number)).copied() else { return };
        let other = match (usual_ownership(number), ownership) {
            (Ownership::Endpoint, Ownership::Endpoint) => Ownership::Session,
            (Ownership::Endpoint, _) => Ownership::Endpoint,
            _ => return,
        };
        relay.set(node(number), serial, other, &self.network);
        self.drain(at);
    }

    /// A relay sends a packet to a peer; returns its number.
    pub(super) fn send(&mut self, from: usize, to: usize) -> usize {
        self.packets += 1;
        if self.relays[from].alive {
            let relay = &mut self.relays[from];
            relay.send(self.packets, node(to), &mut self.network, &mut self.delivered);
            self.drain(from);
        }
        self.packets
    }

    /// Cuts a link of a relay, or all links between two halves.
    fn cut(&mut self, relay: usize) {
        let half = self.network.random.percent(50);
        let side: Vec<_> = (0..self.relays.len())
            .map(|other| if half { self.network.random.percent(50) } else { other == relay })
            .collect();
        let now = self.network.now;
        for (a, b) in self.network.pairs() {
            let keeps = !half && self.network.random.percent(50);
            if side[a] != side[b] && !keeps {
                self.network.link(a, b).cut.get_or_insert(now);
            }
        }
    }

    fn crash(&mut self, at: usize) {
        let boot = self.relays[at].boot;
        self.relays[at].crash();
        for login in self.logins.iter_mut().flatten() {
            login.over |= (login.relay, login.boot) == (at, boot);
        }
    }

    /// The relays that have a peer in their table.
    pub(super) fn owners(&self, id: NodeId) -> Vec<usize> {
        let have = self.relays.iter().filter(|relay| relay.table.contains_key(&id));
        have.map(|relay| relay.index).collect()
    }
}
