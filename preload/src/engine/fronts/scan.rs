//! How far two strings or areas are the same, and what the first 16 bytes of a string hold.
//!
//! Invariant: a byte is read only when every element before its block of 16 within the page was the same, or is one of
//! the first 16: so it lies in a page that the function itself reads.

use core::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_set1_epi8,
    _mm_setzero_si128,
};

const PAGE: u64 = 4096;
const BLOCK: u64 = 16;

/// Below this nothing is mapped: a null pointer, which libc's own function is to meet.
const LOWEST: u64 = 4096;

/// Whether the 16 bytes from `at` lie in one page, and that can be one.
#[inline(always)]
pub fn has_block(at: u64) -> bool {
    at % PAGE <= PAGE - BLOCK && at >= LOWEST
}

/// Which of the 16 bytes from `at` are zero or `wanted`: bit by bit. `has_block(at)`, and the first may be read.
#[inline(always)]
pub fn find_in_block(at: u64, wanted: u8) -> [u32; 2] {
    // SAFETY: the block lies in the page of its first byte, which the function reads; SSE2 is part of x86-64.
    unsafe {
        let block = _mm_loadu_si128(at as *const __m128i);
        [0, wanted]
            .map(|byte| _mm_movemask_epi8(_mm_cmpeq_epi8(block, _mm_set1_epi8(byte.cast_signed()))) as u32)
    }
}

/// What a comparison of strings of at most `most` characters comes to, and how many bytes of each it reads, when it
/// ends within 16: the difference of the last characters, as libc's functions give it.
#[inline(always)]
pub fn compare_short(first: u64, second: u64, most: u64) -> Option<(u64, u64)> {
    if most == 0 || !has_block(first) || !has_block(second) {
        return None;
    }
    let limit = if most < BLOCK { 1u32 << (most - 1) } else { 0 };
    let stops = stops_in_block(first, second, Ends::AtZero) | limit;
    if stops == 0 {
        return None;
    }
    let last = u64::from(stops.trailing_zeros());
    let difference = i32::from(byte(first + last)) - i32::from(byte(second + last));
    Some((u64::from(difference.cast_unsigned()), last + 1))
}

/// What ends a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// A difference, or a terminator.
    AtZero,
    /// A difference only.
    AtDifference,
}

/// How many bytes a comparison of at most `most` reads of each: up to the first that ends it, that one too.
#[inline]
pub fn compared_bytes(first: u64, second: u64, most: u64, ends: Ends) -> u64 {
    let mut len = 0;
    while len < most {
        let (at, beside) = (first.wrapping_add(len), second.wrapping_add(len));
        if at % PAGE > PAGE - BLOCK || beside % PAGE > PAGE - BLOCK {
            let (a, b) = (byte(at), byte(beside));
            len += 1;
            if a != b || (a == 0 && ends == Ends::AtZero) {
                return len;
            }
            continue;
        }
        let stops = stops_in_block(at, beside, ends);
        if stops != 0 {
            return most.min(len + u64::from(stops.trailing_zeros()) + 1);
        }
        len += BLOCK;
    }
    most
}

/// Which of the 16 bytes at each end a comparison: bit by bit.
#[inline]
fn stops_in_block(at: u64, beside: u64, ends: Ends) -> u32 {
    // SAFETY: both blocks lie within a page that was read before (the module's invariant); SSE2 is part of x86-64.
    unsafe {
        let a = _mm_loadu_si128(at as *const __m128i);
        let same = _mm_cmpeq_epi8(a, _mm_loadu_si128(beside as *const __m128i));
        // Zero where the bytes differ and, for strings, where they are zero.
        let kept = match ends {
            Ends::AtZero => _mm_min_epu8(a, same),
            Ends::AtDifference => _mm_and_si128(same, same),
        };
        _mm_movemask_epi8(_mm_cmpeq_epi8(kept, _mm_setzero_si128())) as u32
    }
}

/// The same for wide characters, counted in these.
pub fn compared_words(first: u64, second: u64, most: u64, ends: Ends) -> u64 {
    let mut len = 0;
    while len < most {
        // SAFETY: the comparison read the same words, as all before were the same.
        let (a, b) = unsafe {
            (
                (first.wrapping_add(4 * len) as *const u32).read_unaligned(),
                (second.wrapping_add(4 * len) as *const u32).read_unaligned(),
            )
        };
        len += 1;
        if a != b || (a == 0 && ends == Ends::AtZero) {
            return len;
        }
    }
    most
}

