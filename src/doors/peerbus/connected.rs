//! Who is connected: what peers are told of each other.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bus::front as bus;
use crate::wire::peerbus::{self, MAX_MESSAGE};

/// The names of those that are connected, here or at another relay, in the order of their bytes.
///
/// There are no more than the relay has peers, and the bus has names.
#[derive(Debug, Default)]
pub(super) struct Connected(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    of: BTreeMap<Arc<str>, Entry>,
    /// How many have each length.
    lengths: BTreeMap<usize, usize>,
    /// How many have a session here.
    here: usize,
}

/// A name that has a session.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// That of its session here.
    generation: Option<u64>,
    /// The relay that leads the bus says that it has one at some relay.
    is_told: bool,
    /// The length that it has in JSON.
    length: usize,
}

impl Names {
    fn get(&self, name: &str) -> Option<u64> {
        self.of.get(name)?.generation
    }

    /// Changes what is known of a name; one that has no session is forgotten.
    fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Entry)) {
        let known = self.of.get(name).copied();
        let mut entry = known.unwrap_or_else(|| {
            // What a name takes within a string: that of a key less what stands around it.
            let length = peerbus::deliver_length(name, 0) - peerbus::deliver_length("", 0);
            Entry { generation: None, is_told: false, length }
        });
        self.here -= usize::from(entry.generation.is_some());
        change(&mut entry);
        self.here += usize::from(entry.generation.is_some());
        let is_there = entry.generation.is_some() || entry.is_told;
        match (known.is_some(), is_there) {
            (false, true) => *self.lengths.entry(entry.length).or_default() += 1,
            (true, false) => self.remove_length(entry.length),
            (true, true) | (false, false) => {}
        }
        if is_there {
            self.of.insert(Arc::clone(name), entry);
        } else {
            self.of.remove(name);
        }
    }

    fn remove_length(&mut self, length: usize) {
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }
}

impl bus::Names for Connected {
    fn came(&self, name: &Arc<str>) {
        self.0.lock().change(name, |entry| entry.is_told = true);
    }

    fn went(&self, name: &Arc<str>) {
        self.0.lock().change(name, |entry| entry.is_told = false);
    }
}

impl Connected {
    /// A session of this name can be found; one that is newer stays.
    pub(super) fn opened(&self, name: &Arc<str>, generation: u64) {
        let mut names = self.0.lock();
        if names.get(name).is_none_or(|of| of <= generation) {
            names.change(name, |entry| entry.generation = Some(generation));
        }
    }

    /// That session is over; one that is newer stays.
    pub(super) fn closed(&self, name: &Arc<str>, generation: u64) {
        let mut names = self.0.lock();
        if names.get(name) == Some(generation) {
            names.change(name, |entry| entry.generation = None);
        }
    }

    /// How many have a session here.
    pub(super) fn here(&self) -> usize {
        self.0.lock().here
    }

    /// Whether this one is.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.lock().of.contains_key(name)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.lock().of.len()
    }

    /// Bytes that the longest of them takes in JSON.
    pub(super) fn longest(&self) -> usize {
        self.0.lock().lengths.last_key_value().map_or(0, |(length, _)| *length)
    }

    /// The frame that says who is connected, `asker` among them. As many as a client takes in one
    /// message; the asker always.
    pub(super) fn frame(&self, asker: &str) -> Vec<u8> {
        let names = self.0.lock();
        let is_there = names.of.contains_key(asker);
        let before = names.of.range::<str, _>((Unbounded, Excluded(asker)));
        let from = names.of.range::<str, _>((Included(asker), Unbounded));
        let [before, from] = [before, from].map(|range| range.map(|(name, _)| &**name));
        let asker = iter::once(asker).filter(|_| !is_there);
        let frame = peerbus::peers(before.chain(asker.clone()).chain(from));
        if frame.len() <= MAX_MESSAGE {
            return frame;
        }
        shortened(&names, asker.chain(names.of.keys().map(|name| &**name)))
    }
}

/// The first of these names that one message holds, in the order of their bytes.
fn shortened<'a>(names: &Names, from: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut room = MAX_MESSAGE - peerbus::peers([]).len();
    let takes = |name: &str| {
        let known = names.of.get(name).map(|entry| entry.length);
        // Quotes, and a comma.
        known.unwrap_or(6 * name.len()) + 3
    };
    let mut fitting: Vec<&str> = from
        .take_while(|name| {
            let rest = room.checked_sub(takes(name));
            room = rest.unwrap_or(0);
            rest.is_some()
        })
        .collect();
    fitting.sort_unstable();
    peerbus::peers(fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(connected: &Connected, asker: &str) -> Vec<String> {
        let frame: serde_json::Value = serde_json::from_slice(&connected.frame(asker)).unwrap();
        serde_json::from_value(frame["names"].clone()).unwrap()
    }

    #[test]
    fn names_are_in_the_order_of_their_bytes_with_the_asker_among_them() {
        let connected = Connected::default();
        for (name, generation) in [("bob", 1), ("Zoe", 2), ("\u{e9}va", 3)] {
            connected.opened(&name.into(), generation);
        }
        assert_eq!(names(&connected, "bob"), ["Zoe", "bob", "\u{e9}va"]);
        assert_eq!(names(&connected, "alice"), ["Zoe", "alice", "bob", "\u{e9}va"]);
        assert_eq!(names(&Connected::default(), "alice"), ["alice"]);
    }

    #[test]
    fn end_of_a_replaced_session_leaves_the_newer_one() {
        let connected = Connected::default();
        connected.opened(&"bob".into(), 1);
        connected.opened(&"bob".into(), 2);
        connected.closed(&"bob".into(), 1);
        assert_eq!((connected.len(), connected.longest()), (1, 3));
        connected.closed(&"bob".into(), 2);
        assert_eq!((connected.len(), connected.longest()), (0, 0));
        connected.opened(&"<".into(), 3);
        assert_eq!(connected.longest(), 6, "it is escaped");
    }

    #[test]
    fn name_is_there_as_long_as_it_is_here_or_told() {
        use bus::Names as _;
        let connected = Connected::default();
        let bob = "bob".into();
        connected.opened(&bob, 1);
        connected.came(&bob);
        connected.closed(&bob, 1);
        assert_eq!((connected.len(), connected.here(), connected.longest()), (1, 0, 3));
        connected.opened(&bob, 2);
        connected.went(&bob);
        assert_eq!((connected.len(), connected.here()), (1, 1));
        connected.closed(&bob, 2);
        assert_eq!((connected.len(), connected.here(), connected.longest()), (0, 0, 0));
    }

    #[test]
    fn frame_is_never_longer_than_what_a_client_takes() {
        let connected = Connected::default();
        for number in 0..3_000 {
            connected.opened(&format!("{number:0>1000}").into(), number);
        }
        let frame = connected.frame("zed");
        assert!(frame.len() <= MAX_MESSAGE && frame.len() > MAX_MESSAGE - 2_048, "{}", frame.len());
        assert_eq!(names(&connected, "zed").last().unwrap(), "zed", "who asks is among them");
    }
}
