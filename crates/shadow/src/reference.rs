//! The same as the fast operations, byte by byte: what they mean.

use memcheck_model::{Addr, AddrRange};

use crate::{GRANULE_BYTES, GranuleIndex, Granules, Poison, ShadowByte};

/// Whether the byte at `addr` may be touched.
#[must_use]
pub fn is_addressable(granules: &impl Granules, addr: Addr) -> bool {
    addr.0 % GRANULE_BYTES < granules.byte(GranuleIndex::of(addr)).leading()
}

/// As [`crate::find_bad`].
#[must_use]
pub fn find_bad(granules: &impl Granules, range: AddrRange) -> Option<Addr> {
    (range.start().0..range.end().0).map(Addr).find(|&addr| !is_addressable(granules, addr))
}

/// As [`crate::poison`].
pub fn poison(granules: &impl Granules, range: AddrRange, reason: Poison) {
    for addr in range.start().0..range.end().0 {
        let index = GranuleIndex::of(Addr(addr));
        let kept = granules.byte(index).leading().min(addr % GRANULE_BYTES);
        granules.set_byte(index, ShadowByte::with_leading(kept, reason));
    }
}

/// As [`crate::unpoison`].
pub fn unpoison(granules: &impl Granules, range: AddrRange) {
    for addr in range.start().0..range.end().0 {
        let leading = addr % GRANULE_BYTES + 1;
        granules.set_byte(GranuleIndex::of(Addr(addr)), ShadowByte::with_leading(leading, Poison::Unused));
    }
}
