//! The network of a simulation: virtual time, links that lose, delay, reorder and break.

use std::collections::BTreeMap;

use beacon_wire::cluster::Frame;
use beacon_wire::ids::NodeId;

use crate::simulated::Random;

/// After how long a cut link is given up, in microseconds: three keep-alives.
pub(super) const DEAD_AFTER: u64 = 15_000_000;

/// The longest delay of a relay that is slow, in microseconds.
const SLOWNESS: u64 = 3_000_000;

/// What one relay sends another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    Frame(Frame<'static, NodeId>),
    Packet { number: usize, dest: NodeId, epoch: u64 },
    Nack { id: NodeId, epoch: u64 },
}

/// What happens at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    /// A message arrives, if its link is still up.
    Message { from: usize, to: usize, generation: u32, message: Message },
    /// One side of a link learns that it is up, or is down.
    Link { at: usize, peer: usize, generation: u32, up: bool },
    /// Relays look at their links.
    Mesh,
    /// Someone does something.
    Act,
    /// A peer logs in.
    Login { node: usize, relay: usize },
    /// A peer leaves.
    Logout { node: usize },
}

/// Two relays, as far as they can reach each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    /// Which connection it is: messages of another are lost.
    pub(super) generation: u32,
    /// Since when nothing passes.
    pub(super) cut: Option<u64>,
    /// Whether a connection is being made, or is up.
    pub(super) connected: bool,
    /// Which runs of the two relays the connection is between.
    pub(super) boots: (u32, u32),
}

/// Links, what is under way, and the time.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) now: u64,
    pub(super) random: Random,
    /// Messages lost, in percent.
    pub(super) loss: u64,
    /// The longest delay, in microseconds.
    pub(super) delay: u64,
    /// A relay that is slow, and until when.
    pub(super) slow: Option<(usize, u64)>,
    links: BTreeMap<(usize, usize), Link>,
    queue: BTreeMap<(u64, u64), Happening>,
    count: u64,
}

impl Network {
    pub(super) fn new(relays: usize, mut random: Random) -> Self {
        let pairs = (0..relays).flat_map(|a| (a + 1..relays).map(move |b| (a, b)));
        let links = pairs.map(|pair| (pair, Link::default())).collect();
        let (loss, delay) = (random.below(31), random.below(120_001));
        let (slow, queue) = (None, BTreeMap::new());
        Self { now: 0, random, loss, delay, slow, links, queue, count: 0 }
    }

    pub(super) fn pairs(&self) -> Vec<(usize, usize)> {
        self.links.keys().copied().collect()
    }

    pub(super) fn link(&mut self, a: usize, b: usize) -> &mut Link {
        self.links.get_mut(&(a.min(b), a.max(b))).unwrap()
    }

    pub(super) fn schedule(&mut self, after: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), happening);
    }

    pub(super) fn next(&self) -> Option<u64> {
        Some(self.queue.first_key_value()?.0.0)
    }

    pub(super) fn pop(&mut self) -> Option<Happening> {
        Some(self.queue.pop_first()?.1)
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        // A relay says only once that it drains, and what it can do: the real links lose nothing.
        let once = matches!(message, Message::Frame(Frame::Draining | Frame::About(_)));
        if !once && self.random.percent(self.loss) {
            return;
        }
        let generation = self.link(from, to).generation;
        let slow = |(relay, until)| (relay == from || relay == to) && self.now < until;
        let slow = self.slow.is_some_and(slow);
        let delay = self.random.below(if slow { SLOWNESS } else { self.delay } + 1);
        self.schedule(delay, Happening::Message { from, to, generation, message });
    }

    /// Whether a message of this connection arrives; `is_up` for the receiver's side.
    pub(super) fn passes(&mut self, happening: Happening, is_up: bool) -> bool {
        let Happening::Message { from, to, generation, message } = happening else { return false };
        let link = *self.link(from, to);
        let same = link.generation == generation;
        let once = matches!(message, Message::Frame(Frame::Draining | Frame::About(_)));
        if same && once && (link.cut.is_some() || !is_up) {
            self.schedule(200_000, happening);
        }
        same && link.cut.is_none()
    }

    /// Breaks or makes a connection: both sides learn of it, at moments of their own.
    pub(super) fn turn(&mut self, a: usize, b: usize, up: bool, boots: (u32, u32)) {
        let link = self.link(a, b);
        link.connected = up;
        link.boots = boots;
        link.generation += 1;
        let generation = link.generation;
        for (at, peer) in [(a, b), (b, a)] {
            // A side is down before it is up again.
            let after = if up { 400_000 } else { 0 } + self.random.below(300_000);
            self.schedule(after, Happening::Link { at, peer, generation, up });
        }
    }
}
