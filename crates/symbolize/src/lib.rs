//! memcheck-symbolize: see docs/ARCHITECTURE.md.
#![forbid(unsafe_code)]
