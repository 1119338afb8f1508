//! The flow graph of a group of functions: basic blocks, their successors, and where indirect jumps may arrive.
//!
//! A block ends after each jump, call, return and system call. Invariant: `blocks` partition `insns` in order, and
//! each address that a jump, a jump table or a taken label names inside the group starts a block.

use alloc::vec::Vec;

use memcheck_model::Pc;

use crate::{
    Extent, Module, Resolver, Skip, SkipReason,
    decode::{ALL, Decoded, FLAGS, Flow, Insn, Set},
    tables::{self, MOST_ENTRIES, Table},
};

/// A basic block: instructions `[first, end)`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block {
    pub first: u32,
    pub end: u32,
    /// Which of `Graph::successors` are its own.
    successors: (u32, u32),
    /// What lives where it leads out of the group: nothing when it does not.
    pub beyond: Set,
    /// Whether it is entered from where nothing is known.
    pub entered: bool,
}

/// The graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub blocks: Vec<Block>,
    /// The blocks of the group that each block leads to.
    successors: Vec<u32>,
    /// For each instruction, its block.
    pub block_of: Vec<u32>,
    /// The jumps through tables that were made out.
    pub tables: Vec<Table>,
    /// The blocks that exceptions lead to from other frames.
    pub landings: Vec<u32>,
    /// The other indirect jumps that do nothing but leave the group (by instruction).
    pub tail_jumps: Vec<u32>,
}

impl Graph {
    /// The blocks of the group that `block` leads to.
    pub fn next(&self, block: &Block) -> &[u32] {
        let (first, end) = block.successors;
        &self.successors[first as usize..end as usize]
    }
}

/// The index of the instruction that a jump to `pc` reaches. Behind a lock prefix means the locked instruction:
/// more atomic than asked for, never less.
pub(crate) fn find_insn(code: &Decoded, pc: u64) -> Option<usize> {
    code.find(pc).or_else(|| code.find(pc.wrapping_sub(1)).filter(|&at| code.insns[at].lock))
}

/// Whether control cannot go on behind this kind of instruction.
pub(crate) fn ends(flow: Flow) -> bool {
    matches!(flow, Flow::Jump(_) | Flow::IndirectJump(_) | Flow::End)
}

/// How many bytes the jump takes that an entry is overwritten with: it has a 32-bit displacement.
pub const ENTRY_JUMP_BYTES: u64 = 5;

