//! Which memory each system call of Linux on x86-64 reads and writes, and whether it may.
//!
//! You supply the registers of a call ([`Request`]) and a [`Memory`]; [`check`] tells each parameter that leads to
//! memory that must not be touched, before the kernel touches it. The calls are rows of a table ([`find_call`]),
//! made from the manual pages (section 2) and the kernel's declarations (`include/linux/syscalls.h`); parameters
//! bear the names that Valgrind gives them, so that its suppressions fit.
//!
//! What the kernel *may* write counts, by the size that it was told: `read(fd, buf, n)` needs `n` bytes. What it
//! refuses before it looks (a negative length, more than 1024 vectors) counts for nothing. A pointer that leads
//! nowhere is the kernel's to refuse.
//!
//! Runs anywhere: no allocation, no locks, no system calls.
#![no_std]
#![forbid(unsafe_code)]

mod check;
mod descriptors;
mod memory;
mod parameter;
mod requests;
mod table;

pub use check::{Finding, Known, Request, check, check_as};
pub use descriptors::{Effect, effect_of};
pub use memory::{Granule, Memory};
pub use parameter::{Attention, Call, Length, Parameter, Parameters, Shape, attention_of};
pub use table::{CALLS, LIBC_FEXECVE, LIBC_SIGACTION, find_call};
