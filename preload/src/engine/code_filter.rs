//! Whether an address may be one of a copy's, asked without the engine's lock.
//!
//! Walks over stacks ask of each frame what it stands for. Frames of code that the program makes itself (of a compiler
//! at run time) lie in no copy; to learn that under the lock, with signals blocked, costs more than the walk.
//!
//! A Bloom filter of one hash over units of 2 MiB. **Invariant:** the units of all arenas and landings are noted before
//! anything leads there, and for good: those of modules that are gone only cost time.
//!
//! Any thread may ask at any time, in signal handlers too.

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::AddrRange;

const UNIT_SHIFT: u32 = 21;
const WORDS: usize = 1024;

struct CodeFilter([AtomicU64; WORDS]);

static COPIES: CodeFilter = CodeFilter([const { AtomicU64::new(0) }; WORDS]);

impl CodeFilter {
    /// A unit's word and its bit there.
    fn place(&self, unit: u64) -> (&AtomicU64, u64) {
        let hash = unit.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        (&self.0[hash as usize / 64], 1 << (hash % 64))
    }

    fn note(&self, range: AddrRange) {
        if range.is_empty() {
            return;
        }
        for unit in range.start().0 >> UNIT_SHIFT..=(range.end().0 - 1) >> UNIT_SHIFT {
            let (word, bit) = self.place(unit);
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn may_hold(&self, pc: u64) -> bool {
        let (word, bit) = self.place(pc >> UNIT_SHIFT);
        word.load(Ordering::Acquire) & bit != 0
    }
}

/// Copies, or ways to them, will lie here.
pub fn note(range: AddrRange) {
    COPIES.note(range);
}

/// Whether a copy, or a way to one, may be at `pc`. False is certain.
pub fn may_hold(pc: u64) -> bool {
    COPIES.may_hold(pc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::{Addr, Size};

    #[test]
    fn what_was_noted_may_be_there_and_little_else() {
        static FILTER: CodeFilter = CodeFilter([const { AtomicU64::new(0) }; WORDS]);
        let range = |start, size| AddrRange::new(Addr(start), Size(size)).unwrap();
        let noted = [range(0x7f12_345f_f000, 0x2000), range(0x5555_0000_0000, 1 << 30)];
        noted.into_iter().for_each(|range| FILTER.note(range));
        FILTER.note(range(0x1234_5678_0000, 0));
        for range in noted {
            let last = range.end().0 - 1;
            let mut inside = (range.start().0..last).step_by(1 << 20).chain([last]);
            assert!(inside.all(|pc| FILTER.may_hold(pc)), "{range:?}");
        }
        let elsewhere =
            (0..10_000u64).filter(|unit| FILTER.may_hold(0x7000_0000_0000 + (unit << UNIT_SHIFT)));
        assert!(elsewhere.count() < 200);
    }
}
