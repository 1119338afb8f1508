//! Fronts of comparisons: they read up to the first difference, or to what both end with.
//!
//! The function itself runs first: what was compared can then be read once more to see how far that went.

use memcheck_model::{Addr, AddrRange, Function, Size};
use memcheck_shadow::SHORT_BYTES;

use super::{
    Call, Caller, Front, MEMCMP, MEMCMPEQ, STRCASECMP, STRCASECMP_L, STRCMP, STRNCASECMP, STRNCASECMP_L,
    STRNCMP, WCSCMP, WCSNCMP, WMEMCMP,
    scan::{self, Ends},
    shadow_map,
    text::{Narrow, Text, Wide, bytes},
};

impl Call {
    /// Both are read, `len` bytes of elements of `unit` bytes.
    #[inline]
    fn compares(&self, first: u64, second: u64, len: u64, unit: u64) {
        self.reads_until(first, len, unit);
        self.reads_until(second, len, unit);
    }
}

pub extern "C" fn strcmp(first: u64, second: u64, sp: u64, bp: u64) -> u64 {
    if let Some((order, len)) = scan::compare_short(first, second, u64::MAX) {
        Call::new(Function::Strcmp, sp, bp).compares(first, second, len, 1);
        return order;
    }
    let order = STRCMP.call2(first, second);
    let len = if order as u32 == 0 {
        Narrow::len(first) + 1
    } else {
        scan::compared_bytes(first, second, u64::MAX, Ends::AtZero)
    };
    Call::new(Function::Strcmp, sp, bp).compares(first, second, len, 1);
    order
}

pub extern "C" fn strncmp(first: u64, second: u64, most: u64, sp: u64, bp: u64) -> u64 {
    if let Some((order, len)) = scan::compare_short(first, second, most) {
        Call::new(Function::Strncmp, sp, bp).compares(first, second, len, 1);
        return order;
    }
    let order = STRNCMP.call3(first, second, most);
    let len = if order as u32 == 0 {
        most.min(Narrow::len_within(first, most).saturating_add(1))
    } else {
        scan::compared_bytes(first, second, most, Ends::AtZero)
    };
    Call::new(Function::Strncmp, sp, bp).compares(first, second, len, 1);
    order
}

pub extern "C" fn memcmp(first: u64, second: u64, most: u64, sp: u64, bp: u64) -> u64 {
    if are_clean(first, second, most) {
        return MEMCMP.call3(first, second, most);
    }
    compare_memory(&MEMCMP, first, second, most, Caller { entry_sp: sp, bp })
}

pub extern "C" fn memcmpeq(first: u64, second: u64, most: u64, sp: u64, bp: u64) -> u64 {
    if are_clean(first, second, most) {
        return MEMCMPEQ.call3(first, second, most);
    }
    compare_memory(&MEMCMPEQ, first, second, most, Caller { entry_sp: sp, bp })
}

/// Whether both areas are short and may be read whole, so that it does not matter where they differ.
#[inline(always)]
fn are_clean(first: u64, second: u64, len: u64) -> bool {
    len <= SHORT_BYTES
        && shadow_map::is_clean_short(Addr(first), len)
        && shadow_map::is_clean_short(Addr(second), len)
}

/// Not inlined: then what comes before it needs no stack.
#[inline(never)]
fn compare_memory(front: &Front, first: u64, second: u64, most: u64, caller: Caller) -> u64 {
    let order = front.call3(first, second, most);
    let len =
        if order as u32 == 0 { most } else { scan::compared_bytes(first, second, most, Ends::AtDifference) };
    Call { function: Function::Memcmp, caller }.compares(first, second, len, 1);
    order
}

pub extern "C" fn wcscmp(first: u64, second: u64, sp: u64, bp: u64) -> u64 {
    let order = WCSCMP.call2(first, second);
    let len = scan::compared_words(first, second, u64::MAX, Ends::AtZero);
    Call::new(Function::Wcscmp, sp, bp).compares(first, second, bytes::<Wide>(len), 4);
    order
}

pub extern "C" fn wcsncmp(first: u64, second: u64, most: u64, sp: u64, bp: u64) -> u64 {
    let order = WCSNCMP.call3(first, second, most);
    let len = scan::compared_words(first, second, most, Ends::AtZero);
    Call::new(Function::Wcsncmp, sp, bp).compares(first, second, bytes::<Wide>(len), 4);
    order
}

pub extern "C" fn wmemcmp(first: u64, second: u64, most: u64, sp: u64, bp: u64) -> u64 {
    let order = WMEMCMP.call3(first, second, most);
    let len =
        if order as u32 == 0 { most } else { scan::compared_words(first, second, most, Ends::AtDifference) };
    Call::new(Function::Wmemcmp, sp, bp).compares(first, second, bytes::<Wide>(len), 4);
    order
}

pub extern "C" fn strcasecmp(first: u64, second: u64, sp: u64, bp: u64) -> u64 {
    let order = STRCASECMP.call2(first, second);
    let call = Call::new(Function::Strcasecmp, sp, bp);
    compare_folded(call, first, second, u64::MAX, |len| STRNCASECMP.call3(first, second, len));
    order
}

pub extern "C" fn strncasecmp(first: u64, second: u64, most: u64, sp: u64, bp: u64) -> u64 {
    let order = STRNCASECMP.call3(first, second, most);
    let call = Call::new(Function::Strncasecmp, sp, bp);
    compare_folded(call, first, second, most, |len| STRNCASECMP.call3(first, second, len));
    order
}

pub extern "C" fn strcasecmp_l(first: u64, second: u64, locale: u64, sp: u64, bp: u64) -> u64 {
    let order = STRCASECMP_L.call3(first, second, locale);
    let call = Call::new(Function::Strcasecmp, sp, bp);
    let compare = |len| STRNCASECMP_L.call4(first, second, len, locale);
    compare_folded(call, first, second, u64::MAX, compare);
    order
}

pub extern "C" fn strncasecmp_l(first: u64, second: u64, most: u64, locale: u64, sp: u64, bp: u64) -> u64 {
    let order = STRNCASECMP_L.call4(first, second, most, locale);
    let call = Call::new(Function::Strncasecmp, sp, bp);
    compare_folded(call, first, second, most, |len| STRNCASECMP_L.call4(first, second, len, locale));
    order
}

/// Letters of ASCII count as equal in either case. Where the locale has it otherwise, `compare`, the function itself
/// for a given length, says whether a bad byte was reached.
#[inline]
fn compare_folded(call: Call, first: u64, second: u64, most: u64, compare: impl Fn(u64) -> u64) {
    let len = scan::compared_folded(first, second, most);
    for start in [first, second] {
        let Some(range) = AddrRange::new(Addr(start), Size(len)) else { continue };
        if shadow_map::is_clean(range) {
            continue;
        }
        let before = shadow_map::find_bad(range).map_or(len, |bad| bad.0 - start);
        if compare(before) as u32 == 0 {
            call.reads_until(start, len, 1);
        }
    }
}
