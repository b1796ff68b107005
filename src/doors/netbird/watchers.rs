//! Who wants to know of whose coming and going. Sans-IO.
//!
//! A watcher hears once for each of its subscriptions that a peer is there, at once or when it
//! comes, and each time that it has gone.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::wire::netbird::PeerId;

/// Most peers that one watcher is told of.
pub(super) const MOST_WATCHED: usize = 10_000;

/// The subscriptions of all watchers, which are told apart by `W`.
#[derive(Debug)]
pub(super) struct Watchers<W> {
    of: HashMap<PeerId, Vec<Watch<W>>>,
    by: HashMap<W, HashSet<PeerId>>,
}

#[derive(Debug)]
struct Watch<W> {
    watcher: W,
    has_heard: bool,
}

impl<W> Default for Watchers<W> {
    fn default() -> Self {
        Self { of: HashMap::new(), by: HashMap::new() }
    }
}

impl<W: Copy + Eq + Hash> Watchers<W> {
    /// How many subscriptions there are.
    pub(super) fn len(&self) -> usize {
        self.by.values().map(HashSet::len).sum()
    }

    /// Subscribes to a peer, anew where it was before; false where the watcher has too many. A
    /// peer that is online counts as heard of: the caller tells.
    pub(super) fn subscribe(&mut self, watcher: W, peer: PeerId, is_online: bool) -> bool {
        let watched = self.by.entry(watcher).or_default();
        if watched.len() >= MOST_WATCHED && !watched.contains(&peer) {
            return false;
        }
        let watchers = self.of.entry(peer).or_default();
        if watched.insert(peer) {
            watchers.push(Watch { watcher, has_heard: is_online });
        } else if let Some(watch) = watchers.iter_mut().find(|watch| watch.watcher == watcher) {
            watch.has_heard = is_online;
        }
        true
    }

    /// Ends a subscription, if there is one.
    pub(super) fn unsubscribe(&mut self, watcher: W, peer: PeerId) {
        let Some(watched) = self.by.get_mut(&watcher) else { return };
        if watched.remove(&peer) {
            if watched.is_empty() {
                self.by.remove(&watcher);
            }
            self.forget(watcher, peer);
        }
    }

    /// Whether anybody has subscribed to a peer.
    pub(super) fn is_watched(&self, peer: PeerId) -> bool {
        self.of.contains_key(&peer)
    }

    /// A peer has come: who is to be told.
    pub(super) fn online(&mut self, peer: PeerId) -> Vec<W> {
        let watchers = self.of.get_mut(&peer).into_iter().flatten();
        let tell = |watch: &mut Watch<W>| {
            (!std::mem::replace(&mut watch.has_heard, true)).then_some(watch.watcher)
        };
        watchers.filter_map(tell).collect()
    }

    /// A peer has gone: who is to be told. Who has not heard that it had come hears nothing.
    pub(super) fn offline(&self, peer: PeerId) -> Vec<W> {
        let watchers = self.of.get(&peer).into_iter().flatten();
        watchers.filter(|watch| watch.has_heard).map(|watch| watch.watcher).collect()
    }

    /// A watcher has gone, and its subscriptions with it: to these peers.
    pub(super) fn gone(&mut self, watcher: W) -> HashSet<PeerId> {
        let watched = self.by.remove(&watcher).unwrap_or_default();
        watched.iter().for_each(|peer| self.forget(watcher, *peer));
        watched
    }

    fn forget(&mut self, watcher: W, peer: PeerId) {
        let Some(watchers) = self.of.get_mut(&peer) else { return };
        watchers.retain(|watch| watch.watcher != watcher);
        if watchers.is_empty() {
            self.of.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(number: u8) -> PeerId {
        PeerId([number; PeerId::LENGTH])
    }

    #[test]
    fn coming_is_told_once_for_each_subscription_and_going_each_time() {
        let mut watchers = Watchers::default();
        assert!(watchers.subscribe(1, peer(9), false) && watchers.subscribe(2, peer(9), true));
        assert_eq!(watchers.online(peer(9)), [1], "2 has heard when it subscribed");
        assert_eq!(watchers.offline(peer(9)), [1, 2]);
        assert_eq!(watchers.online(peer(9)), [0; 0], "once for each subscription");
        assert_eq!(watchers.offline(peer(9)), [1, 2]);

        watchers.unsubscribe(1, peer(9));
        watchers.subscribe(1, peer(9), false);
        watchers.subscribe(2, peer(9), false);
        let mut told = watchers.online(peer(9));
        told.sort_unstable();
        assert_eq!(told, [1, 2], "each has subscribed anew");
        assert_eq!(watchers.offline(peer(8)), [0; 0]);
    }

    #[test]
    fn what_ends_leaves_nothing() {
        let mut watchers = Watchers::default();
        for number in 0..100 {
            watchers.subscribe(1, peer(number), false);
            watchers.subscribe(2, peer(number), false);
        }
        assert_eq!(watchers.len(), 200);
        watchers.unsubscribe(1, peer(3));
        watchers.unsubscribe(1, peer(200));
        assert_eq!(watchers.offline(peer(3)), [0; 0], "nobody has heard that it came");
        assert_eq!(watchers.online(peer(3)), [2]);
        assert_eq!(watchers.offline(peer(3)), [2]);
        watchers.gone(1);
        (0..100).for_each(|number| watchers.unsubscribe(2, peer(number)));
        watchers.gone(3);
        assert!(watchers.of.is_empty() && watchers.by.is_empty());
    }

    #[test]
    fn watcher_is_told_of_so_many_and_no_more() {
        let mut watchers = Watchers::default();
        let id = |number: usize| {
            let mut id = [0; PeerId::LENGTH];
            id[..8].copy_from_slice(&number.to_be_bytes());
            PeerId(id)
        };
        for number in 0..MOST_WATCHED {
            assert!(watchers.subscribe(1, id(number), false));
        }
        assert!(!watchers.subscribe(1, id(MOST_WATCHED), false));
        assert!(watchers.subscribe(1, id(0), true), "one that it has stays");
        assert!(watchers.subscribe(2, id(MOST_WATCHED), false), "another has room");
        assert_eq!(watchers.len(), MOST_WATCHED + 1);
    }
}
