//! A table for millions that is never in the way for long: it grows, and is walked through,
//! one part at a time.

use std::hash::{BuildHasher as _, Hash};

use hashbrown::HashMap;

/// Nobody outside can choose ids that meet in one bucket.
#[cfg(not(test))]
pub(super) type Hasher = foldhash::fast::RandomState;

/// A simulation goes the same way each time.
#[cfg(test)]
pub(super) type Hasher = foldhash::fast::FixedState;

/// So many parts that each has a few thousand of a million entries.
pub(super) const SHARDS: usize = 256;

/// A map in [`SHARDS`] parts.
#[derive(Debug)]
pub(super) struct Shards<K, V> {
    shards: Box<[HashMap<K, V, Hasher>]>,
    hasher: Hasher,
    len: usize,
}

impl<K: Copy + Eq + Hash, V> Shards<K, V> {
    pub(super) fn new() -> Self {
        let hasher = Hasher::default();
        let shards = (0..SHARDS).map(|_| HashMap::with_hasher(hasher.clone())).collect();
        Self { shards, hasher, len: 0 }
    }

    /// Which part a key is in: by bits of the hash that the parts themselves do not use.
    #[allow(clippy::cast_possible_truncation)] // taken modulo the number of parts
    fn at(&self, key: &K) -> usize {
        (self.hasher.hash_one(key) >> 32) as usize % SHARDS
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.shards.get(self.at(key))?.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.at(key);
        self.shards.get_mut(at)?.get_mut(key)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.at(&key);
        let before = self.shards.get_mut(at)?.insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.at(key);
        let value = self.shards.get_mut(at)?.remove(key)?;
        self.len -= 1;
        Some(value)
    }

    /// The keys of a part; none where there is no such part.
    pub(super) fn keys(&self, shard: usize) -> impl Iterator<Item = K> {
        self.shards.get(shard).into_iter().flat_map(HashMap::keys).copied()
    }

    /// The bytes of the tables: 8 buckets for 7 entries, a byte of control each.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let capacity: usize = self.shards.iter().map(HashMap::capacity).sum();
        capacity / 7 * 8 * (size_of::<(K, V)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_in_some_part_and_no_part_is_large() {
        let mut map = Shards::new();
        for key in 0..100_000_u32 {
            assert_eq!(map.insert(key, key), None);
        }
        assert_eq!((map.insert(7, 8), map.len(), map.get(&7)), (Some(7), 100_000, Some(&8)));
        let mut keys = Vec::new();
        for shard in 0..SHARDS {
            let before = keys.len();
            keys.extend(map.keys(shard));
            assert!((keys.len() - before).abs_diff(100_000 / SHARDS) < 150);
        }
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..100_000));
        assert_eq!((map.remove(&7), map.remove(&7), map.len()), (Some(8), None, 99_999));
        assert_eq!(map.keys(SHARDS).count(), 0);
    }
}