/// The same for strings whose letters (of ASCII) are the same in either case.
pub fn compared_folded(first: u64, second: u64, most: u64) -> u64 {
    let mut len = 0;
    while len < most {
        let (a, b) = (byte(first.wrapping_add(len)), byte(second.wrapping_add(len)));
        len += 1;
        if a == 0 || !a.eq_ignore_ascii_case(&b) {
            return len;
        }
    }
    most
}

#[inline]
fn byte(at: u64) -> u8 {
    // SAFETY: the comparison read it, as all before were the same.
    unsafe { (at as *const u8).read_volatile() }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn slow(first: &[u8], second: &[u8], most: u64, ends: Ends) -> u64 {
        let pairs = first.iter().zip(second).take(most as usize);
        let same = pairs.take_while(|&(a, b)| a == b && (*a != 0 || ends == Ends::AtDifference)).count();
        most.min(same as u64 + 1)
    }

    #[test]
    fn what_was_compared_ends_with_the_first_difference_or_terminator() {
        // Every alignment to the end of a page, every length, the stop anywhere.
        let area = Vec::from_iter((0..3 * PAGE).map(|_| b'a'));
        let page_end = (area.as_ptr() as u64).next_multiple_of(PAGE) + PAGE - area.as_ptr() as u64;
        for before in 0..40usize {
            for stop in 0..40usize {
                for zero in [false, true] {
                    let mut first = area.clone();
                    let start = page_end as usize - before;
                    first[start + stop] = if zero { 0 } else { b'b' };
                    let mut second = Vec::from_iter((0..64).map(|_| b'a'));
                    if zero {
                        second[stop] = 0;
                    }
                    second[63] = b'c';
                    for ends in [Ends::AtZero, Ends::AtDifference] {
                        for most in [0, 1, 15, 16, 17, 39, 60, 64] {
                            let at = first.as_ptr() as u64 + start as u64;
                            assert_eq!(
                                compared_bytes(at, second.as_ptr() as u64, most, ends),
                                slow(&first[start..], &second, most, ends),
                                "{before} {stop} {zero} {ends:?} {most}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn short_comparisons_give_the_difference_and_how_far_they_read() {
        let compare =
            |a: &[u8; 32], b: &[u8; 32], most| compare_short(a.as_ptr() as u64, b.as_ptr() as u64, most);
        #[repr(align(32))]
        struct Area([u8; 32]);
        let text = |word: &[u8]| {
            let mut area = Area([b'.'; 32]);
            area.0[..word.len()].copy_from_slice(word);
            area
        };
        let minus = |n: i32| u64::from((-n).cast_unsigned());
        let (abc, abd, long) = (text(b"abc\0"), text(b"abd\0"), text(b"0123456789abcdefg\0"));
        assert_eq!(compare(&abc.0, &abd.0, u64::MAX), Some((minus(1), 3)));
        assert_eq!(compare(&abd.0, &abc.0, 3), Some((1, 3)));
        assert_eq!(compare(&abd.0, &abc.0, 2), Some((0, 2)));
        assert_eq!(compare(&abc.0, &abc.0, 99), Some((0, 4)));
        assert_eq!(compare(&abc.0, &text(b"abc\xff").0, 99), Some((minus(255), 4)));
        assert_eq!(compare(&long.0, &long.0, 99), None);
        assert_eq!(compare(&long.0, &long.0, 15), Some((0, 15)));
        assert_eq!(compare(&long.0, &long.0, 0), None);
        assert_eq!(compare_short(0, abc.0.as_ptr() as u64, 9), None);
    }

    #[test]
    fn letters_are_the_same_in_either_case() {
        let len = |a: &[u8], b: &[u8], most| compared_folded(a.as_ptr() as u64, b.as_ptr() as u64, most);
        assert_eq!(len(b"HeLLo\0", b"hEllO\0", u64::MAX), 6);
        assert_eq!(len(b"HeLLo\0", b"hElp\0", u64::MAX), 4);
        assert_eq!(len(b"ab\0", b"AB\0", 2), 2);
        assert_eq!(len(b"@\0", b"`\0", 2), 1);
    }
}
