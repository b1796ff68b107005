//! UDP endpoints of nodes, and which of them give way when there is no room.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Id;
use crate::ids::PublicKey;
use crate::proto::endpoint::{Prefix, QUIET_AFTER};

/// Where a node is reached over UDP.
#[derive(Debug)]
pub struct Endpoint {
    /// The node's address as it was observed.
    pub(super) address: SocketAddr,
    /// The address of ours that the node talks to.
    pub(super) local: Option<IpAddr>,
    /// When the endpoint was registered or last moved.
    pub(super) moved: Instant,
    /// The key that the node itself showed first.
    pub(super) key: Option<PublicKey>,
    heard_ns: AtomicU64,
    extended: AtomicBool,
    repeated: AtomicBool,
}

/// A copy of what matters of an endpoint at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndpointView {
    /// The node's address as it was observed.
    pub address: SocketAddr,
    /// The address of ours that packets to the node must leave from.
    pub local: Option<IpAddr>,
    /// Whether deliveries name their destination (0x09 instead of 0x06).
    pub names_destination: bool,
    /// Whether the address has been silent for two heartbeats.
    pub quiet: bool,
    /// The key that the node itself showed first.
    pub key: Option<PublicKey>,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, local: Option<IpAddr>, now: Instant) -> Self {
        Self {
            address,
            local,
            moved: now,
            key: None,
            heard_ns: AtomicU64::new(0),
            extended: AtomicBool::new(false),
            repeated: AtomicBool::new(false),
        }
    }

    /// A sign of life, `uptime` after the table began.
    pub(super) fn heard(&self, uptime: Duration, extended: bool) {
        let ns = u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX);
        self.heard_ns.store(ns, Ordering::Relaxed);
        // Written only when it changes: a heartbeat shares the line with the readers.
        if extended && !self.extended.load(Ordering::Relaxed) {
            self.extended.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the node came back; true the first time.
    pub(super) fn repeat(&self) -> bool {
        !self.repeated.load(Ordering::Relaxed) && !self.repeated.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.repeated.load(Ordering::Relaxed)
    }

    /// For how long nothing was heard.
    pub(super) fn silence(&self, uptime: Duration) -> Duration {
        uptime.saturating_sub(Duration::from_nanos(self.heard_ns.load(Ordering::Relaxed)))
    }

    pub(super) fn view(&self, uptime: Duration) -> EndpointView {
        EndpointView {
            address: self.address,
            local: self.local,
            names_destination: self.extended.load(Ordering::Relaxed),
            quiet: self.silence(uptime) > QUIET_AFTER,
            key: self.key,
        }
    }
}

/// The endpoints that never came back, by prefix and age: a full table drops the oldest of
/// the largest prefix, so that a flood of claims from one network evicts itself.
#[derive(Debug)]
pub(super) struct Newcomers<I> {
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

impl<I: Id> Newcomers<I> {
    pub(super) fn new() -> Self {
        Self {
            live: HashMap::default(),
            queues: HashMap::default(),
            by_size: BTreeSet::new(),
            next: 0,
        }
    }

    pub(super) fn add(&mut self, id: I, ip: IpAddr) {
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

    pub(super) fn remove(&mut self, id: I) {
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

    /// Takes out the oldest newcomer of the largest prefix.
    pub(super) fn pop(&mut self) -> Option<I> {
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
        let mut newcomers = Newcomers::new();
        newcomers.add(id(1), ip(1, 1));
        for n in 10..15u8 {
            newcomers.add(id(n.into()), ip(2, n));
        }
        newcomers.add(id(2), ip(1, 2));
        newcomers.remove(id(10));
        let order: Vec<_> = std::iter::from_fn(|| newcomers.pop()).collect();
        assert_eq!(order[..3], [id(11), id(12), id(13)]);
        assert_eq!(order.len(), 6);
        assert!(newcomers.queues.is_empty() && newcomers.by_size.is_empty());
    }

    #[test]
    fn node_that_comes_and_goes_leaves_nothing_behind() {
        let mut newcomers = Newcomers::new();
        newcomers.add(id(1), ip(1, 1));
        for _ in 0..10_000 {
            newcomers.add(id(2), ip(1, 2));
            newcomers.remove(id(2));
        }
        assert!(newcomers.queues.values().all(|queue| queue.entries.len() <= 16));
        assert_eq!(newcomers.pop(), Some(id(1)));
        assert_eq!(newcomers.pop(), None);
    }
}
