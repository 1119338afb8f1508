//! The tool's own heap: what `Vec` and `Box` in the shim use, apart from the target's.
//!
//! Sizes are rounded to powers of two; freed pieces go to a list by size, and of large ones the memory back to the
//! kernel. The largest are mapped alone, and lists hold them too.
//!
//! May run before init. **Not** for signal handlers or the allocation path of the target: whoever allocates
//! here holds the engine's lock with signals blocked, or runs in the process's only thread.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

use memcheck_model::Addr;

use crate::{
    forked_page,
    sys::{self, memory},
};

const SMALLEST_SHIFT: u32 = 4;
const LISTS: usize = 44;
/// How much is mapped at a time for small pieces; large enough that mappings stay few.
const ARENA_BYTES: usize = 1 << 20;

/// How much of the first is used in every process that has an engine.
const FIRST_BYTES: u64 = 768 << 10;

/// Of free pieces from this size on, which only large functions need, the memory is given back.
const LARGE_BYTES: u64 = 128 << 10;
const PAGE: u64 = 4096;

struct ToolHeap {
    busy: AtomicBool,
    /// The thread block of the thread that forks, or zero.
    forker: AtomicUsize,
    /// See [`forked_page::is_first`].
    settled: AtomicU64,
    free: [AtomicPtr<u8>; LISTS],
    arena_next: AtomicUsize,
    arena_end: AtomicUsize,
}

#[cfg_attr(not(test), global_allocator)]
static TOOL_HEAP: ToolHeap = ToolHeap {
    busy: AtomicBool::new(false),
    forker: AtomicUsize::new(0),
    settled: AtomicU64::new(0),
    free: [const { AtomicPtr::new(null_mut()) }; LISTS],
    arena_next: AtomicUsize::new(0),
    arena_end: AtomicUsize::new(0),
};

/// From now on a child of a raw clone is recognised by this word, which [`forked_page::settle`] gave.
pub fn begin(settled: u64) {
    TOOL_HEAP.settled.store(settled, Ordering::Relaxed);
}

/// The calling thread is about to fork, the engine's lock held: no other may be at the heap, which the child would find
/// locked for ever. It itself still allocates.
pub fn before_fork() {
    TOOL_HEAP.lock();
    TOOL_HEAP.forker.store(core::ptr::from_ref(crate::thread::current()) as usize, Ordering::Relaxed);
}

/// It has forked, in either process.
pub fn after_fork() {
    TOOL_HEAP.forker.store(0, Ordering::Relaxed);
    TOOL_HEAP.unlock();
}

/// The power of two that holds a layout: its shift.
fn class_shift(layout: Layout) -> u32 {
    let bytes = layout.size().max(layout.align()).max(1 << SMALLEST_SHIFT);
    bytes.next_power_of_two().trailing_zeros()
}

impl ToolHeap {
    fn lock(&self) {
        if forked_page::is_first(self.settled.load(Ordering::Relaxed))
            && self.busy.load(Ordering::Relaxed)
            && !self.is_forker()
        {
            self.begin_anew();
        }
        // Acquire pairs with the Release of `unlock`.
        while self.busy.swap(true, Ordering::Acquire) && !self.is_forker() {
            core::hint::spin_loop();
        }
    }

    /// In a child that lacks the thread which was at the heap: what that left half done is left alone.
    #[cold]
    fn begin_anew(&self) {
        self.free.iter().for_each(|list| list.store(null_mut(), Ordering::Relaxed));
        self.arena_next.store(self.arena_end.load(Ordering::Relaxed), Ordering::Relaxed);
        self.forker.store(0, Ordering::Relaxed);
        self.busy.store(false, Ordering::Release);
    }

    /// Whether this thread forks, and holds the lock meanwhile; its only thread does in the child.
    #[cold]
    fn is_forker(&self) -> bool {
        self.forker.load(Ordering::Relaxed) == core::ptr::from_ref(crate::thread::current()) as usize
    }

    fn unlock(&self) {
        if self.forker.load(Ordering::Relaxed) == 0 {
            self.busy.store(false, Ordering::Release);
        }
    }

    /// A fresh piece of `1 << shift` bytes, aligned to `align`, which is at most a page. The lock is held.
    fn carve(&self, shift: u32, align: usize) -> *mut u8 {
        let bytes = 1usize << shift;
        if bytes >= ARENA_BYTES {
            return sys::map_anonymous(bytes).unwrap_or(null_mut());
        }
        let next = self.arena_next.load(Ordering::Relaxed).next_multiple_of(align);
        if next != 0 && next + bytes <= self.arena_end.load(Ordering::Relaxed) {
            self.arena_next.store(next + bytes, Ordering::Relaxed);
            return next as *mut u8;
        }
        let Some(arena) = sys::map_anonymous(ARENA_BYTES) else { return null_mut() };
        if next == 0 {
            // The least that an engine needs: the decoder's tables and one libc.
            memory::prepare_to_write(arena as u64, FIRST_BYTES);
        }
        self.arena_next.store(arena as usize + bytes, Ordering::Relaxed);
        self.arena_end.store(arena as usize + ARENA_BYTES, Ordering::Relaxed);
        arena
    }
}

// SAFETY: pieces come from fresh mappings or from `dealloc`, are as large as their layout's power of two and aligned as
// it says (to a page at most: larger alignments are refused), and are handed out once.
unsafe impl GlobalAlloc for ToolHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let shift = class_shift(layout);
        let list = (shift - SMALLEST_SHIFT) as usize;
        if layout.align() > 4096 || list >= LISTS {
            return null_mut();
        }
        self.lock();
        let head = self.free[list].load(Ordering::Relaxed);
        let align = layout.align().max(1 << SMALLEST_SHIFT);
        let piece = if head.is_null() || !head.addr().is_multiple_of(align) {
            self.carve(shift, align)
        } else {
            // SAFETY: `dealloc` wrote the next piece's address at the start of this free piece.
            let next = unsafe { head.cast::<*mut u8>().read() };
            self.free[list].store(next, Ordering::Relaxed);
            head
        };
        self.unlock();
        piece
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let list = (class_shift(layout) - SMALLEST_SHIFT) as usize;
        let (start, bytes) = (piece as u64, 1 << class_shift(layout));
        if bytes >= LARGE_BYTES {
            // All but the page that the next piece's address goes to.
            let first = (start + 8).next_multiple_of(PAGE);
            memory::give_back(Addr(first), ((start + bytes) & !(PAGE - 1)) - first);
        }
        self.lock();
        // SAFETY: the caller gives the piece back, and it holds at least 16 bytes.
        unsafe { piece.cast::<*mut u8>().write(self.free[list].load(Ordering::Relaxed)) };
        self.free[list].store(piece, Ordering::Relaxed);
        self.unlock();
    }
}
