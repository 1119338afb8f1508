//! Fuzzes [`memcheck_fuzz::syscalls`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::syscalls::run(data));
