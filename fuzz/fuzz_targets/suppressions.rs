//! Fuzzes [`memcheck_fuzz::suppressions`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::suppressions::run(data));
