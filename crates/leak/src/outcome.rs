//! What a search found.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use memcheck_model::{Addr, AddrRange, Function, LeakKind, Size, StackId};

use crate::view::{ChunkIndex, MemoryView};

/// A number of chunks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many chunks.
    pub blocks: u64,
    /// Their requested sizes together.
    pub bytes: u64,
}

impl Sum {
    /// Counts one chunk.
    pub(crate) fn add(&mut self, size: Size) {
        self.add_sum(Self { blocks: 1, bytes: size.0 });
    }

    /// Counts many chunks.
    pub(crate) fn add_sum(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Chunks of one kind from one allocation stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossRecord {
    /// How they are held.
    pub kind: LeakKind,
    /// The function that allocated them.
    pub allocated_by: Function,
    /// Where they were allocated; at lower resolutions one of several stacks that begin alike.
    pub stack: StackId,
    /// The chunks themselves.
    pub direct: Sum,
    /// The chunks that are lost with them. Zero unless the kind is definite.
    pub indirect: Sum,
    /// One of the chunks.
    pub sample: ChunkIndex,
    /// Its address.
    pub sample_start: Addr,
}

/// What a search found.
///
/// Invariants: the `direct` sums of a kind's records add up to the kind's total; the `indirect` sums of all
/// definite records add up to the total of `Indirect`.
#[derive(Debug)]
pub struct Outcome {
    /// The loss records: the worst kind first, in each the largest first.
    pub records: Vec<LossRecord>,
    /// The totals, by `LeakKind as usize - 1`.
    pub(crate) totals: [Sum; 4],
    /// What runtime libraries keep for themselves, which counts as no kind.
    pub library: Sum,
    /// By slot: the address of the word that was found first to hold the chunk; zero is none. Empty unless
    /// asked for.
    pub(crate) holders: Vec<u64>,
}

impl Outcome {
    /// The total of one kind.
    #[must_use]
    pub const fn total(&self, kind: LeakKind) -> Sum {
        self.totals[kind as usize - 1]
    }

    /// The words that hold a chunk: the address of one in the root set, then of one in each chunk on the way.
    /// Empty when nothing holds it, or when the search did not ask for holders. Of a longer path the last
    /// `path.len()` words.
    pub fn path_in<'a, V: MemoryView>(
        &self,
        view: &V,
        chunk: ChunkIndex,
        path: &'a mut [Addr],
    ) -> &'a [Addr] {
        let mut free = path.len();
        let mut index = chunk;
        while free > 0 {
            let holder = Addr(self.holders.get(index.0 as usize).copied().unwrap_or(0));
            if holder == Addr::NULL {
                break;
            }
            free -= 1;
            path[free] = holder;
            if !view.heap().contains(holder) {
                break;
            }
            match view.find_slot(holder) {
                Some(next) => index = next,
                None => break,
            }
        }
        &path[free..]
    }

    /// How far into its target the pointer stored at `holder` leads, for showing a path.
    #[must_use]
    pub fn offset_into<V: MemoryView>(&self, view: &V, holder: AddrRange, target: ChunkIndex) -> Option<u64> {
        let value = view.words(holder).first()?.load(Ordering::Relaxed);
        value.checked_sub(view.get_chunk(target).start.0)
    }
}
