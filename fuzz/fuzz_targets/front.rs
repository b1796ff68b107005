//! See `beacon_relay_fuzz::front`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| beacon_relay_fuzz::front::run(input));
