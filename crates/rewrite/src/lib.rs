//! The rewriting engine's pure part: bytes of a function in, the bytes of its instrumented copy out.
//!
//! You supply a [`Module`] (pristine text, read-only data, function extents from [`discover`]), a [`Config`], a
//! [`Place`] and a [`Resolver`]; [`translate`] gives a [`CodeBlob`] or says why not ([`Skip`]). [`prelude`] gives
//! the bytes that must lie at the start of each arena of code, which the copies call.
//!
//! ```text
//!  bytes ─▶ decode ─▶ flow (blocks, tables) ─▶ live (registers, flags) ─▶ plan (checks) ─▶ emit ─▶ CodeBlob
//! ```
//! Nothing here writes code to memory or knows a process. Allocates, so it runs on the engine's own terms.
//!
//! # How a copy talks to the shim
//! The copy leaves for the shim in two places, both through a cell of the prelude, always with this stack:
//! ```text
//!  rsp      return address in the copy
//!  rsp+8    report: the address accessed      system call: anything
//!  rsp+16   128 bytes of red zone
//!  rsp+144  the program's own stack pointer
//! ```
//! - [`Cell::Report`]: an access that must not be. [`describe_report`] reads what it is from the bytes after the
//!   return address; go on, with all registers and flags as they were and `rsp` at the program's own, at the
//!   return address plus [`REPORT_RESUME`]. Called once for each bad access.
//! - [`Cell::Syscall`] (not with [`Syscalls::Native`]): before each `syscall` instruction, with the registers that
//!   it will see. Go on in the same way at the return address to run it (with other registers, if wanted), or at
//!   the return address plus [`SYSCALL_SKIP`] to leave it out with `rax` as its result.
//! - [`Cell::SyscallDone`] (only with [`Syscalls::Followed`]): after it, with the registers that it left, and its
//!   number in spill slot [`CALL_SLOT`]. Go on in the same way at the return address.
//! - [`Cell::Request`] (not with [`Syscalls::Native`]): before the last instruction of each client request of
//!   valgrind.h, which does nothing itself. Go on in the same way at the return address, with `rdx` as its result.
//!
//! The copy of a function uses [`SPILL_SLOTS`] slots at `fs:[Config::spill_offset + 8*i]`. They are live only within
//! a check, but a signal may arrive there: what runs copies in a handler must save and restore all of them.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod asm;
mod available;
mod blob;
mod config;
mod decode;
mod discover;
mod emit;
mod flow;
mod live;
mod masked;
mod module;
mod plan;
mod prelude;
mod tables;
mod translate;
mod uses;
mod walks;

pub use asm::{Look, MOST_STEP_BYTES, StackSteps, find_look, find_stack_steps};
pub use blob::{CodeBlob, Origin, Part, PcMap, Skip, SkipReason, Stats};
pub use config::{CallTarget, Checks, Config, Place, Processor, Resolver, SPILL_SLOTS, Stress, Syscalls};
pub use discover::{
    Functions, discover, entry_room, find_linkage_cell, is_leaf, is_linkage_stub, padding_len,
};
pub use flow::ENTRY_JUMP_BYTES;
pub use module::{Callees, Extent, Module, Segment};
pub use prelude::{
    CALL_SLOT, Cell, PRELUDE_BYTES, RANGE_SLOT, REPORT_RESUME, Report, SYSCALL_SKIP, describe_report, prelude,
};
pub use translate::{Translation, jumps_out, translate};
