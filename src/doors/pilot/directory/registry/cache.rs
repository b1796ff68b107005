//! What the registry said, and for how long it counts.
//!
//! Sans-IO: the time is an argument.

use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::table::Table;
use crate::ids::{NodeId, PublicKey};

/// Most keys that are remembered.
pub(super) const MAX_KEYS: u32 = 1_000_000;

/// Most unknown nodes that are remembered, apart from the keys, so that strangers push no
/// key out: 6,500 new ones a second within [`UNKNOWN`].
const MAX_UNKNOWN: u32 = 65_536;

/// Parts with a lock each, so that the growth of one stops few readers, and for a few
/// milliseconds only.
const SHARDS: u32 = 64;

/// How long a key counts without asking again.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// How long a key counts while the registry does not answer.
pub(super) const USABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it counts that the registry has no such node.
const UNKNOWN: Duration = Duration::from_secs(10);

/// What is remembered of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cached {
    /// Its key, confirmed within the last 5 minutes.
    Fresh(PublicKey),
    /// Its key, confirmed within the last 24 hours.
    Stale(PublicKey),
    /// The registry had no such node within the last 10 s.
    Unknown,
    /// Nothing that counts.
    Nothing,
}

/// What an answer of the registry is to what is remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Confirmation {
    /// It says the same, or nothing was remembered: it is remembered as of now.
    Taken,
    /// It says something else: what was remembered stays.
    Contradicts {
        /// The remembered key, unless it is too old to count.
        usable: Option<PublicKey>,
    },
}

#[derive(Debug)]
pub(super) struct Cache {
    shards: Box<[RwLock<Shard>]>,
}

#[derive(Debug)]
struct Shard {
    keys: Table<Confirmed>,
    unknown: Table<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Confirmed {
    key: PublicKey,
    at: Instant,
}

impl Shard {
    fn replace(&mut self, node: NodeId, key: Option<PublicKey>, at: Instant) {
        match key {
            Some(key) => {
                self.unknown.remove(node);
                self.keys.insert(node, Confirmed { key, at });
            }
            None => {
                self.unknown.insert(node, at);
                self.keys.remove(node);
            }
        }
    }
}

impl Cache {
    /// A cache of at most `max_keys` keys, rounded up to a multiple of 64.
    pub(super) fn new(max_keys: u32) -> Self {
        let shard = || {
            RwLock::new(Shard {
                keys: Table::new(max_keys.div_ceil(SHARDS)),
                unknown: Table::new(MAX_UNKNOWN / SHARDS),
            })
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    pub(super) fn find(&self, node: NodeId, now: Instant) -> Cached {
        let shard = self.shard(node).read();
        if let Some(confirmed) = shard.keys.find(node) {
            let age = now.saturating_duration_since(confirmed.at);
            if age < FRESH {
                return Cached::Fresh(confirmed.key);
            }
            if age < USABLE {
                return Cached::Stale(confirmed.key);
            }
        }
        match shard.unknown.find(node) {
            Some(at) if now.saturating_duration_since(*at) < UNKNOWN => Cached::Unknown,
            _ => Cached::Nothing,
        }
    }

    /// Takes what the registry says of a node now, unless that contradicts what is remembered.
    pub(super) fn confirm(
        &self,
        node: NodeId,
        key: Option<PublicKey>,
        now: Instant,
    ) -> Confirmation {
        let mut shard = self.shard(node).write();
        match shard.keys.find(node) {
            Some(old) if Some(old.key) != key => {
                let is_usable = now.saturating_duration_since(old.at) < USABLE;
                let usable = is_usable.then_some(old.key);
                if key.is_none() {
                    // Counts only once the key is too old.
                    shard.unknown.insert(node, now);
                }
                Confirmation::Contradicts { usable }
            }
            _ => {
                shard.replace(node, key, now);
                Confirmation::Taken
            }
        }
    }

    /// Remembers this of a node, whatever was remembered before.
    pub(super) fn replace(&self, node: NodeId, key: Option<PublicKey>, now: Instant) {
        self.shard(node).write().replace(node, key, now);
    }

    /// Remembers the key of a node of which nothing is remembered, as one too old to count: the
    /// registry's next answer is compared with it.
    pub(super) fn seed(&self, node: NodeId, key: PublicKey, now: Instant) {
        let mut shard = self.shard(node).write();
        if let (None, Some(at)) = (shard.keys.find(node), now.checked_sub(USABLE)) {
            shard.keys.insert(node, Confirmed { key, at });
        }
    }

    /// Hands out each key that counts, with its age; each part is locked in turn.
    pub(super) fn each(&self, now: Instant, mut take: impl FnMut(NodeId, PublicKey, Duration)) {
        for shard in &self.shards {
            for (node, Confirmed { key, at }) in shard.read().keys.iter() {
                let age = now.saturating_duration_since(*at);
                if age < USABLE {
                    take(*node, *key, age);
                }
            }
        }
    }

    /// How many keys are remembered.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().keys.len()).sum()
    }

    /// How many keys were forgotten to make room.
    pub(super) fn evictions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().keys.evictions()).sum()
    }

