//! See `beacon_relay_fuzz::certificate`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| beacon_relay_fuzz::certificate::run(input));
