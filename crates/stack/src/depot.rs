//! The stack depot: each distinct stack once, named by a [`StackId`].
//!
//! ```text
//!  index:  each word  [ 5 bits of the stack's hash | StackId, 27 ]
//!          a stack is in its bucket of sixteen words, or, when that bucket is full, in its second one, or behind its
//!          place in the whole.
//!          Buckets are near: those of stacks for themselves lie in the first 64th of the index, so that few stacks
//!          touch few pages; those of branches near each other when what they branch off was interned together
//!  store:  [ hash, 56 bits | length, 8 ] [ pc ] [ pc ] …          StackId = the header's position
//!     or:  [ StackId, 32 bits | 0, 32 ] [ pc ]                    a branch: the frames of that stack, and one further in
//! ```
//!
//! A stack that leads to the outermost frame is a branch, and so are the stacks that it leads through: each costs two
//! words, and a recursion's stacks are found again by their last frames alone. A stack of which frames are left out
//! has no frame that stays, so it stands for itself. Those are told apart by their 56-bit hash and length: two of a
//! million stacks are confused with a chance below 10^-5.
//! Invariant: a word in the index is published (Release) after the stack that it names was written.
//! No locks, no removal; may run in signal handlers. A full depot gives [`StackId::NONE`], and counts it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memcheck_model::{MAX_FRAMES, Pc, StackId};

/// How many places of the index are looked at before the depot is called full.
const PROBES: usize = 64;
const LENGTH_BITS: u32 = 8;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;
/// A cache line of words.
const BUCKET: usize = 16;
/// Enough for every id; the other bits of a word in the index tell most stacks apart.
const ID_BITS: u32 = 27;
/// How far in the index the branches of one stack lie apart.
const NEAR: usize = 4 * BUCKET;
/// And where there are too many.
const FARTHER: usize = 256 * BUCKET;
/// Which share of the index is tried first.
const SMALL_SHARE: usize = 64;

/// What the outermost frame branches off: no stack has this id.
pub(crate) const OUTERMOST: StackId = StackId(1);

/// The depot over zeroed memory that the caller provides.
#[derive(Clone, Copy)]
pub struct Depot<'a> {
    index: &'a [AtomicU32],
    store: &'a [AtomicU64],
}

/// Which stack a sequence of frames is, told frame by frame from the inside out.
///
/// `sum = Σ mix(pc_i) · FACTOR^i` mod 2^64 over the frames, the innermost being number 0: so the sum of a stretch of
/// frames follows from those of two stacks that it lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StackHash {
    sum: u64,
    len: usize,
}

// wyhash's constants: odd, and with as many ones as zeros.
const LEFT: u64 = 0xa076_1d64_78bd_642f;
const RIGHT: u64 = 0xe703_7ed1_a0b4_28db;
const FACTOR: u64 = 0x8ebc_6af0_9c88_c6e3;

static POWERS: [u64; MAX_FRAMES + 1] = {
    let mut powers = [1u64; MAX_FRAMES + 1];
    let mut index = 1;
    while index <= MAX_FRAMES {
        powers[index] = powers[index - 1].wrapping_mul(FACTOR);
        index += 1;
    }
    powers
};

#[inline]
const fn fold(left: u64, right: u64) -> u64 {
    let product = left as u128 * right as u128;
    product as u64 ^ (product >> 64) as u64
}

impl StackHash {
    #[inline]
    pub const fn new() -> Self {
        Self { sum: 0, len: 0 }
    }

    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The next frame outwards; there are fewer than [`MAX_FRAMES`] yet.
    #[inline]
    pub fn push(&mut self, pc: Pc) {
        self.sum = self.sum.wrapping_add(fold(pc.0 ^ LEFT, RIGHT).wrapping_mul(POWERS[self.len]));
        self.len += 1;
    }

    /// The sum of a stack from the sum of its frames but the innermost, and that one.
    #[inline]
    pub const fn with_inner(outer: u64, pc: Pc) -> u64 {
        fold(pc.0 ^ LEFT, RIGHT).wrapping_add(outer.wrapping_mul(FACTOR))
    }

