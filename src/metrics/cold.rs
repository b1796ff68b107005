//! Counters for what happens rarely: logins, reloads, look-ups, refusals.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Replaces the number.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number as it is.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An enum whose variants are the values of one metric label.
pub trait Word: Copy + 'static {
    /// All variants, in the order of their discriminants, which start at 0 without a gap.
    const ALL: &'static [Self];

    /// The label value.
    fn word(self) -> &'static str;

    /// The position in [`Self::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum of outcomes or reasons with its label words, and implements [`Word`]; or
/// implements it `for` an enum of another crate, whose variants are given in their order.
#[macro_export]
macro_rules! words {
    (for $name:ty { $($variant:ident => $word:literal,)+ }) => {
        impl $crate::metrics::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        $vis enum $name { $($(#[$vmeta])* $variant,)+ }

        $crate::words! { for $name { $($variant => $word,)+ } }
    };
}

/// One [`Counter`] for each variant of a label's enum.
#[derive(Debug)]
pub struct Labelled<W> {
    counters: Box<[Counter]>,
    words: PhantomData<W>,
}

impl<W: Word> Default for Labelled<W> {
    fn default() -> Self {
        Self { counters: W::ALL.iter().map(|_| Counter::default()).collect(), words: PhantomData }
    }
}

impl<W: Word> Labelled<W> {
    /// The counter of one label value.
    #[must_use]
    #[allow(clippy::indexing_slicing)] // `Word::index` is a position in `Word::ALL`
    pub fn of(&self, word: W) -> &Counter {
        &self.counters[word.index()]
    }

    /// The sum over all label values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counters.iter().map(Counter::value).sum()
    }

    /// Each label value with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        W::ALL.iter().zip(&self.counters).map(|(word, counter)| (word.word(), counter.value()))
    }
}
