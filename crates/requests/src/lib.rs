//! The client requests of Valgrind's headers, as programs carry them compiled in: what each asks, and the blocks and
//! pools that a program tells of.
//!
//! You supply the six words of a request, and a [`Memory`] whose addresses can be forbidden and allowed; you get a
//! [`Request`] to act on, and a [`Blocks`] that keeps account of what the program's own allocators gave out.
//!
//! Sources: `valgrind/valgrind.h` and `valgrind/memcheck.h`, the Valgrind manual 4.7 ("Client Requests") and 4.8
//! ("Memory Pools").
//!
//! Not here: definedness. Undefined memory counts as defined, and no check of it fails.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod blocks;
mod request;

pub use blocks::{Blocks, ClientBlock, Given, Memory, Mistake, Origin};
pub use request::{Check, PoolFlags, Request};
