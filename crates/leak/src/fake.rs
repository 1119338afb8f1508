//! Memory made of vectors: roots at `ROOT`, chunks in slots of `SLOT_BYTES` from `HEAP` on, a file of virtual
//! tables at `FILE` and code at `CODE`.

use alloc::{vec, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::{Addr, AddrRange, Function, LeakKind, Pc, Size, StackId};

use crate::{
    Chunk, ChunkIndex, Heuristics, LiveChunk, MemoryView, Outcome, Resolution, Roots, SearchOptions, Sum,
    search,
};

const ROOT: u64 = 0x1000;
const HEAP: u64 = 0x10_0000;
const SLOT_BYTES: u64 = 256;
const SLOT_WORDS: usize = SLOT_BYTES as usize / 8;
pub(crate) const FILE: u64 = 0x7000;
pub(crate) const CODE: u64 = 0x8000;
const ROOT_WORDS: usize = 32;
/// The words from here on are a runtime library's.
const LIBRARY_WORD: usize = 24;

#[derive(Clone, Copy)]
struct Slot {
    size: u64,
    stack: StackId,
    live: bool,
    reported: bool,
}

pub(crate) struct Fake {
    roots: Vec<AtomicU64>,
    roots_used: usize,
    heap: Vec<AtomicU64>,
    slots: Vec<Slot>,
    /// The frames of each stack id.
    pub(crate) stacks: Vec<Vec<Pc>>,
    /// The stack that is a runtime library's.
    pub(crate) library_stack: StackId,
    /// What cannot be read.
    pub(crate) unreadable: Vec<AddrRange>,
}

fn zeros(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            roots: zeros(ROOT_WORDS),
            roots_used: 0,
            heap: Vec::new(),
            slots: Vec::new(),
            stacks: vec![vec![]],
            library_stack: StackId::NONE,
            unreadable: Vec::new(),
        }
    }

    /// A live chunk of `size` bytes from a stack of its own.
    pub(crate) fn chunk(&mut self, size: u64) -> u32 {
        let stack = StackId(self.stacks.len() as u32);
        self.stacks.push(vec![Pc(u64::from(stack.0))]);
        self.chunk_from(size, stack)
    }

    pub(crate) fn chunk_from(&mut self, size: u64, stack: StackId) -> u32 {
        assert!(size <= SLOT_BYTES);
        self.slots.push(Slot { size, stack, live: true, reported: true });
        self.heap.extend(zeros(SLOT_WORDS));
        self.slots.len() as u32 - 1
    }

    pub(crate) fn free(&mut self, chunk: u32) {
        self.slots[chunk as usize].live = false;
    }

    pub(crate) fn hide(&mut self, chunk: u32) {
        self.slots[chunk as usize].reported = false;
    }

    pub(crate) fn addr(&self, chunk: u32) -> u64 {
        HEAP + u64::from(chunk) * SLOT_BYTES
    }

    pub(crate) fn root(&mut self, value: u64) -> Addr {
        self.roots[self.roots_used].store(value, Ordering::Relaxed);
        self.roots_used += 1;
        Addr(ROOT + (self.roots_used as u64 - 1) * 8)
    }

    /// A variable of a runtime library with this value.
    pub(crate) fn library_root(&mut self, value: u64) {
        self.roots[LIBRARY_WORD].store(value, Ordering::Relaxed);
    }

    /// Stores `value` in the word `word` of a chunk and says where that is.
    pub(crate) fn store(&mut self, chunk: u32, word: usize, value: u64) -> Addr {
        self.heap[chunk as usize * SLOT_WORDS + word].store(value, Ordering::Relaxed);
        Addr(self.addr(chunk) + word as u64 * 8)
    }

    pub(crate) fn search_with(&self, options: SearchOptions) -> Outcome {
        let words = |from: usize, to: usize| {
            AddrRange::between(Addr(ROOT + from as u64 * 8), Addr(ROOT + to as u64 * 8)).unwrap()
        };
        let (program, library) = ([words(0, LIBRARY_WORD)], [words(LIBRARY_WORD, ROOT_WORDS)]);
        search(self, Roots { program: &program, library: &library }, options).unwrap()
    }

    pub(crate) fn search(&self) -> Outcome {
        self.search_with(OPTIONS)
    }
}