/// The graph of the functions `extents`, with their landing pads as far as those lie in them.
pub(crate) fn build(
    code: &Decoded,
    module: &Module<'_>,
    extents: &[Extent],
    landing_pads: &[Pc],
    resolver: &dyn Resolver,
) -> Result<Graph, Skip> {
    let count = code.insns.len();
    refuse_named_returns(code, extents)?;
    let mut leader = alloc::vec![false; count + 1];
    let mut entered = alloc::vec![false; count + 1];
    let inside = |pc: u64| extents.iter().any(|extent| extent.contains(Pc(pc)));
    for extent in extents {
        if let Some(index) = find_insn(code, extent.start.0) {
            (leader[index], entered[index]) = (true, true);
        }
    }
    for &pad in landing_pads.iter().filter(|pad| inside(pad.0)) {
        let into = Skip { pc: pad, reason: SkipReason::JumpIntoInstruction };
        let index = find_insn(code, pad.0).ok_or(into)?;
        (leader[index], entered[index]) = (true, true);
    }
    let mut is_indirect = false;
    let mut after_end = false;
    for (index, insn) in code.insns.iter().enumerate() {
        if after_end {
            leader[index] = true;
        }
        after_end = insn.flow != Flow::Next;
        match insn.flow {
            Flow::Jump(target) | Flow::Branch(target, _) | Flow::Loop(target) if inside(target) => {
                let into = Skip { pc: Pc(insn.pc), reason: SkipReason::JumpIntoInstruction };
                leader[find_insn(code, target).ok_or(into)?] = true;
            }
            Flow::Call(target) if inside(target) => {
                let next = insn.pc + u64::from(insn.len);
                if target == next && !module.is_entry(Pc(target)) {
                    return Err(Skip { pc: Pc(insn.pc), reason: SkipReason::CallNext });
                }
                let into = Skip { pc: Pc(insn.pc), reason: SkipReason::JumpIntoInstruction };
                let callee = find_insn(code, target).ok_or(into)?;
                (leader[callee], entered[callee]) = (true, true);
            }
            Flow::IndirectJump(_) => is_indirect = true,
            _ => {}
        }
    }
    let mut arrivals = Vec::new();
    if is_indirect {
        for &taken in &code.taken {
            arrivals.extend(table_targets(code, module, taken, resolver));
        }
        arrivals.extend(code.taken.iter().filter_map(|&taken| find_insn(code, taken)));
        arrivals.sort_unstable();
        arrivals.dedup();
        for &index in &arrivals {
            leader[index] = true;
        }
    }
    let mut graph = Graph { block_of: alloc::vec![0; count], ..Graph::default() };
    for (index, &leads) in leader.iter().enumerate().take(count) {
        if leads || index == 0 {
            if let Some(last) = graph.blocks.last_mut() {
                last.end = index as u32;
            }
            let entered = entered[index];
            graph.blocks.push(Block { first: index as u32, end: count as u32, entered, ..Block::default() });
        }
        graph.block_of[index] = graph.blocks.len() as u32 - 1;
    }
    let starts = landing_pads.iter().filter_map(|pad| find_insn(code, pad.0));
    graph.landings = starts.map(|index| graph.block_of[index]).collect();
    connect(&mut graph, code, &arrivals);
    if is_indirect {
        let starts_block = |pc: u64| find_insn(code, pc).is_none_or(|index| leader[index]);
        let mut tables = tables::find(code, module, &graph);
        tables.retain(|table| table.targets.iter().all(|&target| starts_block(target)));
        if arrivals.is_empty() {
            graph.tail_jumps = tables::find_tail_jumps(code, module, &graph);
        }
        graph.tables = tables;
        for block in &mut graph.blocks {
            block.entered = entered[block.first as usize];
        }
        connect(&mut graph, code, &arrivals);
        refuse_jump_into_patch(&graph, code, extents)?;
    }
    Ok(graph)
}

/// Hardened code compares where each call returned with where it should (LLVM, "Speculative Load Hardening"). That an
/// address is taken of a place that only happens to follow a call is seen in interpreters.
fn refuse_named_returns(code: &Decoded, extents: &[Extent]) -> Result<(), Skip> {
    let mut places = code.taken.clone();
    places.retain(|&taken| extents.iter().any(|extent| extent.contains(Pc(taken))));
    if places.is_empty() {
        return Ok(());
    }
    let is_call = |insn: &&Insn| matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall);
    let (mut calls, mut named) = (0, Vec::new());
    for insn in code.insns.iter().filter(is_call) {
        calls += 1;
        if places.contains(&(insn.pc + u64::from(insn.len))) {
            named.push(Pc(insn.pc));
        }
    }
    match named.first() {
        Some(&pc) if named.len() > calls / 2 => Err(Skip { pc, reason: SkipReason::OwnFrames }),
        _ => Ok(()),
    }
}

/// An indirect jump that is not understood may go on in the original, which must then not come to where an entry was
/// overwritten.
fn refuse_jump_into_patch(graph: &Graph, code: &Decoded, extents: &[Extent]) -> Result<(), Skip> {
    let is_unknown = |block: &Block| {
        let last = block.end - 1;
        matches!(code.insns[last as usize].flow, Flow::IndirectJump(_))
            && !graph.tail_jumps.contains(&last)
            && !graph.tables.iter().any(|table| table.jump == last)
    };
    if !graph.blocks.iter().any(is_unknown) {
        return Ok(());
    }
    let is_patched = |target: u64| {
        extents.iter().any(|extent| (extent.start.0 + 1..extent.start.0 + ENTRY_JUMP_BYTES).contains(&target))
    };
    for insn in &code.insns {
        if let Flow::Jump(target) | Flow::Branch(target, _) | Flow::Loop(target) = insn.flow
            && is_patched(target)
        {
            return Err(Skip { pc: Pc(insn.pc), reason: SkipReason::JumpIntoPatch });
        }
    }
    Ok(())
}

