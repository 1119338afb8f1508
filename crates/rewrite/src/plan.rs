//! Which checks are made, where, and with what: accesses grouped by address, moved up to where a register and the
//! flags are dead.
//!
//! A check of accesses at instructions `k1 ≤ k2 ≤ …` of one block stands at some `j ≤ k1` such that no instruction
//! in `[j, kn)` writes a register of the address (the own writes of `kn` come after its access). Blocks end at
//! calls, so nothing is freed in between.

use alloc::vec::Vec;

use crate::{
    asm::Mem,
    available,
    decode::{Decoded, FLAGS, Set, Shape, Site},
    flow::{Block, Graph},
    live::Held,
    masked::{Layout, Masked},
    walks::{self, Walk},
};

/// How the inline filter covers what may cross into another granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crossing {
    /// It cannot.
    Never,
    /// The address is tested for these low bits; if one is set the access is settled out of line.
    Tested(u8),
    /// One granule more is looked at. When that fails, an access whose address has none of the low bits `inside` is
    /// looked at alone.
    Covered { inside: Option<u8> },
    /// There is no filter: always settled.
    Always,
}

/// A check to be made before instruction `at`.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub at: u32,
    /// The lowest address.
    pub mem: Mem,
    pub crossing: Crossing,
    pub granules: u8,
    /// Indices of the sites that are settled when the filter does not pass.
    pub members: Vec<u32>,
    pub shape: Shape,
    /// The register for the address.
    pub scratch: u8,
    pub spill_scratch: bool,
    pub save_flags: bool,
    /// What is dead there.
    pub dead: Set,
}

/// The span that a group may grow to, in bytes: eight granules, one comparison.
const SPAN: i32 = 64;
/// How far a check is moved up.
const REACH: u32 = 24;

#[derive(Debug)]
struct Group {
    mem: Mem,
    lo: i32,
    hi: i32,
    first: u32,
    members: Vec<u32>,
    shape: Shape,
    open: bool,
}

/// What is checked of a function.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In the order of their places.
    pub checks: Vec<Check>,
    /// In the order of their blocks.
    pub walks: Vec<Walk>,
    /// How many sites are exempt as the frame's.
    pub exempt: u32,
}

/// Plans a function's checks. What they keep in registers is made live.
pub(crate) fn plan(code: &Decoded, graph: &Graph, live: &mut [Set], held: &[Held]) -> Plan {
    let mut checks = Vec::new();
    let of_frame =
        |site: &Site| site.mem.base().is_some_and(|base| held[site.insn as usize].frame() >> base & 1 != 0);
    let skipped: Vec<bool> = code.sites.iter().map(of_frame).collect();
    let exempt = skipped.iter().filter(|skipped| **skipped).count() as u32;
    let repeats = available::find_repeats(code, graph, &skipped);
    let walks = walks::find(code, graph, live, |site| !skipped[site] && !repeats[site]);
    let mut sites = code.sites.iter().enumerate().peekable();
    let mut groups: Vec<Group> = Vec::new();
    for (number, block) in graph.blocks.iter().enumerate() {
        let loops = graph.next(block).contains(&(number as u32));
        let mut open_from = 0;
        for insn in block.first..block.end {
            while let Some((index, site)) = sites.next_if(|(_, site)| site.insn == insn) {
                if !skipped[index] && !repeats[index] {
                    add(&mut groups[open_from..], index as u32, site, code)
                        .unwrap_or_else(|group| groups.push(group));
                }
            }
            let writes = code.insns[insn as usize].writes;
            for group in &mut groups[open_from..] {
                group.open &= writes & group.mem.registers() == 0;
            }
            while groups.get(open_from).is_some_and(|group| !group.open) {
                open_from += 1;
            }
        }
        let start = checks.len();
        checks.extend(groups.drain(..).map(|group| {
            let walks = loops && is_moved(&group, code, block);
            place(group, walks, code, block.first, live)
        }));
        checks[start..].sort_by_key(|check: &Check| check.at);
    }
    Plan { checks, walks, exempt }
}

/// Adds a site to the group that it fits, or makes one for it.
fn add(open: &mut [Group], index: u32, site: &Site, code: &Decoded) -> Result<(), Group> {
    let (lo, mem) = (site.mem.disp, site.mem.with_disp(0));
    let hi = lo.saturating_add(i32::from(site.size));
    let groupable = matches!(site.shape, Shape::Plain | Shape::Aligned) && i32::from(site.size) <= SPAN;
    if groupable {
        for group in open.iter_mut().filter(|group| group.open && group.mem == mem) {
            let (all_lo, all_hi) = (group.lo.min(lo), group.hi.max(hi));
            let plain = matches!(group.shape, Shape::Plain | Shape::Aligned);
            if !plain || i64::from(all_hi) - i64::from(all_lo & !7) > i64::from(SPAN) {
                continue;
            }
            let repeats = group.members.iter().any(|&member| {
                let other = &code.sites[member as usize];
                (other.mem.disp, other.size, other.kind) == (lo, site.size, site.kind)
            });
            if !repeats {
                group.members.push(index);
            }
            if (all_lo, all_hi) != (lo, hi) || group.shape != site.shape {
                group.shape = Shape::Plain;
            }
            (group.lo, group.hi) = (all_lo, all_hi);
            return Ok(());
        }
    }
    Err(Group { mem, lo, hi, first: site.insn, members: alloc::vec![index], shape: site.shape, open: true })
}

