//! Memory that is a vector, with its shadow, for a heap to live in; and tables for the heap's own records.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use memcheck_heap::{
    Backend, Batch, Change, ChunkMeta, FreedMeta, Freeing, GroupWords, Heap, Layout, Pattern, Reason,
    Request, Tables, Wishes,
};
use memcheck_model::{Addr, AddrRange, Function, StackId};

pub const BASE: u64 = 1 << 32;
const ADDRESSABLE: u8 = 0;
const POISONED: u8 = 1;

/// What is in the memory, byte by byte.
struct Bytes {
    content: Vec<u8>,
    shadow: Vec<u8>,
    committed: Vec<bool>,
}

/// The memory.
pub struct Fake(RefCell<Bytes>);

impl Fake {
    pub fn new(layout: &Layout) -> Self {
        let len = layout.range().size().0 as usize;
        Self(RefCell::new(Bytes {
            content: vec![0; len],
            shadow: vec![0; len],
            committed: vec![false; len / 4096],
        }))
    }

    fn at(range: AddrRange) -> std::ops::Range<usize> {
        (range.start().0 - BASE) as usize..(range.end().0 - BASE) as usize
    }

    fn assert_committed(&self, range: AddrRange) {
        let at = Self::at(range);
        let pages = at.start / 4096..at.end.div_ceil(4096);
        assert!(range.is_empty() || self.0.borrow().committed[pages].iter().all(|&page| page), "{range:?}");
    }

    pub fn write(&self, start: Addr, size: u64, value: u8) {
        let range = AddrRange::new(start, memcheck_model::Size(size)).unwrap();
        self.assert_committed(range);
        self.0.borrow_mut().content[Self::at(range)].fill(value);
    }

    pub fn is_addressable(&self, addr: u64) -> bool {
        self.0.borrow().shadow[(addr - BASE) as usize] == ADDRESSABLE
    }
}

impl Backend for Fake {
    fn commit(&self, range: AddrRange) -> bool {
        assert!(range.start().is_aligned(4096) && range.end().is_aligned(4096), "{range:?}");
        let at = Self::at(range);
        self.0.borrow_mut().committed[at.start / 4096..at.end / 4096].fill(true);
        true
    }

    fn prepare(&self, _: AddrRange) {}

    fn decommit(&self, range: AddrRange) {
        self.assert_committed(range);
        let at = Self::at(range);
        let mut bytes = self.0.borrow_mut();
        bytes.committed[at.start / 4096..at.end / 4096].fill(false);
        bytes.content[at].fill(0);
    }

    fn discard(&self, range: AddrRange) {
        self.assert_committed(range);
        self.0.borrow_mut().content[Self::at(range)].fill(0);
    }

    fn fill(&self, range: AddrRange, pattern: Pattern) {
        self.assert_committed(range);
        self.0.borrow_mut().content[Self::at(range)].fill(pattern as u8);
    }

    fn set(&self, range: AddrRange, byte: u8) {
        self.assert_committed(range);
        self.0.borrow_mut().content[Self::at(range)].fill(byte);
    }

    fn sum(&self, range: AddrRange) -> u64 {
        self.assert_committed(range);
        let bytes = self.0.borrow();
        bytes.content[Self::at(range)]
            .iter()
            .fold(1, |sum: u64, &byte| sum.wrapping_mul(31) + u64::from(byte))
    }

    fn find_change(&self, range: AddrRange, pattern: Pattern) -> Option<Change> {
        self.assert_committed(range);
        let bytes = self.0.borrow();
        let changed: Vec<u64> = Self::at(range)
            .filter(|&at| bytes.content[at] != pattern as u8)
            .map(|at| BASE + at as u64)
            .collect();
        Some(Change {
            first: Addr(*changed.first()?),
            last: Addr(*changed.last()?),
            changed: changed.len() as u64,
        })
    }

    fn prefetch(&self, _: Addr) {}

    fn read(&self, from: Addr, into: &mut [u8]) {
        let at = (from.0 - BASE) as usize;
        into.copy_from_slice(&self.0.borrow().content[at..at + into.len()]);
    }

    fn poison(&self, range: AddrRange, _: Reason) {
        let mut bytes = self.0.borrow_mut();
        let mut at = Self::at(range);
        // As the real shadow: what a granule leaves of a range that ends inside it is lost.
        at.end = at.end.next_multiple_of(8).min(bytes.shadow.len());
        bytes.shadow[at].fill(POISONED);
    }

    fn unpoison(&self, range: AddrRange) {
        assert!(range.start().is_aligned(8));
        let mut bytes = self.0.borrow_mut();
        let at = Self::at(range);
        bytes.shadow[at.start..at.end.next_multiple_of(8)].fill(POISONED);
        bytes.shadow[at].fill(ADDRESSABLE);
    }

    fn exchange_alone(&self, word: &AtomicU64, from: u64, to: u64) -> u64 {
        word.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|seen| seen)
    }

    fn enter_critical(&self) -> u64 {
        7
    }

    fn leave_critical(&self, before: u64) {
        assert_eq!(before, 7);
    }

    fn relax(&self) {
        panic!("nobody else holds a lock here");
    }
}

/// What a heap of small regions, so that they fill up, keeps its records in.
pub struct OwnTables {
    layout: Layout,
    metas: Vec<ChunkMeta>,
    freed: Vec<FreedMeta>,
    groups: Vec<GroupWords>,
    large_sizes: Vec<AtomicU64>,
    small_batches: Vec<Batch>,
    big_batches: Vec<Batch>,
}

fn zeroed<T: Default>(count: usize) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

impl OwnTables {
    pub fn new() -> Self {
        let layout = Layout::new(Addr(BASE), 17, 20);
        Self {
            layout,
            metas: zeroed(layout.chunk_count()),
            freed: zeroed(layout.chunk_count()),
            groups: zeroed(layout.group_count()),
            large_sizes: zeroed(layout.large_count()),
            small_batches: zeroed(1 << 6),
            big_batches: zeroed(1 << 4),
        }
    }

    /// A new heap with these tables, which no other heap may have.
    pub fn heap(&self, wishes: Wishes) -> (Heap<'_>, Fake) {
        let tables = Tables {
            metas: &self.metas,
            freed: &self.freed,
            groups: &self.groups,
            large_sizes: &self.large_sizes,
            batches: [&self.small_batches, &self.big_batches],
        };
        (Heap::new(self.layout, tables, wishes), Fake::new(&self.layout))
    }
}

pub fn request(size: u64, align_shift: u32) -> Request {
    Request { size, align_shift, function: Function::Malloc, stack: StackId(1) }
}

pub const FREEING: Freeing = Freeing { function: Function::Free, stack: StackId(2) };
