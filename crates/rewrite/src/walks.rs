//! Loops of one block that walk along arrays: where such a loop turns out to be long, one look at the shadow serves for
//! many turns instead of a check for each access in each turn.
//!
//! ```text
//!         mov $-SHORT, limit
//!  top:   add $1, limit; je look                          the block as ever, with its checks
//!  …      jcc top
//!
//!  again: cmp limit, counter; jge look                    out of line: the block without checks
//!  …      jcc again
//!  look:  settles this turn's accesses, finds out how many turns more touch nothing but whole good granules, moves
//!         the limit there, goes on behind `again`
//! ```
//! In: a block that leads to itself. `counter` is a register that grows by the same amount in each turn, and so do, or
//! stay, the addresses of all accesses. Invariant: while `counter < limit` in the second loop, this turn's accesses are
//! good, as far as was known when the limit was set; the block calls nothing, so that nothing is freed in between (by
//! other threads as little as between a check and its access). `limit` is a register that is dead in the whole block, so
//! it is dead behind it too; who enters the block anew begins with the first loop.

use alloc::vec::Vec;

use crate::{
    asm::Mem,
    decode::{Decoded, FLAGS, Flow, Set, Shape},
    flow::{Graph, find_insn},
    plan::CLOBBERABLE,
};

/// With fewer accesses a check takes about as long as the comparison.
const LEAST_GROUPS: usize = 2;
/// How many bytes accesses may lie apart that are looked at together.
const SPAN: i32 = 64;
/// The longest step: that of loops which handle whole vectors, unrolled.
const LONGEST_STEP: i32 = 128;

/// How many turns a loop makes before it counts as long. A look takes as long as some ten checks.
pub(crate) const SHORT: u8 = 16;

/// One such loop.
#[derive(Debug)]
pub(crate) struct Walk {
    pub block: u32,
    pub counter: u8,
    /// How much the counter grows in each turn: log2.
    pub growth: u8,
    pub limit: u8,
    pub strides: Vec<Stride>,
    /// Registers for looking that the block's addresses do not use, alive or not.
    pub work: [u8; 4],
}

/// Accesses that move together.
#[derive(Debug)]
pub(crate) struct Stride {
    /// The first byte, by the registers as they are where a turn begins.
    pub mem: Mem,
    /// The last byte's displacement, and one.
    pub end: i32,
    /// How far they move in each turn, unless they stay.
    pub step: Option<u8>,
    /// The sites, and each one's address as above.
    pub sites: Vec<(u32, Mem)>,
}

/// How a block changes a register.
#[derive(Clone, Copy)]
enum Change {
    None,
    /// It grows by this, at one instruction.
    Grows {
        by: i32,
        at: u32,
    },
    Other,
}

