//! A chunk's metadata: two words, and a third once it is freed, out of band, so that a target that tramples its heap
//! cannot trample ours. The third lies apart: what a program never frees costs nothing there, and what it frees in no
//! order at all is waited for less often, the less there is of it.
//!
//! ```text
//!  info    | 63 0 | 62 freed known | 61 redzone known | 60 settled | 59..38 alloc tid | 37..20 size (small) | 19..14 align | 13..8 free fn | 7..2 alloc fn | 1..0 state |
//!  stacks  | 63..32 free StackId                        | 31..0 alloc StackId                                  |
//!  freed   | 63..42 free tid | 41..0 in the quarantine: the sum of the chunk's bytes; in a list of free slots: the next ChunkId |
//! ```
//!
//! States: `Unused → Live → Quarantined → Recycled → Live → …`. `Live → Quarantined` is a compare-and-swap, which
//! decides between threads that free one chunk at once; every other change is made by the chunk's one owner.
//! All words zero is `Unused`. Sizes of large chunks stand in a table of their own.
//!
//! Readers may race with owners: they see a chunk as it was or as it becomes, or stacks of the one with the
//! state of the other; only texts of reports depend on it. `settled` says that a freed chunk's pattern or
//! sum is in place, so that whoever looks at chunks of other threads does not take an unfinished free for damage. `known` says
//! that a bad write to the redzones, or to the freed bytes, was reported when it was made; any thread may set it.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use memcheck_model::{Addr, AddrRange, Block, BlockState, Function, Size, StackId, ThreadId};

use crate::{Backend, ChunkId, size_class::Class};

/// What a slot is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkState {
    /// No chunk was ever there.
    Unused = 0,
    /// Allocated.
    Live = 1,
    /// Freed, and not yet to be given out again.
    Quarantined = 2,
    /// Freed long ago, and to be given out again at any time; what is known of it is history.
    Recycled = 3,
}

/// Where a bad write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Damaged {
    Redzone = REDZONE_KNOWN,
    Freed = FREED_KNOWN,
}

/// The word `info`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Info(pub u64);

const SETTLED: u64 = 1 << 60;
const REDZONE_KNOWN: u64 = 1 << 61;
const FREED_KNOWN: u64 = 1 << 62;
const TID_MASK: u64 = (1 << 22) - 1;
const SIZE_MASK: u64 = (1 << 18) - 1;

impl Info {
    #[inline]
    pub const fn live(function: Function, align_shift: u32, small_size: u64, tid: ThreadId) -> Self {
        Self(
            ChunkState::Live as u64
                | (function as u64) << 2
                | (align_shift as u64) << 14
                | (small_size & SIZE_MASK) << 20
                | (tid.0 as u64 & TID_MASK) << 38,
        )
    }

    #[inline]
    pub const fn state(self) -> ChunkState {
        match self.0 & 3 {
            0 => ChunkState::Unused,
            1 => ChunkState::Live,
            2 => ChunkState::Quarantined,
            _ => ChunkState::Recycled,
        }
    }

    #[inline]
    pub const fn with_state(self, state: ChunkState) -> Self {
        Self(self.0 & !3 | state as u64)
    }

    #[inline]
    pub const fn freed_by(self, function: Function) -> Self {
        Self(self.with_state(ChunkState::Quarantined).0 & !(63 << 8) | (function as u64) << 8)
    }

    pub const fn settled(self) -> Self {
        Self(self.0 | SETTLED)
    }

    pub const fn is_settled(self) -> bool {
        self.0 & SETTLED != 0
    }

    /// Whether a bad write around the chunk, or into its freed bytes, was reported when it was made.
    pub const fn is_known(self, damaged: Damaged) -> bool {
        self.0 & damaged as u64 != 0
    }

    #[inline]
    pub fn alloc_function(self) -> Function {
        Function::from_code((self.0 >> 2 & 63) as u8).unwrap_or(Function::Malloc)
    }

    #[inline]
    pub fn free_function(self) -> Option<Function> {
        Function::from_code((self.0 >> 8 & 63) as u8)
    }

    #[inline]
    pub const fn align_shift(self) -> u32 {
        (self.0 >> 14 & 63) as u32
    }

