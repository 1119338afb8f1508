//! Fuzzes [`memcheck_fuzz::rewrite`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::rewrite::run(data));
