//! Fronts of functions that copy or fill as many bytes as they are told.

use core::arch::x86_64::__m128i;

use memcheck_model::Function;

use super::{
    Call, MEMCHR, MEMMOVE, MEMSET, WMEMSET,
    text::{Wide, bytes},
};

/// Bytes are moved; the areas may overlap.
#[inline]
fn shift(call: Call, destination: u64, source: u64, len: u64) {
    call.reads(source, len);
    call.writes(destination, len);
    if !move_short(destination, source, len) {
        MEMMOVE.call3(destination, source, len);
    }
}

/// Below this nothing is mapped: a null pointer, which libc's own function is to meet.
const LOWEST: u64 = 4096;

/// Moves up to 32 bytes: all are read before any is written.
#[inline(always)]
pub fn move_short(destination: u64, source: u64, len: u64) -> bool {
    /// Two parts of `T`, the second up to the end; together they are all of the area.
    #[inline(always)]
    fn parts<T: Copy>(destination: u64, source: u64, len: u64) {
        let second = len - size_of::<T>() as u64;
        // SAFETY: the function that the target called does these accesses; they are of any alignment.
        unsafe {
            let head = (source as *const T).read_unaligned();
            let tail = ((source + second) as *const T).read_unaligned();
            (destination as *mut T).write_unaligned(head);
            ((destination + second) as *mut T).write_unaligned(tail);
        }
    }
    if destination < LOWEST || source < LOWEST {
        return false;
    }
    match len {
        0 => {}
        1 => parts::<u8>(destination, source, len),
        2..4 => parts::<u16>(destination, source, len),
        4..8 => parts::<u32>(destination, source, len),
        8..16 => parts::<u64>(destination, source, len),
        16..=32 => parts::<__m128i>(destination, source, len),
        _ => return false,
    }
    true
}

/// Fills up to 32 bytes.
#[inline(always)]
fn fill_short(start: u64, value: u8, len: u64) -> bool {
    /// Two parts, as in `move_short`.
    #[inline(always)]
    fn parts<T: Copy>(start: u64, value: T, len: u64) {
        let second = len - size_of::<T>() as u64;
        // SAFETY: as in `move_short`.
        unsafe {
            (start as *mut T).write_unaligned(value);
            ((start + second) as *mut T).write_unaligned(value);
        }
    }
    if start < LOWEST {
        return false;
    }
    let word = u64::from(value).wrapping_mul(0x0101_0101_0101_0101);
    match len {
        0 => {}
        1 => parts(start, value, len),
        2..4 => parts(start, word as u16, len),
        4..8 => parts(start, word as u32, len),
        8..16 => parts(start, word, len),
        16..=32 => parts(start, [word; 2], len),
        _ => return false,
    }
    true
}

/// Bytes are copied. Compilers copy a structure to itself with `memcpy`, so the same address twice is no overlap.
#[inline]
pub fn copy(call: Call, destination: u64, source: u64, len: u64) {
    if destination != source {
        call.must_be_apart((destination, len), (source, len));
    }
    shift(call, destination, source, len);
}

#[inline]
pub fn fill(call: Call, start: u64, value: u64, len: u64) {
    call.writes(start, len);
    if !fill_short(start, value as u8, len) {
        MEMSET.call3(start, value, len);
    }
}

/// `memmove` and `memcpy`, which may be one function: which was called is found out when it matters.
pub extern "C" fn memmove(destination: u64, source: u64, len: u64, sp: u64, bp: u64) -> u64 {
    copy(Call::new(Function::Memmove, sp, bp), destination, source, len);
    destination
}

pub extern "C" fn mempcpy(destination: u64, source: u64, len: u64, sp: u64, bp: u64) -> u64 {
    copy(Call::new(Function::Mempcpy, sp, bp), destination, source, len);
    destination.wrapping_add(len)
}

pub extern "C" fn memset(start: u64, value: u64, len: u64, sp: u64, bp: u64) -> u64 {
    fill(Call::new(Function::Memset, sp, bp), start, value, len);
    start
}

pub extern "C" fn bzero(start: u64, len: u64, sp: u64, bp: u64) {
    fill(Call::new(Function::Bzero, sp, bp), start, 0, len);
}

pub extern "C" fn bcopy(source: u64, destination: u64, len: u64, sp: u64, bp: u64) {
    shift(Call::new(Function::Bcopy, sp, bp), destination, source, len);
}

/// Copies up to the byte that is looked for, that one too.
pub extern "C" fn memccpy(destination: u64, source: u64, last: u64, most: u64, sp: u64, bp: u64) -> u64 {
    let found = MEMCHR.call3(source, last, most);
    let len = if found == 0 { most } else { found.wrapping_sub(source) + 1 };
    copy(Call::new(Function::Memccpy, sp, bp), destination, source, len);
    if found == 0 { 0 } else { destination.wrapping_add(len) }
}

pub extern "C" fn wmemset(start: u64, value: u64, count: u64, sp: u64, bp: u64) -> u64 {
    Call::new(Function::Wmemset, sp, bp).writes(start, bytes::<Wide>(count));
    WMEMSET.call3(start, value, count)
}

pub extern "C" fn wmemcpy(destination: u64, source: u64, count: u64, sp: u64, bp: u64) -> u64 {
    copy(Call::new(Function::Wmemcpy, sp, bp), destination, source, bytes::<Wide>(count));
    destination
}

pub extern "C" fn wmemmove(destination: u64, source: u64, count: u64, sp: u64, bp: u64) -> u64 {
    shift(Call::new(Function::Wmemmove, sp, bp), destination, source, bytes::<Wide>(count));
    destination
}

pub extern "C" fn wmempcpy(destination: u64, source: u64, count: u64, sp: u64, bp: u64) -> u64 {
    let len = bytes::<Wide>(count);
    copy(Call::new(Function::Wmempcpy, sp, bp), destination, source, len);
    destination.wrapping_add(len)
}
