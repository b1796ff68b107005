//! Counters that many threads add to at once, each in a cache line of its own.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Word;

/// Places that threads count in; more threads share them.
pub(super) const SHARDS: usize = 16;

/// Counters of a cache line pair, which is what processors fetch.
const LINE: usize = 16;

/// The place of the calling thread, below [`SHARDS`].
pub(super) fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    SHARD.get()
}

/// One counter for each variant of a label's enum, for what every batch counts; a
/// [`Labelled`](super::Labelled) is smaller.
#[derive(Debug)]
pub struct Sharded<W> {
    /// So many lines for each thread as hold all words.
    lines: Box<[Line]>,
    words: PhantomData<W>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

impl<W: Word> Default for Sharded<W> {
    fn default() -> Self {
        let lines = SHARDS * Self::LINES;
        Self { lines: (0..lines).map(|_| Line::default()).collect(), words: PhantomData }
    }
}

#[allow(clippy::indexing_slicing)] // `Word::index` is a position in `Word::ALL`
impl<W: Word> Sharded<W> {
    const LINES: usize = W::ALL.len().div_ceil(LINE);

    fn counter(&self, shard: usize, word: W) -> &AtomicU64 {
        let index = word.index();
        &self.lines[shard * Self::LINES + index / LINE].0[index % LINE]
    }

    /// Adds to one label value.
    pub fn add(&self, word: W, amount: u64) {
        self.counter(own_shard(), word).fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum of one label value.
    #[must_use]
    pub fn value(&self, word: W) -> u64 {
        (0..SHARDS).map(|shard| self.counter(shard, word).load(Ordering::Relaxed)).sum()
    }

    /// Each label value with its sum.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        W::ALL.iter().map(|word| (word.word(), self.value(*word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More words than a line holds.
    #[derive(Clone, Copy)]
    struct Letter(usize);

    impl Word for Letter {
        const ALL: &'static [Self] = &{
            let mut all = [Self(0); 20];
            let mut index = 0;
            while index < all.len() {
                all[index] = Self(index);
                index += 1;
            }
            all
        };

        fn word(self) -> &'static str {
            &"abcdefghijklmnopqrst"[self.0..=self.0]
        }

        fn index(self) -> usize {
            self.0
        }
    }

    #[test]
    fn each_word_is_the_sum_of_what_all_threads_have_added() {
        let counters = Sharded::<Letter>::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    counters.add(Letter(0), 1);
                    counters.add(Letter(15), 2);
                    counters.add(Letter(16), 3);
                });
            }
        });
        let shards = SHARDS as u64;
        let counted: Vec<_> = counters.iter().filter(|(_, sum)| *sum > 0).collect();
        assert_eq!(counted, [("a", 2 * shards), ("p", 4 * shards), ("q", 6 * shards)]);
        assert_eq!(counters.iter().count(), Letter::ALL.len());
    }
}
