//! The blocks of the target's own allocators, as the search sees them beside the heap's.
//!
//! ```text
//!  index < slots of the heap: the heap's chunk        else: blocks[index - slots of the heap]
//! ```
//! As Valgrind has it, a chunk of the heap that such blocks were cut from takes no part in the search: it is neither
//! counted nor looked through.
//!
//! Invariants: `blocks` are sorted by their addresses, which can be read: they lie in live chunks or in mappings;
//! `cut` is sorted.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;

use memcheck_heap::ChunkState;
use memcheck_leak::{Chunk, ChunkIndex, LiveChunk, MemoryView};
use memcheck_model::{Addr, AddrRange, Function, Pc, Size, StackId};
use memcheck_requests::ClientBlock;

use super::view::HeapView;
use crate::{heap, maps, requests};

/// A block.
struct Block {
    chunk: Chunk,
    stack: StackId,
    allocated_by: Function,
}

/// The heap with such blocks.
pub struct ClientView<'v, 'a> {
    heap: &'v HeapView<'a>,
    blocks: Vec<Block>,
    cut: Vec<ChunkIndex>,
    hull: AddrRange,
}

impl<'v, 'a> ClientView<'v, 'a> {
    /// The view, or `None` when there are no such blocks or there is no memory for their list.
    pub fn find(heap: &'v HeapView<'a>) -> Option<Self> {
        let blocks = requests::live()?;
        let mut view = Self { heap, blocks: Vec::new(), cut: Vec::new(), hull: heap.heap() };
        view.blocks.try_reserve_exact(blocks.len()).ok()?;
        view.cut.try_reserve_exact(blocks.len()).ok()?;
        let mut readable: Vec<AddrRange> = Vec::new();
        maps::for_each(|mapping| {
            if mapping.permissions.read() && mapping.source != maps::Source::Device {
                match readable.last_mut() {
                    Some(last) if last.end() == mapping.range.start() => {
                        *last = AddrRange::between(last.start(), mapping.range.end()).unwrap_or(*last);
                    }
                    _ => readable.push(mapping.range),
                }
            }
            true
        });
        for block in blocks {
            view.add(&block, &readable);
        }
        view.cut.dedup();
        Some(view)
    }

    fn add(&mut self, block: &ClientBlock, readable: &[AddrRange]) {
        let range = block.range;
        match heap::describe(range.start()) {
            Some(chunk) => {
                let holder = chunk.filter(|chunk| {
                    let own = AddrRange::new(chunk.start, chunk.size);
                    let holds =
                        own.is_some_and(|own| own.contains(range.start()) && range.end() <= own.end());
                    chunk.state == ChunkState::Live && holds
                });
                // The memory was freed with the block in it.
                if holder.is_none() {
                    return;
                }
                self.cut.extend(self.heap.find_slot(range.start()));
            }
            None => {
                let after = readable.partition_point(|mapping| mapping.start() <= range.start());
                if readable[..after].last().is_none_or(|mapping| range.end() > mapping.end()) {
                    return;
                }
            }
        }
        let (low, high) = (self.hull.start().min(range.start()), self.hull.end().max(range.end()));
        self.hull = AddrRange::between(low, high).unwrap_or(self.hull);
        self.blocks.push(Block {
            chunk: Chunk {
                start: range.start(),
                size: range.size(),
                reported: self.heap.is_own(block.allocated.tid),
            },
            stack: block.allocated.stack,
            allocated_by: block.allocated.function,
        });
    }

    fn block(&self, index: ChunkIndex) -> Option<&Block> {
        index.0.checked_sub(self.heap.slot_count()).and_then(|number| self.blocks.get(number as usize))
    }

    fn show(&self, number: usize, visit: &mut impl FnMut(LiveChunk)) {
        let block = &self.blocks[number];
        visit(LiveChunk {
            index: ChunkIndex(self.heap.slot_count() + number as u32),
            chunk: block.chunk,
            stack: block.stack,
            allocated_by: block.allocated_by,
        });
    }
}

impl MemoryView for ClientView<'_, '_> {
    fn slot_count(&self) -> u32 {
        self.heap.slot_count() + self.blocks.len() as u32
    }

    fn heap(&self) -> AddrRange {
        self.hull
    }

    fn find_slot(&self, addr: Addr) -> Option<ChunkIndex> {
        self.find_start(addr).map(|(index, _)| index)
    }

    fn find_start(&self, addr: Addr) -> Option<(ChunkIndex, bool)> {
        let after = self.blocks.partition_point(|block| block.chunk.start <= addr);
        if let Some(number) = after.checked_sub(1) {
            let chunk = self.blocks[number].chunk;
            if addr.0 - chunk.start.0 < chunk.size.0.max(1) {
                return Some((ChunkIndex(self.heap.slot_count() + number as u32), addr == chunk.start));
            }
        }
        if !self.heap.heap().contains(addr) {
            return None;
        }
        self.heap.find_start(addr).filter(|(index, _)| self.cut.binary_search(index).is_err())
    }

    fn for_each_slot(&self, mut visit: impl FnMut(ChunkIndex, Option<Size>)) {
        self.heap.for_each_slot(|index, size| {
            if self.cut.binary_search(&index).is_err() {
                visit(index, size);
            }
        });
        for (number, block) in (0..).zip(&self.blocks) {
            visit(ChunkIndex(self.heap.slot_count() + number), Some(block.chunk.size));
        }
    }

    fn get_chunk(&self, index: ChunkIndex) -> Chunk {
        self.block(index).map_or_else(|| self.heap.get_chunk(index), |block| block.chunk)
    }

    fn for_each_live(&self, mut visit: impl FnMut(LiveChunk)) {
        let mut next = 0;
        self.heap.for_each_live(|live| {
            while self.blocks.get(next).is_some_and(|block| block.chunk.start < live.chunk.start) {
                self.show(next, &mut visit);
                next += 1;
            }
            if self.cut.binary_search(&live.index).is_err() {
                visit(live);
            }
        });
        (next..self.blocks.len()).for_each(|number| self.show(number, &mut visit));
    }

    fn for_each_readable(&self, range: AddrRange, visit: impl FnMut(AddrRange)) {
        self.heap.for_each_readable(range, visit);
    }

    fn words(&self, range: AddrRange) -> &[AtomicU64] {
        self.heap.words(range)
    }

    fn stack_in<'f>(&self, stack: StackId, frames: &'f mut [Pc]) -> &'f [Pc] {
        self.heap.stack_in(stack, frames)
    }

    fn is_library_stack(&self, stack: StackId) -> bool {
        self.heap.is_library_stack(stack)
    }

    fn find_file_word(&self, addr: Addr) -> Option<u64> {
        self.heap.find_file_word(addr)
    }

    fn is_code(&self, addr: Addr) -> bool {
        self.heap.is_code(addr)
    }

    fn is_array(&self, chunk: Chunk) -> bool {
        self.heap.is_array(chunk)
    }

    fn is_start_by_convention(&self, chunk: Chunk, offset: Size) -> bool {
        self.heap.is_start_by_convention(chunk, offset)
    }

    fn prefetch(&self, addr: Addr) {
        self.heap.prefetch(addr);
    }
}
