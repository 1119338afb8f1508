//! Call stacks: how to walk one quickly from unwind information, and where to keep it.
//!
//! You supply: the bytes of a module's `.eh_frame_hdr` and `.eh_frame`, a way to read stack words, and zeroed
//! memory for the cache and the depot. You get: return addresses, innermost first, and a [`memcheck_model::StackId`]
//! for them. It is quick because a frame costs one load from the [`RuleCache`] and two from the stack; unwind
//! information is read once for each return address, and what a
//! thread's last walk found ([`Trail`]) is only compared. It is not for unwinding with all registers restored.
//!
//! Nothing allocates, locks or calls the kernel: all of it may run in a signal handler.
#![no_std]
#![forbid(unsafe_code)]

mod cache;
mod cfi;
mod depot;
mod head;
mod landing_pads;
mod rule;
mod trail;
mod walk;

pub use cache::{RULE_CACHE_ENTRIES, RuleCache};
pub use cfi::{UnwindInfo, find_frames};
pub use depot::Depot;
pub use rule::{CfaBase, Rule};
pub use trail::{Trail, capture_by_rules};
pub use walk::{PcKind, Process, Registers, walk_in};