fn connect(graph: &mut Graph, code: &Decoded, arrivals: &[usize]) {
    let mut reached = alloc::vec![false; graph.blocks.len()];
    let mut successors = Vec::with_capacity(2 * graph.blocks.len());
    for index in 0..graph.blocks.len() {
        let last = graph.blocks[index].end as usize - 1;
        let insn = &code.insns[last];
        let first = successors.len();
        let mut beyond = 0;
        let mut go = |target: Option<usize>| match target {
            Some(at) => successors.push(graph.block_of[at]),
            None => beyond = ALL,
        };
        match insn.flow {
            Flow::Jump(target) => go(find_insn(code, target)),
            Flow::Branch(target, _) | Flow::Loop(target) => go(find_insn(code, target)),
            Flow::IndirectJump(_) => {
                if let Some(table) = graph.tables.iter().find(|table| table.jump as usize == last) {
                    table.targets.iter().for_each(|&target| go(find_insn(code, target)));
                    let mut next = successors.split_off(first);
                    next.sort_unstable();
                    next.dedup();
                    successors.append(&mut next);
                } else if graph.tail_jumps.contains(&(last as u32)) {
                    // A call but for the return address: flags mean nothing (psABI 3.2.1).
                    beyond = ALL & !FLAGS;
                } else {
                    arrivals.iter().for_each(|&arrival| go(Some(arrival)));
                    go(None);
                }
            }
            Flow::End => go(None),
            _ => {}
        }
        if !ends(insn.flow) {
            let after = insn.pc + u64::from(insn.len);
            let found = code.insns.get(last + 1).filter(|next| next.pc == after);
            match found {
                Some(_) => successors.push(graph.block_of[last + 1]),
                None => beyond = ALL,
            }
        }
        for &block in &successors[first..] {
            reached[block as usize] = true;
        }
        graph.blocks[index].successors = (first as u32, successors.len() as u32);
        graph.blocks[index].beyond = beyond;
    }
    graph.successors = successors;
    // What nothing in the group leads to is reached in ways that are not seen: landing pads, unrecovered tables. Not
    // so the padding before an aligned loop.
    for (block, reached) in graph.blocks.iter_mut().zip(reached) {
        let range = block.first as usize..block.end as usize;
        block.entered |= !reached && !code.insns[range].iter().all(|insn| insn.padding);
    }
}

/// The instructions that a jump table at `table` leads to: 32-bit offsets from itself, or addresses; other entries may
/// lead elsewhere in the text, as to a part of the function that lies apart. Taking too much for a table only makes more
/// blocks. In data that may change lie tables of labels that the program's source has.
fn table_targets(code: &Decoded, module: &Module<'_>, table: u64, resolver: &dyn Resolver) -> Vec<usize> {
    let is_text = |target: &u64| module.find_text(Pc(*target)).is_some();
    let Some(data) = module.find_constants(Pc(table)) else {
        let places = (0..MOST_ENTRIES as u64).map(|index| Pc(table.wrapping_add(8 * index)));
        let entries = places.map_while(|place| resolver.variable(place));
        return entries.take_while(is_text).filter_map(|target| find_insn(code, target)).collect();
    };
    let relative = data.chunks_exact(4).take(MOST_ENTRIES).map(|entry| {
        let offset = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        table.wrapping_add_signed(i64::from(offset))
    });
    let absolute = data.chunks_exact(8).take(MOST_ENTRIES).map(|entry| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(entry);
        u64::from_le_bytes(bytes)
    });
    let targets = relative.take_while(is_text).chain(absolute.take_while(is_text));
    targets.filter_map(|target| find_insn(code, target)).collect()
}
