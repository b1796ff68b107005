//! See `fuzz/src/configuration.rs`.

#![no_main]

// The relay's configuration stands on these two crates alone, and finds them as it does at home.
pub use beacon_proto as proto;
pub use beacon_wire as wire;
pub use beacon_wire::ids;

// What it offers to the rest of the relay is used by nobody here.
#[allow(unused_imports)]
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../src/configuration.rs"]
pub mod configuration;

libfuzzer_sys::fuzz_target!(|input: &[u8]| configuration::run(input));