    #[inline]
    pub const fn small_size(self) -> u64 {
        self.0 >> 20 & SIZE_MASK
    }

    pub const fn alloc_tid(self) -> ThreadId {
        ThreadId((self.0 >> 38 & TID_MASK) as u32)
    }
}

/// The metadata of one slot. Zeroed memory is a valid one.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ChunkMeta {
    info: AtomicU64,
    stacks: AtomicU64,
}

impl ChunkMeta {
    #[inline]
    pub(crate) fn info(&self) -> Info {
        // Acquire pairs with the Release of `set_info`: who sees a chunk live sees its stack and large size.
        Info(self.info.load(Ordering::Acquire))
    }

    /// `info`, once the chunk's bytes were looked at: if it is what it was before, the bytes were this chunk's. Goes with
    /// the fence in `recycle`.
    pub(crate) fn info_after(&self) -> Info {
        fence(Ordering::Acquire);
        self.info()
    }

    #[inline]
    pub(crate) fn set_info(&self, info: Info) {
        self.info.store(info.0, Ordering::Release);
    }

    pub(crate) fn set_known(&self, damaged: Damaged) {
        // Relaxed: nothing else is told by it.
        self.info.fetch_or(damaged as u64, Ordering::Relaxed);
    }

    /// Whether this thread is the one that turned `live` into `freed`. An exchange that no other thread can come between
    /// makes every load and store wait for those before it: as long as there is no other thread, one will do that no
    /// signal handler can come between.
    #[inline]
    pub(crate) fn try_free(&self, backend: &impl Backend, is_shared: bool, live: Info, freed: Info) -> bool {
        let seen = if is_shared {
            self.info
                .compare_exchange(live.0, freed.0, Ordering::AcqRel, Ordering::Acquire)
                .unwrap_or_else(|seen| seen)
        } else {
            backend.exchange_alone(&self.info, live.0, freed.0)
        };
        seen == live.0 || self.try_free_known(live, freed, seen)
    }

