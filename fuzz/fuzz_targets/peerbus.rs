//! See `beacon_relay_fuzz::peerbus`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| beacon_relay_fuzz::peerbus::run(input));
