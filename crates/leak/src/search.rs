//! The search itself: mark what the root set reaches, then split the rest into cliques.
//!
//! Invariants:
//! - A chunk enters the queue at most once in marking, when its mark leaves `Unreached` or `InteriorSeen`; so
//!   the queue never outgrows the number of live chunks, which it was made for.
//! - The queue is first in, first out: paths to chunks are among the shortest, and what is scanned next is
//!   known early enough to be fetched.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use memcheck_model::{Addr, AddrRange, Size};

use crate::cliques;
use crate::heuristics::Heuristics;
use crate::marks::{Mark, Marks, filled, reserved};
use crate::outcome::Outcome;
use crate::records::{self, Resolution};
use crate::view::{Chunk, ChunkIndex, MemoryView};

/// The memory for the search's own lists could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no memory for the marks of the leak search")
    }
}

impl core::error::Error for OutOfMemory {}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// Which interior pointers count as start pointers.
    pub heuristics: Heuristics,
    /// How many low bits of a word are not part of the pointer in it; less than 64.
    pub tag_bits: u8,
    /// What makes a loss record.
    pub resolution: Resolution,
    /// Whether to note for each chunk the word that holds it.
    pub holders: bool,
}

/// The root set: readable ranges of memory.
#[derive(Clone, Copy, Debug)]
pub struct Roots<'a> {
    /// What the program reaches by itself.
    pub program: &'a [AddrRange],
    /// The variables of runtime libraries: what only they hold, and they allocated, is counted apart.
    pub library: &'a [AddrRange],
}

/// Searches.
///
/// # Errors
/// When there is no memory for the marks.
pub fn search<V: MemoryView>(
    view: &V,
    roots: Roots<'_>,
    options: SearchOptions,
) -> Result<Outcome, OutOfMemory> {
    let mut marks = Marks::new(view.slot_count())?;
    let mut live = 0;
    view.for_each_live(|chunk| {
        marks.set(chunk.index, Mark::Unreached);
        live += 1;
    });
    let mut marking = Marking {
        view,
        options,
        tag_mask: (1 << options.tag_bits) - 1,
        marks,
        queue: reserved(live)?,
        holders: filled(if options.holders { view.slot_count() } else { 0 }, 0)?,
        interior: Vec::new(),
        pending: Pending::new(),
    };
    marking.mark(roots)?;
    let Marking { mut marks, mut queue, holders, .. } = marking;
    let cliques = cliques::split(view, &mut marks, &mut queue, options.tag_bits)?;
    let mut outcome = records::collect(view, &marks, &cliques, options.resolution)?;
    outcome.holders = holders;
    Ok(outcome)
}

/// How many chunks ahead of the scan their content is fetched.
const AHEAD: usize = 12;

/// Calls `found` with each word of `range` that lies in `heap`, and with where it stands.
#[inline]
pub(crate) fn for_each_pointer<V: MemoryView>(
    view: &V,
    heap: AddrRange,
    range: AddrRange,
    mut found: impl FnMut(u64, u64),
) {
    let (heap_start, heap_size) = (heap.start().0, heap.size().0);
    let first_word = range.start().0.next_multiple_of(8);
    for (index, word) in view.words(range).iter().enumerate() {
        // Relaxed: the process stands still; a mapping that another process writes gives either value.
        let value = word.load(Ordering::Relaxed);
        if value.wrapping_sub(heap_start) < heap_size {
            found(value, first_word + index as u64 * 8);
        }
    }
}

/// A word that points into the heap, while its slot's mark and metadata are on their way from memory.
#[derive(Clone, Copy)]
struct Candidate {
    value: u64,
    index: ChunkIndex,
    holder: u64,
}

/// The candidates that were seen last, a ring.
struct Pending {
    ring: [Option<Candidate>; 16],
    next: usize,
}

impl Pending {
    const fn new() -> Self {
        Self { ring: [None; 16], next: 0 }
    }

    /// Adds one and takes out the oldest.
    fn exchange(&mut self, candidate: Option<Candidate>) -> Option<Candidate> {
        let place = &mut self.ring[self.next % self.ring.len()];
        self.next = self.next.wrapping_add(1);
        core::mem::replace(place, candidate)
    }
}

struct Marking<'v, V> {
    view: &'v V,
    options: SearchOptions,
    tag_mask: u64,
    marks: Marks,
    queue: Vec<ChunkIndex>,
    holders: Vec<u64>,
    /// Chunks that an interior pointer was found to, each once, before a start pointer was.
    interior: Vec<ChunkIndex>,
    pending: Pending,
}

