//! Poisoning, unpoisoning and checking ranges, a word of shadow at a time.

use memcheck_model::{Addr, AddrRange};

use crate::{GRANULE_BYTES, GranuleIndex, Granules, Poison, ShadowByte};

/// Poisons every byte of `range`. A granule that the range enters in the middle keeps its addressable bytes
/// before the range; one that the range leaves in the middle is poisoned whole (the encoding cannot say
/// otherwise), so callers end their ranges at granules, or where nothing addressable follows.
pub fn poison(granules: &impl Granules, range: AddrRange, reason: Poison) {
    if range.is_empty() {
        return;
    }
    let mut first = GranuleIndex::of(range.start());
    let before = range.start().0 % GRANULE_BYTES;
    if before != 0 {
        let kept = granules.byte(first).leading().min(before);
        granules.set_byte(first, ShadowByte::with_leading(kept, reason));
        first = GranuleIndex(first.0 + 1);
    }
    let end = range.end().0.div_ceil(GRANULE_BYTES);
    granules.fill(first, end.saturating_sub(first.0), ShadowByte(reason as u8));
}

/// Makes every byte of `range`, which starts at a granule, addressable; the rest of the last granule is not.
pub fn unpoison(granules: &impl Granules, range: AddrRange) {
    debug_assert!(range.start().is_aligned(GRANULE_BYTES));
    let first = GranuleIndex::of(range.start());
    let last = GranuleIndex::of(range.end());
    granules.fill(first, last.0 - first.0, ShadowByte::ADDRESSABLE);
    let rest = range.end().0 % GRANULE_BYTES;
    if rest != 0 {
        granules.set_byte(last, ShadowByte(rest as u8));
    }
}

/// Poisons the bytes of `range`, and no other: those of a granule whose bytes behind the range are addressable stay so
/// too, as the encoding cannot say otherwise.
pub fn forbid(granules: &impl Granules, range: AddrRange) {
    let (start, end) = (range.start().0, range.end().0);
    let cut = |granule: u64, from: u64| {
        let index = GranuleIndex(granule);
        let leading = granules.byte(index).leading();
        let to = (end - index.start().0).min(GRANULE_BYTES);
        if (from + 1..=to).contains(&leading) {
            granules.set_byte(index, ShadowByte::with_leading(from, Poison::Forbidden));
        }
    };
    let (first, last) = (start.div_ceil(GRANULE_BYTES), end / GRANULE_BYTES);
    if !range.is_empty() && start % GRANULE_BYTES != 0 {
        cut(start / GRANULE_BYTES, start % GRANULE_BYTES);
    }
    if first <= last {
        granules.fill(GranuleIndex(first), last - first, ShadowByte(Poison::Forbidden as u8));
        if end % GRANULE_BYTES != 0 {
            cut(last, 0);
        }
    }
}

/// Makes the bytes of `range` addressable, and no other but those before them in their granule.
pub fn allow(granules: &impl Granules, range: AddrRange) {
    if range.is_empty() {
        return;
    }
    let first = GranuleIndex::of(range.start());
    let last = GranuleIndex::of(range.end());
    granules.fill(first, last.0 - first.0, ShadowByte::ADDRESSABLE);
    let rest = range.end().0 % GRANULE_BYTES;
    if granules.byte(last).leading() < rest {
        granules.set_byte(last, ShadowByte(rest as u8));
    }
}

/// Whether every byte of `range` may be touched: `find_bad(range).is_none()`, for callers whose ranges nearly always
/// are good. Looks at seven shadow bytes beyond the range's last.
#[inline]
pub fn is_clean(granules: &impl Granules, range: AddrRange) -> bool {
    if range.is_empty() {
        return true;
    }
    let mut index = GranuleIndex::of(range.start()).0;
    let last_byte = range.end().0 - 1;
    // Every granule before the last must be addressable to its end.
    let last = GranuleIndex::of(Addr(last_byte)).0;
    let word = |index| granules.word_from(GranuleIndex(index));
    while last - index >= 32 {
        if word(index) | word(index + 8) | word(index + 16) | word(index + 24) != 0 {
            return false;
        }
        index += 32;
    }
    while last - index >= 8 {
        if word(index) != 0 {
            return false;
        }
        index += 8;
    }
    let word = word(index);
    let bits_before = 8 * (last - index);
    let last_state = ShadowByte((word >> bits_before) as u8);
    word & ((1 << bits_before) - 1) == 0 && last_byte % GRANULE_BYTES < last_state.leading()
}

/// The longest range that `is_clean_short` takes: eight granules, wherever it begins.
pub const SHORT_BYTES: u64 = 7 * GRANULE_BYTES + 1;

/// The same for 1 to `SHORT_BYTES` bytes from `start`. Looks at eight shadow bytes.
#[inline(always)]
pub fn is_clean_short(granules: &impl Granules, start: Addr, bytes: u64) -> bool {
    debug_assert!((1..=SHORT_BYTES).contains(&bytes));
    let last_byte = start.0 + bytes - 1;
    let index = GranuleIndex::of(start);
    let bits_before = 8 * (GranuleIndex::of(Addr(last_byte)).0 - index.0);
    // The last granule's state in the highest byte, those before it below, nothing of those behind.
    let states = granules.word_from(index) << (56 - bits_before);
    states == 0 || states << 8 == 0 && last_byte % GRANULE_BYTES < ShadowByte((states >> 56) as u8).leading()
}

/// The first byte of `range` that must not be touched.
#[inline]
pub fn find_bad(granules: &impl Granules, range: AddrRange) -> Option<Addr> {
    if range.is_empty() {
        return None;
    }
    let last = GranuleIndex::of(Addr(range.end().0 - 1));
    let mut index = GranuleIndex::of(range.start());
    while index <= last {
        if index.0.is_multiple_of(8) && index.0 + 7 <= last.0 && granules.word(index) == 0 {
            index.0 += 8;
            continue;
        }
        if let Some(bad) = find_bad_in(granules.byte(index), index, range) {
            return Some(bad);
        }
        index.0 += 1;
    }
    None
}

/// The first bad byte of `range` within the granule `index`, whose state is `state`.
fn find_bad_in(state: ShadowByte, index: GranuleIndex, range: AddrRange) -> Option<Addr> {
    let leading = state.leading();
    if leading == GRANULE_BYTES {
        return None;
    }
    let bad = Addr((index.start().0 + leading).max(range.start().0));
    (bad < range.end()).then_some(bad)
}
