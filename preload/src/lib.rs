//! The shim: what runs inside the target. Exported allocator functions, process-wide state, raw system calls,
//! signals, fork and code memory; policy lives in the crates it is made of.
//!
//! Invariants:
//! - `no_std`, and no dynamic import but those that `tests/structure.rs` lists: libc code may itself be
//!   diverted by the engine, so the shim calls none of it unless it must.
//! - Nothing here panics into the target, prints, or takes a lock that a signal handler could need.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod account;
pub mod channel;
pub mod descriptors;
pub mod detour;
pub mod engine;
pub mod exports;
mod forked_page;
pub mod glib;
pub mod heap;
mod init;
pub mod leaks;
pub mod libc_symbols;
pub mod lifecycle;
pub mod maps;
pub mod modules;
pub mod own_allocators;
pub mod requests;
mod runtime;
pub mod stacks;
pub mod sys;
pub mod thread;
mod tool_heap;