/// Which pointers lead on, and to what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Start pointers lead to reachable chunks; interior ones are put aside.
    Reachable,
    /// The same, from the variables of runtime libraries.
    Library,
    /// Any pointer leads to possibly lost chunks.
    Possible,
}

impl<V: MemoryView> Marking<'_, V> {
    fn mark(&mut self, roots: Roots<'_>) -> Result<(), OutOfMemory> {
        for (ranges, round) in [(roots.program, Round::Reachable), (roots.library, Round::Library)] {
            for &range in ranges {
                self.scan(range, round)?;
            }
            self.drain(round)?;
            self.queue.clear();
        }
        let interior = core::mem::take(&mut self.interior);
        for index in interior {
            if self.marks.get(index) == Mark::InteriorSeen {
                self.marks.set(index, Mark::Possible);
                self.queue.push(index);
            }
        }
        self.drain(Round::Possible)?;
        self.queue.clear();
        Ok(())
    }

    /// Scans what is in the queue until nothing is.
    fn drain(&mut self, round: Round) -> Result<(), OutOfMemory> {
        let mut head = 0;
        loop {
            if let Some(&index) = self.queue.get(head) {
                if let Some(&later) = self.queue.get(head + AHEAD) {
                    self.view.prefetch_content(later);
                }
                if let Some(&later) = self.queue.get(head + 2 * AHEAD) {
                    self.view.prefetch_metadata(later);
                }
                head += 1;
                if let Some(range) = self.view.get_chunk(index).range() {
                    self.scan(range, round)?;
                }
                continue;
            }
            let mut settled = false;
            for _ in 0..self.pending.ring.len() {
                if let Some(candidate) = self.pending.exchange(None) {
                    settled = true;
                    self.settle(candidate, round)?;
                }
            }
            if !settled {
                return Ok(());
            }
        }
    }

    #[inline]
    fn scan(&mut self, range: AddrRange, round: Round) -> Result<(), OutOfMemory> {
        let view = self.view;
        let mut result = Ok(());
        for_each_pointer(view, view.heap(), range, |value, holder| {
            let value = value & !self.tag_mask;
            let Some(index) = view.find_slot(Addr(value)) else { return };
            self.marks.prefetch(view, index);
            view.prefetch_metadata(index);
            if let Some(oldest) = self.pending.exchange(Some(Candidate { value, index, holder })) {
                result = result.and(self.settle(oldest, round));
            }
        });
        result
    }

    fn settle(&mut self, candidate: Candidate, round: Round) -> Result<(), OutOfMemory> {
        let Candidate { value, index, holder } = candidate;
        let mark = self.marks.get(index);
        let undecided = mark == Mark::Unreached || (mark == Mark::InteriorSeen && round != Round::Possible);
        if !undecided {
            return Ok(());
        }
        let chunk = self.view.get_chunk(index);
        let Some(offset) = pointed_offset(chunk, value) else { return Ok(()) };
        if round != Round::Possible && !self.is_start(chunk, offset) {
            if mark == Mark::Unreached {
                self.marks.set(index, Mark::InteriorSeen);
                self.interior.try_reserve(1).map_err(|_| OutOfMemory)?;
                self.interior.push(index);
                self.note_holder(index, holder);
            }
            return Ok(());
        }
        let held = match round {
            Round::Reachable => Mark::Reachable,
            Round::Library => Mark::Library,
            Round::Possible => Mark::Possible,
        };
        self.marks.set(index, held);
        self.note_holder(index, holder);
        self.queue.push(index);
        self.view.prefetch_content(index);
        Ok(())
    }

    fn is_start(&self, chunk: Chunk, offset: u64) -> bool {
        offset <= self.tag_mask
            || self.options.heuristics.accept(self.view, chunk, offset)
            || self.view.is_start_by_convention(chunk, Size(offset))
    }

    fn note_holder(&mut self, index: ChunkIndex, holder: u64) {
        if let Some(place) = self.holders.get_mut(index.0 as usize) {
            *place = holder;
        }
    }
}

/// How far into `chunk` the pointer leads, or `None` when it does not lead into it.
#[inline]
pub(crate) fn pointed_offset(chunk: Chunk, value: u64) -> Option<u64> {
    let offset = value.wrapping_sub(chunk.start.0);
    (offset < chunk.size.0.max(1)).then_some(offset)
}
