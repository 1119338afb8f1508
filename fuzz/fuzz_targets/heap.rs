//! Fuzzes [`memcheck_fuzz::heap`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::heap::run(data));
