//! The target's heap and memory as the search sees them.
//!
//! Slots are numbered densely, class after class, over those that were ever used:
//!
//! ```text
//!  index = first[class] + number in the class,   first[class] ≤ index < first[class + 1]
//! ```
//!
//! Invariant: all other threads stand still while a view lives, so every live chunk stays mapped and readable.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memcheck_heap::{CLASSES, Class, Heap, LiveSlot};
use memcheck_leak::{Chunk, ChunkIndex, LiveChunk, MemoryView};
use memcheck_model::{Addr, AddrRange, Function, MAX_FRAMES, Pc, Size, StackId, ThreadId};

use super::runtime_library::{RuntimeLibraries, TREE_NODE};
use crate::{
    heap,
    maps::{self, Mapping, Source},
    stacks,
    sys::{file::File, process},
};

/// For each so many slots the class of the first is noted.
const HINT_SHIFT: u32 = 10;

/// The pid of the last forked child in this memory, or zero: what older threads allocated is inherited.
static FORKED: AtomicU32 = AtomicU32::new(0);

/// This process was forked: it has inherited what lives now.
pub fn inherit() {
    FORKED.store(process::pid(), Ordering::Relaxed);
}

/// The view.
pub struct HeapView<'a> {
    heap: &'static Heap<'static>,
    first: [u32; CLASSES + 1],
    /// By index without its low bits: the class of the first such index.
    class_hints: Vec<u8>,
    inheritance: Option<Inheritance>,
    libraries: &'a RuntimeLibraries,
    /// Mappings of files, for finding virtual tables and code.
    files: Vec<Mapping>,
    /// What the target has forbidden itself to read of the heap.
    unreadable: Vec<AddrRange>,
}

/// Tells the threads of a forked child from those that its parent had before.
#[derive(Clone, Copy)]
struct Inheritance {
    first_tid: u32,
    tid_limit: u32,
}

impl Inheritance {
    /// Whether a thread with this id was there before the fork: ids are given in ascending order and begin anew at
    /// the kernel's limit, so the younger ones are the half of the circle that follows.
    fn is_older(self, tid: ThreadId) -> bool {
        let after = (tid.0 + self.tid_limit).wrapping_sub(self.first_tid) % self.tid_limit;
        after >= self.tid_limit / 2
    }
}

impl<'a> HeapView<'a> {
    /// A view of the heap as it is now, with these runtime libraries.
    pub fn new(heap: &'static Heap<'static>, libraries: &'a RuntimeLibraries) -> Option<Self> {
        let mut first = [0u32; CLASSES + 1];
        for (index, class) in Class::all().enumerate() {
            first[index + 1] = first[index].checked_add(heap.used_slots(class))?;
        }
        let mut class_hints = Vec::new();
        class_hints.try_reserve_exact((first[CLASSES] >> HINT_SHIFT) as usize + 1).ok()?;
        let mut class = 0;
        for hint in 0..=first[CLASSES] >> HINT_SHIFT {
            while class + 1 < CLASSES && first[class + 1] <= hint << HINT_SHIFT {
                class += 1;
            }
            class_hints.push(class as u8);
        }
        let (mut files, mut unreadable) = (Vec::new(), Vec::new());
        maps::for_each(|mapping| {
            if heap::is_hidden(heap, mapping) {
                unreadable.push(mapping.range);
            } else if mapping.source == Source::File && mapping.permissions.read() {
                files.push(*mapping);
            }
            true
        });
        let forked = FORKED.load(Ordering::Relaxed);
        let inheritance = (forked != 0).then(|| Inheritance { first_tid: forked, tid_limit: tid_limit() });
        Some(Self { heap, first, class_hints, inheritance, libraries, files, unreadable })
    }

    /// The class, and the number in it.
    #[inline]
    fn place(&self, index: ChunkIndex) -> (usize, u32) {
        let mut class = usize::from(self.class_hints[(index.0 >> HINT_SHIFT) as usize]);
        while self.first[class + 1] <= index.0 {
            class += 1;
        }
        (class, index.0 - self.first[class])
    }

    fn live_slot(&self, chunk: Chunk) -> Option<LiveSlot> {
        let (class, number) = self.heap.find_slot(chunk.start)?;
        self.heap.find_live_slot(class, number)
    }

    #[inline]
    fn chunk(&self, slot: &LiveSlot) -> Chunk {
        Chunk { start: slot.start, size: slot.size, reported: self.is_own(slot.alloc_tid) }
    }

    /// Whether what this thread allocated is this process', and not inherited by fork.
    #[inline]
    pub fn is_own(&self, tid: ThreadId) -> bool {
        !self.inheritance.is_some_and(|inheritance| inheritance.is_older(tid))
    }

    /// Shows every live slot, and where chunks usually begin in it.
    #[inline]
    fn for_each(&self, mut visit: impl FnMut(ChunkIndex, Addr, &LiveSlot)) {
        for (class, bounds) in Class::all().zip(self.first.windows(2)) {
            let &[first, end] = bounds else { continue };
            self.heap.for_each_live_slot(class, end - first, |number, usual_start, slot| {
                visit(ChunkIndex(first + number), usual_start, &slot);
            });
        }
    }

    fn find_file(&self, addr: Addr) -> Option<&Mapping> {
        let after = self.files.partition_point(|mapping| mapping.range.start() <= addr);
        self.files[..after].last().filter(|mapping| mapping.range.contains(addr))
    }
}

