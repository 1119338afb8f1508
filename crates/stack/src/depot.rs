//! The stack depot: each distinct stack once, named by a [`StackId`].
//!
//! ```text
//!  index:  each word  [ high 32 bits of the stack's hash | StackId ]
//!          a stack is in its bucket of eight words in the first 64th of the index, or, when that bucket is full,
//!          behind its place in the whole: so that few stacks touch few pages
//!  store:  [ hash, 56 bits | length, 8 ] [ pc ] [ pc ] …          StackId = the header's position, from 1
//! ```
//!
//! Stacks are told apart by their 56-bit hash and length: two of a million stacks are confused with a chance below
//! 10^-5. Invariant: a word in the index is published (Release) after the stack that it names was written.
//! No locks, no removal; may run in signal handlers. A full depot gives [`StackId::NONE`], and counts it.

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::{MAX_FRAMES, Pc, StackId};

/// How many places of the index are looked at before the depot is called full.
const PROBES: usize = 64;
const LENGTH_BITS: u32 = 8;
/// A cache line of words.
const BUCKET: usize = 8;
/// Which share of the index is tried first.
const SMALL_SHARE: usize = 64;

/// The depot over zeroed memory that the caller provides.
#[derive(Clone, Copy)]
pub struct Depot<'a> {
    index: &'a [AtomicU64],
    store: &'a [AtomicU64],
}

/// Which stack a sequence of frames is: hash, and length in the low byte. Never zero.
///
/// Each pair of frames is folded by a multiplication of its own (with wyhash's constants, and the position beside them),
/// so that the multiplications do not wait for each other.
#[inline]
fn header_of(frames: &[Pc]) -> u64 {
    const LEFT: u64 = 0xa076_1d64_78bd_642f;
    const RIGHT: u64 = 0xe703_7ed1_a0b4_28db;
    let fold = |left: u64, right: u64| {
        let product = u128::from(left) * u128::from(right);
        product as u64 ^ (product >> 64) as u64
    };
    let mut position = 0u64;
    let mut hash = 0u64;
    for pair in frames.chunks(2) {
        position = position.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let second = pair.get(1).map_or(0, |pc| pc.0);
        hash = hash.wrapping_add(fold(pair[0].0 ^ LEFT, second ^ RIGHT ^ position));
    }
    fold(hash ^ LEFT, RIGHT ^ frames.len() as u64) << LENGTH_BITS | frames.len() as u64
}

impl<'a> Depot<'a> {
    /// A depot in this memory: the index's length is a power of two; the store's first word counts the words used,
    /// its second the stacks that were refused.
    #[must_use]
    #[inline]
    pub const fn new(index: &'a [AtomicU64], store: &'a [AtomicU64]) -> Self {
        assert!(index.len().is_power_of_two() && index.len() >= BUCKET && store.len() <= u32::MAX as usize);
        Self { index, store }
    }

    /// The id of this stack, of which at most [`MAX_FRAMES`] frames are kept.
    #[inline]
    pub fn intern(&self, frames: &[Pc]) -> StackId {
        let frames = &frames[..frames.len().min(MAX_FRAMES)];
        if frames.is_empty() {
            return StackId::NONE;
        }
        let header = header_of(frames);
        let tag = header >> 32;
        let first = (header >> LENGTH_BITS) as usize;
        let bucket = first & ((self.index.len() / SMALL_SHARE).max(BUCKET) - BUCKET);
        let spread = (first..first + PROBES).map(|position| position & (self.index.len() - 1));
        for position in (bucket..bucket + BUCKET).chain(spread) {
            let word = &self.index[position];
            // Acquire pairs with the Release of the word's publication: the header is there.
            let mut found = word.load(Ordering::Acquire);
            if found == 0 {
                match self.publish(word, tag, header, frames) {
                    Ok(id) => return id,
                    Err(other) => found = other,
                }
            }
            let id = found & u64::from(u32::MAX);
            if found >> 32 == tag && self.store[id as usize].load(Ordering::Relaxed) == header {
                return StackId(id as u32);
            }
        }
        self.refuse()
    }

