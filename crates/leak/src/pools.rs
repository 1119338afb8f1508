//! Blocks that a program carves into equal elements of its own: a pool.
//!
//! A program with an allocator of its own keeps pointers to elements of a pool and none to the pool, which it never
//! frees. Whether one of the pointers happens to be to the first element, which is also the pool's start, says
//! nothing. One pointer into the middle may be a stale or a chance value; pointers from other chunks, none of them
//! lost, to several elements are not, so that the block is in use:
//!
//! ```text
//! o₁ o₂ o₃ distinct offsets of interior pointers in other chunks (not on stacks, not in variables)
//! pool = size ≥ 256  ∧  gcd(size, o₂ − o₁, o₃ − o₁) ≥ 16
//! ```
//!
//! The differences stand for the offsets, so that pointers to a member of the elements count too. Ends of a text, of
//! a buffer and places in it are seldom multiples of one number that divides its size.

use alloc::collections::BTreeMap;

use crate::view::{Chunk, ChunkIndex};

/// How many elements must be pointed to: more than a buffer has places to read and write.
const ELEMENTS: usize = 3;
/// The least size of an element: what malloc itself hands out.
const LEAST_ELEMENT_BYTES: u64 = 16;
/// The least size of a pool. Nobody carves less, and what is smaller costs no row.
const LEAST_POOL_BYTES: u64 = 256;

/// Chunks that may be pools, each with the first offsets that were seen; 0, which is no interior one, for none.
#[derive(Default)]
pub(crate) struct Pools(BTreeMap<ChunkIndex, [u64; ELEMENTS]>);

impl Pools {
    /// Notes a pointer that leads `offset` bytes into `chunk`, and says whether it shows the chunk to be a pool.
    pub(crate) fn is_shown_by(&mut self, index: ChunkIndex, chunk: Chunk, offset: u64) -> bool {
        let size = chunk.size.0;
        if size < LEAST_POOL_BYTES {
            return false;
        }
        let offsets = self.0.entry(index).or_default();
        let place = offsets.iter().position(|&seen| seen == 0 || seen == offset);
        let Some(place) = place.filter(|&place| offset != 0 && offsets[place] == 0) else { return false };
        offsets[place] = offset;
        place + 1 == ELEMENTS
            && offsets.iter().fold(size, |divisor, seen| gcd(divisor, seen.abs_diff(offset)))
                >= LEAST_ELEMENT_BYTES
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use memcheck_model::{Addr, Size};

    use super::*;

    fn is_pool(size: u64, offsets: &[u64]) -> bool {
        let chunk = Chunk { start: Addr(0x1000), size: Size(size), reported: true };
        let mut pools = Pools::default();
        offsets.iter().any(|&offset| pools.is_shown_by(ChunkIndex(1), chunk, offset))
    }

    #[test]
    fn pointers_to_three_elements_show_a_pool() {
        assert!(is_pool(4800, &[48, 480, 96]));
        assert!(is_pool(4800, &[56, 488, 104]), "to a member of each");
        assert!(is_pool(4800, &[48, 48, 480, 480, 96]), "some of them twice");
    }

    #[test]
    fn fewer_elements_none_of_one_size_or_a_small_block_show_nothing() {
        assert!(!is_pool(4800, &[48, 480, 48, 480]), "two");
        assert!(!is_pool(4096, &[100, 180, 2000, 2048, 2096]), "places in a text");
        assert!(!is_pool(4808, &[48, 480, 96, 4752]), "elements that do not fill the block");
        assert!(!is_pool(800, &[8, 16, 24, 32, 40, 48]), "words");
        assert!(!is_pool(192, &[32, 64, 96, 128, 160]), "too small");
    }
}
