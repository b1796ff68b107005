//! Counters and gauges, and their form for a scrape.
//!
//! Counting is plain atomics; the `prometheus` types are made only when somebody
//! scrapes, by [`Registry::encode`].

mod cold;
mod drops;
pub mod events;
pub mod family;
mod histogram;
mod rarely;
mod reasons;
mod sampling;
mod shard;
mod sharded;
mod talkers;
#[cfg(test)]
mod testing;
mod traffic;
mod words;

pub use cold::{Counter, Gauge, Labelled, Word};
pub use drops::{Dropped, Whose};
pub use events::{Event, Events, What};
pub use family::Registry;
pub use histogram::{Buckets, HALF_DECADES, Histogram};
pub use rarely::Rarely;
pub use reasons::{Drop, Owner, Reason, Reasons};
#[doc(hidden)]
pub use sampling::fix_samples;
pub use shard::{Origin, Shard, unsettled};
pub use sharded::Sharded;
pub use talkers::{Talker, Talkers};
pub use traffic::Traffic;
pub use words::{EndpointEvent, Transport};