pub(crate) const OPTIONS: SearchOptions =
    SearchOptions { heuristics: Heuristics::NONE, tag_bits: 0, resolution: Resolution::High, holders: true };

/// The kind of each chunk, where every chunk has a stack of its own.
pub(crate) fn kinds(outcome: &Outcome, chunks: usize) -> Vec<Option<LeakKind>> {
    let mut kinds = vec![None; chunks];
    for record in &outcome.records {
        assert_eq!(record.direct.blocks, 1);
        kinds[record.sample.0 as usize] = Some(record.kind);
    }
    kinds
}

pub(crate) fn sum(blocks: u64, bytes: u64) -> Sum {
    Sum { blocks, bytes }
}

impl MemoryView for Fake {
    fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    fn heap(&self) -> AddrRange {
        AddrRange::new(Addr(HEAP), Size(self.slots.len() as u64 * SLOT_BYTES)).unwrap()
    }

    fn find_slot(&self, addr: Addr) -> Option<ChunkIndex> {
        assert!(self.heap().contains(addr) || addr.0 & !7 < HEAP + 8, "{addr}");
        Some(ChunkIndex(u32::try_from(addr.0.checked_sub(HEAP)? / SLOT_BYTES).ok()?))
    }

    fn find_start(&self, addr: Addr) -> Option<(ChunkIndex, bool)> {
        let index = self.find_slot(addr)?;
        Some((index, addr.0 == self.addr(index.0)))
    }

    /// Every third chunk keeps its size for itself.
    fn for_each_slot(&self, mut visit: impl FnMut(ChunkIndex, Option<Size>)) {
        self.for_each_live(|live| {
            visit(live.index, (live.index.0 % 3 != 2).then_some(live.chunk.size));
        });
    }

    fn get_chunk(&self, index: ChunkIndex) -> Chunk {
        let slot = self.slots[index.0 as usize];
        assert!(slot.live);
        Chunk { start: Addr(self.addr(index.0)), size: Size(slot.size), reported: slot.reported }
    }

    fn for_each_live(&self, mut visit: impl FnMut(LiveChunk)) {
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.live) {
            let index = ChunkIndex(index as u32);
            visit(LiveChunk {
                index,
                chunk: self.get_chunk(index),
                stack: slot.stack,
                allocated_by: Function::Malloc,
            });
        }
    }

    fn for_each_readable(&self, range: AddrRange, visit: impl FnMut(AddrRange)) {
        range.for_each_rest(range.among(&self.unreadable), visit);
    }

    fn words(&self, range: AddrRange) -> &[AtomicU64] {
        if !range.among(&self.unreadable).is_empty() {
            return &[];
        }
        let (base, memory) = if range.start().0 >= HEAP { (HEAP, &self.heap) } else { (ROOT, &self.roots) };
        let first = (range.start().0 - base).div_ceil(8);
        let last = (range.end().0 - base) / 8;
        &memory[first as usize..last.max(first) as usize]
    }

    fn is_library_stack(&self, stack: StackId) -> bool {
        stack == self.library_stack
    }

    fn stack_in<'a>(&self, stack: StackId, frames: &'a mut [Pc]) -> &'a [Pc] {
        let known = &self.stacks[stack.0 as usize];
        let count = known.len().min(frames.len());
        frames[..count].copy_from_slice(&known[..count]);
        &frames[..count]
    }

    fn is_start_by_convention(&self, chunk: Chunk, offset: Size) -> bool {
        chunk.size == Size(224) && offset == Size(16)
    }

    fn is_array(&self, _chunk: Chunk) -> bool {
        true
    }

    /// Two tables of two functions, and a null word before each.
    fn find_file_word(&self, addr: Addr) -> Option<u64> {
        match addr.0.checked_sub(FILE)? {
            0 | 24 => Some(0),
            8 | 16 | 32 | 40 => Some(CODE + 64),
            48 => Some(1),
            _ => None,
        }
    }

    fn is_code(&self, addr: Addr) -> bool {
        addr.0 >> 12 == CODE >> 12
    }
}
