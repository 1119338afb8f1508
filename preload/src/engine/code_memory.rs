//! Memory for emitted code, one arena a module, within reach of the module's own code and data.
//!
//! ```text
//!  arena   near the module: readable, executable            ─┐ the same pages
//!  alias   anywhere:        readable, writable              ─┘
//! ```
//!
//! No page is ever writable and executable through one mapping, and other threads may run the arena's code while
//! more is written. The pages are shared with a forked child, so the child, before it writes, moves what was
//! written so far to pages of its own; a word that fork wipes tells it to, as libc runs code of the
//! child before any handler of fork.
//!
//! Invariants: `used <= capacity`; bytes below `used` never change until the arena is dropped; everything from
//! the module's first to last byte is within `REACH` of every byte of the arena.
//!
//! Runs under the engine's lock only.

use memcheck_model::{Addr, AddrRange, Size};

use super::code_filter;
use crate::{
    maps,
    sys::{Errno, memory},
};

/// How far apart a rel32 operand can refer, less room for a large displacement added to a symbol.
const REACH: u64 = (1 << 31) - (1 << 20);
/// How far apart places are that are tried for an arena.
const STEP: u64 = 1 << 20;
/// From so many bytes on, pages are asked for at once.
const MUCH: u64 = 16 << 10;

/// The code memory of one module.
#[derive(Debug)]
pub struct Arena {
    base: Addr,
    alias: Addr,
    capacity: u64,
    used: u64,
    /// The value of `Generation::current` when the pages were made.
    generation: u64,
}

/// Tells a forked child from the process that made an arena; a child of vfork shares its parent's memory and
/// its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u64);

impl Arena {
    /// Makes an arena at a place that is free.
    pub fn new(base: Addr, capacity: Size, generation: Generation) -> Result<Self, Errno> {
        let capacity = capacity.0.next_multiple_of(4096);
        memory::map_at(base, capacity)?;
        let alias = map_pages(base, capacity, 0).inspect_err(|_| memory::unmap(base, capacity))?;
        let arena = Self { base, alias, capacity, used: 0, generation: generation.0 };
        code_filter::note(arena.range());
        Ok(arena)
    }

    /// Where the next `append` puts its bytes.
    pub fn cursor(&self) -> Addr {
        Addr(self.base.0 + self.used)
    }

    /// The arena's addresses.
    pub fn range(&self) -> AddrRange {
        AddrRange::new(self.base, Size(self.capacity)).unwrap_or_default()
    }

    /// Writes code at the cursor; false when the arena is full or a forked child could not get its own.
    pub fn append(&mut self, code: &[u8], generation: Generation) -> bool {
        if code.len() as u64 > self.capacity - self.used || !self.own_pages(generation) {
            return false;
        }
        if code.len() as u64 > MUCH {
            let first = self.used & !4095;
            let len = (self.used + code.len() as u64).next_multiple_of(4096) - first;
            memory::prepare_to_write(self.alias.0 + first, len);
        }
        let to = (self.alias.0 + self.used) as *mut u8;
        // SAFETY: `alias .. alias + capacity` is our writable mapping; nobody else writes it, and nobody runs the
        // bytes from `used` on before their address is published.
        unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), to, code.len()) };
        // Copies begin at cache lines' halves, as compilers align functions.
        self.used = (self.used + code.len() as u64).next_multiple_of(16).min(self.capacity);
        true
    }

    /// In a forked child: replaces pages shared with the parent by copies. Running threads see the same bytes
    /// before and after: the kernel replaces a mapping under its lock.
    fn own_pages(&mut self, generation: Generation) -> bool {
        if self.generation == generation.0 {
            return true;
        }
        let Ok(alias) = map_pages(self.base, self.capacity, self.used) else { return false };
        memory::unmap(self.alias, self.capacity);
        self.alias = alias;
        self.generation = generation.0;
        true
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        memory::unmap(self.base, self.capacity);
        memory::unmap(self.alias, self.capacity);
    }
}

/// Maps fresh pages executable at `base`, instead of what is there, and writable elsewhere; gives the latter. The
/// first `kept` bytes at `base` stay.
fn map_pages(base: Addr, capacity: u64, kept: u64) -> Result<Addr, Errno> {
    let alias = memory::map_shared(capacity)?;
    // SAFETY: `kept` bytes of the arena are readable code; the alias is fresh, writable and as large.
    unsafe { core::ptr::copy_nonoverlapping(base.0 as *const u8, alias.0 as *mut u8, kept as usize) };
    memory::map_executable(alias, base, capacity).inspect_err(|_| memory::unmap(alias, capacity))?;
    Ok(alias)
}

