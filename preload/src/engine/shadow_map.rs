//! The target's shadow memory: 16 TiB of address space, reserved once and never unmapped.
//!
//! Invariant: while `is_active()`, `SHADOW_BASE .. SHADOW_BASE + SHADOW_BYTES` is mapped readable and writable.
//! Where it could not be reserved (the range is taken, `ulimit -v`) every operation does nothing and every
//! check succeeds: memcheck then runs without access checks, and says so.
//!
//! May run anywhere: no allocation, no locks.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use memcheck_model::{Addr, AddrRange};
use memcheck_shadow::{GranuleIndex, Granules, Poison, SHADOW_BASE, SHADOW_BYTES, ShadowByte, USER_END};

use crate::sys::{self, Errno, memory};

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Reserves the shadow. Called once, before the heap poisons anything and while there is one thread.
pub fn reserve() -> Result<(), Errno> {
    sys::reserve_fixed(Addr(SHADOW_BASE), SHADOW_BYTES)?;
    // Release pairs with the Acquire of `is_active`, for threads that were there before us.
    ACTIVE.store(true, Ordering::Release);
    Ok(())
}

/// Whether there is a shadow.
#[inline]
pub fn is_active() -> bool {
    ACTIVE.load(Ordering::Acquire)
}

/// Poisons `range` (see [`memcheck_shadow::poison`]).
#[inline]
pub fn poison(range: AddrRange, reason: Poison) {
    if is_active() && range.end().0 <= USER_END {
        memcheck_shadow::poison(&Shadow, range, reason);
    }
}

/// Makes `range`, which starts at a granule, addressable.
#[inline]
pub fn unpoison(range: AddrRange) {
    if is_active() && range.end().0 <= USER_END {
        memcheck_shadow::unpoison(&Shadow, range);
    }
}

/// Poisons the bytes of `range`, wherever it begins and ends (see [`memcheck_shadow::forbid`]).
pub fn forbid(range: AddrRange) {
    if is_active() && range.end().0 <= USER_END {
        memcheck_shadow::forbid(&Shadow, range);
    }
}

/// Makes the bytes of `range` addressable, wherever it begins and ends (see [`memcheck_shadow::allow`]).
pub fn allow(range: AddrRange) {
    if is_active() && range.end().0 <= USER_END {
        memcheck_shadow::allow(&Shadow, range);
    }
}

/// The first byte of `range` that must not be touched. What lies beyond user space is the kernel's to refuse.
#[inline]
pub fn find_bad(range: AddrRange) -> Option<Addr> {
    if !is_active() || range.end().0 > USER_END {
        return None;
    }
    memcheck_shadow::find_bad(&Shadow, range)
}

/// Whether the target itself forbade the byte at `addr`, which must not be touched. Where only some bytes of a granule
/// are addressable it is not known why, and this says yes.
pub fn is_forbidden(addr: Addr) -> bool {
    let state = state_of(addr);
    state.leading() > 0 || state.find_reason() == Some(Poison::Forbidden)
}

/// Whether every byte of `range` may be touched, as far as the shadow knows; quick when it is so. Only while
/// `is_active()`.
#[inline]
pub fn is_clean(range: AddrRange) -> bool {
    // The last page of user space is never mapped, so the read beyond the range's shadow stays in the shadow.
    range.end().0 > USER_END - 4096 || memcheck_shadow::is_clean(&Shadow, range)
}

/// The same for at most `memcheck_shadow::SHORT_BYTES` bytes from `start`.
#[inline(always)]
pub fn is_clean_short(start: Addr, bytes: u64) -> bool {
    bytes == 0
        || start.0 > USER_END - 4096 - memcheck_shadow::SHORT_BYTES
        || memcheck_shadow::is_clean_short(&Shadow, start, bytes)
}

/// The shadow byte of `addr`.
pub fn state_of(addr: Addr) -> ShadowByte {
    if is_active() && addr.0 < USER_END {
        Shadow.byte(GranuleIndex::of(addr))
    } else {
        ShadowByte::ADDRESSABLE
    }
}

