//! memcheck-heap: see docs/ARCHITECTURE.md.
#![no_std]
#![forbid(unsafe_code)]
