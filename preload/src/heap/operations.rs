//! What the exported functions have in common: make, free and change chunks, and report what was wrong with the
//! call. Where a call is wrong it goes on as Valgrind would have it: a second free does nothing, a mismatched
//! one frees, `realloc` of what is no live block gives null.

use memcheck_heap::{ChunkState, FreeError, Freed, Freeing, Heap, Late, Request};
use memcheck_model::{Addr, BlockState, Detail, ErrorKind, Function, Place};

use super::{
    errors::{place_of, report, report_late},
    memory::{Memory, copy, set_bytes},
    options,
    threads::{HeldCache, with_passing_cache},
};
use crate::stacks::{self, Caller};

/// A call of an allocator function.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Which.
    pub function: Function,
    /// By whom.
    pub caller: Caller,
}

/// What a delete says of the block it is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteTerms {
    /// Its size, if it says so.
    pub size: Option<u64>,
    /// Its alignment, if it says so.
    pub align: Option<u64>,
    /// Whether it may be any allocator function's: one function of the target stands for `free` and every `delete`.
    pub of_any: bool,
}

impl DeleteTerms {
    /// With this size.
    pub const fn size(self, size: u64) -> Self {
        Self { size: Some(size), ..self }
    }

    /// With this alignment.
    pub const fn align(self, align: u64) -> Self {
        Self { align: Some(align), ..self }
    }

    /// Of any allocator function.
    pub const fn of_any(self) -> Self {
        Self { of_any: true, ..self }
    }
}

/// No object is larger (PTRDIFF_MAX); a greater size was a negative number or an overflow.
const MOST_BYTES: u64 = i64::MAX as u64;
/// Up to this size `realloc` always moves, so that a stale pointer shows; larger blocks stay when they can.
const ALWAYS_MOVED_BYTES: u64 = 16 << 10;

/// Makes a chunk of `size` bytes at a multiple of `1 << align_shift`, all zero when `zero` says so. `None` is for
/// want of memory, or because of the size, which is then reported.
#[inline]
pub fn allocate(
    heap: &'static Heap<'static>,
    call: &Call,
    size: u64,
    align_shift: u32,
    content: Content,
) -> Option<Addr> {
    if size > MOST_BYTES {
        report(ErrorKind::BadSize, call, Addr::NULL, Place::None, None, Detail::Sizes([size, 0]));
        return None;
    }
    let stack = stacks::capture_id(call.caller);
    let request = Request { size, align_shift, function: call.function, stack };
    let made = match HeldCache::take(heap) {
        Some(mut cache) => heap.allocate(cache.get(), &Memory, &request),
        None => with_passing_cache(heap, |cache| heap.allocate(cache, &Memory, &request)),
    }?;
    match content {
        Content::Zero if !made.zeroed => set_bytes(made.addr, size, 0),
        Content::Any => {
            if let Some(fill) = options().malloc_fill {
                set_bytes(made.addr, size, fill);
            }
        }
        Content::Zero | Content::Copied => {}
    }
    Some(made.addr)
}

/// What a new chunk must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Anything.
    Any,
    /// Zeros.
    Zero,
    /// What the caller writes to it at once.
    Copied,
}

/// Frees the chunk at `addr`, which is not null.
#[inline]
pub fn deallocate(heap: &'static Heap<'static>, call: &Call, addr: Addr, said: DeleteTerms) {
    // Sought before the stack is captured: the chunk's memory is on its way meanwhile.
    let Some(sought) = heap.seek(&Memory, addr) else {
        return report_bad_free(call, addr, &FreeError::NoChunk);
    };
    let how = Freeing { function: call.function, stack: stacks::capture_id(call.caller) };
    let mut late = |late: &Late| report_late(call, late);
    let freed = match HeldCache::take(heap) {
        Some(mut cache) => heap.free_sought(cache.get(), &Memory, sought, &how, &mut late),
        None => with_passing_cache(heap, |cache| heap.free_sought(cache, &Memory, sought, &how, &mut late)),
    };
    match freed {
        Ok(freed) => {
            if !agrees(call.function, &freed, said) {
                report_mismatch(heap, call, &freed, said);
            }
        }
        Err(error) => report_bad_free(call, addr, &error),
    }
}

#[cold]
fn report_bad_free(call: &Call, addr: Addr, error: &FreeError) {
    match error {
        FreeError::AlreadyFreed(chunk) => {
            let place = Place::Block(chunk.block());
            report(ErrorKind::DoubleFree, call, addr, place, Some(chunk), Detail::None);
        }
        FreeError::NoChunk => {
            let (place, chunk) = place_of(addr, call);
            report(ErrorKind::BadFree, call, addr, place, chunk.as_ref(), Detail::None);
        }
    }
}

