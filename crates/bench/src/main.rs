//! The ratio table: see docs/ARCHITECTURE.md.
#![forbid(unsafe_code)]

fn main() {}
