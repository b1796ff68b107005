//! See `fuzz/src/netbird.rs`.

#![no_main]

pub use beacon_wire as wire;

#[path = "../src/netbird.rs"]
pub mod netbird;
// What it offers to the rest of the door is used by nobody here.
#[allow(dead_code)]
#[path = "../../src/doors/netbird/watchers.rs"]
pub mod watchers;

use watchers::Watchers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| netbird::run(input));