    /// The next `count` frames outwards: those which a stack of sum `whole` has inside one of sum `beyond`.
    #[inline]
    pub fn append(&mut self, whole: u64, beyond: u64, count: usize) {
        let stretch = whole.wrapping_sub(beyond.wrapping_mul(POWERS[count]));
        self.sum = self.sum.wrapping_add(stretch.wrapping_mul(POWERS[self.len]));
        self.len += count;
    }

    /// Hash, and length in the low byte. Never zero for a stack that has frames.
    #[inline]
    const fn header(&self) -> u64 {
        fold(self.sum ^ LEFT, RIGHT ^ self.len as u64) << LENGTH_BITS | self.len as u64
    }
}

#[inline]
const fn header_of_branch(outer: StackId) -> u64 {
    (outer.0 as u64) << 32
}

/// What a word of the index holds beside the id.
#[inline]
const fn tag(hash: u64) -> u32 {
    ((hash >> (u64::BITS - (u32::BITS - ID_BITS))) as u32) << ID_BITS
}

/// The id in a word of the index, unless that is another stack's.
#[inline]
fn candidate(word: u32, hash: u64) -> Option<StackId> {
    (word >> ID_BITS << ID_BITS == tag(hash)).then_some(StackId(word & ((1 << ID_BITS) - 1)))
}

impl<'a> Depot<'a> {
    /// A depot in this memory: the index's length is a power of two; the store's first word counts the words used,
    /// its second the stacks that were refused.
    #[must_use]
    #[inline]
    pub const fn new(index: &'a [AtomicU32], store: &'a [AtomicU64]) -> Self {
        assert!(index.len().is_power_of_two() && index.len() >= BUCKET && store.len() <= 1 << ID_BITS);
        Self { index, store }
    }