/// Beyond the largest thread id that the kernel gives (proc(5), /proc/sys/kernel/pid_max).
fn tid_limit() -> u32 {
    let mut text = [0u8; 16];
    let read = File::open(b"/proc/sys/kernel/pid_max\0", false).and_then(|file| file.read(&mut text));
    let digits = &text[..read.unwrap_or(0)];
    let value = digits
        .iter()
        .map_while(|&digit| (digit as char).to_digit(10))
        .fold(0, |value: u32, digit| value.saturating_mul(10).saturating_add(digit));
    // The largest that Linux allows on 64 bits.
    if (301..=1 << 22).contains(&value) { value } else { 1 << 22 }
}

impl MemoryView for HeapView<'_> {
    fn slot_count(&self) -> u32 {
        self.first[CLASSES]
    }

    fn heap(&self) -> AddrRange {
        self.heap.range()
    }

    #[inline]
    fn find_slot(&self, addr: Addr) -> Option<ChunkIndex> {
        self.find_start(addr).map(|(index, _)| index)
    }

    #[inline]
    fn find_start(&self, addr: Addr) -> Option<(ChunkIndex, bool)> {
        let (class, number) = self.heap.find_slot(addr)?;
        let index = self.first[class].checked_add(number)?;
        (index < self.first[class + 1])
            .then(|| (ChunkIndex(index), self.heap.usual_start(class, number) == addr))
    }

    #[inline]
    fn get_chunk(&self, index: ChunkIndex) -> Chunk {
        let (class, number) = self.place(index);
        match self.heap.find_live_slot(class, number) {
            Some(slot) => self.chunk(&slot),
            // Freed by a search's own thread in a handler, which none does: it holds nothing.
            None => Chunk { start: self.heap.usual_start(class, number), size: Size::ZERO, reported: false },
        }
    }

    fn for_each_live(&self, mut visit: impl FnMut(LiveChunk)) {
        self.for_each(|index, _, slot| {
            visit(LiveChunk {
                index,
                chunk: self.chunk(slot),
                stack: slot.alloc_stack,
                allocated_by: slot.allocated_by,
            });
        });
    }

    fn for_each_slot(&self, mut visit: impl FnMut(ChunkIndex, Option<Size>)) {
        self.for_each(|index, usual_start, slot| {
            visit(index, (slot.start == usual_start).then_some(slot.size));
        });
    }

    #[inline]
    fn for_each_readable(&self, range: AddrRange, visit: impl FnMut(AddrRange)) {
        range.for_each_rest(range.among(&self.unreadable), visit);
    }

    #[inline]
    fn words(&self, range: AddrRange) -> &[AtomicU64] {
        if !range.among(&self.unreadable).is_empty() {
            return &[];
        }
        let start = range.start().0.next_multiple_of(8);
        let count = (range.end().0 & !7).saturating_sub(start) / 8;
        // SAFETY: the search asks for live chunks, which the heap keeps mapped and no unreadable range is part of, and for
        // roots, which `roots::gather` found readable; atomic, because another process may write to a shared mapping.
        unsafe { core::slice::from_raw_parts(start as *const AtomicU64, count as usize) }
    }

    fn stack_in<'a>(&self, stack: StackId, frames: &'a mut [Pc]) -> &'a [Pc] {
        let mut all = [Pc(0); MAX_FRAMES];
        let found = stacks::frames_in(stack, &mut all);
        let count = found.len().min(frames.len());
        frames[..count].copy_from_slice(&found[..count]);
        &frames[..count]
    }

    fn is_library_stack(&self, stack: StackId) -> bool {
        self.libraries.made(self.stack_in(stack, &mut [Pc(0); 2]))
    }

    fn is_start_by_convention(&self, chunk: Chunk, offset: Size) -> bool {
        let may_be_node = offset == Size(1) && chunk.size == TREE_NODE;
        if !may_be_node && self.libraries.glib.is_none() {
            return false;
        }
        self.live_slot(chunk).is_some_and(|slot| {
            let mut frames = [Pc(0); 2];
            let stack = self.stack_in(slot.alloc_stack, &mut frames);
            let is_made_by = |range: AddrRange| stack.first().is_some_and(|pc| range.contains(Addr(pc.0)));
            (may_be_node && self.libraries.tree_maker.is_some_and(is_made_by))
                || self.libraries.glib.as_ref().is_some_and(|glib| glib.is_start(stack, offset.0))
        })
    }

    fn is_array(&self, chunk: Chunk) -> bool {
        use Function::{NewArray, NewArrayAligned, NewArrayAlignedNothrow, NewArrayNothrow};
        self.live_slot(chunk).is_some_and(|slot| {
            matches!(slot.allocated_by, NewArray | NewArrayNothrow | NewArrayAligned | NewArrayAlignedNothrow)
        })
    }

    fn find_file_word(&self, addr: Addr) -> Option<u64> {
        let end = addr.checked_add(Size(8))?;
        let mapping = self.find_file(addr).filter(|mapping| end <= mapping.range.end())?;
        debug_assert!(mapping.permissions.read());
        crate::sys::memory::try_read(addr.0)
    }

    fn is_code(&self, addr: Addr) -> bool {
        self.find_file(addr).is_some_and(|mapping| mapping.permissions.execute())
    }

    #[inline]
    fn prefetch(&self, addr: Addr) {
        // SAFETY: a prefetch has no effect but on caches, whatever the address.
        unsafe { core::arch::x86_64::_mm_prefetch(addr.0 as *const i8, core::arch::x86_64::_MM_HINT_T0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_from_before_a_fork_are_older_also_around_the_limit() {
        let child = Inheritance { first_tid: 1000, tid_limit: 32768 };
        assert!(!child.is_older(ThreadId(1000)) && !child.is_older(ThreadId(1007)));
        assert!(child.is_older(ThreadId(999)) && child.is_older(ThreadId(1)));
        let late = Inheritance { first_tid: 32760, tid_limit: 32768 };
        assert!(!late.is_older(ThreadId(305)) && late.is_older(ThreadId(32759)));
    }
}
