//! What the search needs to know of a process' memory.

use core::sync::atomic::AtomicU64;

use memcheck_model::{Addr, AddrRange, Function, Pc, Size, StackId};

/// A slot of the heap: dense, so that arrays are indexed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkIndex(pub u32);

/// Where a live chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its first byte, a multiple of eight.
    pub start: Addr,
    /// The size that was asked for.
    pub size: Size,
    /// Whether it is reported. The others take part in the search and are counted nowhere.
    pub reported: bool,
}

impl Chunk {
    /// The bytes that the target may use.
    pub(crate) fn range(self) -> Option<AddrRange> {
        AddrRange::new(self.start, self.size)
    }
}

/// A live chunk and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveChunk {
    /// Its slot.
    pub index: ChunkIndex,
    /// Where it lies.
    pub chunk: Chunk,
    /// Where it was allocated.
    pub stack: StackId,
    /// The function that allocated it.
    pub allocated_by: Function,
}

/// The memory of a process that stands still.
pub trait MemoryView {
    /// One more than the largest index of a slot.
    fn slot_count(&self) -> u32;

    /// The addresses that the heap uses: no word outside is a pointer to a chunk.
    fn heap(&self) -> AddrRange;

    /// The slot that `addr` lies in, whether or not a chunk lives there. For addresses in `heap` only, and by
    /// arithmetic alone: the search asks it for every word that could be a pointer.
    fn find_slot(&self, addr: Addr) -> Option<ChunkIndex>;

    /// The slot that `addr` lies in, and whether `addr` is where chunks begin in it: all but those that
    /// `for_each_slot` shows without a size. As cheap as `find_slot`.
    fn find_start(&self, addr: Addr) -> Option<(ChunkIndex, bool)>;

    /// The chunk of a slot that `for_each_live` showed.
    fn get_chunk(&self, index: ChunkIndex) -> Chunk;

    /// Shows every live chunk once, in the order of addresses.
    fn for_each_live(&self, visit: impl FnMut(LiveChunk));

    /// Shows the slot of every live chunk once, with the chunk's size if it begins where chunks do in that slot.
    fn for_each_slot(&self, visit: impl FnMut(ChunkIndex, Option<Size>));

    /// The aligned words that lie wholly in `range`, a live chunk, a root or a part of one. None if a part of it
    /// cannot be read.
    fn words(&self, range: AddrRange) -> &[AtomicU64];

    /// Calls `visit` with the parts of a live chunk or a root that can be read, in the order of addresses: a
    /// program may have forbidden itself the rest (mprotect(2)).
    fn for_each_readable(&self, range: AddrRange, visit: impl FnMut(AddrRange));

    /// The innermost frames of an allocation stack, as many as `frames` has room for.
    fn stack_in<'a>(&self, stack: StackId, frames: &'a mut [Pc]) -> &'a [Pc];

    /// Whether this is the stack of an allocation that a runtime library made for itself.
    fn is_library_stack(&self, _stack: StackId) -> bool {
        false
    }

    /// Whether a pointer `offset` bytes into this chunk is how its owner always points to it, so that it counts
    /// as a start pointer.
    fn is_start_by_convention(&self, _chunk: Chunk, _offset: Size) -> bool {
        false
    }

    /// Whether `operator new[]` allocated this chunk.
    fn is_array(&self, chunk: Chunk) -> bool;

    /// The word at `addr` if it lies in a file that is mapped for reading: where virtual tables are.
    fn find_file_word(&self, _addr: Addr) -> Option<u64> {
        None
    }

    /// Whether `addr` lies in executable memory.
    fn is_code(&self, _addr: Addr) -> bool {
        false
    }

    /// Says that this memory, the target's or the search's own, is needed soon.
    fn prefetch(&self, _addr: Addr) {}
}
