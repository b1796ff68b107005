//! What simulations have in common: numbers that follow from a seed, and runs of many seeds.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that look random, the same for a seed everywhere (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % bound.max(1)
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Names the seed of a run that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation of seed {} failed", self.0);
        }
    }
}

/// Runs the simulation of each of these seeds, on all cores.
pub(crate) fn run(seeds: Range<u64>, simulation: impl Fn(u64) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let _named = Named(seed);
                    simulation(seed);
                }
            });
        }
    });
}

/// Runs as many seeds as SEEDS says (100,000), from FROM (0) on, and says how many that were.
pub(crate) fn run_soak(simulation: impl Fn(u64) + Sync) -> u64 {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let from = number("FROM", 0);
    let seeds = number("SEEDS", 100_000);
    run(from..from + seeds, simulation);
    seeds
}
