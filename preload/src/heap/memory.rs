//! The heap's effects on real memory: pages, patterns, shadow, signals.
//!
//! Invariant: every range that comes here lies in the heap's reservation, which nobody else maps or unmaps; ranges
//! that are read or written were committed by `commit` before.

use core::{
    arch::{
        asm,
        x86_64::{
            __m128i, _MM_HINT_T0, _mm_add_epi64, _mm_and_si128, _mm_cmpeq_epi8, _mm_cvtsi128_si64,
            _mm_loadu_si128, _mm_movemask_epi8, _mm_prefetch, _mm_set1_epi8, _mm_unpackhi_epi64,
        },
    },
    ptr,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
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
const PROT_NONE: u64 = 0;
const PROT_READ_WRITE: u64 = 3;
const MAP_PRIVATE_ANONYMOUS_FIXED: u64 = 0x32;

/// From this length on, one instruction fills best.
const SHORT_BYTES: usize = 1024;

/// Sixteen bytes of a pattern.
#[derive(Clone, Copy)]
struct Wide(__m128i);

impl Wide {
    #[inline]
    fn of(pattern: Pattern) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_set1_epi8(pattern as u8 as i8) })
    }

    /// # Safety
    /// Sixteen bytes there are writable memory of the heap.
    #[inline]
    unsafe fn write(self, at: *mut u8) {
        // Not by `_mm_storeu_si128`, of which the compiler makes a call of memset.
        // SAFETY: as the caller says; unaligned is allowed for.
        unsafe {
            asm!("movups xmmword ptr [{}], {}", in(reg) at, in(xmm_reg) self.0,
                options(nostack, preserves_flags));
        }
    }

    /// # Safety
    /// Sixteen bytes there are readable memory of the heap; the target may write to them meanwhile, in error, and
    /// either value will do.
    #[inline]
    unsafe fn compare(self, at: *const u8) -> Equal {
        // SAFETY: as the caller says; unaligned is allowed for.
        Equal(unsafe { _mm_cmpeq_epi8(_mm_loadu_si128(at.cast()), self.0) })
    }
}

/// Which of sixteen bytes were equal.
#[derive(Clone, Copy)]
struct Equal(__m128i);

impl Equal {
    #[inline]
    fn and(self, other: Self) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_and_si128(self.0, other.0) })
    }

    #[inline]
    fn all(self) -> bool {
        // SAFETY: SSE2 is part of x86-64.
        (unsafe { _mm_movemask_epi8(self.0) }) == 0xffff
    }
}

/// Two words that are added up.
#[derive(Clone, Copy)]
struct Lanes(__m128i);

impl Lanes {
    /// # Safety
    /// As `Wide::compare`.
    #[inline]
    unsafe fn read(at: *const u8) -> Self {
        // SAFETY: as the caller says; unaligned is allowed for.
        Self(unsafe { _mm_loadu_si128(at.cast()) })
    }

    #[inline]
    fn plus(self, other: Self) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_add_epi64(self.0, other.0) })
    }

    #[inline]
    fn folded(self) -> u64 {
        // SAFETY: SSE2 is part of x86-64.
        let (low, high) =
            unsafe { (_mm_cvtsi128_si64(self.0), _mm_cvtsi128_si64(_mm_unpackhi_epi64(self.0, self.0))) };
        // Not by shifts: a byte may stand in both words, as the last sixteen bytes overlap those before.
        low.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(high.cast_unsigned())
    }
}

/// The target's memory.
pub struct Memory;

impl Backend for Memory {
    fn commit(&self, range: AddrRange) -> bool {
        let args = [range.start().0, range.size().0, PROT_READ_WRITE, 0, 0, 0];
        // SAFETY: the pages are the heap's own; making them accessible takes nothing from anyone.
        unsafe { sys::syscall(SYS_MPROTECT, args) }.is_ok()
    }

    fn prepare(&self, range: AddrRange) {
        sys::memory::prepare_to_write(range.start().0, range.size().0);
    }