/// How an allocating function's blocks are to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    C,
    Scalar { aligned: bool },
    Array { aligned: bool },
}

fn family(function: Function) -> Family {
    use Function as F;
    match function {
        F::New | F::NewNothrow | F::Delete | F::DeleteSized | F::DeleteNothrow => {
            Family::Scalar { aligned: false }
        }
        F::NewAligned
        | F::NewAlignedNothrow
        | F::DeleteAligned
        | F::DeleteSizedAligned
        | F::DeleteAlignedNothrow => Family::Scalar { aligned: true },
        F::NewArray | F::NewArrayNothrow | F::DeleteArray | F::DeleteArraySized | F::DeleteArrayNothrow => {
            Family::Array { aligned: false }
        }
        F::NewArrayAligned
        | F::NewArrayAlignedNothrow
        | F::DeleteArrayAligned
        | F::DeleteArraySizedAligned
        | F::DeleteArrayAlignedNothrow => Family::Array { aligned: true },
        _ => Family::C,
    }
}

#[inline]
fn agrees(function: Function, freed: &Freed, said: DeleteTerms) -> bool {
    // By far the most calls.
    if (function, freed.allocated_by) == (Function::Free, Function::Malloc) {
        return true;
    }
    (said.of_any || family(function) == family(freed.allocated_by))
        && said.size.is_none_or(|size| size == freed.size)
        && said.align.is_none_or(|align| align.max(1 << options().align_shift) == 1u64 << freed.align_shift)
}

#[cold]
fn report_mismatch(heap: &Heap<'_>, call: &Call, freed: &Freed, said: DeleteTerms) {
    let chunk = heap.view(freed.id);
    let mut block = chunk.block();
    // As it was when the call was made.
    block.state = BlockState::Live;
    block.freed_by = None;
    block.free_tid = memcheck_model::ThreadId(0);
    let mut origin = chunk;
    origin.free_stack = memcheck_model::StackId::NONE;
    // What the call said of the block is another matter when it was the wrong function.
    let kind = |function| core::mem::discriminant(&family(function));
    let is_family = kind(call.function) == kind(freed.allocated_by);
    let detail = if is_family && (said.size.is_some() || said.align.is_some()) {
        Detail::SizedDelete {
            size: said.size.unwrap_or(0),
            align: said.align.unwrap_or(0),
            block_align: chunk.alignment(),
        }
    } else {
        Detail::None
    };
    report(ErrorKind::AllocDeallocMismatch, call, chunk.start, Place::Block(block), Some(&origin), detail);
}

/// `realloc` of a block that is not null. `None` when there is no memory, `Some(null)` where null is the answer
/// without that being an error of memory.
pub fn reallocate(heap: &'static Heap<'static>, call: &Call, addr: Addr, size: u64) -> Option<Addr> {
    let (place, chunk) = place_of(addr, call);
    let Some(chunk) = chunk.filter(|chunk| chunk.start == addr && chunk.state == ChunkState::Live) else {
        report(ErrorKind::BadRealloc, call, addr, place, chunk.as_ref(), Detail::None);
        return Some(Addr::NULL);
    };
    if size == 0 {
        report(ErrorKind::ReallocZero, call, addr, place, Some(&chunk), Detail::Sizes([0, 0]));
        if options().realloc_zero_frees {
            deallocate(heap, call, addr, DeleteTerms::default());
            return Some(Addr::NULL);
        }
    }
    if size > MOST_BYTES {
        report(ErrorKind::BadSize, call, addr, place, Some(&chunk), Detail::Sizes([size, 0]));
        return None;
    }
    if chunk.size.0 > ALWAYS_MOVED_BYTES && family(chunk.allocated_by) == Family::C {
        let stack = stacks::capture_id(call.caller);
        let request = Request { size, align_shift: chunk.align_shift, function: call.function, stack };
        let mut late = |late: &Late| report_late(call, late);
        let is_resized = HeldCache::take(heap)
            .is_some_and(|mut cache| heap.try_resize(cache.get(), &Memory, addr, &request, &mut late));
        if is_resized {
            return Some(addr);
        }
    }
    let new = allocate(heap, call, size, 0, Content::Copied)?;
    copy(addr, new, size.min(chunk.size.0));
    deallocate(heap, call, addr, DeleteTerms::default());
    Some(new)
}

/// How many bytes of the chunk at `addr` may be used: as many as were asked for.
pub fn usable_size(heap: &Heap<'_>, addr: Addr) -> u64 {
    heap.find_live(addr).filter(|chunk| chunk.start == addr).map_or(0, |chunk| chunk.size.0)
}
