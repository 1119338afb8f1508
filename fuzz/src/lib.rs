//! What each fuzz target does with its bytes, and what must hold then.
//!
//! A target is a module with two functions: `run` takes any bytes and panics when something does not hold; `seeds` gives
//! inputs that go far, for a fuzzer and for the tests to begin with. `fuzz_targets/` hands `run` to libFuzzer; the
//! test `fuzz_targets` of the main package runs every target over its seeds and over [`Mutations`] of them, the same
//! in each run.
//!
//! No target is only about panics: the head of each module says what its oracle is.
#![forbid(unsafe_code)]

pub mod elf;
mod fixture;
pub mod heap;
mod input;
mod mutations;
pub mod report;
pub mod rewrite;
pub mod suppressions;
pub mod symbolize;
pub mod syscalls;
pub mod unwind;
pub mod wire;

pub use mutations::Mutations;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, as in `cargo fuzz run NAME`.
    pub name: &'static str,
    /// Panics when something does not hold for these bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// Every target.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),*];
    };
}
targets!(elf heap report rewrite suppressions symbolize syscalls unwind wire);
