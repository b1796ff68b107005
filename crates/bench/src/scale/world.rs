//! The simulated cluster: relays, what is under way between them, nodes, and time.

use std::collections::VecDeque;
use std::time::Instant;

use beacon_proto::presence::{Event, Now};
use beacon_wire::cluster::Frame;
use beacon_wire::name::Name;

use super::meters::{Figures, Meters};
use super::nodes::{Location, Nodes, name, number};
use super::relay::{Relay, at, id, index, mixed};
use super::{Cluster, Phase};

/// How long a message is under way, in milliseconds.
const DELAY: u64 = 5;

/// Over how long all nodes log in at the beginning, in milliseconds.
const LOG_IN: u64 = 20_000;

/// How long the nodes of a relay that drains are sent away, in milliseconds (`--drain-time`).
const DRAIN: u64 = 5_000;

/// How long a relay that restarts is not there, and then is before the next one goes.
const DOWN: u64 = 1_000;
const UP: u64 = 4_000;

/// How many relays restart one after the other.
const RESTARTS: usize = 8;

/// After what time a relay is missed that says nothing: three keep-alives of 5 s.
const SILENT: u64 = 15_000;

/// How long it takes a node that lost its connection to dial, in milliseconds: the first back-off
/// of a daemon, to which a random part of as much again is added.
const BACK_OFF: u64 = 250;

/// Look-ups of all relays in a millisecond.
const LOOK_UPS: u64 = 5;

/// How many nodes are looked up at the end of a phase.
const SAMPLE: u64 = 2_000;

/// What one relay says to another.
struct Message {
    due: u64,
    from: usize,
    to: usize,
    frame: Frame<'static, Name>,
}

/// All of it.
pub(super) struct World {
    start: Instant,
    /// Milliseconds since the start.
    now: u64,
    relays: Vec<Option<Relay>>,
    nodes: Nodes,
    flight: VecDeque<Message>,
    meters: Meters,
    random: u64,
    /// Whether nodes move, and are looked up.
    is_busy: bool,
    /// Thousandths of a node that are to move.
    moves: u64,
}

impl World {
    pub(super) fn new(cluster: Cluster) -> Self {
        let start = Instant::now();
        let relays = (0..cluster.relays).map(|index| Some(Relay::new(index, start))).collect();
        let mut world = Self {
            start,
            now: 0,
            relays,
            nodes: Nodes::new(cluster.nodes, LOG_IN),
            flight: VecDeque::new(),
            meters: Meters::new(cluster.relays, 0),
            random: 0,
            is_busy: false,
            moves: 0,
        };
        for relay in 0..cluster.relays {
            world.link(relay, 0..relay);
        }
        world
    }

    /// Plays a phase, and looks at the end whether every node is found.
    pub(super) fn play(&mut self, phase: Phase) -> Figures {
        self.meters = Meters::new(self.relays.len(), self.now);
        self.is_busy = phase != Phase::Start;
        match phase {
            Phase::Start => self.pass(LOG_IN),
            Phase::Churn => self.pass(30_000),
            Phase::RollingRestart => {
                for relay in 0..RESTARTS.min(self.relays.len()) {
                    self.restart(relay);
                }
            }
            Phase::LostRelay => self.lose(self.relays.len() - 1),
        }
        self.is_busy = false;
        let meters = Meters::new(self.relays.len(), self.now);
        let mut figures = std::mem::replace(&mut self.meters, meters).figures(self.now);
        figures.lost_at_end = self.look_at_all();
        figures
    }

    fn restart(&mut self, relay: usize) {
        let now = self.at_now();
        let leaving = self.relays[relay].as_mut().expect("it is up");
        leaving.drains = true;
        leaving.presence.draining(id(relay), now);
        self.collect(relay);

        let end = self.now + DRAIN;
        while self.now < end {
            let here = self.nodes.of(relay);
            let steps = (end - self.now).div_ceil(100);
            let leave = here.len().div_ceil(usize::try_from(steps).expect("few steps"));
            for (node, serial) in here.into_iter().take(leave) {
                self.disconnect(node, relay, serial);
            }
            self.pass(100);
        }
        self.end(relay);
        self.forget(relay);
        self.pass(DOWN);
        self.relays[relay] = Some(Relay::new(relay, self.start));
        self.link(relay, 0..self.relays.len());
        self.pass(UP);
    }

    fn lose(&mut self, relay: usize) {
        self.end(relay);
        self.pass(SILENT);
        self.forget(relay);
        self.pass(15_000);
    }

    /// A relay is gone, with the connections that it had.
    fn end(&mut self, relay: usize) {
        self.relays[relay] = None;
        for (node, _) in self.nodes.of(relay) {
            let dials_at = self.now + self.back_off();
            self.nodes.leave(node, dials_at);
        }
    }

    /// The others notice that a relay is gone.
    fn forget(&mut self, gone: usize) {
        let now = self.at_now();
        for other in 0..self.relays.len() {
            if let Some(relay) = &mut self.relays[other] {
                relay.presence.left(id(gone), now);
                self.collect(other);
            }
        }
    }

    /// A relay links to those of the others that are there.
    fn link(&mut self, relay: usize, others: impl Iterator<Item = usize>) {
        let now = self.at_now();
        for other in others.filter(|other| *other != relay) {
            let [Some(one), Some(two)] =
                self.relays.get_disjoint_mut([relay, other]).expect("they differ")
            else {
                continue;
            };
            one.presence.joined(id(other), now);
            two.presence.joined(id(relay), now);
            self.collect(other);
        }
        self.collect(relay);
    }

