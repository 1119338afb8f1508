//! Fuzzes [`memcheck_fuzz::wire`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::wire::run(data));
