//! What holds a block: a pointer in the root set, and the blocks on the way from there.
//!
//! ```text
//!  root ──▶ block 0           block 1           the block
//!           ├ into            ├ into            └ into
//!           └ at ───────────▶ └ at ───────────▶
//! ```

use crate::{Addr, ThreadId};

/// What kind of place in the root set a pointer stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RootKind {
    /// A variable of a module.
    Variable = 1,
    /// A register of a thread.
    Register = 2,
    /// A thread's stack.
    Stack = 3,
    /// A variable of a thread.
    ThreadLocal = 4,
    /// What libc keeps for a thread: its thread-specific values, its result.
    ThreadData = 5,
    /// Memory that the program mapped.
    Mapping = 6,
}

impl RootKind {
    /// Every kind, in order.
    pub const ALL: [Self; 6] =
        [Self::Variable, Self::Register, Self::Stack, Self::ThreadLocal, Self::ThreadData, Self::Mapping];

    /// The kind with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == code)
    }
}

/// A place in the root set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Of what kind.
    pub kind: RootKind,
    /// Where. For a thread-local variable the first address of its module, and so many bytes further as it lies from
    /// the start of the module's thread-local storage; null when that is not known.
    pub address: Addr,
    /// Whose, for those of threads; else zero.
    pub tid: ThreadId,
}

/// One block on a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How far into the block the pointer leads that leads to it.
    pub into: u64,
    /// How far into it the pointer to the next one stands; of the last block zero.
    pub at: u64,
}

/// The most steps of a path that are told: half of them from its start, half from its end.
pub const PATH_STEPS: usize = 16;

/// What holds a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding<'a> {
    /// Where the path begins.
    pub root: Root,
    /// The blocks on the way; the last one is the block itself.
    pub steps: &'a [Step],
    /// How many blocks are left out in the middle, behind the first half of `PATH_STEPS`.
    pub left_out: u64,
}