    fn decommit(&self, range: AddrRange) {
        let args = [range.start().0, range.size().0, PROT_NONE, MAP_PRIVATE_ANONYMOUS_FIXED, u64::MAX, 0];
        // SAFETY: replaces pages of the heap's own, of chunks that are free.
        let _ = unsafe { sys::syscall(SYS_MMAP, args) };
    }

    fn discard(&self, range: AddrRange) {
        sys::memory::give_back(range.start(), range.size().0);
    }

    #[inline]
    fn fill(&self, range: AddrRange, pattern: Pattern) {
        let at = range.start().0 as *mut u8;
        let len = range.size().0 as usize;
        if (16..SHORT_BYTES).contains(&len) {
            let wide = Wide::of(pattern);
            let mut offset = 0;
            while offset < len - 16 {
                // SAFETY: committed memory of the heap (module invariant), sixteen bytes of which are left.
                unsafe { wide.write(at.add(offset)) };
                offset += 16;
            }
            // SAFETY: the last sixteen bytes.
            unsafe { wide.write(at.add(len - 16)) };
            return;
        }
        if len > 0 {
            // SAFETY: as above.
            unsafe { ptr::write_bytes(at, pattern as u8, len) };
        }
    }

    fn set(&self, range: AddrRange, byte: u8) {
        set_bytes(range.start(), range.size().0, byte);
    }

    #[inline]
    fn sum(&self, range: AddrRange) -> u64 {
        let at = range.start().0 as *const u8;
        let len = range.size().0 as usize;
        if len < 16 {
            return (range.start().0..range.end().0)
                .fold(0, |sum: u64, addr| sum.rotate_left(8) ^ u64::from(byte_at(addr)));
        }
        // SAFETY: committed memory of the heap (module invariant): its last sixteen bytes.
        let mut sum = unsafe { Lanes::read(at.add(len - 16)) };
        let mut offset = 0;
        while offset < len - 16 {
            // SAFETY: as above, sixteen bytes of which are left.
            sum = sum.plus(unsafe { Lanes::read(at.add(offset)) });
            offset += 16;
        }
        sum.folded()
    }

    #[inline]
    fn find_change(&self, range: AddrRange, pattern: Pattern) -> Option<Change> {
        let at = range.start().0 as *const u8;
        let len = range.size().0 as usize;
        let is_same = if len >= 16 {
            let wide = Wide::of(pattern);
            // SAFETY: committed memory of the heap (module invariant): its last sixteen bytes.
            let mut equal = unsafe { wide.compare(at.add(len - 16)) };
            let mut offset = 0;
            while offset < len - 16 {
                // SAFETY: as above, sixteen bytes of which are left.
                equal = equal.and(unsafe { wide.compare(at.add(offset)) });
                offset += 16;
            }
            equal.all()
        } else {
            (0..len as u64).all(|offset| byte_at(range.start().0 + offset) == pattern as u8)
        };
        if is_same { None } else { locate(range, pattern) }
    }

    #[inline]
    fn prefetch(&self, addr: Addr) {
        let at = addr.0 as *const i8;
        // SAFETY: SSE is part of x86-64; a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
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

    #[inline]
    fn exchange_alone(&self, word: &AtomicU64, from: u64, to: u64) -> u64 {
        let seen;
        // SAFETY: a word that may be written; one instruction, so that a signal comes before it or after.
        unsafe {
            asm!("cmpxchg [{}], {}", in(reg) word.as_ptr(), in(reg) to, inout("rax") from => seen,
                options(nostack));
        }
        seen
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

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::Size;

    #[test]
    fn every_byte_counts_in_a_sum() {
        let mut bytes: [u8; 64] = core::array::from_fn(|at| at as u8);
        let sum = |bytes: &[u8]| {
            Memory.sum(AddrRange::new(Addr(bytes.as_ptr() as u64), Size(bytes.len() as u64)).unwrap())
        };
        for len in 1..=bytes.len() {
            let before = sum(&bytes[..len]);
            for at in 0..len {
                bytes[at] ^= 0x40;
                assert_ne!(sum(&bytes[..len]), before, "byte {at} of {len}");
                bytes[at] ^= 0x40;
            }
        }
    }
}
