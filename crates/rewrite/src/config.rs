//! What the engine decides before anything is translated: options, addresses, and where calls go.

use alloc::vec::Vec;

use memcheck_model::{Addr, Pc};

use crate::Extent;

/// How many spill slots of eight bytes a thread has: eight for registers, eight for one vector.
pub const SPILL_SLOTS: usize = 16;

/// Whether accesses are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Every access that can reach the heap.
    On,
    /// None: the copy does what the original does.
    Off,
}

/// Whether dead registers and flags are filled with garbage at each check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stress {
    /// Yes, to find errors in the liveness analysis.
    On,
    /// No.
    Off,
}

/// Whether the shim is called before each `syscall` instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syscalls {
    /// Through [`crate::Cell::Syscall`].
    Hooked,
    /// The same, and after it through [`crate::Cell::SyscallDone`].
    Followed,
    /// They are copied.
    Native,
}

/// What the processor can do beyond x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// Nothing.
    Baseline,
    /// BMI2 (RORX).
    Bmi2,
}

/// Options of emission, the same for all modules of a process.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The shadow byte of address 0; below 2 GiB, because it is a displacement.
    pub shadow_base: u32,
    /// Where the thread's spill slots start, from the thread pointer.
    pub spill_offset: i32,
    /// Whether accesses are checked.
    pub checks: Checks,
    /// Whether the dead is filled with garbage.
    pub stress: Stress,
    /// Whether system calls are hooked.
    pub syscalls: Syscalls,
    /// Which instructions may be emitted.
    pub processor: Processor,
}

/// Where a blob will lie, within 2 GiB of its module.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The blob's first byte.
    pub code: Addr,
    /// The first byte of the arena's prelude; offsets in the module's jump map count from here.
    pub prelude: Addr,
}

/// How a copy calls a function that is not in its own group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTarget {
    /// Through the pointer at this address (within 2 GiB).
    Slot(Addr),
    /// At this address (within 2 GiB): a copy that will stay.
    Direct(Addr),
    /// At the original entry, which may be diverted.
    Original,
}

/// Knows what the module's text does not tell: where its functions are now, where exceptions lead in them, and what its
/// variables hold.
pub trait Resolver {
    /// How to call what stands at `entry`: a function's original entry, or an entry of a linkage table.
    fn call_target(&self, entry: Pc) -> CallTarget;

    /// Where an exception that passes through `function` may go on; `None` if that is not known.
    fn landing_pads(&self, function: Extent) -> Option<Vec<Pc>> {
        let _ = function;
        Some(Vec::new())
    }

    /// The word at `at` in data of the module that the program may change, as it is now.
    fn variable(&self, at: Pc) -> Option<u64> {
        let _ = at;
        None
    }
}
