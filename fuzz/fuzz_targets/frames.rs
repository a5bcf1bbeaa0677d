#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tap_postgres_rs::fuzzing::frames(data));
