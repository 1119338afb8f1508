//! The channel between the shims (one in each process of the target's tree) and the launcher: how the shared
//! memory is laid out, what the records in it say, and a reader that believes none of it.
//!
//! ```text
//!  byte 0            4096                                   each stream: STREAM_BYTES
//!  ┌────────────────┬───────────────────────────┬───────────────────────────┬───
//!  │ Header         │ Stream 0                  │ Stream 1                  │ … MAX_STREAMS
//!  │ version        │ owner, counters, contexts │                           │
//!  │ options        │ slots of 4096 bytes       │                           │
//!  │ doorbell       │                           │                           │
//!  └────────────────┴───────────────────────────┴───────────────────────────┴───
//! ```
//!
//! You supply the mapped memory as `&Header` and `&[Stream]`, and the system calls (futex, mmap). You get the
//! transitions of a slot, the table that counts error contexts, and records from and to words.
//!
//! Invariants:
//! - Both sides are built from one source; [`VERSION`] and the size assertions in `layout` say when not.
//! - Everything shared is an atomic word: either side may write anything at any time without undefined
//!   behaviour, and the launcher copies a slot before it looks at it.
//! - No allocation, no lock, no system call: all of it may run in a signal handler.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod contexts;
mod counter;
mod event;
mod layout;
mod options;
mod patterns;
mod record;
mod words;

pub use contexts::{Contexts, Sighting};
pub use counter::Counter;
pub use layout::{
    CHANNEL_BYTES, CHANNEL_VARIABLE, Header, LAUNCHER_DIED, MAX_STREAMS, Owner, Requests, SLOT_WORDS, SLOTS,
    STOP_SIGNAL, STREAM_BYTES, Slot, SlotState, Stream, VERSION,
};
pub use options::{LeakCheck, LeakResolution, MAX_ALIGN_SHIFT, Options, TrackFds};
pub use patterns::{NO_SONAME, PATTERN_BYTES, Subject};
pub use record::{
    LossRecord, Module, Notice, NoticeKind, ProcessStart, Record, Scratch, StartKind, TEXT_MAX, decode,
    encode,
};
pub use words::Malformed;
