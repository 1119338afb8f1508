//! The search itself: mark what the root set reaches, then split the rest into cliques.
//!
//! Invariants:
//! - A chunk enters the queue at most once before it is next empty, when its mark leaves `Unreached`,
//!   `InteriorSeen` or `Possible`; so the queue never outgrows the number of live chunks, which it was made for.
//! - The queue is first in, first out, and begins anew when it is empty: paths to chunks are among the shortest, and what is scanned next is
//!   known early enough to be fetched.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use memcheck_model::{Addr, AddrRange, Size};

use crate::cliques;
use crate::heuristics::Heuristics;
use crate::marks::{ASK, Mark, Marks, filled, reserved};
use crate::outcome::Outcome;
use crate::pools::Pools;
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
    view.for_each_slot(|index, size| {
        marks.set_live(index, size);
        live += 1;
    });
    let mut marking = Marking {
        view,
        options,
        tag_mask: (1 << options.tag_bits) - 1,
        marks,
        queue: reserved(live)?,
        holders: filled(if options.holders { view.slot_count() } else { 0 }, 0)?,
        aside: Vec::new(),
        pools: Pools::default(),
        pending: Pending::new(),
        scanned: 0,
        is_out_of_memory: false,
    };
    marking.mark(roots)?;
    let Marking { mut marks, queue, holders, .. } = marking;
    drop(queue);
    let cliques = cliques::split(view, &mut marks, options.tag_bits)?;
    let mut outcome = records::collect(view, &marks, &cliques, options.resolution)?;
    outcome.holders = holders;
    Ok(outcome)
}

/// How many chunks ahead of the scan their content is fetched.
const AHEAD: usize = 16;

/// A chunk to be scanned: where it begins, and its words as in [`Marks`].
///
/// ```text
///  63 … 56  words, or ASK      55 … 0  address
/// ```
#[derive(Clone, Copy)]
struct Grey(u64);

impl Grey {
    fn new(start: Addr, words: u64) -> Self {
        Self(words << 56 | start.0)
    }

    fn start(self) -> Addr {
        Addr(self.0 & ((1 << 56) - 1))
    }

    fn words(self) -> u64 {
        self.0 >> 56
    }
}

/// Calls `found` with each word of `range` that lies in `heap`, and with where it stands.
#[inline]
pub(crate) fn for_each_pointer<V: MemoryView>(
    view: &V,
    heap: AddrRange,
    range: AddrRange,
    mut found: impl FnMut(u64, u64),
) {
    let (heap_start, heap_size) = (heap.start().0, heap.size().0);
    view.for_each_readable(range, |part| {
        let first_word = part.start().0.next_multiple_of(8);
        for (index, word) in view.words(part).iter().enumerate() {
            // Relaxed: the process stands still; a mapping that another process writes gives either value.
            let value = word.load(Ordering::Relaxed);
            if value.wrapping_sub(heap_start) < heap_size {
                found(value, first_word + index as u64 * 8);
            }
        }
    });
}

/// A word that points into the heap, while its slot's mark is on its way from memory.
#[derive(Clone, Copy)]
struct Candidate {
    value: u64,
    holder: u64,
    index: ChunkIndex,
    /// Whether it leads to where chunks begin.
    at_start: bool,
}

/// How many candidates wait.
const PENDING: usize = 16;

/// The candidates that were seen last, first in, first out.
struct Pending {
    ring: [Candidate; PENDING],
    /// How many ever came, and how many left.
    came: usize,
    left: usize,
}

impl Pending {
    const fn new() -> Self {
        let none = Candidate { value: 0, holder: 0, index: ChunkIndex(0), at_start: false };
        Self { ring: [none; PENDING], came: 0, left: 0 }
    }

    /// Adds one, and takes out the oldest if there is no room.
    #[inline]
    fn exchange(&mut self, candidate: Candidate) -> Option<Candidate> {
        let oldest = if self.came - self.left == PENDING { self.pop() } else { None };
        self.ring[self.came % PENDING] = candidate;
        self.came += 1;
        oldest
    }

    /// Takes out the oldest.
    #[inline]
    fn pop(&mut self) -> Option<Candidate> {
        (self.left < self.came).then(|| {
            self.left += 1;
            self.ring[(self.left - 1) % PENDING]
        })
    }
}

struct Marking<'v, V> {
    view: &'v V,
    options: SearchOptions,
    tag_mask: u64,
    marks: Marks,
    queue: Vec<Grey>,
    /// How many of the queue are scanned.
    scanned: usize,
    holders: Vec<u64>,
    /// Chunks that begin the next round, each once: those that an interior pointer was found to before a start
    /// pointer was, then the pools among what is possibly lost.
    aside: Vec<ChunkIndex>,
    /// Where in them other chunks point to.
    pools: Pools,
    pending: Pending,
    is_out_of_memory: bool,
}

/// Which pointers lead on, and to what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Start pointers lead to reachable chunks; interior ones are put aside.
    Reachable,
    /// The same, from the variables of runtime libraries.
    Library,
    /// Any pointer leads to possibly lost chunks; pools are put aside.
    Possible,
    /// From pools, start pointers lead on from possibly lost to reachable chunks.
    Pools,
}

