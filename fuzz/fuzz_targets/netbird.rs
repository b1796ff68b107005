//! See `fuzz/src/netbird.rs`.

#![no_main]

pub use beacon_wire as wire;

#[path = "../src/netbird.rs"]
pub mod netbird;
#[allow(dead_code, reason = "what it offers to the rest of the door is not used here")]
#[path = "../../src/doors/netbird/watchers.rs"]
pub mod watchers;

use watchers::Watchers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| netbird::run(input));
