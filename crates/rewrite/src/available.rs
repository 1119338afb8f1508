//! Accesses that need no check of their own, because every path to them made the same one: the same registers,
//! unchanged since, the same bytes or more, and no call between, so that nothing was freed.
//!
//! `before(block) = ∩ after(its predecessors)`; `after = (before \ killed) ∪ made`. A check that failed was reported,
//! and what it covers is not reported again; only a write is, after a read.

use alloc::vec::Vec;

use memcheck_model::AccessKind;

use crate::{
    asm::Mem,
    decode::{Decoded, Flow, Insn, Set, Shape, Site},
    flow::{Block, Graph},
};

/// How many bits all sets of one function together may have.
const MOST_BITS: usize = 1 << 23;

/// What one check tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fact {
    /// The address but for its displacement.
    mem: Mem,
    start: i32,
    end: i32,
    writes: bool,
}

impl Fact {
    fn of(site: &Site) -> Option<Self> {
        let end = site.mem.disp.checked_add(i32::from(site.size))?;
        let writes = site.kind == AccessKind::Write;
        matches!(site.shape, Shape::Plain | Shape::Aligned).then_some(Self {
            mem: Mem { disp: 0, ..site.mem },
            start: site.mem.disp,
            end,
            writes,
        })
    }

    fn covers(&self, other: &Self) -> bool {
        let includes = self.start <= other.start && other.end <= self.end;
        self.mem == other.mem && includes && (self.writes || !other.writes)
    }
}

type Bits = Vec<u64>;

fn set(bits: &mut Bits, index: usize) {
    bits[index / 64] |= 1 << (index % 64);
}

fn has(bits: &Bits, index: usize) -> bool {
    bits[index / 64] >> (index % 64) & 1 != 0
}

/// For each site whether it needs no check. `skipped` sites are no evidence.
pub(crate) fn find_repeats(code: &Decoded, graph: &Graph, skipped: &[bool]) -> Vec<bool> {
    let mut repeats = alloc::vec![false; code.sites.len()];
    let facts = shared_facts(code, graph, skipped);
    if facts.is_empty() || facts.len() * graph.blocks.len() > MOST_BITS {
        return repeats;
    }
    let analysis = Analysis::new(code, graph, skipped, facts);
    let before = analysis.solve();
    for (block, before) in graph.blocks.iter().zip(before) {
        analysis.walk(block, before, |site, available| {
            let Some(fact) = Fact::of(&code.sites[site]) else { return };
            let same_mem = analysis.facts.partition_point(|known| known.mem < fact.mem);
            repeats[site] = (same_mem..analysis.facts.len())
                .take_while(|&index| analysis.facts[index].mem == fact.mem)
                .any(|index| analysis.facts[index].covers(&fact) && has(available, index));
        });
    }
    repeats
}

/// The facts about addresses that more than one block uses, sorted.
fn shared_facts(code: &Decoded, graph: &Graph, skipped: &[bool]) -> Vec<Fact> {
    let usable = code.sites.iter().zip(skipped).filter(|(_, skipped)| !**skipped);
    let mut uses: Vec<(Fact, u32)> =
        usable.filter_map(|(site, _)| Some((Fact::of(site)?, graph.block_of[site.insn as usize]))).collect();
    uses.sort_unstable();
    let mut facts = Vec::new();
    for same in uses.chunk_by(|a, b| a.0.mem == b.0.mem) {
        if same.iter().any(|(_, block)| *block != same[0].1) {
            facts.extend(same.iter().map(|(fact, _)| *fact));
        }
    }
    facts.dedup();
    facts
}

struct Analysis<'a> {
    code: &'a Decoded,
    graph: &'a Graph,
    facts: Vec<Fact>,
    /// For each site its fact.
    fact_of: Vec<Option<usize>>,
    /// For each register the facts that end when it is written.
    uses: [Bits; 16],
    /// The registers that have such facts.
    used: Set,
}

impl<'a> Analysis<'a> {
    fn new(code: &'a Decoded, graph: &'a Graph, skipped: &[bool], facts: Vec<Fact>) -> Self {
        let words = facts.len().div_ceil(64);
        let mut uses: [Bits; 16] = core::array::from_fn(|_| alloc::vec![0; words]);
        for (index, fact) in facts.iter().enumerate() {
            for register in (0..16).filter(|&register| fact.mem.uses(register)) {
                set(&mut uses[usize::from(register)], index);
            }
        }
        let find = |(site, skipped): (&Site, &bool)| {
            if *skipped { None } else { facts.binary_search(&Fact::of(site)?).ok() }
        };
        let fact_of = code.sites.iter().zip(skipped).map(find).collect();
        let used = facts.iter().fold(0, |used, fact| used | fact.mem.registers());
        Self { code, graph, facts, fact_of, uses, used }
    }

    /// What is known before each block.
    fn solve(&self) -> Vec<Bits> {
        let words = self.facts.len().div_ceil(64);
        let start = |block: &Block| alloc::vec![if block.entered { 0 } else { u64::MAX }; words];
        let mut before: Vec<Bits> = self.graph.blocks.iter().map(start).collect();
        loop {
            let mut changed = false;
            for (index, block) in self.graph.blocks.iter().enumerate() {
                let after = self.walk(block, before[index].clone(), |_, _| {});
                for &next in &block.next {
                    for (met, &word) in before[next as usize].iter_mut().zip(&after) {
                        changed |= *met & !word != 0;
                        *met &= word;
                    }
                }
            }
            if !changed {
                return before;
            }
        }
    }

    /// Goes through a block, shows each site with what is known before it, and gives what is known behind.
    fn walk(&self, block: &Block, mut known: Bits, mut show: impl FnMut(usize, &Bits)) -> Bits {
        let mut site = self.code.sites.partition_point(|site| site.insn < block.first);
        for at in block.first..block.end {
            let first = site;
            while self.code.sites.get(site).is_some_and(|site| site.insn == at) {
                show(site, &known);
                site += 1;
            }
            for fact in self.fact_of[first..site].iter().flatten() {
                set(&mut known, *fact);
            }
            self.kill(&mut known, &self.code.insns[at as usize]);
        }
        known
    }

    fn kill(&self, known: &mut Bits, insn: &Insn) {
        if matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall | Flow::Syscall | Flow::Request) {
            known.fill(0);
        }
        let mut written = insn.writes & self.used;
        while written != 0 {
            for (known, used) in known.iter_mut().zip(&self.uses[written.trailing_zeros() as usize]) {
                *known &= !used;
            }
            written &= written - 1;
        }
    }
}
