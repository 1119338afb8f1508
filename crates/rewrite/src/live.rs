//! Which registers and flags may still be read, before each instruction; and which registers hold addresses of the
//! own stack frame.
//!
//! Liveness is strict: at returns, system calls, indirect jumps and jumps out of the group everything is live,
//! because hand-written assembly and interprocedural register allocation keep to no ABI. At a direct call what the
//! callee's first instructions overwrite before reading is dead; where a call leaves the module or goes through a
//! pointer it keeps to the ABI, which gives flags no meaning (psABI 3.2.1).
//! `live(before i) = reads(i) ∪ (live(after i) \ kills(i))`

use alloc::{collections::BTreeMap, vec::Vec};

use iced_x86::InstructionInfoFactory;
use memcheck_model::Pc;

use crate::{
    Module,
    decode::{ALL, Decoded, FLAGS, Flow, Set, overwritten_at},
    discover::find_linkage_cell,
    flow::Graph,
};

/// r11 is the linkage stubs' own scratch register (psABI 3.2.3, table 3.4).
const R11: Set = 1 << 11;

const RSP: Set = 1 << 4;
/// What a called function gives back unchanged (psABI 3.2.1): rbx, rsp, rbp, r12 to r15.
const CALLEE_SAVED: Set = 0xf038;

/// Takes from what calls read what is certainly dead there.
pub(crate) fn refine_calls(code: &mut Decoded, module: &Module<'_>) {
    let mut factory = InstructionInfoFactory::new();
    let mut known = BTreeMap::new();
    for insn in &mut code.insns {
        insn.reads &= match insn.flow {
            Flow::Call(target) => !*known.entry(target).or_insert_with(|| {
                if find_linkage_cell(module, Pc(target)).is_some() {
                    FLAGS | R11
                } else {
                    overwritten_at(module, Pc(target), &mut factory)
                }
            }),
            Flow::IndirectCall => !FLAGS,
            _ => ALL,
        };
    }
}

/// For each instruction what is live before it.
pub(crate) fn analyse(code: &Decoded, graph: &Graph) -> Vec<Set> {
    let step = |live: Set, insn: usize| code.insns[insn].reads | live & !code.insns[insn].kills;
    // A block's effect: live before = reads | after & !kills.
    let effects: Vec<(Set, Set)> = graph
        .blocks
        .iter()
        .map(|block| {
            let range = block.first as usize..block.end as usize;
            let none = range.clone().rev().fold(0, step);
            let all = range.rev().fold(ALL, step);
            (none, ALL & !(all & !none) & !none)
        })
        .collect();
    let mut before = alloc::vec![0; graph.blocks.len()];
    let after = |before: &[Set], index: usize| {
        let block = &graph.blocks[index];
        let leaves = if block.leaves { ALL } else { 0 };
        block.next.iter().fold(leaves, |live, &next| live | before[next as usize])
    };
    loop {
        let mut changed = false;
        for index in (0..graph.blocks.len()).rev() {
            let (reads, kills) = effects[index];
            let live = reads | after(&before, index) & !kills;
            changed |= live != before[index];
            before[index] = live;
        }
        if !changed {
            break;
        }
    }
    let mut result = alloc::vec![ALL; code.insns.len()];
    for (index, block) in graph.blocks.iter().enumerate() {
        let mut live = after(&before, index);
        for insn in (block.first as usize..block.end as usize).rev() {
            live = step(live, insn);
            result[insn] = live;
        }
    }
    result
}

/// For each instruction the registers that hold an address in the frame, before it.
pub(crate) fn frame_registers(code: &Decoded, graph: &Graph) -> Vec<Set> {
    let step = |held: Set, insn: usize| {
        let insn = &code.insns[insn];
        let mut after = held & !insn.writes | RSP;
        if matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall | Flow::Syscall) {
            after &= CALLEE_SAVED;
        }
        if let Some((to, from, moved)) = insn.derive {
            // `lea` only from rsp and rbp: a pointer that a loop moves on could leave the frame.
            let holds = held >> from & 1 != 0 && (!moved || matches!(from, 4 | 5) && to != from);
            if holds {
                after |= 1 << to;
            }
        }
        after
    };
    let mut before: Vec<Set> =
        graph.blocks.iter().map(|block| if block.entered { RSP } else { ALL }).collect();
    loop {
        let mut changed = false;
        for index in 0..graph.blocks.len() {
            let block = &graph.blocks[index];
            let after = (block.first as usize..block.end as usize).fold(before[index], step);
            for &next in &block.next {
                let next = next as usize;
                let met = before[next] & after;
                changed |= met != before[next];
                before[next] = met;
            }
        }
        if !changed {
            break;
        }
    }
    let mut result = alloc::vec![RSP; code.insns.len()];
    for (index, block) in graph.blocks.iter().enumerate() {
        let mut held = before[index];
        let first = block.first as usize;
        for (offset, slot) in result[first..block.end as usize].iter_mut().enumerate() {
            *slot = held;
            held = step(held, first + offset);
        }
    }
    result
}
