//! Fuzzes [`memcheck_fuzz::symbolize`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::symbolize::run(data));
