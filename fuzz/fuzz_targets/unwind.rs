//! Fuzzes [`memcheck_fuzz::unwind`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::unwind::run(data));