    #[allow(clippy::indexing_slicing)] // there are `SHARDS` of them
    fn shard(&self, node: NodeId) -> &RwLock<Shard> {
        &self.shards[(node.number() % SHARDS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn key_is_fresh_then_stale_then_forgotten() {
        let (cache, t0, key) = (Cache::new(MAX_KEYS), Instant::now(), PublicKey([1; 32]));
        assert_eq!(cache.find(node(7), t0), Cached::Nothing);
        assert_eq!(cache.confirm(node(7), Some(key), t0), Confirmation::Taken);
        assert_eq!(cache.find(node(7), t0 + FRESH - MS), Cached::Fresh(key));
        assert_eq!(cache.find(node(7), t0 + FRESH), Cached::Stale(key));
        assert_eq!(cache.find(node(7), t0 + USABLE - MS), Cached::Stale(key));
        assert_eq!(cache.find(node(7), t0 + USABLE), Cached::Nothing);
        assert_eq!(cache.confirm(node(7), Some(key), t0 + USABLE), Confirmation::Taken);
        assert_eq!(cache.find(node(7), t0 + USABLE), Cached::Fresh(key));
    }

    #[test]
    fn unknown_node_is_remembered_for_10_seconds() {
        let (cache, t0) = (Cache::new(MAX_KEYS), Instant::now());
        assert_eq!(cache.confirm(node(7), None, t0), Confirmation::Taken);
        assert_eq!(cache.find(node(7), t0 + UNKNOWN - MS), Cached::Unknown);
        assert_eq!(cache.find(node(7), t0 + UNKNOWN), Cached::Nothing);
    }

    #[test]
    fn contradicted_key_stays_until_it_is_replaced() {
        let (cache, t0) = (Cache::new(MAX_KEYS), Instant::now());
        let (first, second) = (PublicKey([1; 32]), PublicKey([2; 32]));
        cache.confirm(node(7), Some(first), t0);
        assert_eq!(cache.confirm(node(7), Some(first), t0), Confirmation::Taken);
        for said in [Some(second), None] {
            let contradiction = cache.confirm(node(7), said, t0);
            assert_eq!(contradiction, Confirmation::Contradicts { usable: Some(first) });
            assert_eq!(cache.find(node(7), t0), Cached::Fresh(first));
        }
        cache.replace(node(7), Some(second), t0);
        assert_eq!(cache.find(node(7), t0), Cached::Fresh(second));
        cache.replace(node(7), None, t0);
        assert_eq!(cache.find(node(7), t0), Cached::Unknown);
        assert_eq!(cache.confirm(node(7), Some(first), t0), Confirmation::Taken);
        assert_eq!(cache.find(node(7), t0), Cached::Fresh(first));
    }

    #[test]
    fn key_that_is_too_old_is_still_compared_with() {
        let (cache, t0, key) = (Cache::new(MAX_KEYS), Instant::now(), PublicKey([1; 32]));
        cache.seed(node(7), key, t0);
        assert_eq!(cache.find(node(7), t0), Cached::Nothing);
        let contradiction = cache.confirm(node(7), None, t0);
        assert_eq!(contradiction, Confirmation::Contradicts { usable: None });
        assert_eq!(cache.find(node(7), t0), Cached::Unknown);
        assert_eq!(cache.confirm(node(7), Some(key), t0), Confirmation::Taken);
        cache.seed(node(7), PublicKey([2; 32]), t0);
        assert_eq!(cache.find(node(7), t0), Cached::Fresh(key));
    }

    #[test]
    fn cache_is_bounded_in_keys_and_in_unknown_nodes() {
        let (cache, t0) = (Cache::new(640), Instant::now());
        for number in 1..=2_000 {
            cache.confirm(node(number), Some(PublicKey([1; 32])), t0);
        }
        assert_eq!((cache.len(), cache.evictions()), (640, 1_360));
        for number in 10_001..=10_000 + 2 * MAX_UNKNOWN {
            cache.confirm(node(number), None, t0);
        }
        let unknown: usize = cache.shards.iter().map(|shard| shard.read().unknown.len()).sum();
        assert_eq!(unknown, 65_536);
        assert_eq!(cache.len(), 640, "strangers push no key out");
    }
}