/// Finds the loops; `needs_check` says which sites matter. Their limits are made live in `live`.
pub(crate) fn find(
    code: &Decoded,
    graph: &Graph,
    live: &mut [Set],
    needs_check: impl Fn(usize) -> bool,
) -> Vec<Walk> {
    let mut walks = Vec::new();
    for (number, block) in graph.blocks.iter().enumerate() {
        if !graph.next(block).contains(&(number as u32)) {
            continue;
        }
        let insns = block.first as usize..block.end as usize;
        let Flow::Branch(target, _) = code.insns[insns.end - 1].flow else { continue };
        if find_insn(code, target) != Some(insns.start) || live[insns.start] & FLAGS != 0 {
            continue;
        }
        if code.insns[insns.start..insns.end - 1].iter().any(|insn| insn.flow != Flow::Next) {
            continue;
        }
        let mut changes = [Change::None; 16];
        let mut used = 0;
        for at in insns.clone() {
            let insn = &code.insns[at];
            used |= insn.reads | insn.writes | live[at];
            for register in (0..16u8).filter(|register| insn.writes >> register & 1 != 0) {
                let change = &mut changes[usize::from(register)];
                *change = match (*change, insn.growth) {
                    (Change::None, by @ 1..) if insn.writes & 0xffff == 1 << register => {
                        Change::Grows { by: by.into(), at: at as u32 }
                    }
                    _ => Change::Other,
                };
            }
        }
        let first = code.sites.partition_point(|site| (site.insn as usize) < insns.start);
        let end = code.sites.partition_point(|site| (site.insn as usize) < insns.end);
        let sites = (first..end).filter(|&site| needs_check(site));
        let Some(strides) = strides_of(code, sites, &changes) else { continue };
        let addressing = strides.iter().fold(0, |set, stride| set | stride.mem.registers());
        let counter = (0..16u8).filter(|register| addressing >> register & 1 != 0).find_map(|register| {
            match changes[usize::from(register)] {
                Change::Grows { by, .. } if by.count_ones() == 1 => {
                    Some((register, by.trailing_zeros() as u8))
                }
                _ => None,
            }
        });
        let Some((counter, growth)) = counter else { continue };
        let free = CLOBBERABLE & !used;
        if free == 0 {
            continue;
        }
        let limit = free.trailing_zeros() as u8;
        let mut rest =
            (0..16u8).filter(|register| (CLOBBERABLE & !addressing & !(1 << limit)) >> register & 1 != 0);
        let work = [(); 4].map(|()| rest.next());
        let [Some(a), Some(b), Some(c), Some(d)] = work else { continue };
        live[insns].iter_mut().for_each(|live| *live |= 1 << limit);
        walks.push(Walk { block: number as u32, counter, growth, limit, strides, work: [a, b, c, d] });
    }
    walks
}

/// The accesses, if the addresses of all grow by a power of two in each turn, or stay, and there are enough that grow.
fn strides_of(
    code: &Decoded,
    sites: impl Iterator<Item = usize>,
    changes: &[Change; 16],
) -> Option<Vec<Stride>> {
    let mut strides: Vec<Stride> = Vec::new();
    for index in sites {
        let site = &code.sites[index];
        let mem = site.mem;
        let is_plain = matches!(site.shape, Shape::Plain | Shape::Aligned) && i32::from(site.size) <= SPAN;
        if !is_plain || mem.is_narrow() || mem.is_thread() {
            return None;
        }
        // By how much the address grows in a turn, and how much of that has happened before the access.
        let (mut step, mut before) = (0, 0);
        let parts = mem.base().map(|base| (base, 1)).into_iter().chain(mem.index());
        let are_known = parts.into_iter().all(|(register, scale)| match changes[usize::from(register)] {
            Change::None => true,
            Change::Grows { by, at } => {
                step += by * i32::from(scale);
                before += if at < site.insn { by * i32::from(scale) } else { 0 };
                true
            }
            Change::Other => false,
        });
        let is_step = step == 0 || step.count_ones() == 1 && step <= LONGEST_STEP;
        let start = mem.disp.checked_add(before).filter(|_| are_known && is_step)?;
        let end = start.checked_add(i32::from(site.size))?;
        let step = (step > 0).then(|| step.trailing_zeros() as u8);
        let mem = mem.with_disp(start);
        let fits = |stride: &&mut Stride| {
            let moves_so = (stride.mem.with_disp(0), stride.step) == (mem.with_disp(0), step);
            let (least, most) = (stride.mem.disp.min(start), stride.end.max(end));
            moves_so && i64::from(most) - i64::from(least) <= SPAN.into()
        };
        match strides.iter_mut().find(fits) {
            Some(stride) => {
                stride.mem.disp = stride.mem.disp.min(start);
                stride.end = stride.end.max(end);
                stride.sites.push((index as u32, mem));
            }
            None => strides.push(Stride { mem, end, step, sites: alloc::vec![(index as u32, mem)] }),
        }
    }
    let moves = strides.iter().any(|stride| stride.step.is_some());
    (moves && strides.len() >= LEAST_GROUPS).then_some(strides)
}