/// How far the program's break may grow before it meets an arena.
const BREAK_GROWTH: u64 = 1 << 30;
/// How far the main stack may grow before it meets one.
const STACK_GROWTH: u64 = 64 << 20;

/// Where there is room for an arena and for `behind` bytes right behind it, and for how large an arena: of `capacity`
/// bytes or, where modules crowd, of a half or a quarter.
pub fn find_room(module: AddrRange, capacity: Size, behind: u64) -> Option<(Addr, Size)> {
    [1, 2, 4].into_iter().find_map(|part| {
        let capacity = (capacity.0 / part).next_multiple_of(4096);
        let len = capacity + behind;
        Some((find_gap(module, len).or_else(|| find_listed_gap(module, len))?, Size(capacity)))
    })
}

/// The free range of `len` bytes that is nearest to the module, by the kernel's list: for when many modules and their
/// arenas lie there.
fn find_listed_gap(module: AddrRange, len: u64) -> Option<Addr> {
    let most = (module.start().0 + REACH).checked_sub(len)?;
    let least = module.end().0.saturating_sub(REACH).max(1 << 16);
    let (mut found, mut gap_start) = (None, 0);
    maps::for_each(|mapping| {
        let gap_end = match mapping.source {
            maps::Source::MainStack => mapping.range.start().0.saturating_sub(STACK_GROWTH),
            _ => mapping.range.start().0,
        };
        // At the gap's end that is nearer to the module.
        let lowest = gap_start.max(least);
        let highest = gap_end.min(most.saturating_add(len)).checked_sub(len).filter(|&at| at >= lowest);
        let at = highest.map(|highest| if lowest >= module.end().0 { lowest } else { highest & !4095 });
        let candidate = at
            .filter(|&at| at >= lowest && !is_before_break(at, len))
            .map(|at| (at.abs_diff(module.start().0), at));
        found = match (found, candidate) {
            (Some(old), Some(new)) => Some(core::cmp::min::<(u64, u64)>(old, new)),
            (old, new) => old.or(new),
        };
        gap_start = mapping.range.end().0;
        true
    });
    found.map(|(_, at)| Addr(at))
}

/// Whether the program's break may grow into a range.
fn is_before_break(start: u64, len: u64) -> bool {
    let program_break = memory::program_break();
    start < program_break + BREAK_GROWTH && start + len > program_break
}

/// A free range of `len` bytes as near to the module as there is, of a few that are tried. Above first: that is where the
/// loader leaves room; below a module lie those loaded after it.
fn find_gap(module: AddrRange, len: u64) -> Option<Addr> {
    let above = module.end().0.next_multiple_of(STEP);
    let most_above = (module.start().0 + REACH).checked_sub(len)?;
    // A program at a fixed address has next to nothing below it.
    let below = module.start().0.checked_sub(len).map(|start| start & !(STEP - 1));
    let least_below = module.end().0.saturating_sub(REACH).max(1 << 16);
    let mut distance = 0;
    loop {
        let candidates = [
            Some(above + distance).filter(|&start| start <= most_above),
            below.and_then(|below| below.checked_sub(distance)).filter(|&start| start >= least_below),
        ];
        if candidates == [None, None] {
            return None;
        }
        for start in candidates.into_iter().flatten() {
            if !is_before_break(start, len) && memory::is_free(Addr(start), len) {
                return Some(Addr(start));
            }
        }
        distance += STEP * 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_mappings_has_a_gap_near_a_crowded_module() {
        let own = (find_listed_gap as *const ()).addr() as u64 & !4095;
        let module = AddrRange::new(Addr(own), Size(4096)).unwrap();
        let len = 3 * 4096;
        let found = find_listed_gap(module, len).unwrap();
        assert!(found.0.is_multiple_of(4096) && found.0.abs_diff(own) <= REACH, "{found:?}");
        assert!(memory::is_free(found, len), "{found:?}");
    }

    #[test]
    fn there_is_room_near_a_program_at_a_fixed_address() {
        let program = AddrRange::new(Addr(0x40_0000), Size(8 << 20)).unwrap();
        let len = 64 << 20;
        let found = find_gap(program, len).unwrap();
        assert!(found.0 + len <= program.start().0 + REACH && found >= program.end());
    }
}
