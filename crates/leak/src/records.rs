//! Live chunks gathered into loss records.
//!
//! The table is open addressing over a power of two, at most half full: one row for each allocation stack and
//! allocator function, with a sum for each kind.

use alloc::{collections::BTreeMap, vec::Vec};

use memcheck_model::{Addr, Function, LeakKind, Pc, StackId};

use crate::cliques::Cliques;
use crate::marks::{Mark, Marks, filled};
use crate::outcome::{LossRecord, Outcome, Sum};
use crate::search::OutOfMemory;
use crate::view::{ChunkIndex, LiveChunk, MemoryView};

/// How many frames of two allocation stacks must agree for their chunks to share a record. The allocator
/// function itself, which is the first frame that a user sees, counts as one, as it does for Valgrind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The allocator function and its caller.
    Low,
    /// The allocator function and three frames.
    Medium,
    /// All.
    High,
}

/// The most frames below the allocator function that a resolution other than `High` compares.
const MEDIUM_FRAMES: usize = 3;

impl Resolution {
    /// How many frames below the allocator function are compared; `None` is all.
    const fn frames(self) -> Option<usize> {
        match self {
            Self::Low => Some(1),
            Self::Medium => Some(MEDIUM_FRAMES),
            Self::High => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Cell {
    direct: Sum,
    indirect: Sum,
    sample: ChunkIndex,
    sample_start: Addr,
}

impl Cell {
    const EMPTY: Self = Self {
        direct: Sum { blocks: 0, bytes: 0 },
        indirect: Sum { blocks: 0, bytes: 0 },
        sample: ChunkIndex(0),
        sample_start: Addr::NULL,
    };
}

impl Cell {
    fn merge(&mut self, other: Self) {
        if self.direct.blocks == 0 {
            (self.sample, self.sample_start) = (other.sample, other.sample_start);
        }
        self.direct.add_sum(other.direct);
    }
}

/// The place in `Row::cells` of what is held by way of runtime libraries.
const LIBRARY: usize = 4;

struct Row {
    stack: StackId,
    allocated_by: Function,
    /// By `LeakKind as usize - 1`, and last what is held by way of runtime libraries.
    cells: [Cell; 5],
}

struct Table {
    rows: Vec<Row>,
    /// One more than the place in `rows`; zero is free.
    buckets: Vec<u32>,
    /// The place in `rows` that was asked for last: chunks that lie together often come from one stack.
    last: usize,
}

impl Table {
    fn new() -> Result<Self, OutOfMemory> {
        Ok(Self { rows: Vec::new(), buckets: filled(1024, 0)?, last: 0 })
    }

    fn bucket(&self, stack: StackId, allocated_by: Function) -> usize {
        let key = u64::from(stack.0) << 8 | allocated_by as u64;
        // Fibonacci hashing: the high half of the product depends on every bit of the key.
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.buckets.len() - 1)
    }

    fn row(&mut self, stack: StackId, allocated_by: Function) -> Result<&mut Row, OutOfMemory> {
        let is_same = |row: &Row| row.stack == stack && row.allocated_by == allocated_by;
        if self.rows.get(self.last).is_some_and(is_same) {
            return Ok(&mut self.rows[self.last]);
        }
        let mut bucket = self.bucket(stack, allocated_by);
        loop {
            match (self.buckets[bucket] as usize).checked_sub(1) {
                Some(place) => {
                    if is_same(&self.rows[place]) {
                        self.last = place;
                        return Ok(&mut self.rows[place]);
                    }
                    bucket = (bucket + 1) & (self.buckets.len() - 1);
                }
                None => {
                    self.rows.try_reserve(1).map_err(|_| OutOfMemory)?;
                    self.rows.push(Row { stack, allocated_by, cells: [Cell::EMPTY; 5] });
                    self.buckets[bucket] = self.rows.len() as u32;
                    if self.rows.len() * 2 > self.buckets.len() {
                        self.grow()?;
                    }
                    return self.rows.last_mut().ok_or(OutOfMemory);
                }
            }
        }
    }

    fn grow(&mut self) -> Result<(), OutOfMemory> {
        self.buckets = filled(self.buckets.len() as u32 * 2, 0)?;
        for place in 0..self.rows.len() {
            let row = &self.rows[place];
            let mut bucket = self.bucket(row.stack, row.allocated_by);
            while self.buckets[bucket] != 0 {
                bucket = (bucket + 1) & (self.buckets.len() - 1);
            }
            self.buckets[bucket] = place as u32 + 1;
        }
        Ok(())
    }
}

/// Stacks that begin alike, under the first of them that was met.
struct Merger {
    frames: usize,
    by_stack: BTreeMap<u32, StackId>,
    by_frames: BTreeMap<([u64; MEDIUM_FRAMES], usize), StackId>,
}

impl Merger {
    fn representative<V: MemoryView>(&mut self, view: &V, stack: StackId) -> StackId {
        if let Some(&known) = self.by_stack.get(&stack.0) {
            return known;
        }
        let mut frames = [Pc(0); MEDIUM_FRAMES];
        let found = view.stack_in(stack, &mut frames[..self.frames]).len();
        let key = (frames.map(|pc| pc.0), found);
        let representative = *self.by_frames.entry(key).or_insert(stack);
        self.by_stack.insert(stack.0, representative);
        representative
    }
}

/// Gathers every live chunk into the records. Every chunk's mark is final.
pub(crate) fn collect<V: MemoryView>(
    view: &V,
    marks: &Marks,
    cliques: &Cliques,
    resolution: Resolution,
) -> Result<Outcome, OutOfMemory> {
    let mut table = Table::new()?;
    let mut merger = resolution.frames().map(|frames| Merger {
        frames,
        by_stack: BTreeMap::new(),
        by_frames: BTreeMap::new(),
    });
    let mut result = Ok(());
    view.for_each_live(|live| {
        if live.chunk.reported && result.is_ok() {
            let stack = merger.as_mut().map_or(live.stack, |merger| merger.representative(view, live.stack));
            result = count(&mut table, marks, cliques, &live, stack);
        }
    });
    result?;
    let mut outcome = Outcome {
        records: Vec::new(),
        totals: [Sum::default(); 4],
        library: Sum::default(),
        holders: Vec::new(),
    };
    for row in &mut table.rows {
        let by_library = row.cells[LIBRARY];
        if by_library.direct.blocks > 0 && view.is_library_stack(row.stack) {
            outcome.library.add_sum(by_library.direct);
        } else {
            row.cells[LeakKind::Reachable as usize - 1].merge(by_library);
        }
        for kind in LeakKind::ALL {
            let cell = row.cells[kind as usize - 1];
            if cell.direct.blocks == 0 {
                continue;
            }
            outcome.totals[kind as usize - 1].add_sum(cell.direct);
            outcome.records.try_reserve(1).map_err(|_| OutOfMemory)?;
            outcome.records.push(LossRecord {
                number: 0,
                kind,
                allocated_by: row.allocated_by,
                stack: row.stack,
                direct: cell.direct,
                indirect: cell.indirect,
                sample: cell.sample,
                sample_start: cell.sample_start,
            });
        }
    }
    let bytes = |record: &LossRecord| record.direct.bytes.saturating_add(record.indirect.bytes);
    // As Valgrind numbers them: the largest last, and of one size the worst kind.
    outcome.records.sort_unstable_by_key(|record| {
        (bytes(record), core::cmp::Reverse(record.kind), record.direct.blocks, record.stack.0)
    });
    for (number, record) in (1..).zip(&mut outcome.records) {
        record.number = number;
    }
    outcome.records.sort_unstable_by_key(|record| {
        (record.kind, core::cmp::Reverse(bytes(record)), record.stack.0, record.allocated_by as u8)
    });
    Ok(outcome)
}

fn count(
    table: &mut Table,
    marks: &Marks,
    cliques: &Cliques,
    live: &LiveChunk,
    stack: StackId,
) -> Result<(), OutOfMemory> {
    let cell = match marks.get(live.index) {
        Mark::Reachable => LeakKind::Reachable as usize - 1,
        Mark::Possible | Mark::InteriorSeen => LeakKind::Possible as usize - 1,
        Mark::Indirect => LeakKind::Indirect as usize - 1,
        Mark::Leader | Mark::Unreached => LeakKind::Definite as usize - 1,
        Mark::Library => LIBRARY,
        // Only chunks that lived when the search began are shown again.
        Mark::Dead => return Ok(()),
    };
    let is_definite = cell == LeakKind::Definite as usize - 1;
    let cell = &mut table.row(stack, live.allocated_by)?.cells[cell];
    if cell.direct.blocks == 0 {
        cell.sample = live.index;
        cell.sample_start = live.chunk.start;
    }
    cell.direct.add(live.chunk.size);
    if is_definite {
        cell.indirect.add_sum(cliques.indirect(live.index));
    }
    Ok(())
}
