//! Counters and gauges, and their form for a scrape.
//!
//! Counting is plain atomics; the `prometheus` types are made only when somebody
//! scrapes, by [`Registry::encode`].

mod cold;
pub mod family;
mod histogram;
mod traffic;

pub use cold::{Counter, Gauge, Labelled, Word};
pub use family::Registry;
pub use histogram::{Buckets, Histogram};
pub use traffic::{Drop, EndpointEvent, Handled, Origin, Shard, Traffic, Transport};