/// The reserved memory, when `is_active()`; indices are of user addresses.
struct Shadow;

/// From this length on zeros are had by giving pages back: a large block's shadow then costs nothing.
const GIVEN_BACK_BYTES: u64 = 64 << 10;

impl Shadow {
    /// Makes `count` bytes, which are many, zero.
    #[cold]
    fn give_back(&self, index: GranuleIndex, count: u64) {
        const PAGE: u64 = 4096;
        let start = index.shadow_addr().0;
        let end = start + count;
        let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        let zero = |from: u64, to: u64| {
            // SAFETY: as in `byte`, for the bytes of the range.
            unsafe { core::ptr::write_bytes(from as *mut u8, 0, (to - from) as usize) };
        };
        zero(start, first);
        zero(last, end);
        // A private mapping of nothing reads as zeros then.
        if !memory::give_back(Addr(first), last - first) {
            zero(first, last);
        }
    }
}

impl Granules for Shadow {
    #[inline]
    fn byte(&self, index: GranuleIndex) -> ShadowByte {
        // SAFETY: `reserve` mapped the byte of every user address and nobody unmaps it; atomic because the
        // target's threads change it at any time.
        let byte = unsafe { AtomicU8::from_ptr(index.shadow_addr().0 as *mut u8) };
        // Relaxed: a program that races with the free of what it uses may see either state.
        ShadowByte(byte.load(Ordering::Relaxed))
    }

    #[inline]
    fn set_byte(&self, index: GranuleIndex, value: ShadowByte) {
        // SAFETY: as in `byte`.
        let byte = unsafe { AtomicU8::from_ptr(index.shadow_addr().0 as *mut u8) };
        byte.store(value.0, Ordering::Relaxed);
    }

    #[inline]
    fn word(&self, index: GranuleIndex) -> u64 {
        // SAFETY: as in `byte`; `SHADOW_BASE` and `index` are multiples of eight.
        let word = unsafe { AtomicU64::from_ptr(index.shadow_addr().0 as *mut u64) };
        word.load(Ordering::Relaxed)
    }

    #[inline]
    fn word_from(&self, index: GranuleIndex) -> u64 {
        let word: u64;
        // SAFETY: as in `byte`, for eight bytes. Rust has no unaligned atomic load; the processor's load of what other
        // threads write meanwhile gives each byte old or new.
        unsafe {
            core::arch::asm!("mov {}, [{}]", out(reg) word, in(reg) index.shadow_addr().0,
                options(nostack, readonly, preserves_flags));
        }
        word
    }

    #[inline]
    fn fill(&self, index: GranuleIndex, count: u64, value: ShadowByte) {
        if value == ShadowByte::ADDRESSABLE && count >= GIVEN_BACK_BYTES {
            self.give_back(index, count);
            return;
        }
        let start = index.shadow_addr().0 as *mut u8;
        let (count, word) = (count as usize, u64::from_ne_bytes([value.0; 8]));
        // Those of most blocks. The two stores overlap.
        if (2..4).contains(&count) {
            // SAFETY: as below.
            unsafe { start.cast::<u16>().write_unaligned(word as u16) };
            // SAFETY: as below.
            unsafe { start.add(count - 2).cast::<u16>().write_unaligned(word as u16) };
        } else if (4..8).contains(&count) {
            // SAFETY: as below.
            unsafe { start.cast::<u32>().write_unaligned(word as u32) };
            // SAFETY: as below.
            unsafe { start.add(count - 4).cast::<u32>().write_unaligned(word as u32) };
        } else if (8..=16).contains(&count) {
            // SAFETY: as below.
            unsafe { start.cast::<u64>().write_unaligned(word) };
            // SAFETY: as below.
            unsafe { start.add(count - 8).cast::<u64>().write_unaligned(word) };
        } else {
            // SAFETY: as in `byte`, for `count` bytes. Other threads may read them meanwhile; each byte becomes the same
            // however often it is written, so they see the old value or the new one.
            unsafe { core::ptr::write_bytes(start, value.0, count) };
        }
    }
}
