//! Bytes that a bad write went to that was reported as it was made: what it left there is not to be told again, and all
//! other damage is.
//!
//! ```text
//!  word   | 63..8 granule (address / 8) | 7..0 its bytes |     zero: free
//! ```
//! A granule's word is one of the [`PROBES`] from its hash on. Any thread may note and take at any time; two that note
//! one granule at once may each use a word, and both are taken. Where all those words are in use, `note` says so.

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::{Addr, AddrRange};

/// Enough for every byte that is watched around some hundred chunks.
const WORDS: usize = 4096;
/// How many words are looked at.
const PROBES: usize = 8;
const GRANULE_BYTES: u64 = 8;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct KnownWrites([AtomicU64; WORDS]);

impl KnownWrites {
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn words(&self, granule: u64) -> impl Iterator<Item = &AtomicU64> {
        let first = (granule.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        (first..first + PROBES).map(|index| &self.0[index % WORDS])
    }

    /// Notes the bytes of a range; false when there is no room for some of them.
    pub fn note(&self, range: AddrRange) -> bool {
        let (start, end) = (range.start().0, range.end().0);
        (start / GRANULE_BYTES..end.div_ceil(GRANULE_BYTES)).all(|granule| {
            let bytes =
                (0..GRANULE_BYTES).filter(|byte| (start..end).contains(&(granule * GRANULE_BYTES + byte)));
            let mask = bytes.fold(0, |mask, byte| mask | 1 << byte);
            self.words(granule).any(|word| {
                let add = |old: u64| (old == 0 || old >> 8 == granule).then_some(old | granule << 8 | mask);
                // Relaxed: nothing else is told by it.
                word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
            })
        })
    }

    /// The bytes of a range that were noted, each once.
    pub fn take_in(&self, range: AddrRange, mut each: impl FnMut(Addr)) {
        let (start, end) = (range.start().0, range.end().0);
        for granule in start / GRANULE_BYTES..end.div_ceil(GRANULE_BYTES) {
            for word in self.words(granule) {
                let take = |old: u64| (old >> 8 == granule).then_some(0);
                let taken = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(0);
                let bytes = (0..GRANULE_BYTES).filter(|byte| taken >> byte & 1 != 0);
                bytes
                    .map(|byte| Addr(granule * GRANULE_BYTES + byte))
                    .filter(|&at| range.contains(at))
                    .for_each(&mut each);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use memcheck_model::Size;
    use std::vec::Vec;

    fn range(start: u64, size: u64) -> AddrRange {
        AddrRange::new(Addr(start), Size(size)).unwrap()
    }

    #[test]
    fn what_was_noted_is_taken_once() {
        let known = KnownWrites::new();
        assert!(known.note(range(0x2000_0000_0005, 6)) && known.note(range(0x2000_0000_000b, 1)));
        let taken = |within: AddrRange| {
            let mut found = Vec::new();
            known.take_in(within, |at| found.push(at.0 - 0x2000_0000_0000));
            found
        };
        assert_eq!(taken(range(0x2000_0000_0006, 20)), [6, 7, 8, 9, 10, 11]);
        assert_eq!(taken(range(0x2000_0000_0000, 64)), []);
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let known = KnownWrites::new();
        let held = (0..20_000u64).filter(|at| known.note(range(0x2000_0000_0000 + at * 16, 4))).count();
        assert!((2000..=WORDS).contains(&held), "{held}");
        let mut taken = 0;
        (0..20_000u64).for_each(|at| known.take_in(range(0x2000_0000_0000 + at * 16, 16), |_| taken += 1));
        assert_eq!(taken, 4 * held);
    }
}