    /// Writes the stack and names it in `word`; or gives back what another thread wrote there first (the copy just
    /// made is then lost, a few words).
    #[cold]
    fn publish(&self, word: &AtomicU64, tag: u64, header: u64, frames: &[Pc]) -> Result<StackId, u64> {
        let words = frames.len() + 1;
        // The first two words of the store are its own.
        let room = self.store.len().saturating_sub(2 + words) as u64;
        let take = |used: u64| (used <= room).then_some(used + words as u64);
        let Ok(used) = self.store[0].fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            return Ok(self.refuse());
        };
        let start = used as usize + 2;
        let to = &self.store[start..start + words];
        to[0].store(header, Ordering::Relaxed);
        for (to, pc) in to[1..].iter().zip(frames) {
            to.store(pc.0, Ordering::Relaxed);
        }
        word.compare_exchange(0, tag << 32 | start as u64, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| StackId(start as u32))
    }

    fn refuse(&self) -> StackId {
        self.store[1].fetch_add(1, Ordering::Relaxed);
        StackId::NONE
    }

    /// How many stacks found no room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.store[1].load(Ordering::Relaxed)
    }

    /// Writes the frames of a stack to `out` and returns those; empty for [`StackId::NONE`] and for a number that
    /// no `intern` gave.
    pub fn get_in<'o>(&self, id: StackId, out: &'o mut [Pc; MAX_FRAMES]) -> &'o [Pc] {
        let start = id.0 as usize;
        let Some(header) = self.store.get(start).filter(|_| start >= 2) else { return &[] };
        let len = (header.load(Ordering::Relaxed) & 0xff) as usize;
        let Some(words) = self.store.get(start + 1..start + 1 + len) else { return &[] };
        for (to, word) in out.iter_mut().zip(words) {
            *to = Pc(word.load(Ordering::Relaxed));
        }
        &out[..len.min(MAX_FRAMES)]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn memory(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_full_depot_refuses_and_counts() {
        let (index, store) = (memory(16), memory(8));
        let depot = Depot::new(&index, &store);
        assert_ne!(depot.intern(&[Pc(1), Pc(2), Pc(3)]), StackId::NONE);
        assert_eq!(depot.intern(&[Pc(4), Pc(5), Pc(6)]), StackId::NONE);
        assert_eq!(depot.refused(), 1);
        assert_ne!(depot.intern(&[Pc(1), Pc(2), Pc(3)]), StackId::NONE);
    }

    #[test]
    fn no_id_means_no_frames() {
        let (index, store) = (memory(16), memory(8));
        let mut out = [Pc(0); MAX_FRAMES];
        let depot = Depot::new(&index, &store);
        assert!(depot.get_in(StackId::NONE, &mut out).is_empty());
        assert!(depot.get_in(StackId(u32::MAX), &mut out).is_empty());
    }

    proptest! {
        #[test]
        fn equal_stacks_share_an_id_and_give_their_frames(
            stacks in prop::collection::vec(prop::collection::vec(1u64..9, 1..70), 1..50)
        ) {
            let (index, store) = (memory(256), memory(8192));
            let depot = Depot::new(&index, &store);
            let ids: Vec<_> = stacks
                .iter()
                .map(|stack| depot.intern(&stack.iter().map(|&pc| Pc(pc)).collect::<Vec<_>>()))
                .collect();
            let mut out = [Pc(0); MAX_FRAMES];
            for (stack, &id) in stacks.iter().zip(&ids) {
                let kept: Vec<_> = stack.iter().take(MAX_FRAMES).map(|&pc| Pc(pc)).collect();
                prop_assert_eq!(depot.get_in(id, &mut out), &kept[..]);
            }
            for (left, left_id) in stacks.iter().zip(&ids) {
                for (right, right_id) in stacks.iter().zip(&ids) {
                    let same = left.iter().take(MAX_FRAMES).eq(right.iter().take(MAX_FRAMES));
                    prop_assert_eq!(same, left_id == right_id);
                }
            }
        }
    }
}
