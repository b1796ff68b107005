//! The last events of connections: what an operator reads when it is over, as from a flight
//! recorder. Never a payload; an address only for the operator's own socket.
//!
//! Two rings: the rare events of the relay itself are not washed out by a flood of
//! connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Word;
use crate::ids::RelayId;
use crate::wire::name::Name;
use crate::words;

/// Events of connections that are kept.
const CONNECTIONS: usize = 4_096;

/// Events of the relay itself that are kept.
const OWN: usize = 256;

words! {
    /// What happened.
    pub enum What {
        /// A connection was accepted.
        Accepted => "accepted",
        /// A connection, an upgrade or a login was refused.
        Refused => "refused",
        /// A login waits, since sessions of its peer replace each other.
        Delayed => "delayed",
        /// A peer has logged in.
        LoggedIn => "logged_in",
        /// A login from another address has taken a peer's session over.
        TakenOver => "taken_over",
        /// A session has ended.
        Ended => "ended",
        /// A relay has joined the cluster.
        Joined => "joined",
        /// A relay has left the cluster.
        Left => "left",
        /// Keys or settings were read again, or could not be.
        Reloaded => "reloaded",
        /// A certificate was ordered.
        Certificate => "certificate",
        /// The relay sends its peers away.
        Draining => "draining",
        /// An operator asked for something.
        Action => "action",
    }
}

words! {
    /// What an event is about.
    pub enum Area {
        /// Peers that come and go.
        Connections => "connections",
        /// Relays that come and go.
        Cluster => "cluster",
        /// Keys, settings and certificates.
        Configuration => "configuration",
        /// What people have the relay do.
        Operators => "operators",
    }
}

impl What {
    /// What it is about.
    #[must_use]
    pub const fn area(self) -> Area {
        match self {
            Self::Accepted
            | Self::Refused
            | Self::Delayed
            | Self::LoggedIn
            | Self::TakenOver
            | Self::Ended => Area::Connections,
            Self::Joined | Self::Left => Area::Cluster,
            Self::Reloaded | Self::Certificate => Area::Configuration,
            Self::Draining | Self::Action => Area::Operators,
        }
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Event {
    /// Later events have higher numbers.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: What,
    /// At which door, where that is known.
    pub door: Option<&'static str>,
    /// To which peer, where that is known.
    pub peer: Option<Name>,
    /// To which relay of the cluster.
    pub relay: Option<RelayId>,
    /// Where the other side is: for the operator's own socket and files, for nobody else.
    pub address: Option<SocketAddr>,
    /// Why, as a word of a metric; empty where there is nothing to say.
    pub reason: &'static str,
}

impl Event {
    /// An event that happens now, of which no more is known.
    #[must_use]
    pub fn new(what: What) -> Self {
        let at = SystemTime::now();
        Self { number: 0, at, what, door: None, peer: None, relay: None, address: None, reason: "" }
    }
}

/// The last events. Bounded; a note takes a short lock.
#[derive(Debug, Default)]
pub struct Events(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    noted: u64,
    connections: VecDeque<Event>,
    own: VecDeque<Event>,
}

impl Events {
    /// Notes an event; its number is given here.
    pub fn note(&self, event: Event) {
        let mut rings = self.0.lock();
        rings.noted += 1;
        let event = Event { number: rings.noted, ..event };
        let (ring, room) = if event.what.area() == Area::Connections {
            (&mut rings.connections, CONNECTIONS)
        } else {
            (&mut rings.own, OWN)
        };
        if ring.len() == room {
            ring.pop_front();
        }
        ring.push_back(event);
    }

    /// The last `count` events of both rings, the newest first.
    #[must_use]
    pub fn recent(&self, count: usize) -> Vec<Event> {
        self.0.lock().newest_first(|_| true).take(count).collect()
    }

    /// The last `count` events of each area, the newest first. Without accepted connections: what
    /// became of such a one is an event of its own.
    #[must_use]
    pub fn recent_of_each_area(&self, count: usize) -> Vec<Event> {
        let rings = self.0.lock();
        let mut left = vec![count; Area::ALL.len()];
        let is_shown = |event: &Event| event.what != What::Accepted;
        let mut recent = Vec::new();
        for event in rings.newest_first(is_shown) {
            let Some(left) = left.get_mut(event.what.area().index()) else { continue };
            if *left > 0 {
                *left -= 1;
                recent.push(event);
            }
        }
        recent
    }

    /// The last `count` events of a peer, the newest first.
    #[must_use]
    pub fn of(&self, peer: Name, count: usize) -> Vec<Event> {
        self.0.lock().newest_first(|event| event.peer == Some(peer)).take(count).collect()
    }

    /// All events, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Event> {
        let mut all: Vec<_> = self.0.lock().newest_first(|_| true).collect();
        all.reverse();
        all
    }
}

impl Rings {
    fn newest_first(&self, wanted: impl Fn(&Event) -> bool) -> impl Iterator<Item = Event> {
        let mut connections = self.connections.iter().rev().peekable();
        let mut own = self.own.iter().rev().peekable();
        let merged = std::iter::from_fn(move || match (connections.peek(), own.peek()) {
            (Some(a), Some(b)) if a.number < b.number => own.next(),
            (Some(_), _) => connections.next(),
            (None, _) => own.next(),
        });
        merged.copied().filter(move |event| wanted(event))
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::name;

    fn of_peer(what: What, number: u32) -> Event {
        Event { peer: Some(name(number)), ..Event::new(what) }
    }

    #[test]
    fn rare_events_outlive_a_flood_of_connections() {
        let events = Events::default();
        events.note(Event::new(What::Draining));
        for number in 1..=2 * u32::try_from(CONNECTIONS).unwrap() {
            events.note(of_peer(What::Refused, number));
        }
        let all = events.all();
        assert_eq!(all.len(), CONNECTIONS + 1);
        assert_eq!(all[0].what, What::Draining);
        assert!(all.is_sorted_by_key(|event| event.number));
        assert_eq!(events.of(name(1), 9), [], "the oldest are gone");
    }

    #[test]
    fn flood_of_one_area_hid_the_events_of_the_others() {
        let events = Events::default();
        for what in [What::Joined, What::Reloaded, What::Draining] {
            events.note(Event::new(what));
        }
        for number in 1..=100 {
            events.note(of_peer(What::Accepted, number));
            events.note(of_peer(What::Refused, number));
        }
        let recent: Vec<_> =
            events.recent_of_each_area(3).iter().map(|e| (e.what, e.peer)).collect();
        let refused = |number| (What::Refused, Some(name(number)));
        let rest = [What::Draining, What::Reloaded, What::Joined].map(|what| (what, None));
        assert_eq!(recent[..3], [refused(100), refused(99), refused(98)]);
        assert_eq!(recent[3..], rest);
    }

    #[test]
    fn newest_comes_first_whichever_ring_has_it() {
        let events = Events::default();
        for what in [What::Accepted, What::Reloaded, What::LoggedIn, What::Joined, What::Ended] {
            events.note(of_peer(what, 7));
        }
        let recent: Vec<_> = events.recent(4).iter().map(|event| event.what).collect();
        assert_eq!(recent, [What::Ended, What::Joined, What::LoggedIn, What::Reloaded]);
        assert_eq!(events.of(name(7), 1)[0].what, What::Ended);
    }
}
