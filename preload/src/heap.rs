//! The target's heap in this process: where it is reserved, and how the exported functions reach it.
//!
//! In: calls of the exported functions, as [`Call`]. Out: chunks of `memcheck_heap`, and error events.
//!
//! Invariants: the heap is reserved by whoever allocates first, which may be the loader, and never given back.
//! Where its addresses are taken (or `ulimit -v` forbids), it is smaller; where there are none, libc's own
//! functions serve the target, and the launcher is told that the heap is not checked.

mod errors;
mod memory;
mod operations;
mod threads;

use alloc::vec::Vec;
use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memcheck_heap::{Batch, Chunk, ChunkMeta, FreedMeta, GroupWords, Heap, Layout, Tables, Wishes};
use memcheck_model::{Addr, AddrRange};
use memcheck_wire::{Counter, Notice, NoticeKind, Options, Record};

use crate::{
    channel,
    engine::shadow_map,
    maps, requests,
    sys::{self, process, signal},
};
pub use errors::report;
pub use operations::{Call, Content, DeleteTerms, allocate, deallocate, reallocate, usable_size};
pub use threads::ThreadHeap;

const HEAP_BASE: Addr = Addr(0x200b_e160_0000);

static STATE: AtomicU32 = AtomicU32::new(UNTRIED);
const UNTRIED: u32 = 0;
const BUSY: u32 = 1;
const READY: u32 = 2;
const ABSENT: u32 = 3;

struct HeapCell(UnsafeCell<MaybeUninit<(Heap<'static>, Options)>>);
// SAFETY: written once, by the thread that moved STATE to BUSY, before it becomes READY with Release; read after
// an Acquire of that.
unsafe impl Sync for HeapCell {}
static HEAP: HeapCell = HeapCell(UnsafeCell::new(MaybeUninit::uninit()));

/// The heap, reserved if it was not before. `None` when libc's has to do.
#[inline]
pub fn get() -> Option<&'static Heap<'static>> {
    if STATE.load(Ordering::Acquire) != READY {
        begin();
    }
    find()
}

/// The heap, if there is one by now.
#[inline]
pub fn find() -> Option<&'static Heap<'static>> {
    if STATE.load(Ordering::Acquire) != READY {
        return None;
    }
    // SAFETY: READY says that it was written (see `HeapCell`).
    Some(unsafe { &(*HEAP.0.get()).assume_init_ref().0 })
}

/// The options; for those who have a heap.
fn options() -> Options {
    if STATE.load(Ordering::Acquire) != READY {
        return Options::default();
    }
    // SAFETY: as in `find`.
    unsafe { (*HEAP.0.get()).assume_init_ref().1 }
}

/// Reserves the heap, once; others wait for it.
#[cold]
pub fn begin() {
    let mask = signal::set_mask(u64::MAX);
    match STATE.compare_exchange(UNTRIED, BUSY, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let options = channel::connect();
            if options.access_checks && channel::is_watched() && shadow_map::reserve().is_err() {
                notice(NoticeKind::NoShadow, b"the addresses of the shadow memory cannot be reserved");
            }
            // An emulator keeps an account of each page that its program reserves.
            let is_emulated = !channel::is_watched() && process::is_emulated();
            let made = if is_emulated { None } else { reserve(&options) };
            let state = if made.is_some() { READY } else { ABSENT };
            if let Some(heap) = made {
                // SAFETY: only the thread that moved STATE to BUSY gets here, once.
                unsafe { (*HEAP.0.get()).write((heap, options)) };
            } else {
                notice(NoticeKind::NoHeap, b"its addresses cannot be reserved (ulimit -v?)");
            }
            STATE.store(state, Ordering::Release);
        }
        Err(BUSY) => {
            while STATE.load(Ordering::Acquire) == BUSY {
                core::hint::spin_loop();
            }
        }
        Err(_) => {}
    }
    signal::set_mask(mask);
}

fn notice(kind: NoticeKind, text: &[u8]) {
    channel::send(&Record::Notice(Notice { kind, text }));
}

fn reserve(options: &Options) -> Option<Heap<'static>> {
    for (small_shift, large_shift) in Layout::SHIFTS {
        let layout = Layout::new(HEAP_BASE, small_shift, large_shift);
        let mut bytes = 0;
        let mut place = |count: usize, size: usize| {
            let at = bytes;
            bytes += count * size;
            at
        };
        let metas = place(layout.chunk_count(), size_of::<ChunkMeta>());
        let freed = place(layout.chunk_count(), size_of::<FreedMeta>());
        let large_sizes = place(layout.large_count(), size_of::<AtomicU64>());
        let groups = place(layout.group_count(), size_of::<GroupWords>());
        let batches = [(); 2].map(|()| place(Tables::BATCHES, size_of::<Batch>()));
        let Some(memory) = sys::map_anonymous(bytes) else { continue };
        let range = layout.range();
        if sys::reserve_inaccessible(range.start(), range.size().0).is_err() {
            sys::unmap(memory, bytes);
            continue;
        }
        // Large blocks may have huge pages, as natively.
        let small = layout.small_range();
        sys::refuse_huge_pages(small.start().0, small.size().0);
        // SAFETY: the tables follow one another in the mapping just made, which is zeroed (valid for all of them,
        // being atomics), page-aligned, and never unmapped from here on.
        let tables = unsafe {
            Tables {
                metas: core::slice::from_raw_parts(memory.add(metas).cast(), layout.chunk_count()),
                freed: core::slice::from_raw_parts(memory.add(freed).cast(), layout.chunk_count()),
                large_sizes: core::slice::from_raw_parts(
                    memory.add(large_sizes).cast(),
                    layout.large_count(),
                ),
                groups: core::slice::from_raw_parts(memory.add(groups).cast(), layout.group_count()),
                batches: batches
                    .map(|place| core::slice::from_raw_parts(memory.add(place).cast(), Tables::BATCHES)),
            }
        };
        let wishes = Wishes {
            quarantine_bytes: options.quarantine_bytes,
            align_shift: options.align_shift.into(),
            slack_bytes: u64::from(options.redzone_bytes).saturating_sub(16).next_multiple_of(16),
            keeps_freed: options.access_checks,
            free_fill: options.free_fill,
        };
        return Some(Heap::new(layout, tables, wishes));
    }
    None
}

