//! The heap's effects on real memory: pages, patterns, shadow, signals.
//!
//! Invariant: every range that comes here lies in the heap's reservation, which nobody else maps or unmaps; ranges
//! that are read or written were committed by `commit` before.

use core::{
    arch::asm,
    ptr,
    sync::atomic::{AtomicU8, Ordering},
};

use memcheck_heap::{Backend, Change, Pattern, Reason};
use memcheck_model::{Addr, AddrRange};
use memcheck_shadow::Poison;

use crate::{
    engine::shadow_map,
    sys::{self, signal},
};

const SYS_MMAP: i64 = 9;
const SYS_MPROTECT: i64 = 10;
const SYS_SCHED_YIELD: i64 = 24;
const SYS_MADVISE: i64 = 28;
const PROT_NONE: u64 = 0;
const PROT_READ_WRITE: u64 = 3;
const MAP_PRIVATE_ANONYMOUS_FIXED: u64 = 0x32;
const MADV_DONTNEED: u64 = 4;

/// The target's memory.
pub struct Memory;

impl Backend for Memory {
    fn commit(&self, range: AddrRange) -> bool {
        let args = [range.start().0, range.size().0, PROT_READ_WRITE, 0, 0, 0];
        // SAFETY: the pages are the heap's own; making them accessible takes nothing from anyone.
        unsafe { sys::syscall(SYS_MPROTECT, args) }.is_ok()
    }

    fn decommit(&self, range: AddrRange) {
        let args = [range.start().0, range.size().0, PROT_NONE, MAP_PRIVATE_ANONYMOUS_FIXED, u64::MAX, 0];
        // SAFETY: replaces pages of the heap's own, of chunks that are free.
        let _ = unsafe { sys::syscall(SYS_MMAP, args) };
    }

    fn discard(&self, range: AddrRange) {
        // SAFETY: as in `decommit`.
        let _ =
            unsafe { sys::syscall(SYS_MADVISE, [range.start().0, range.size().0, MADV_DONTNEED, 0, 0, 0]) };
    }

    #[inline]
    fn fill(&self, range: AddrRange, pattern: Pattern) {
        let mut at = range.start().0 as *mut u8;
        let mut left = range.size().0 as usize;
        if left >= 256 {
            // SAFETY: committed memory of the heap (module invariant).
            unsafe { ptr::write_bytes(at, pattern as u8, left) };
            return;
        }
        let word = u64::from_ne_bytes([pattern as u8; 8]);
        while left >= 8 {
            // SAFETY: as above; unaligned is allowed for.
            unsafe { at.cast::<u64>().write_unaligned(word) };
            at = at.wrapping_add(8);
            left -= 8;
        }
        for offset in 0..left {
            // Not a plain store, so that the compiler makes no call of the remainder.
            // SAFETY: as above.
            unsafe { at.add(offset).write_volatile(pattern as u8) };
        }
    }

    #[inline]
    fn find_change(&self, range: AddrRange, pattern: Pattern) -> Option<Change> {
        let word = u64::from_ne_bytes([pattern as u8; 8]);
        let mut at = range.start().0 as *const u8;
        let mut left = range.size().0 as usize;
        let mut difference = 0;
        while left >= 8 {
            // SAFETY: committed memory of the heap (module invariant); the target may write to it meanwhile, in
            // error, and either value will do.
            difference |= unsafe { at.cast::<u64>().read_unaligned() } ^ word;
            at = at.wrapping_add(8);
            left -= 8;
        }
        for offset in 0..left {
            // SAFETY: as above.
            difference |= u64::from(unsafe { at.add(offset).read_volatile() } ^ pattern as u8);
        }
        if difference == 0 { None } else { locate(range, pattern) }
    }

    fn read(&self, from: Addr, into: &mut [u8]) {
        for (offset, byte) in into.iter_mut().enumerate() {
            *byte = byte_at(from.0 + offset as u64);
        }
    }

    #[inline]
    fn poison(&self, range: AddrRange, reason: Reason) {
        shadow_map::poison(
            range,
            match reason {
                Reason::Unused => Poison::Unused,
                Reason::LeftRedzone => Poison::LeftRedzone,
                Reason::RightRedzone => Poison::RightRedzone,
                Reason::Freed => Poison::Freed,
            },
        );
    }

    #[inline]
    fn unpoison(&self, range: AddrRange) {
        shadow_map::unpoison(range);
    }

    fn enter_critical(&self) -> u64 {
        signal::set_mask(u64::MAX)
    }

    fn leave_critical(&self, before: u64) {
        signal::set_mask(before);
    }

    fn relax(&self) {
        // SAFETY: sched_yield touches no memory.
        let _ = unsafe { sys::syscall(SYS_SCHED_YIELD, [0; 6]) };
    }
}

fn byte_at(addr: u64) -> u8 {
    // SAFETY: committed memory of the heap (module invariant); atomic because the target may write to it.
    unsafe { AtomicU8::from_ptr(addr as *mut u8) }.load(Ordering::Relaxed)
}

/// Which bytes of a range differ from the pattern, one by one.
#[cold]
fn locate(range: AddrRange, pattern: Pattern) -> Option<Change> {
    let mut differing = (range.start().0..range.end().0).filter(|&addr| byte_at(addr) != pattern as u8);
    let first = differing.next()?;
    let (last, changed) = differing.fold((first, 1), |(_, changed), addr| (addr, changed + 1));
    Some(Change { first: Addr(first), last: Addr(last), changed })
}

/// Fills the user's bytes.
pub fn set_bytes(start: Addr, size: u64, value: u8) {
    // SAFETY: a live chunk of that size, which its owner has not seen yet or has just given back.
    unsafe { ptr::write_bytes(start.0 as *mut u8, value, size as usize) };
}

/// Copies from one chunk to another.
pub fn copy(from: Addr, to: Addr, size: u64) {
    // SAFETY: two live chunks of at least `size` bytes, the second of which its owner has not seen yet.
    // `rep movsb`, as the shim's memcpy, which is no call here.
    unsafe {
        asm!("rep movsb", inout("rcx") size => _, inout("rsi") from.0 => _, inout("rdi") to.0 => _,
            options(nostack, preserves_flags));
    }
}
