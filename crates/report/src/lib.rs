//! memcheck-report: see docs/ARCHITECTURE.md.
#![forbid(unsafe_code)]
