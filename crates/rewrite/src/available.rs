//! Accesses that need no check of their own, because every path to them made the same one: the same registers,
//! unchanged since, the same bytes or more, and no call between, so that nothing was freed.
//!
//! `before(block) = ∩ after(its predecessors)`; `after = (before \ killed) ∪ made`. A check that failed was reported,
//! and what it covers is not reported again; only a write is, after a read.

use alloc::vec::Vec;

use memcheck_model::AccessKind;

use crate::{
    asm::Mem,
    decode::{Decoded, Flow, Set, Shape, Site},
    flow::Graph,
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
            mem: site.mem.with_disp(0),
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

/// One set of facts for each block, in one piece of memory.
struct Rows {
    words: usize,
    bits: Vec<u64>,
}

impl Rows {
    fn filled(words: usize, rows: impl Iterator<Item = bool>) -> Self {
        let bits = rows.flat_map(|all| core::iter::repeat_n(if all { u64::MAX } else { 0 }, words)).collect();
        Self { words, bits }
    }

    fn row(&self, index: usize) -> &[u64] {
        &self.bits[index * self.words..(index + 1) * self.words]
    }

    fn row_mut(&mut self, index: usize) -> &mut [u64] {
        &mut self.bits[index * self.words..(index + 1) * self.words]
    }
}

fn set(bits: &mut [u64], index: usize) {
    bits[index / 64] |= 1 << (index % 64);
}

fn has(bits: &[u64], index: usize) -> bool {
    bits[index / 64] >> (index % 64) & 1 != 0
}

/// For each site whether it needs no check. `skipped` sites are no evidence.
pub(crate) fn find_repeats(code: &Decoded, graph: &Graph, skipped: &[bool]) -> Vec<bool> {
    let mut repeats = alloc::vec![false; code.sites.len()];
    let (facts, fact_of) = shared_facts(code, graph, skipped);
    if facts.is_empty() || facts.len() * graph.blocks.len() > MOST_BITS {
        return repeats;
    }
    let analysis = Analysis::new(code, graph, facts, &fact_of);
    let mut known = analysis.solve();
    for block in 0..graph.blocks.len() {
        analysis.walk(block, known.row_mut(block), |site, fact, known| {
            repeats[site] = analysis
                .same_mem(fact)
                .any(|other| has(known, other) && analysis.facts[other].covers(&analysis.facts[fact]));
        });
    }
    repeats
}

/// The facts about addresses that more than one block uses, sorted; and for each site its fact, if that is one.
fn shared_facts(code: &Decoded, graph: &Graph, skipped: &[bool]) -> (Vec<Fact>, Vec<Option<u32>>) {
    let usable = code.sites.iter().zip(skipped).enumerate().filter(|(_, (_, skipped))| !**skipped);
    let mut uses: Vec<(Fact, usize)> =
        usable.filter_map(|(index, (site, _))| Some((Fact::of(site)?, index))).collect();
    uses.sort_unstable();
    let (mut facts, mut fact_of) = (Vec::new(), alloc::vec![None; code.sites.len()]);
    let block_of = |site: usize| graph.block_of[code.sites[site].insn as usize];
    for same in uses.chunk_by(|a, b| a.0.mem == b.0.mem) {
        if same.iter().any(|&(_, site)| block_of(site) != block_of(same[0].1)) {
            for &(fact, site) in same {
                if facts.last() != Some(&fact) {
                    facts.push(fact);
                }
                fact_of[site] = Some(facts.len() as u32 - 1);
            }
        }
    }
    (facts, fact_of)
}

/// What happens to the facts.
#[derive(Clone, Copy)]
enum Step {
    /// An access tells one.
    Tells { site: u32, fact: u32 },
    /// Those with these registers end.
    Ends(Set),
    /// All end.
    EndsAll,
}

struct Analysis<'a> {
    graph: &'a Graph,
    facts: Vec<Fact>,
    /// What happens, in the order of the code; for each block where its own starts, and where the last one's ends.
    steps: Vec<Step>,
    starts: Vec<u32>,
    /// For each register the facts that end when it is written.
    uses: Rows,
}

impl<'a> Analysis<'a> {
    fn new(code: &Decoded, graph: &'a Graph, facts: Vec<Fact>, fact_of: &[Option<u32>]) -> Self {
        let mut uses = Rows::filled(facts.len().div_ceil(64), core::iter::repeat_n(false, 16));
        let mut used = 0;
        for (index, fact) in facts.iter().enumerate() {
            let registers = fact.mem.registers();
            used |= registers;
            (0..16).filter(|&register| registers >> register & 1 != 0).for_each(|register| {
                set(uses.row_mut(register), index);
            });
        }
        let (mut steps, mut starts) = (Vec::new(), Vec::with_capacity(graph.blocks.len() + 1));
        let told = (0u32..).zip(fact_of).filter_map(|(site, fact)| Some((site, (*fact)?)));
        let mut told = told.peekable();
        for block in &graph.blocks {
            starts.push(steps.len() as u32);
            for at in block.first..block.end {
                let insn = &code.insns[at as usize];
                while let Some((site, fact)) = told.next_if(|&(site, _)| code.sites[site as usize].insn == at)
                {
                    steps.push(Step::Tells { site, fact });
                }
                let writes = insn.writes & used;
                if matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall | Flow::Syscall | Flow::Request) {
                    steps.push(Step::EndsAll);
                } else if writes != 0 {
                    steps.push(Step::Ends(writes));
                }
            }
        }
        starts.push(steps.len() as u32);
        Self { graph, facts, steps, starts, uses }
    }

    /// The facts about the same address as one's.
    fn same_mem(&self, fact: usize) -> impl Iterator<Item = usize> {
        let mem = self.facts[fact].mem;
        let is_same = move |&other: &usize| self.facts[other].mem == mem;
        (0..fact).rev().take_while(is_same).chain((fact..self.facts.len()).take_while(is_same))
    }

    /// What is known before each block.
    fn solve(&self) -> Rows {
        let blocks = &self.graph.blocks;
        let mut before = Rows::filled(self.uses.words, blocks.iter().map(|block| !block.entered));
        let mut known = alloc::vec![0; self.uses.words];
        let mut is_due = alloc::vec![true; blocks.len()];
        loop {
            let mut changed = false;
            for (index, block) in blocks.iter().enumerate() {
                if !core::mem::take(&mut is_due[index]) {
                    continue;
                }
                known.copy_from_slice(before.row(index));
                self.walk(index, &mut known, |_, _, _| {});
                for next in self.graph.next(block).iter().map(|&next| next as usize) {
                    for (met, &known) in before.row_mut(next).iter_mut().zip(&known) {
                        is_due[next] |= *met & !known != 0;
                        *met &= known;
                    }
                    changed |= is_due[next];
                }
            }
            if !changed {
                return before;
            }
        }
    }

    /// Goes through a block, with what is known before it; shows each site with its fact and what is known before
    /// it. Leaves what is known behind the block.
    fn walk(&self, block: usize, known: &mut [u64], mut show: impl FnMut(usize, usize, &[u64])) {
        for &step in &self.steps[self.starts[block] as usize..self.starts[block + 1] as usize] {
            match step {
                Step::Tells { site, fact } => {
                    show(site as usize, fact as usize, known);
                    set(known, fact as usize);
                }
                Step::Ends(mut written) => {
                    while written != 0 {
                        let ended = self.uses.row(written.trailing_zeros() as usize);
                        known.iter_mut().zip(ended).for_each(|(known, ended)| *known &= !ended);
                        written &= written - 1;
                    }
                }
                Step::EndsAll => known.fill(0),
            }
        }
    }
}
