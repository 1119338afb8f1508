//! Where the shadow of an address lies.
//!
//! `shadow(a) = SHADOW_BASE + (a >> 3)`. The base is low enough for the signed 32-bit displacement of an
//! addressing mode, so that emitted code needs no register for it, and high enough for a non-PIE executable
//! and its brk heap below it; AddressSanitizer settled on the same one for the same reasons.

use memcheck_model::Addr;

use crate::ShadowByte;

/// Bytes of the target in one granule. Emitted code has the shift by 3 built in.
pub const GRANULE_BYTES: u64 = 8;

/// The address of granule 0's shadow byte. It must fit a positive signed 32-bit displacement.
pub const SHADOW_BASE: u64 = 0x7fff_8000;

/// The first address beyond what a process can map with four-level page tables.
pub const USER_END: u64 = 1 << 47;

/// How long the shadow is.
pub const SHADOW_BYTES: u64 = USER_END / GRANULE_BYTES;

/// A granule: `address / 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GranuleIndex(pub u64);

impl GranuleIndex {
    /// The granule that holds `addr`.
    #[must_use]
    pub const fn of(addr: Addr) -> Self {
        Self(addr.0 / GRANULE_BYTES)
    }

    /// The granule's first address.
    #[must_use]
    pub const fn start(self) -> Addr {
        Addr(self.0.wrapping_mul(GRANULE_BYTES))
    }

    /// Where the granule's shadow byte lies in the target's memory.
    #[must_use]
    pub const fn shadow_addr(self) -> Addr {
        Addr(SHADOW_BASE.wrapping_add(self.0))
    }
}

/// Shadow bytes, by granule. Racy by nature: the target's threads change and check them at once, and a check
/// that meets a change sees the old byte or the new one.
///
/// Callers keep every index below `SHADOW_BYTES` (for tests: below the vector's length).
pub trait Granules {
    /// One shadow byte.
    fn byte(&self, index: GranuleIndex) -> ShadowByte;

    /// Sets one shadow byte.
    fn set_byte(&self, index: GranuleIndex, value: ShadowByte);

    /// The eight shadow bytes from `index`, a multiple of eight, in memory order.
    fn word(&self, index: GranuleIndex) -> u64;

    /// The eight shadow bytes from any `index`, in memory order.
    fn word_from(&self, index: GranuleIndex) -> u64;

    /// Sets `count` shadow bytes from `index`.
    fn fill(&self, index: GranuleIndex, count: u64, value: ShadowByte);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shadow_of_all_user_addresses_is_one_range_beginning_at_the_base() {
        assert_eq!(GranuleIndex::of(Addr(0)).shadow_addr(), Addr(SHADOW_BASE));
        let last = GranuleIndex::of(Addr(USER_END - 1)).shadow_addr();
        assert_eq!(last, Addr(SHADOW_BASE + SHADOW_BYTES - 1));
        assert!(i32::try_from(SHADOW_BASE).is_ok());
    }
}
