//! `beacon-bench`: a load in a process of its own, against a relay and against the floor, in turn
//! in one run.
//!
//! The servers are measured from outside, by what proc(5) says of them. Absolute figures
//! depend on the machine; what is to be quoted is the ratio to the floor.
//!
//! What is public besides [`run`] serves `peers`, which measures public relays the same way,
//! and benches/counts.rs.

mod bus;
pub mod closed_loop;
mod connections;
pub mod counted;
mod crowd;
mod floor;
mod growth;
mod latency;
mod netbird;
mod options;
mod peer;
pub mod process;
mod readiness;
pub mod report;
mod scale;
mod scenarios;
mod stuck;
mod subject;
mod throughput;
pub mod tls;

pub use options::{Args, Common, parse, seconds, size};
pub use scenarios::run;