    /// Lets so many milliseconds pass.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.deliver();
            for node in self.nodes.due(self.now) {
                self.connect(node);
            }
            if self.is_busy {
                self.move_some();
                self.look_some_up();
            }
            self.run_timers();
            if self.now.is_multiple_of(1_000) {
                self.meters.end_second();
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(Message { from, to, frame, .. }) =
            self.flight.pop_front_if(|message| message.due <= self.now)
        {
            let now = self.at_now();
            if self.relays[from].is_some()
                && let Some(relay) = &mut self.relays[to]
            {
                relay.presence.receive(id(from), &frame, now);
                self.collect(to);
            }
        }
    }

    fn run_timers(&mut self) {
        let now = self.at_now();
        for index in 0..self.relays.len() {
            if let Some(relay) = &mut self.relays[index]
                && relay.presence.poll_timeout().is_some_and(|due| due <= now.at)
            {
                relay.presence.timeout(now);
                self.collect(index);
            }
        }
    }

    /// One node in a hundred leaves its relay each second.
    fn move_some(&mut self) {
        self.moves += self.nodes.count() / 100;
        while self.moves >= 1_000 {
            self.moves -= 1_000;
            let node = self.any_node();
            if let Location::At { relay, serial, .. } = self.nodes.location(node) {
                self.disconnect(node, relay, serial);
            }
        }
    }

    fn look_some_up(&mut self) {
        for _ in 0..LOOK_UPS {
            let node = self.any_node();
            if let Some(relay) = self.any_relay() {
                self.look_up(node, relay);
            }
        }
    }

    fn look_up(&mut self, node: u32, at: usize) {
        let now = self.at_now();
        let relay = self.relays[at].as_mut().expect("it is up");
        if !relay.presence.is_here(name(node)) {
            relay.presence.look_up(name(node), now);
            self.collect(at);
        }
    }

    /// A node connects to a relay that takes it.
    fn connect(&mut self, node: u32) {
        let now = self.at_now();
        let Some(at) = self.any_relay() else { return };
        let relay = self.relays[at].as_mut().expect("it is up");
        let serial = relay.connect(name(node), now);
        self.nodes.connect(node, at, serial, self.now);
        self.collect(at);
    }

    /// A node's connection ends; it dials again soon.
    fn disconnect(&mut self, node: u32, from: usize, serial: u64) {
        let now = self.at_now();
        let dials_at = self.now + self.back_off();
        self.nodes.leave(node, dials_at);
        if let Some(relay) = &mut self.relays[from] {
            relay.presence.departed(name(node), serial, now);
            self.collect(from);
        }
    }

    /// Carries out what the presence of a relay has decided.
    fn collect(&mut self, at: usize) {
        let now = self.at_now();
        let Some(relay) = &mut self.relays[at] else { return };
        let mut ended = Vec::new();
        while let Some(event) = relay.presence.poll_event() {
            match event {
                Event::Located { asked: Some(asked), .. } => {
                    let ms = now.at.saturating_duration_since(asked);
                    self.meters.found(u64::try_from(ms.as_millis()).unwrap_or(u64::MAX));
                }
                Event::Missing { id, .. } => {
                    let is_connected = match self.nodes.location(number(id)) {
                        Location::At { since, .. } => since + 1_000 < self.now,
                        Location::Away => false,
                    };
                    self.meters.missing(is_connected);
                }
                Event::Superseded { id, serial, .. } => ended.push((number(id), serial)),
                Event::Located { asked: None, .. }
                | Event::Gone { .. }
                | Event::RelayGone { .. }
                | Event::Watched { .. } => {}
            }
        }
        while let Some((to, frame)) = relay.presence.poll_transmit() {
            self.meters.sent(at, &frame);
            self.flight.push_back(Message {
                due: self.now + DELAY,
                from: at,
                to: index(to),
                frame,
            });
        }
        for (node, serial) in ended {
            if let Location::At { relay, serial: has, .. } = self.nodes.location(node)
                && relay == at
                && has <= serial
            {
                self.disconnect(node, at, has);
            }
        }
    }

    /// Nothing happens for five seconds; then nodes are looked up at relays where they are not. How
    /// many of them are not found.
    fn look_at_all(&mut self) -> u64 {
        self.pass(5_000);
        self.meters = Meters::new(self.relays.len(), self.now);
        let mut asked = 0;
        // Each once, since a relay looks a node up once at a time.
        let count = self.nodes.count();
        for index in 0..SAMPLE.min(count) {
            let node = index * count / SAMPLE.min(count);
            let node = u32::try_from(node).expect("there are fewer nodes");
            let Some(at) = self.any_relay() else { continue };
            if !self.relays[at].as_ref().expect("it is up").presence.is_here(name(node)) {
                asked += 1;
                self.look_up(node, at);
            }
        }
        self.pass(1_000);
        let meters = Meters::new(self.relays.len(), self.now);
        asked - std::mem::replace(&mut self.meters, meters).figures(self.now).found
    }

    fn at_now(&self) -> Now {
        at(self.start, self.now)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random += 1;
        mixed(self.random) % bound
    }

    fn back_off(&mut self) -> u64 {
        BACK_OFF + self.below(BACK_OFF)
    }

    fn any_node(&mut self) -> u32 {
        let count = self.nodes.count();
        u32::try_from(self.below(count)).expect("there are fewer nodes")
    }

    /// A relay that is up and takes nodes; `None` where a few attempts found none.
    fn any_relay(&mut self) -> Option<usize> {
        (0..64).find_map(|_| {
            let count = self.relays.len() as u64;
            let index = usize::try_from(self.below(count)).expect("there are fewer relays");
            self.relays[index].as_ref().is_some_and(|relay| !relay.drains).then_some(index)
        })
    }
}
