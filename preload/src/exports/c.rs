//! C's allocator functions, with glibc's rules (manual, "Memory Allocation"; malloc/malloc.c of 2.36 for what the
//! manual leaves open).

use memcheck_model::{Addr, Detail, ErrorKind, Function, Place};

use super::{EINVAL, ENOMEM, align_shift, block, call, native, report_alignment};
use crate::{
    heap::{self, Content, DeleteTerms},
    with_caller,
};

const PAGE_SHIFT: u32 = 12;
const PAGE: u64 = 1 << PAGE_SHIFT;

with_caller! {
    malloc => malloc_for, "rsi", "rdx";
    calloc => calloc_for, "rdx", "rcx";
    realloc => realloc_for, "rdx", "rcx";
    reallocarray => reallocarray_for, "rcx", "r8";
    free => free_for, "rsi", "rdx";
    cfree => cfree_for, "rsi", "rdx";
    memcheck_release => release_for, "rsi", "rdx";
    memalign => memalign_for, "rdx", "rcx";
    aligned_alloc => aligned_alloc_for, "rdx", "rcx";
    posix_memalign => posix_memalign_for, "rcx", "r8";
    valloc => valloc_for, "rsi", "rdx";
    pvalloc => pvalloc_for, "rsi", "rdx";
    __libc_malloc => malloc_for, "rsi", "rdx";
    __libc_calloc => calloc_for, "rdx", "rcx";
    __libc_realloc => realloc_for, "rdx", "rcx";
    __libc_free => free_for, "rsi", "rdx";
    __libc_memalign => memalign_for, "rdx", "rcx";
    __libc_valloc => valloc_for, "rsi", "rdx";
    __libc_pvalloc => pvalloc_for, "rsi", "rdx";
}

extern "C" fn malloc_for(size: u64, entry_sp: u64, bp: u64) -> u64 {
    let Some(heap) = heap::get() else { return native::malloc(size) };
    block(heap, &call(Function::Malloc, entry_sp, bp), size, 0, Content::Any)
}

extern "C" fn calloc_for(count: u64, size: u64, entry_sp: u64, bp: u64) -> u64 {
    let Some(heap) = heap::get() else { return native::calloc(count, size) };
    let call = call(Function::Calloc, entry_sp, bp);
    match count.checked_mul(size) {
        Some(bytes) => block(heap, &call, bytes, 0, Content::Zero),
        None => overflown(&call, count, size),
    }
}

/// Null and ENOMEM for a product that fits no number.
#[cold]
fn overflown(call: &heap::Call, count: u64, size: u64) -> u64 {
    heap::report(ErrorKind::BadSize, call, Addr::NULL, Place::None, None, Detail::Sizes([count, size]));
    native::set_errno(ENOMEM);
    0
}

extern "C" fn realloc_for(old: u64, size: u64, entry_sp: u64, bp: u64) -> u64 {
    resize(old, size, &call(Function::Realloc, entry_sp, bp))
}

extern "C" fn reallocarray_for(old: u64, count: u64, size: u64, entry_sp: u64, bp: u64) -> u64 {
    let call = call(Function::Reallocarray, entry_sp, bp);
    match count.checked_mul(size) {
        Some(bytes) => resize(old, bytes, &call),
        None => overflown(&call, count, size),
    }
}

fn resize(old: u64, size: u64, call: &heap::Call) -> u64 {
    let Some(heap) = heap::get() else { return native::realloc(old, size) };
    if old == 0 {
        return block(heap, call, size, 0, Content::Any);
    }
    match heap::reallocate(heap, call, Addr(old), size) {
        Some(addr) => addr.0,
        None => {
            native::set_errno(ENOMEM);
            0
        }
    }
}

extern "C" fn free_for(old: u64, entry_sp: u64, bp: u64) {
    release(old, &call(Function::Free, entry_sp, bp), DeleteTerms::default());
}

extern "C" fn cfree_for(old: u64, entry_sp: u64, bp: u64) {
    release(old, &call(Function::Cfree, entry_sp, bp), DeleteTerms::default());
}

extern "C" fn release_for(old: u64, entry_sp: u64, bp: u64) {
    release(old, &call(Function::Free, entry_sp, bp), DeleteTerms::default().of_any());
}

#[inline]
fn release(old: u64, call: &heap::Call, said: DeleteTerms) {
    if old == 0 {
        return;
    }
    match heap::get() {
        Some(heap) => heap::deallocate(heap, call, Addr(old), said),
        None => native::free(old),
    }
}

extern "C" fn memalign_for(align: u64, size: u64, entry_sp: u64, bp: u64) -> u64 {
    aligned(align, size, &call(Function::Memalign, entry_sp, bp))
}

extern "C" fn aligned_alloc_for(align: u64, size: u64, entry_sp: u64, bp: u64) -> u64 {
    aligned(align, size, &call(Function::AlignedAlloc, entry_sp, bp))
}

/// As glibc: an alignment that is no power of two counts as the next one, and is reported.
fn aligned(align: u64, size: u64, call: &heap::Call) -> u64 {
    let Some(heap) = heap::get() else { return native::memalign(align, size) };
    if !align.is_power_of_two() {
        report_alignment(call, align);
    }
    if align > i64::MAX as u64 / 2 + 1 {
        native::set_errno(EINVAL);
        return 0;
    }
    block(heap, call, size, align_shift(align.max(1).next_power_of_two()), Content::Any)
}

extern "C" fn posix_memalign_for(result: *mut u64, align: u64, size: u64, entry_sp: u64, bp: u64) -> i32 {
    let call = call(Function::PosixMemalign, entry_sp, bp);
    let is_valid = align.is_power_of_two() && align >= 8;
    let addr = match heap::get() {
        None if is_valid => native::memalign(align, size),
        None => return EINVAL,
        Some(_) if !is_valid => {
            report_alignment(&call, align);
            return EINVAL;
        }
        Some(heap) => match heap::allocate(heap, &call, size, align_shift(align), Content::Any) {
            Some(addr) => addr.0,
            None => return ENOMEM,
        },
    };
    if addr == 0 {
        return ENOMEM;
    }
    // SAFETY: where the caller wants the result; a bad address is the caller's error and faults here as in libc.
    unsafe { result.write_unaligned(addr) };
    0
}

extern "C" fn valloc_for(size: u64, entry_sp: u64, bp: u64) -> u64 {
    let Some(heap) = heap::get() else { return native::memalign(PAGE, size) };
    block(heap, &call(Function::Valloc, entry_sp, bp), size, PAGE_SHIFT, Content::Any)
}

extern "C" fn pvalloc_for(size: u64, entry_sp: u64, bp: u64) -> u64 {
    // Whole pages; a size too large for that stays as it is, and is refused for it.
    let size = size.checked_next_multiple_of(PAGE).unwrap_or(size);
    let Some(heap) = heap::get() else { return native::memalign(PAGE, size) };
    block(heap, &call(Function::Pvalloc, entry_sp, bp), size, PAGE_SHIFT, Content::Any)
}
