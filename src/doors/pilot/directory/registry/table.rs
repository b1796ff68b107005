//! A bounded map from nodes to values that makes room by forgetting any other entry.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::ids::NodeId;

/// Entries lie close together in one vector; the table holds their positions, so that
/// one of them can be chosen for eviction without a walk. For a value of 48 bytes that
/// is about 70 bytes an entry.
#[derive(Debug)]
pub(super) struct Table<V> {
    entries: Vec<(NodeId, V)>,
    positions: HashTable<u32>,
    hasher: RandomState,
    limit: usize,
    evictions: u64,
}

impl<V> Table<V> {
    /// A table of at most `limit` entries, at least one.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            entries: Vec::new(),
            positions: HashTable::new(),
            hasher: RandomState::default(),
            limit: usize::try_from(limit.max(1)).unwrap_or(usize::MAX),
            evictions: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(NodeId, V)> {
        self.entries.iter()
    }

    /// How many entries were forgotten to make room.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn find(&self, node: NodeId) -> Option<&V> {
        self.entries.get(self.position(node)?).map(|(_, value)| value)
    }

    /// Adds or replaces; returns what the node had.
    pub(super) fn insert(&mut self, node: NodeId, value: V) -> Option<V> {
        if let Some(position) = self.position(node) {
            let (_, old) = self.entries.get_mut(position)?;
            return Some(std::mem::replace(old, value));
        }
        if self.entries.len() >= self.limit {
            self.evict();
        }
        let position = u32::try_from(self.entries.len()).expect("the limit is a u32");
        self.entries.push((node, value));
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.positions
            .insert_unique(hasher.hash_one(node), position, |&at| hash_at(entries, hasher, at));
        None
    }

    pub(super) fn remove(&mut self, node: NodeId) -> Option<V> {
        let entries = &self.entries;
        let found = self
            .positions
            .find_entry(self.hasher.hash_one(node), |&at| node_at(entries, at) == Some(node));
        let (position, _) = found.ok()?.remove();
        let last = u32::try_from(self.entries.len().checked_sub(1)?).ok()?;
        // The last entry takes the place of the removed one.
        if let Some(moved) = node_at(&self.entries, last).filter(|_| last != position) {
            let hash = self.hasher.hash_one(moved);
            *self.positions.find_mut(hash, |&at| at == last)? = position;
        }
        Some(self.entries.swap_remove(usize::try_from(position).ok()?).1)
    }

    /// Forgets an entry that nobody outside can choose: the hasher is seeded at random.
    fn evict(&mut self) {
        self.evictions += 1;
        let position = self.hasher.hash_one(self.evictions) % self.entries.len() as u64;
        let position = usize::try_from(position).unwrap_or_default();
        if let Some(&(node, _)) = self.entries.get(position) {
            self.remove(node);
        }
    }

    fn position(&self, node: NodeId) -> Option<usize> {
        let same = |&at: &u32| node_at(&self.entries, at) == Some(node);
        let position = self.positions.find(self.hasher.hash_one(node), same)?;
        usize::try_from(*position).ok()
    }
}

fn node_at<V>(entries: &[(NodeId, V)], position: u32) -> Option<NodeId> {
    entries.get(usize::try_from(position).ok()?).map(|(node, _)| *node)
}

fn hash_at<V>(entries: &[(NodeId, V)], hasher: &RandomState, position: u32) -> u64 {
    hasher.hash_one(node_at(entries, position).expect("positions point into the entries"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn full_table_forgets_one_other_entry() {
        let mut table = Table::new(100);
        for number in 1..=1_000 {
            table.insert(node(number), number);
            assert_eq!(table.find(node(number)), Some(&number));
            assert!(table.len() <= 100);
        }
        assert_eq!((table.len(), table.evictions()), (100, 900));
        assert_eq!((1..=1_000).filter(|n| table.find(node(*n)).is_some()).count(), 100);
    }

    proptest! {
        #[test]
        fn table_behaves_like_a_map_until_it_is_full(
            operations in proptest::collection::vec((1u32..40, any::<Option<u8>>()), 0..300),
        ) {
            let (mut table, mut map) = (Table::new(40), HashMap::new());
            for (number, value) in operations {
                let node = node(number);
                match value {
                    Some(value) => prop_assert_eq!(table.insert(node, value), map.insert(node, value)),
                    None => prop_assert_eq!(table.remove(node), map.remove(&node)),
                }
                prop_assert_eq!(table.find(node), map.get(&node));
                prop_assert_eq!(table.len(), map.len());
            }
            for (node, value) in &map {
                prop_assert_eq!(table.find(*node), Some(value));
            }
        }
    }
}