impl<V: MemoryView> Marking<'_, V> {
    fn mark(&mut self, roots: Roots<'_>) -> Result<(), OutOfMemory> {
        for (ranges, round) in [(roots.program, Round::Reachable), (roots.library, Round::Library)] {
            for &range in ranges {
                self.scan(range, round);
            }
            self.drain(round);
        }
        for index in core::mem::take(&mut self.aside) {
            if self.marks.get(index) == Mark::InteriorSeen {
                self.marks.set(index, Mark::Possible);
                self.push(self.view.get_chunk(index));
            }
        }
        self.drain(Round::Possible);
        for index in core::mem::take(&mut self.aside) {
            self.push(self.view.get_chunk(index));
        }
        self.drain(Round::Pools);
        if self.is_out_of_memory { Err(OutOfMemory) } else { Ok(()) }
    }

    /// Scans what is in the queue until nothing is.
    fn drain(&mut self, round: Round) {
        loop {
            if let Some(&grey) = self.queue.get(self.scanned) {
                if let Some(&later) = self.queue.get(self.scanned + AHEAD) {
                    self.fetch(later);
                }
                self.scanned += 1;
                let range = match grey.words() {
                    ASK => {
                        self.view.find_slot(grey.start()).and_then(|index| self.view.get_chunk(index).range())
                    }
                    words => AddrRange::new(grey.start(), Size(words * 8)),
                };
                if let Some(range) = range {
                    self.scan(range, round);
                }
                continue;
            }
            // The memory of what was scanned serves what comes.
            self.queue.clear();
            self.scanned = 0;
            match self.pending.pop() {
                Some(candidate) => self.settle(candidate, round),
                None => return,
            }
        }
    }

    /// Fetches what is soon scanned: its first line, and the next if it has one.
    #[inline]
    fn fetch(&self, grey: Grey) {
        const LINE_BYTES: u64 = 64;
        let start = grey.start();
        self.view.prefetch(start);
        if start.0 % LINE_BYTES + grey.words() * 8 > LINE_BYTES {
            self.view.prefetch(Addr(start.0 + LINE_BYTES));
        }
    }

    #[inline]
    fn scan(&mut self, range: AddrRange, round: Round) {
        let view = self.view;
        for_each_pointer(view, view.heap(), range, |value, holder| {
            let value = value & !self.tag_mask;
            let Some((index, at_start)) = view.find_start(Addr(value)) else { return };
            view.prefetch(self.marks.address(index));
            if let Some(oldest) = self.pending.exchange(Candidate { value, holder, index, at_start }) {
                self.settle(oldest, round);
            }
        });
    }

    #[inline]
    fn settle(&mut self, candidate: Candidate, round: Round) {
        let Candidate { value, holder, index, at_start } = candidate;
        let (mark, words) = self.marks.entry(index);
        let undecided = match mark {
            Mark::Unreached => true,
            Mark::InteriorSeen => round != Round::Possible,
            Mark::Possible => round == Round::Pools || !at_start,
            _ => false,
        };
        if !undecided {
            return;
        }
        if at_start && words != ASK {
            self.hold(index, round, holder);
            self.push_grey(Grey::new(Addr(value), words));
            return;
        }
        self.settle_by_metadata(candidate, mark, round);
    }

    /// The same for a pointer that may lead anywhere.
    #[inline(never)]
    fn settle_by_metadata(&mut self, candidate: Candidate, mark: Mark, round: Round) {
        let Candidate { value, holder, index, .. } = candidate;
        let chunk = self.view.get_chunk(index);
        let heuristics = self.options.heuristics;
        let offset = match pointed_offset(chunk, value) {
            Some(offset) => offset,
            None if heuristics.is_empty_array(self.view, chunk, value) => 0,
            None => return,
        };
        if round == Round::Possible {
            if mark == Mark::Unreached {
                self.hold(index, round, holder);
                self.push(chunk);
            }
            if self.is_pool(candidate, chunk, offset) {
                self.marks.set(index, Mark::Reachable);
                self.put_aside(index);
            }
        } else if self.is_start(chunk, offset) || self.is_pool(candidate, chunk, offset) {
            self.hold(index, round, holder);
            self.push(chunk);
        } else if mark == Mark::Unreached {
            self.marks.set(index, Mark::InteriorSeen);
            self.note_holder(index, holder);
            self.put_aside(index);
        }
    }

    fn put_aside(&mut self, index: ChunkIndex) {
        match self.aside.try_reserve(1) {
            Ok(()) => self.aside.push(index),
            Err(_) => self.is_out_of_memory = true,
        }
    }

    #[inline]
    fn hold(&mut self, index: ChunkIndex, round: Round, holder: u64) {
        let held = match round {
            Round::Reachable | Round::Pools => Mark::Reachable,
            Round::Library => Mark::Library,
            Round::Possible => Mark::Possible,
        };
        self.marks.set(index, held);
        // What pools hold is held already, and what holds a pool may hang on that.
        if round != Round::Pools {
            self.note_holder(index, holder);
        }
    }

    fn push(&mut self, chunk: Chunk) {
        // What has more words than fit is asked about, by its address, when it is scanned.
        self.push_grey(Grey::new(chunk.start, (chunk.size.0 / 8).min(ASK)));
    }

    #[inline]
    fn push_grey(&mut self, grey: Grey) {
        // What stands further back is fetched when its turn comes near.
        if self.queue.len() - self.scanned < AHEAD {
            self.fetch(grey);
        }
        self.queue.push(grey);
    }

    fn is_start(&self, chunk: Chunk, offset: u64) -> bool {
        offset <= self.tag_mask
            || self.options.heuristics.accept(self.view, chunk, offset)
            || self.view.is_start_by_convention(chunk, Size(offset))
    }

    /// Whether the pointer shows that the chunk is a pool: it must stand in another chunk.
    fn is_pool(&mut self, candidate: Candidate, chunk: Chunk, offset: u64) -> bool {
        let holder = Addr(candidate.holder);
        self.options.heuristics.has(Heuristics::POOL)
            && self.view.heap().contains(holder)
            && !chunk.range().is_some_and(|range| range.contains(holder))
            && self.pools.is_shown_by(candidate.index, chunk, offset)
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
