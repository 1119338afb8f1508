//! What an address is, as the target's heap knows it.

use crate::{Addr, Function, Size, ThreadId};

/// What the redzones beside blocks are filled with. Like the other fill no letter, no small number, and eight of it
/// are no canonical address.
pub const REDZONE_FILL: u8 = 0xb7;
/// What freed blocks are filled with.
pub const FREED_FILL: u8 = 0xd9;

/// Whether a block may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockState {
    /// Allocated and not freed.
    Live = 1,
    /// Freed, and its memory not given out again.
    Freed = 2,
}

/// One allocation of the target (a chunk, in the heap's own words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The address that the allocator function returned.
    pub start: Addr,
    /// The size that was asked for.
    pub size: Size,
    /// Whether it may be used.
    pub state: BlockState,
    /// The function that allocated it.
    pub allocated_by: Function,
    /// The function that freed it, when it was freed.
    pub freed_by: Option<Function>,
    /// The thread that allocated it.
    pub alloc_tid: ThreadId,
    /// The thread that freed it; zero while it is live.
    pub free_tid: ThreadId,
}

/// What the erroneous address of an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The event has no address.
    None,
    /// The first page: a null pointer, perhaps with a member's offset.
    NullPage,
    /// In or near this block of the heap.
    Block(Block),
    /// In the heap's own address range, but near no block that was ever allocated there.
    HeapUnused,
    /// On the stack of this thread.
    Stack(ThreadId),
    /// In a file that is mapped as part of the program or of a library (the launcher names the variable or
    /// function).
    Module,
    /// In other mapped memory.
    Mapped,
    /// In no mapping.
    Unmapped,
}
