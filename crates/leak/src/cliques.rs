//! The lost chunks, each under the leader of its clique.
//!
//! Leaders are tried in the order of (allocation stack, address): stack ids grow with first use, so of a ring
//! or of parent and child that point to each other the one that was allocated from first leads, which is the
//! one a reader would call the structure.

use alloc::vec::Vec;

use memcheck_model::{Addr, StackId};

use crate::marks::{Mark, Marks, filled, reserved};
use crate::outcome::Sum;
use crate::search::{OutOfMemory, for_each_pointer, pointed_offset};
use crate::view::{ChunkIndex, MemoryView};

/// What hangs on each leader.
pub(crate) struct Cliques {
    /// By slot: one more than the place in `sums`; zero for what never led. Empty when nothing is lost.
    place: Vec<u32>,
    sums: Vec<Sum>,
}

impl Cliques {
    /// What is lost together with a leader.
    pub(crate) fn indirect(&self, leader: ChunkIndex) -> Sum {
        self.place_of(leader).map_or(Sum::default(), |place| self.sums[place])
    }

    fn place_of(&self, leader: ChunkIndex) -> Option<usize> {
        (*self.place.get(leader.0 as usize)?).checked_sub(1).map(|place| place as usize)
    }
}

/// A lost chunk, in the order of trial.
struct Lost {
    stack: StackId,
    index: ChunkIndex,
    reported: bool,
}

/// Marks every chunk that is still `Unreached` as `Leader` or `Indirect`.
pub(crate) fn split<V: MemoryView>(
    view: &V,
    marks: &mut Marks,
    tag_bits: u8,
) -> Result<Cliques, OutOfMemory> {
    let mut count = 0;
    view.for_each_live(|live| count += u32::from(marks.get(live.index) == Mark::Unreached));
    let mut cliques = Cliques { place: Vec::new(), sums: Vec::new() };
    if count == 0 {
        return Ok(cliques);
    }
    cliques.place = filled(view.slot_count(), 0)?;
    cliques.sums = reserved(count)?;
    let mut lost = reserved(count)?;
    // A lost chunk enters it at most once for each leader.
    let mut queue = reserved(count)?;
    view.for_each_live(|live| {
        if marks.get(live.index) == Mark::Unreached {
            lost.push(Lost { stack: live.stack, index: live.index, reported: live.chunk.reported });
        }
    });
    // What is not reported leads last and takes no reported leader over.
    lost.sort_unstable_by_key(|lost| (!lost.reported, lost.stack.0, lost.index));
    for Lost { index, reported, .. } in lost {
        if marks.get(index) != Mark::Unreached {
            continue;
        }
        marks.set(index, Mark::Leader);
        let sum = Gather { view, marks, queue: &mut queue, cliques: &cliques, tag_mask: (1 << tag_bits) - 1 }
            .run(index, reported);
        cliques.sums.push(sum);
        cliques.place[index.0 as usize] = cliques.sums.len() as u32;
    }
    Ok(cliques)
}

struct Gather<'a, V> {
    view: &'a V,
    marks: &'a mut Marks,
    queue: &'a mut Vec<ChunkIndex>,
    cliques: &'a Cliques,
    tag_mask: u64,
}

impl<V: MemoryView> Gather<'_, V> {
    /// Takes all that `leader` reaches into its clique, and sums it up.
    fn run(self, leader: ChunkIndex, leader_reported: bool) -> Sum {
        let Self { view, marks, queue, cliques, tag_mask } = self;
        let heap = view.heap();
        let mut sum = Sum::default();
        queue.clear();
        queue.push(leader);
        let mut head = 0;
        while let Some(&index) = queue.get(head) {
            head += 1;
            let Some(range) = view.get_chunk(index).range() else { continue };
            for_each_pointer(view, heap, range, |value, _| {
                let value = value & !tag_mask;
                let Some(target) = view.find_slot(Addr(value)) else { return };
                let mark = marks.get(target);
                let free = mark == Mark::Unreached || (mark == Mark::Leader && target != leader);
                if !free {
                    return;
                }
                let chunk = view.get_chunk(target);
                if pointed_offset(chunk, value).is_none() || (chunk.reported && !leader_reported) {
                    return;
                }
                marks.set(target, Mark::Indirect);
                if chunk.reported {
                    sum.add(chunk.size);
                }
                if mark == Mark::Leader {
                    // Its clique was scanned already and comes along.
                    sum.add_sum(cliques.indirect(target));
                } else {
                    queue.push(target);
                }
            });
        }
        sum
    }
}
