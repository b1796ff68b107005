//! See `beacon_relay_fuzz::keyop`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| beacon_relay_fuzz::keyop::run(input));
