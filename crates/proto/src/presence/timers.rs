//! What is due when: one moment for each key, taken out in order.

use std::collections::BTreeSet;
use std::time::Instant;

/// Moments and their keys; of one moment the smallest key comes first.
#[derive(Debug)]
pub(super) struct Timers<K>(BTreeSet<(Instant, K)>);

impl<K: Copy + Ord> Timers<K> {
    pub(super) const fn new() -> Self {
        Self(BTreeSet::new())
    }

    pub(super) fn set(&mut self, at: Instant, key: K) {
        self.0.insert((at, key));
    }

    pub(super) fn cancel(&mut self, at: Instant, key: K) {
        self.0.remove(&(at, key));
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.0.first()?.0)
    }

    /// Takes out the first that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        Some(self.0.pop_first()?.1)
    }
}
