//! Who gives way when there is no room: the oldest of the network that has the most.
//!
//! A flood from one network evicts itself, and leaves the others alone. Used for UDP
//! endpoints that never came back, and for connections that have not logged in.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::endpoint::Prefix;

/// Keys by the network that they came from and their age.
#[derive(Debug)]
pub struct Crowd<I> {
    live: HashMap<I, (Prefix, u64), RandomState>,
    queues: HashMap<Prefix, Queue<I>, RandomState>,
    by_size: BTreeSet<(usize, Prefix)>,
    next: u64,
}

#[derive(Debug)]
struct Queue<I> {
    /// How many entries are live.
    size: usize,
    /// Oldest first; those that left are skipped when they come up.
    entries: VecDeque<(I, u64)>,
}

impl<I: Copy + Eq + Hash> Default for Crowd<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Copy + Eq + Hash> Crowd<I> {
    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self {
            live: HashMap::default(),
            queues: HashMap::default(),
            by_size: BTreeSet::new(),
            next: 0,
        }
    }

    /// Adds a key as the youngest; one that was in already is as if it came only now.
    pub fn add(&mut self, id: I, ip: IpAddr) {
        self.remove(id);
        let prefix = Prefix::of(ip);
        self.next += 1;
        self.live.insert(id, (prefix, self.next));
        let queue =
            self.queues.entry(prefix).or_insert(Queue { size: 0, entries: VecDeque::new() });
        queue.entries.push_back((id, self.next));
        self.by_size.remove(&(queue.size, prefix));
        queue.size += 1;
        self.by_size.insert((queue.size, prefix));
    }

    /// Takes a key out, if it is in.
    pub fn remove(&mut self, id: I) {
        let Some((prefix, _)) = self.live.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&prefix) else { return };
        self.by_size.remove(&(queue.size, prefix));
        queue.size -= 1;
        if queue.size == 0 {
            self.queues.remove(&prefix);
            return;
        }
        self.by_size.insert((queue.size, prefix));
        if queue.entries.len() > 2 * queue.size + 8 {
            let live = &self.live;
            queue.entries.retain(|(id, number)| live.get(id) == Some(&(prefix, *number)));
        }
    }

    /// Takes out the oldest key of the largest prefix.
    pub fn pop(&mut self) -> Option<I> {
        let (_, prefix) = *self.by_size.last()?;
        let entries = &mut self.queues.get_mut(&prefix)?.entries;
        let live = &self.live;
        let id = std::iter::from_fn(|| entries.pop_front())
            .find(|(id, number)| live.get(id) == Some(&(prefix, *number)))
            .map(|(id, _)| id)?;
        self.remove(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn id(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn ip(net: u8, host: u8) -> IpAddr {
        IpAddr::from([192, 0, net, host])
    }

    #[test]
    fn oldest_of_the_largest_prefix_goes_first() {
        let mut crowd = Crowd::new();
        crowd.add(id(1), ip(1, 1));
        for n in 10..15u8 {
            crowd.add(id(n.into()), ip(2, n));
        }
        crowd.add(id(2), ip(1, 2));
        crowd.remove(id(10));
        let order: Vec<_> = std::iter::from_fn(|| crowd.pop()).collect();
        assert_eq!(order[..3], [id(11), id(12), id(13)]);
        assert_eq!(order.len(), 6);
        assert!(crowd.queues.is_empty() && crowd.by_size.is_empty());
    }

    #[test]
    fn node_that_comes_and_goes_leaves_nothing_behind() {
        let mut crowd = Crowd::new();
        crowd.add(id(1), ip(1, 1));
        for _ in 0..10_000 {
            crowd.add(id(2), ip(1, 2));
            crowd.remove(id(2));
        }
        assert!(crowd.queues.values().all(|queue| queue.entries.len() <= 16));
        assert_eq!(crowd.pop(), Some(id(1)));
        assert_eq!(crowd.pop(), None);
    }
}
