//! Who is connected: what peers are told of each other.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::wire::peerbus::{self, MAX_MESSAGE};

/// The names of those that are connected, in the order of their bytes.
///
/// There are no more than the relay has peers.
#[derive(Debug, Default)]
pub(super) struct Connected(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    /// Each with the generation of its session, and the length that it has in JSON.
    of: BTreeMap<Arc<str>, (u64, usize)>,
    /// How many have each length.
    lengths: BTreeMap<usize, usize>,
}

impl Names {
    fn remove(&mut self, name: &str) {
        let Some((_, length)) = self.of.remove(name) else { return };
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }
}

impl Connected {
    /// A session of this name can be found; one that is newer stays.
    pub(super) fn opened(&self, name: &Arc<str>, generation: u64) {
        // What a name takes within a string: that of a key less what stands around it.
        let length = peerbus::deliver_length(name, 0) - peerbus::deliver_length("", 0);
        let mut names = self.0.lock();
        if names.of.get(name).is_some_and(|(of, _)| *of > generation) {
            return;
        }
        names.remove(name);
        names.of.insert(Arc::clone(name), (generation, length));
        *names.lengths.entry(length).or_default() += 1;
    }

    /// That session is over; one that is newer stays.
    pub(super) fn closed(&self, name: &str, generation: u64) {
        let mut names = self.0.lock();
        if names.of.get(name).is_some_and(|(of, _)| *of == generation) {
            names.remove(name);
        }
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
        let known = names.of.get(name).map(|(_, length)| *length);
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
        connected.closed("bob", 1);
        assert_eq!((connected.len(), connected.longest()), (1, 3));
        connected.closed("bob", 2);
        assert_eq!((connected.len(), connected.longest()), (0, 0));
        connected.opened(&"<".into(), 3);
        assert_eq!(connected.longest(), 6, "it is escaped");
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
