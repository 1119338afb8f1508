//! What a search found.

use alloc::{collections::VecDeque, vec::Vec};
use core::sync::atomic::Ordering;

use memcheck_model::{Addr, AddrRange, Function, LeakKind, PATH_STEPS, Size, StackId, Step};

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
    /// Its number among all records by bytes, from 1 for the smallest.
    pub number: u32,
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

/// What holds a chunk (see `memcheck_model::Holding`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The address of the pointer in the root set.
    pub root: Addr,
    /// The chunks on the way; the last one is the chunk itself.
    pub steps: Vec<Step>,
    /// How many are left out in the middle.
    pub left_out: u64,
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

    /// What holds a chunk. `None` when nothing does, or when the search did not ask for holders.
    #[must_use]
    pub fn path<V: MemoryView>(&self, view: &V, chunk: ChunkIndex) -> Option<Path> {
        const HALF: usize = PATH_STEPS / 2;
        let (mut near_chunk, mut near_root) = (Vec::new(), VecDeque::new());
        let mut left_out = 0;
        let (mut index, mut at) = (chunk, 0);
        loop {
            let holder = Addr(*self.holders.get(index.0 as usize)?);
            if holder == Addr::NULL {
                return None;
            }
            let step = Step { into: offset_into(view, holder, index), at };
            if near_chunk.len() < HALF {
                near_chunk.push(step);
            } else {
                if near_root.len() == HALF {
                    near_root.pop_front();
                    left_out += 1;
                }
                near_root.push_back(step);
            }
            let holding = view.heap().contains(holder).then(|| view.find_slot(holder)).flatten();
            let Some(next) = holding else {
                let steps = near_root.into_iter().rev().chain(near_chunk.into_iter().rev()).collect();
                return Some(Path { root: holder, steps, left_out });
            };
            at = holder.0.wrapping_sub(view.get_chunk(next).start.0);
            index = next;
        }
    }
}

/// How far into the chunk the pointer stored at `holder` leads.
fn offset_into<V: MemoryView>(view: &V, holder: Addr, target: ChunkIndex) -> u64 {
    let word = AddrRange::new(holder, Size(8)).and_then(|range| view.words(range).first());
    // Relaxed: as in the search.
    word.map_or(0, |word| word.load(Ordering::Relaxed).saturating_sub(view.get_chunk(target).start.0))
}