    /// As `try_free`, when another thread may have told of a bad write meanwhile.
    #[cold]
    fn try_free_known(&self, live: Info, freed: Info, now: u64) -> bool {
        let known = now & (REDZONE_KNOWN | FREED_KNOWN);
        now == live.0 | known
            && self.info.compare_exchange(now, freed.0 | known, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    #[inline]
    pub(crate) fn set_alloc_stack(&self, stack: StackId) {
        self.stacks.store(stack.0.into(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set_free_stack(&self, stack: StackId) {
        let alloc = self.stacks.load(Ordering::Relaxed) & u64::from(u32::MAX);
        self.stacks.store(alloc | u64::from(stack.0) << 32, Ordering::Relaxed);
    }

    pub(crate) fn alloc_stack(&self) -> StackId {
        StackId(self.stacks.load(Ordering::Relaxed) as u32)
    }

    pub(crate) fn free_stack(&self) -> StackId {
        StackId((self.stacks.load(Ordering::Relaxed) >> 32) as u32)
    }

    /// Of a fresh one, before anything else: a page that is read before it is written faults twice.
    pub(crate) fn begin(&self) {
        self.stacks.store(0, Ordering::Relaxed);
    }
}

/// What is known of a slot besides once its chunk was freed. Zeroed memory is a valid one.
#[derive(Debug, Default)]
pub struct FreedMeta(AtomicU64);

const FREED_TID_SHIFT: u32 = 42;

/// What the bytes of a freed chunk add up to, in 42 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FreedSum(u64);

impl FreedSum {
    /// Of 64 bits that differ.
    #[inline]
    pub const fn of(sum: u64) -> Self {
        // Each bit has a part in the upper ones of the product.
        Self((sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - FREED_TID_SHIFT))
    }
}

impl FreedMeta {
    /// The chunk was freed: by whom, and what it holds.
    #[inline]
    pub(crate) fn set(&self, tid: ThreadId, sum: FreedSum) {
        self.0.store(u64::from(tid.0) << FREED_TID_SHIFT | sum.0, Ordering::Relaxed);
    }

    pub(crate) fn tid(&self) -> ThreadId {
        ThreadId((self.0.load(Ordering::Relaxed) >> FREED_TID_SHIFT) as u32)
    }

    #[inline]
    pub(crate) fn sum(&self) -> FreedSum {
        FreedSum(self.0.load(Ordering::Relaxed) & ((1 << FREED_TID_SHIFT) - 1))
    }

    pub(crate) fn set_sum(&self, sum: FreedSum) {
        self.set(self.tid(), sum);
    }

    /// The next free slot of the list that the owner keeps this one in.
    #[inline]
    pub(crate) fn next(&self) -> ChunkId {
        ChunkId(self.sum().0 as u32)
    }

    #[inline]
    pub(crate) fn set_next(&self, next: ChunkId) {
        self.set_sum(FreedSum(next.0.into()));
    }
}

/// What is known of a chunk: a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its slot.
    pub id: ChunkId,
    /// The address that the allocator function returned.
    pub start: Addr,
    /// How many bytes were asked for.
    pub size: Size,
    /// What it is now; never `Unused`.
    pub state: ChunkState,
    /// The alignment asked for: `1 << align_shift`; zero when none was.
    pub align_shift: u32,
    /// Who allocated it.
    pub allocated_by: Function,
    /// Who freed it, if it is not live.
    pub freed_by: Option<Function>,
    /// Where it was allocated.
    pub alloc_stack: StackId,
    /// Where it was freed, if it is not live.
    pub free_stack: StackId,
    /// The thread that allocated it.
    pub alloc_tid: ThreadId,
    /// The thread that freed it, if it is not live.
    pub free_tid: ThreadId,
}

impl Chunk {
    pub(crate) fn new(
        id: ChunkId,
        start: u64,
        size: u64,
        info: Info,
        (meta, freed): (&ChunkMeta, &FreedMeta),
    ) -> Self {
        let live = info.state() == ChunkState::Live;
        Self {
            id,
            start: Addr(start),
            size: Size(size),
            state: info.state(),
            align_shift: info.align_shift(),
            allocated_by: info.alloc_function(),
            freed_by: if live { None } else { info.free_function() },
            alloc_stack: meta.alloc_stack(),
            free_stack: if live { StackId::NONE } else { meta.free_stack() },
            alloc_tid: info.alloc_tid(),
            free_tid: if live { ThreadId(0) } else { freed.tid() },
        }
    }

    /// The user's bytes.
    #[must_use]
    pub const fn range(&self) -> AddrRange {
        match AddrRange::new(self.start, self.size) {
            Some(range) => range,
            None => panic!("a chunk ends beyond the address space"),
        }
    }

    /// The alignment that was asked for, or zero.
    #[must_use]
    pub const fn alignment(&self) -> u64 {
        if self.align_shift == 0 { 0 } else { 1 << self.align_shift }
    }

    /// As reports show it.
    #[must_use]
    pub fn block(&self) -> Block {
        Block {
            start: self.start,
            size: self.size,
            state: if self.state == ChunkState::Live { BlockState::Live } else { BlockState::Freed },
            allocated_by: self.allocated_by,
            freed_by: self.freed_by,
            alloc_tid: self.alloc_tid,
            free_tid: self.free_tid,
        }
    }
}

/// Where a slot's chunk begins, when it was asked for with this alignment.
#[inline]
pub(crate) fn user_start(slot_start: u64, class: Class, align_shift: u32) -> u64 {
    let start = slot_start + class.shape().left_redzone;
    if align_shift > 4 { start.next_multiple_of(1 << align_shift) } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_counts_in_the_sum_of_a_freed_chunk() {
        for sum in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            for bit in 0..u64::BITS {
                assert_ne!(FreedSum::of(sum), FreedSum::of(sum ^ 1 << bit), "bit {bit} of {sum:#x}");
            }
        }
    }

    #[test]
    fn who_freed_a_chunk_is_known_when_its_slot_is_in_a_list() {
        let freed = FreedMeta::default();
        freed.set(ThreadId((1 << 22) - 1), FreedSum::of(u64::MAX));
        assert_eq!(freed.sum(), FreedSum::of(u64::MAX));
        freed.set_next(ChunkId::NONE);
        assert_eq!((freed.tid(), freed.next()), (ThreadId((1 << 22) - 1), ChunkId::NONE));
    }
}