/// Whether a loop of one block moves the address on, as along an array, rather than from link to link.
fn is_moved(group: &Group, code: &Decoded, block: &Block) -> bool {
    (block.first..block.end).any(|at| {
        let moves = code.insns[at as usize].writes & group.mem.registers() != 0;
        moves && code.sites.binary_search_by_key(&at, |site| site.insn).is_err()
    })
}

/// Finds the cheapest place for a group's check; `walks` tells that a loop moves along an array.
fn place(group: Group, walks: bool, code: &Decoded, block_first: u32, live: &[Set]) -> Check {
    let mem = group.mem.with_disp(group.lo);
    let fixed = !matches!(group.shape, Shape::Plain | Shape::Aligned);
    let lowest = if fixed { group.first } else { block_first.max(group.first.saturating_sub(REACH)) };
    let (mut best, mut best_cost) = (group.first, u32::MAX);
    let mut at = group.first;
    loop {
        let free = dead_registers(live[at as usize], mem);
        let cost = if live[at as usize] & FLAGS == 0 { 0 } else { 10 } + if free == 0 { 4 } else { 0 };
        if cost < best_cost {
            (best, best_cost) = (at, cost);
        }
        if cost == 0 || at == lowest {
            break;
        }
        at -= 1;
        if code.insns[at as usize].writes & mem.registers() != 0 {
            break;
        }
    }
    let live = live[best as usize];
    let save_flags = live & FLAGS != 0;
    let mut free = dead_registers(live, mem);
    if save_flags {
        free &= !1; // rax holds the flags
    }
    let spare = |register: &u8| !mem.uses(*register) && *register != 4 && *register != 0;
    let scratch = if free == 0 { (1..16).find(spare).unwrap_or(1) } else { free.trailing_zeros() as u8 };
    let (mem, crossing, granules) = filter(&group, walks, code);
    Check {
        at: best,
        mem,
        crossing,
        granules,
        members: group.members,
        shape: group.shape,
        scratch,
        spill_scratch: free == 0,
        save_flags,
        dead: !live & CLOBBERABLE,
    }
}

/// What a check may overwrite when it is dead: any general register but rsp and rbp. A frame pointer is often dead
/// at an access, about to be restored, but the walk from there to the callers still needs it.
pub(crate) const CLOBBERABLE: Set = 0xffff & !(1 << 4 | 1 << 5);

fn dead_registers(live: Set, mem: Mem) -> Set {
    !live & CLOBBERABLE & !mem.registers()
}

/// Where the filter starts, what it does about crossings, and how many granules it compares.
fn filter(group: &Group, walks: bool, code: &Decoded) -> (Mem, Crossing, u8) {
    let at = group.mem.with_disp(group.lo);
    let size = group.hi - group.lo;
    let single = group.members.iter().all(|&member| {
        let site = &code.sites[member as usize];
        site.mem.disp == group.lo && i32::from(site.size) == size
    });
    let is_indexed = matches!(group.shape, Shape::Masked(Masked { layout: Layout::Indexed(_), .. }));
    if size > SPAN
        || is_indexed
        || matches!(group.shape, Shape::Repeated | Shape::Searched | Shape::Bit(_) | Shape::ByAl)
    {
        return (at, Crossing::Always, 0);
    }
    if single && size == 1 {
        return (at, Crossing::Never, 1);
    }
    if single && group.shape == Shape::Aligned {
        return (at, Crossing::Never, (size / 8) as u8);
    }
    // Bytes at any distance from a base (text, compressed data) are as often unaligned as not, which no branch
    // predictor foresees; and of the elements that a loop walks along only the last has a bad granule behind it.
    let bytewise = group.mem.index().is_some_and(|(_, scale)| scale == 1);
    let inside = matches!(size, 2 | 4 | 8).then_some(size as u8 - 1);
    if single && (bytewise && size <= 32 || walks && inside.is_some()) {
        return (at, Crossing::Covered { inside }, ((size as u8).div_ceil(8) + 1).next_power_of_two());
    }
    if single && let Some(mask) = inside {
        return (at, Crossing::Tested(mask), 1);
    }
    let lo = group.lo & !7;
    (group.mem.with_disp(lo), Crossing::Tested(7), ((group.hi - lo + 7) / 8) as u8)
}