    /// The words of the index where a stack may be, in order: its two buckets, each from anywhere on, and the places from
    /// that of its hash on.
    #[inline]
    fn places(&self, [first, second]: [usize; 2], hash: u64) -> impl Iterator<Item = &'a AtomicU32> {
        let index = self.index;
        let from = (hash >> LENGTH_BITS) as usize;
        let bucket = move |near: usize| {
            let start = near & (index.len() - BUCKET);
            (from..from + BUCKET).map(move |place| start + place % BUCKET)
        };
        let spread = (from..from + PROBES).map(move |position| position & (index.len() - 1));
        bucket(first).chain(bucket(second)).chain(spread).map(move |position| &index[position])
    }

    /// The same for a stack that stands for itself.
    #[inline]
    fn places_of(&self, header: u64) -> impl Iterator<Item = &'a AtomicU32> {
        let near = (self.index.len() / SMALL_SHARE).max(BUCKET) - BUCKET;
        let bucket = |hash: u64| (hash >> LENGTH_BITS) as usize & near;
        self.places([bucket(header), bucket(header.rotate_left(u64::BITS / 2))], header)
    }

    /// The id that a word of the index has for a stack.
    #[inline]
    fn id_in(&self, word: u32, header: u64) -> Option<StackId> {
        let id = candidate(word, header)?;
        (self.store[id.0 as usize].load(Ordering::Relaxed) == header).then_some(id)
    }

    /// The id of a stack that was interned before. `next` lies [`Self::behind`] what was found last: programs that build
    /// and fell the same trees go through the same stacks in the same order.
    #[inline]
    pub(crate) fn find(&self, hash: &StackHash, next: StackId) -> Option<StackId> {
        let header = hash.header();
        if self.was_given(next)
            // Acquire pairs with the Release of the header: the frames are there.
            && self.store[next.0 as usize].load(Ordering::Acquire) == header
        {
            return Some(next);
        }
        for word in self.places_of(header) {
            // Acquire pairs with the Release of the word's publication: the header is there.
            let word = word.load(Ordering::Acquire);
            if word == 0 {
                return None;
            }
            if let Some(id) = self.id_in(word, header) {
                return Some(id);
            }
        }
        None
    }

    /// Whether there may be a stack of this id. What was never written is not looked at: a page that is read before it is
    /// written faults twice.
    #[inline]
    fn was_given(&self, id: StackId) -> bool {
        id.0 < self.next().0
    }

    /// The id that the stack has, if there is one, that was interned after this one.
    #[inline]
    pub(crate) fn behind(&self, id: StackId) -> StackId {
        let length = match self.store.get(id.0 as usize) {
            // A branch has a frame of its own.
            Some(header) if id != StackId::NONE => (header.load(Ordering::Relaxed) & LENGTH_MASK).max(1),
            // The first two words of the store are its own.
            _ => 1,
        };
        StackId(id.0.saturating_add(length as u32 + 1))
    }

    /// The id of the stack of `outer`'s frames with `pc` further in. `next` as in `find`.
    #[inline(always)]
    pub(crate) fn branch(&self, outer: StackId, pc: Pc, next: StackId) -> StackId {
        if self.is_branch(next, outer, pc) { next } else { self.branch_by_index(outer, pc) }
    }

    /// Whether that stack is this branch.
    #[inline(always)]
    fn is_branch(&self, id: StackId, outer: StackId, pc: Pc) -> bool {
        let at = id.0 as usize;
        if !self.was_given(id) {
            return false;
        }
        let (Some(header), Some(frame)) = (self.store.get(at), self.store.get(at + 1)) else { return false };
        // Acquire pairs with the Release of the header: the pc is there.
        header.load(Ordering::Acquire) == header_of_branch(outer) && frame.load(Ordering::Relaxed) == pc.0
    }

    /// [`Self::behind`] a branch.
    #[inline]
    pub(crate) const fn behind_branch(id: StackId) -> StackId {
        StackId(id.0 + 2)
    }

    #[inline(never)]
    fn branch_by_index(&self, outer: StackId, pc: Pc) -> StackId {
        let header = header_of_branch(outer);
        let hash = fold(pc.0 ^ LEFT, RIGHT ^ header);
        // Ids are two apart at least, and a stack has one branch in the mean: half of the words are taken.
        let near = |hash: u64, reach| (header >> 32) as usize + (hash >> (2 * LENGTH_BITS)) as usize % reach;
        let buckets = [near(hash, NEAR), near(hash.rotate_left(u64::BITS / 2), FARTHER)];
        for word in self.places(buckets, hash) {
            // Acquire pairs with the Release of the word's publication: the branch is there.
            let mut found = word.load(Ordering::Acquire);
            if found == 0 {
                match self.publish(word, hash, header, &[pc]) {
                    Ok(id) => return id,
                    Err(other) => found = other,
                }
            }
            if let Some(id) = candidate(found, hash)
                && let [its_header, its_pc] = &self.store[id.0 as usize..id.0 as usize + 2]
                && its_header.load(Ordering::Relaxed) == header
                && its_pc.load(Ordering::Relaxed) == pc.0
            {
                return id;
            }
        }
        self.refuse()
    }

    /// The id of a stack that ends in the outermost frame.
    pub(crate) fn intern_whole(&self, frames: &[Pc]) -> StackId {
        let mut id = OUTERMOST;
        for &pc in frames.iter().rev() {
            id = self.branch(id, pc, StackId::NONE);
            if id == StackId::NONE {
                break;
            }
        }
        id
    }

    /// The id of this stack, of which at most [`MAX_FRAMES`] frames are kept, as one that stands for itself.
    pub fn intern(&self, frames: &[Pc]) -> StackId {
        let frames = &frames[..frames.len().min(MAX_FRAMES)];
        if frames.is_empty() {
            return StackId::NONE;
        }
        let mut hash = StackHash::new();
        frames.iter().for_each(|&pc| hash.push(pc));
        let header = hash.header();
        for word in self.places_of(header) {
            // Acquire as in `find`.
            let mut found = word.load(Ordering::Acquire);
            if found == 0 {
                match self.publish(word, header, header, frames) {
                    Ok(id) => return id,
                    Err(other) => found = other,
                }
            }
            if let Some(id) = self.id_in(found, header) {
                return id;
            }
        }
        self.refuse()
    }

    /// Writes the stack and names it in `word`; or gives back what another thread wrote there first (the copy just
    /// made is then lost, a few words).
    fn publish(&self, word: &AtomicU32, hash: u64, header: u64, frames: &[Pc]) -> Result<StackId, u32> {
        let words = frames.len() + 1;
        // The first two words of the store are its own.
        let room = self.store.len().saturating_sub(2 + words) as u64;
        let take = |used: u64| (used <= room).then_some(used + words as u64);
        let Ok(used) = self.store[0].fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            return Ok(self.refuse());
        };
        let start = used as usize + 2;
        let to = &self.store[start..start + words];
        for (to, pc) in to[1..].iter().zip(frames) {
            to.store(pc.0, Ordering::Relaxed);
        }
        to[0].store(header, Ordering::Release);
        let found = tag(hash) | start as u32;
        match word.compare_exchange(0, found, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(StackId(start as u32)),
            Err(other) => {
                self.hide(StackId(start as u32));
                Err(other)
            }
        }
    }

    /// Whether the stack that was interned last seems to branch off another, as most do. Such stacks have their places in
    /// the index near their ids.
    #[must_use]
    pub fn ends_in_branch(&self) -> bool {
        let header = self.next().0.checked_sub(2).and_then(|at| self.store.get(at as usize));
        header.is_some_and(|header| header.load(Ordering::Relaxed) & LENGTH_MASK == 0)
    }

    /// The id that the next stack to be interned gets.
    #[must_use]
    pub fn next(&self) -> StackId {
        StackId(self.store[0].load(Ordering::Relaxed) as u32 + 2)
    }

    /// Changes the pcs of the stacks from `first` on for which `settle` has something else, for good: the same pcs
    /// will be another stack from now on. While other threads intern, except stacks of such pcs.
    pub fn settle(&self, first: StackId, settle: impl Fn(Pc) -> Option<Pc>) {
        let end = self.next();
        let mut id = first;
        while id.0 < end.0 {
            // Acquire pairs with the Release of `publish`. Another thread has not got so far: the rest stays.
            let header = self.store[id.0 as usize].load(Ordering::Acquire);
            let next = self.behind(id);
            if header == 0 {
                return;
            }
            let words = &self.store[id.0 as usize + 1..next.0 as usize];
            let mut is_settled = false;
            for word in words {
                if let Some(pc) = settle(Pc(word.load(Ordering::Relaxed))) {
                    word.store(pc.0, Ordering::Relaxed);
                    is_settled = true;
                }
            }
            if is_settled {
                self.hide(id);
            }
            id = next;
        }
    }

    /// Lets nobody find a stack any more by its pcs: a hash of zero is as good as no stack's. A branch stays: it is
    /// found by its pc, which `settle` changed, or by chance where another has its place in the index.
    fn hide(&self, id: StackId) {
        let header = &self.store[id.0 as usize];
        let length = header.load(Ordering::Relaxed) & LENGTH_MASK;
        if length != 0 {
            header.store(length, Ordering::Relaxed);
        }
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
        let mut written = 0;
        let mut at = id;
        while at.0 > OUTERMOST.0 && written < MAX_FRAMES {
            let start = at.0 as usize;
            let Some(header) = self.store.get(start).map(|header| header.load(Ordering::Relaxed)) else {
                break;
            };
            let len = (header & LENGTH_MASK).max(1) as usize;
            let Some(words) = self.store.get(start + 1..start + 1 + len).filter(|_| header != 0) else {
                break;
            };
            for (to, word) in out[written..].iter_mut().zip(words) {
                *to = Pc(word.load(Ordering::Relaxed));
            }
            written = (written + len).min(MAX_FRAMES);
            at = if header & LENGTH_MASK == 0 { StackId((header >> 32) as u32) } else { StackId::NONE };
        }
        &out[..written]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn settled_stacks_keep_their_ids_and_are_other_stacks() {
        let (index, store) = memory(64, 256);
        let depot = Depot::new(&index, &store);
        let stack = |pcs: &[u64]| pcs.iter().map(|&pc| Pc(pc)).collect::<Vec<_>>();
        let (old, plugin, both) = (stack(&[1, 2, 20]), stack(&[10, 2]), stack(&[1, 11]));
        let first = depot.intern(&old);
        let since = depot.next();
        let (second, third) = (depot.intern(&plugin), depot.intern(&both));
        assert_eq!(since, second);
        depot.settle(since, |pc| (10..20).contains(&pc.0).then(|| pc.in_unloaded(7)));
        let mut frames = [Pc(0); MAX_FRAMES];
        assert_eq!(depot.get_in(first, &mut frames), old);
        assert_eq!(depot.get_in(second, &mut frames), [Pc(10).in_unloaded(7), Pc(2)]);
        assert_eq!(depot.get_in(third, &mut frames), [Pc(1), Pc(11).in_unloaded(7)]);
        assert_eq!(depot.intern(&old), first);
        let again = depot.intern(&plugin);
        assert!(again.0 > third.0);
        assert_eq!(depot.get_in(again, &mut frames), plugin);
    }

    fn memory(index: usize, store: usize) -> (Vec<AtomicU32>, Vec<AtomicU64>) {
        ((0..index).map(|_| AtomicU32::new(0)).collect(), (0..store).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn a_full_depot_refuses_and_counts() {
        let (index, store) = memory(16, 8);
        let depot = Depot::new(&index, &store);
        assert_ne!(depot.intern(&[Pc(1), Pc(2), Pc(3)]), StackId::NONE);
        assert_eq!(depot.intern(&[Pc(4), Pc(5), Pc(6)]), StackId::NONE);
        assert_eq!(depot.refused(), 1);
        assert_ne!(depot.intern(&[Pc(1), Pc(2), Pc(3)]), StackId::NONE);
    }

    #[test]
    fn stacks_that_end_outermost_share_their_outer_frames() {
        let (index, store) = memory(64, 256);
        let depot = Depot::new(&index, &store);
        let stack = |pcs: &[u64]| pcs.iter().map(|&pc| Pc(pc)).collect::<Vec<_>>();
        let (first, second) = (stack(&[3, 2, 1]), stack(&[4, 2, 1]));
        let ids = [&first, &second].map(|stack| depot.intern_whole(stack));
        assert_eq!(depot.next(), StackId(2 + 4 * 2));
        assert_eq!([&first, &second].map(|stack| depot.intern_whole(stack)), ids);
        let mut frames = [Pc(0); MAX_FRAMES];
        assert_eq!(depot.get_in(ids[0], &mut frames), first);
        assert_eq!(depot.get_in(ids[1], &mut frames), second);
        // As the one that was interned behind another.
        let behind = depot.behind(ids[0]);
        assert_eq!(behind, Depot::behind_branch(ids[0]));
        assert_eq!(depot.branch(depot.intern_whole(&stack(&[2, 1])), Pc(4), behind), ids[1]);
        assert_eq!(depot.branch(depot.intern_whole(&stack(&[2, 1])), Pc(3), behind), ids[0]);
    }

    #[test]
    fn settled_branches_keep_their_frames_and_are_other_stacks() {
        let (index, store) = memory(64, 256);
        let depot = Depot::new(&index, &store);
        let stack = |pcs: &[u64]| pcs.iter().map(|&pc| Pc(pc)).collect::<Vec<_>>();
        let plugin = stack(&[3, 10, 1]);
        let old = depot.intern_whole(&plugin);
        let flat = depot.intern(&stack(&[5, 6]));
        depot.settle(StackId(2), |pc| (10..20).contains(&pc.0).then(|| pc.in_unloaded(7)));
        let mut frames = [Pc(0); MAX_FRAMES];
        assert_eq!(depot.get_in(old, &mut frames), [Pc(3), Pc(10).in_unloaded(7), Pc(1)]);
        let new = depot.intern_whole(&plugin);
        assert_ne!(new, old);
        assert_eq!(depot.get_in(new, &mut frames), plugin);
        assert_eq!(depot.intern(&stack(&[5, 6])), flat);
    }

    #[test]
    fn no_id_means_no_frames() {
        let (index, store) = memory(16, 8);
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
            let (index, store) = memory(256, 8192);
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
