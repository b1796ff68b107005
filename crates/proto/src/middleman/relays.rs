//! Relays with links between them, for tests: what one says to another comes in order, and when
//! the test wants it to.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use beacon_wire::middleman::{Guid, Message};

use super::{Broker, Class, ConnectionId, Handled, Limits, LinkId, Output, Role};

/// A connection: its relay, and its number there.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Who {
    pub(super) relay: usize,
    pub(super) number: u32,
}

impl Who {
    pub(super) fn guid(self) -> Guid {
        Guid::new(1_700_000_000, maker(self.relay), self.number)
    }
}

/// What somebody has heard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Heard {
    pub(super) who: Who,
    pub(super) class: Class,
    pub(super) frame: String,
}

struct Relay {
    broker: Broker<Who>,
    out: Output,
    connections: BTreeMap<Who, ConnectionId>,
    numbered: u32,
}

/// One direction of a link.
struct Direction {
    id: LinkId,
    on_the_way: VecDeque<Vec<u8>>,
}

pub(super) struct Relays {
    relays: Vec<Relay>,
    /// From one relay to another.
    links: BTreeMap<(usize, usize), Direction>,
    linked: u64,
    pub(super) now: Instant,
}

fn maker(relay: usize) -> [u8; 5] {
    [b'm', 0, 0, 0, u8::try_from(relay).unwrap()]
}

impl Relays {
    pub(super) fn new(count: usize, limits: Limits) -> Self {
        let relay = || Relay {
            broker: Broker::new(limits),
            out: Output::default(),
            connections: BTreeMap::new(),
            numbered: 0,
        };
        Self {
            relays: (0..count).map(|_| relay()).collect(),
            links: BTreeMap::new(),
            linked: 0,
            now: Instant::now(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.relays.len()
    }

    pub(super) fn broker(&self, relay: usize) -> &Broker<Who> {
        &self.relays[relay].broker
    }

    pub(super) fn connect(&mut self, relay: usize, role: Role) -> Who {
        let at = &mut self.relays[relay];
        at.numbered += 1;
        let who = Who { relay, number: at.numbered };
        let id = at.broker.connect(who, role, who.guid()).unwrap();
        at.connections.insert(who, id);
        who
    }

    pub(super) fn disconnect(&mut self, who: Who) -> Vec<Heard> {
        let at = &mut self.relays[who.relay];
        let id = at.connections.remove(&who).unwrap();
        assert_eq!(at.broker.disconnect(id, &mut at.out), Some(who));
        self.collect(who.relay)
    }

    pub(super) fn say(&mut self, who: Who, frame: &str) -> (Handled, Vec<Heard>) {
        let message = Message::parse(frame.as_bytes()).unwrap();
        let now = self.now;
        let at = &mut self.relays[who.relay];
        let handled = at.broker.handle(at.connections[&who], &message, now, &mut at.out);
        (handled, self.collect(who.relay))
    }

    pub(super) fn expire(&mut self, relay: usize) -> Vec<Heard> {
        let at = &mut self.relays[relay];
        at.broker.expire(self.now, &mut at.out);
        self.collect(relay)
    }

    pub(super) fn undelivered(&mut self, relay: usize, rid: u64) -> Vec<Heard> {
        let at = &mut self.relays[relay];
        at.broker.undelivered(rid, &mut at.out);
        self.collect(relay)
    }

    /// Links two relays, each of which begins to tell what it has.
    pub(super) fn link(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.linked += 1;
            let id = LinkId(self.linked);
            let direction = Direction { id, on_the_way: VecDeque::new() };
            self.links.insert((from, to), direction);
        }
        for (from, to) in [(one, other), (other, one)] {
            let id = self.links[&(from, to)].id;
            let at = &mut self.relays[from];
            at.broker.link_up(id, maker(from), &mut at.out);
            assert_eq!(self.collect(from), []);
        }
    }

    /// Links each relay with each other.
    pub(super) fn link_all(&mut self) {
        for one in 0..self.count() {
            (0..one).for_each(|other| self.link(one, other));
        }
    }

    pub(super) fn is_linked(&self, one: usize, other: usize) -> bool {
        self.links.contains_key(&(one, other))
    }

    /// Ends a link: what is on the way is lost.
    pub(super) fn cut(&mut self, one: usize, other: usize) -> Vec<Heard> {
        let ends = [(one, other), (other, one)];
        let ends = ends.map(|(from, to)| (from, self.links.remove(&(from, to)).unwrap()));
        let mut heard = Vec::new();
        for (from, direction) in ends {
            let at = &mut self.relays[from];
            at.broker.link_down(direction.id, &mut at.out);
            heard.extend(self.collect(from));
        }
        heard
    }

    /// The directions in which something is on the way.
    pub(super) fn busy(&self) -> Vec<(usize, usize)> {
        let busy = self.links.iter().filter(|(_, direction)| !direction.on_the_way.is_empty());
        busy.map(|(ends, _)| *ends).collect()
    }

    /// How many messages are on the way.
    pub(super) fn on_the_way(&self) -> usize {
        self.links.values().map(|direction| direction.on_the_way.len()).sum()
    }

    /// Brings the next message of a direction.
    pub(super) fn bring(&mut self, from: usize, to: usize) -> Vec<Heard> {
        let message = self.links.get_mut(&(from, to)).unwrap().on_the_way.pop_front().unwrap();
        let id = self.links[&(to, from)].id;
        let now = self.now;
        let at = &mut self.relays[to];
        at.broker.from_relay(id, &message, now, &mut at.out).unwrap();
        self.collect(to)
    }

    /// Brings all that is on the way, and what comes of it.
    pub(super) fn settle(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some((from, to)) = self.busy().first().copied() {
            heard.extend(self.bring(from, to));
        }
        heard
    }

    /// What a broker has said: messages to relays are on the way from then on.
    fn collect(&mut self, relay: usize) -> Vec<Heard> {
        let at = &mut self.relays[relay];
        for (id, message) in at.out.to_relays() {
            let direction = self.links.values_mut().find(|direction| direction.id == id);
            if let Some(direction) = direction {
                direction.on_the_way.push_back(message.to_vec());
            }
        }
        let heard = at.out.deliveries().map(|(to, class, frame)| {
            let who = *at.broker.peer(to).expect("it is there");
            Heard { who, class, frame: str::from_utf8(frame).unwrap().to_owned() }
        });
        let heard = heard.collect();
        at.out.clear();
        heard
    }
}
