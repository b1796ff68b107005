//! Counters and gauges, and their form for a scrape.
//!
//! Counting is plain atomics; the `prometheus` types are made only when somebody
//! scrapes, by [`Registry::encode`].

mod cold;
pub mod family;

pub use cold::{Counter, Gauge, Labelled, Word};
pub use family::Registry;