/// What the heap knows of an address: its chunk, or that no chunk was there. `None` outside the heap.
pub fn describe(addr: Addr) -> Option<Option<Chunk>> {
    find().filter(|heap| heap.contains(addr)).map(|heap| heap.describe(addr))
}

/// A bad write from `bad` to `end` was just reported, and is about to be made: its traces are not to be reported again.
pub fn damage_is_known(bad: Addr, end: Addr) {
    if let Some(heap) = find().filter(|heap| heap.contains(bad))
        && let Some(bad) = AddrRange::between(bad, end)
    {
        heap.damage_is_known(bad);
    }
}

/// The process ends: looks at all redzones and freed chunks, and leaves the final statistics.
pub fn at_end() {
    let Some(heap) = find() else { return };
    if channel::is_watched() && threads::is_sound() {
        let mut unreadable = Vec::new();
        maps::for_each(|mapping| {
            if is_hidden(heap, mapping) {
                unreadable.push(mapping.range);
            }
            true
        });
        heap.sweep(&memory::Memory, &unreadable, &mut errors::report_late_at_end);
    }
    store_statistics();
}

/// Whether a mapping is what the target has forbidden itself to read of slots that were ever used (mprotect(2)), or what
/// the heap gave back of them.
pub fn is_hidden(heap: &Heap<'_>, mapping: &maps::Mapping) -> bool {
    !mapping.permissions.read() && heap.is_used(mapping.range.start())
}

/// Writes the statistics to where they outlive the process.
pub fn store_statistics() {
    let Some(heap) = find() else { return };
    if let Some(mut cache) = threads::HeldCache::take(heap) {
        heap.publish(cache.get());
    }
    let mut sums = threads::statistics(heap);
    // Blocks of the target's own allocators count too, as for Valgrind, beside those they were cut from.
    let given = requests::given();
    sums.allocs += given.blocks;
    sums.frees += given.taken_blocks;
    sums.allocated_bytes += given.bytes;
    sums.freed_bytes += given.taken_bytes;
    let live_bytes = sums.allocated_bytes.saturating_sub(sums.freed_bytes);
    for (counter, value) in [
        (Counter::Allocs, sums.allocs),
        (Counter::Frees, sums.frees),
        (Counter::AllocatedBytes, sums.allocated_bytes),
        (Counter::PeakBytes, heap.peak_bytes().max(live_bytes)),
        (Counter::InUseBlocks, sums.allocs.saturating_sub(sums.frees)),
        (Counter::InUseBytes, live_bytes),
    ] {
        channel::counter(counter).store(value, Ordering::Relaxed);
    }
}

/// Live bytes, live chunks.
pub fn in_use() -> (u64, u64) {
    let sums = find().map(threads::statistics).unwrap_or_default();
    (sums.allocated_bytes.saturating_sub(sums.freed_bytes), sums.allocs.saturating_sub(sums.frees))
}

/// The calling thread is about to fork.
pub fn before_fork() {
    if let Some(heap) = find() {
        threads::before_fork(heap);
    }
}

/// It has forked.
pub fn after_fork_in_parent() {
    if let Some(heap) = find() {
        threads::after_fork_in_parent(heap);
    }
}

/// It is a forked child's only thread.
pub fn after_fork_in_child() {
    if let Some(heap) = find() {
        threads::after_fork_in_child(heap);
    }
}
