//! Fuzzes [`memcheck_fuzz::report`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::report::run(data));
