//! What a check sees of the target's memory.

use memcheck_model::{Addr, AddrRange};

/// The first bytes of eight that lie at a multiple of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granule {
    /// How many of them may be touched: 0 to 8.
    pub leading: u8,
    /// What they hold; those beyond `leading` mean nothing.
    pub bytes: [u8; 8],
}

/// The target's memory and its shadow. Other threads change both at any time.
pub trait Memory {
    /// Whether the shadow knows of what lies at this address: whether it is the heap's.
    fn is_watched(&self, addr: Addr) -> bool;

    /// The first byte of a range, which begins at a watched address, that must not be touched.
    fn find_bad(&self, range: AddrRange) -> Option<Addr>;

    /// The granule at a watched address, a multiple of eight.
    fn granule(&self, start: Addr) -> Granule;

    /// The word at this address, watched or not; `None` where there is none or it must not be touched.
    fn find_word(&self, at: Addr) -> Option<u64>;

    /// The 32 bits at this address, in the same way.
    fn find_int(&self, at: Addr) -> Option<u32>;

    /// How many semaphores the set with this id has; none if there is no such set.
    fn count_semaphores(&self, id: u32) -> u64;
}
