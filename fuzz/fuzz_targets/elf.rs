//! Fuzzes [`memcheck_fuzz::elf`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memcheck_fuzz::elf::run(data));
