//! Which registers and flags may still be read, before each instruction; and which registers hold addresses of the
//! own stack frame.
//!
//! Liveness is strict: at returns, system calls, indirect jumps and jumps out of the group everything is live,
//! because hand-written assembly and interprocedural register allocation keep to no ABI. At a direct call what the
//! callee's first instructions overwrite before reading is dead; where a call leaves the module or goes through a
//! pointer it keeps to the ABI, which gives flags no meaning (psABI 3.2.1).
//! `live(before i) = reads(i) ∪ (live(after i) \ kills(i))`

use alloc::vec::Vec;

use memcheck_model::Pc;

use crate::{
    Module,
    decode::{ALL, Callee, Decoded, FLAGS, Flow, Insn, Set, look_at_callee},
    discover::find_linkage_cell,
    flow::{Block, Graph},
    uses::Uses,
};

const RSP: Set = 1 << 4;
/// What a called function gives back unchanged (psABI 3.2.1): rbx, rsp, rbp, r12 to r15.
const CALLEE_SAVED: Set = 0xf038;
/// What may carry arguments (psABI 3.2.3): rax, rcx, rdx, rsi, rdi, r8, r9, and r10 for a static chain; and rsp.
const ARGUMENTS: Set = 0x07d7;
/// r11 is the linkage stubs' own scratch register (psABI 3.2.3, table 3.4).
const R11: Set = 1 << 11;

/// Replaces the assumption that calls read everything by what is known of them.
///
/// What lives on behind a call lives before it, as the callee may keep it. A callee in the same module is looked at:
/// helpers in assembly language keep to no ABI.
pub(crate) fn refine_calls(code: &mut Decoded, module: &Module<'_>) {
    let mut uses = Uses::new();
    let mut known = module.callees.0.borrow_mut();
    for insn in &mut code.insns {
        match insn.flow {
            Flow::Call(target) => {
                let callee = known.entry(Pc(target)).or_insert_with(|| {
                    if find_linkage_cell(module, Pc(target)).is_some() {
                        return Callee { inputs: 0, overwritten: FLAGS | R11 };
                    }
                    look_at_callee(CALLEE_SAVED & !RSP, module, Pc(target), &mut uses)
                });
                insn.reads = (ARGUMENTS | R11 | FLAGS | callee.inputs) & !callee.overwritten;
                insn.kills = callee.overwritten;
            }
            Flow::IndirectCall => (insn.reads, insn.kills) = (insn.reads | ARGUMENTS | R11, FLAGS),
            _ => {}
        }
    }
}

/// Code that sets a callee-saved register which nothing in it reads means it for whom it calls: a language's runtime
/// that enters code of its own conventions. Makes calls read such registers; says whether there are any.
///
/// Those in `landed` are read behind a landing pad, and live everywhere.
pub(crate) fn hand_over(code: &mut Decoded, graph: &Graph, live: &[Set], landed: Set) -> bool {
    let mut handed = 0;
    for block in &graph.blocks {
        let last = block.end as usize - 1;
        let after_last = block
            .next
            .iter()
            .fold(block.beyond, |set, &next| set | live[graph.blocks[next as usize].first as usize]);
        for insn in block.first as usize..=last {
            let after = if insn == last { after_last } else { live[insn + 1] };
            handed |= code.insns[insn].kills & CALLEE_SAVED & !RSP & !landed & !after;
        }
    }
    let calls = code.insns.iter_mut().filter(|insn| matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall));
    calls.for_each(|insn| insn.reads |= handed);
    handed != 0
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
        block.next.iter().fold(block.beyond, |live, &next| live | before[next as usize])
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
    forward(code, graph, RSP, |held, insn| {
        let mut after = held & !insn.writes | RSP;
        if matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall | Flow::Syscall | Flow::Request) {
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
    })
}

/// For each instruction the callee-saved registers that are not on the stack before it: an exception that passes
/// through the function finds the caller's values in them, so that they live even where nothing reads them.
pub(crate) fn unsaved_registers(code: &Decoded, graph: &Graph) -> Vec<Set> {
    let mut saved = forward(code, graph, 0, |saved, insn| match insn.pushed {
        Some(register) => saved | 1 << register,
        // `pop` gives it back; another write does not matter.
        None if insn.popped => saved & !insn.writes,
        None => saved,
    });
    saved.iter_mut().for_each(|saved| *saved = CALLEE_SAVED & !*saved);
    saved
}

/// The callee-saved registers that code behind the group's landing pads reads: an exception brings them along from
/// wherever it was thrown. All of them, if one of the `count` landing pads lies elsewhere.
pub(crate) fn landed_registers(graph: &Graph, live: &[Set], count: usize) -> Set {
    if graph.landings.len() < count {
        return CALLEE_SAVED;
    }
    let starts = graph.landings.iter().map(|&block| graph.blocks[block as usize].first as usize);
    CALLEE_SAVED & starts.fold(0, |read, first| read | live[first])
}

/// What holds before each instruction on every path to it; `entry` where paths begin that are not seen.
fn forward(code: &Decoded, graph: &Graph, entry: Set, step: impl Fn(Set, &Insn) -> Set) -> Vec<Set> {
    let through = |held: Set, block: &Block| {
        code.insns[block.first as usize..block.end as usize].iter().fold(held, &step)
    };
    let mut before: Vec<Set> =
        graph.blocks.iter().map(|block| if block.entered { entry } else { ALL }).collect();
    let mut is_due = alloc::vec![true; before.len()];
    loop {
        let mut changed = false;
        for (index, block) in graph.blocks.iter().enumerate() {
            if !core::mem::take(&mut is_due[index]) {
                continue;
            }
            let after = through(before[index], block);
            for next in block.next.iter().map(|&next| next as usize) {
                let met = before[next] & after;
                is_due[next] |= met != before[next];
                changed |= is_due[next];
                before[next] = met;
            }
        }
        if !changed {
            break;
        }
    }
    let mut result = alloc::vec![entry; code.insns.len()];
    for (block, &start) in graph.blocks.iter().zip(&before) {
        let range = block.first as usize..block.end as usize;
        let mut held = start;
        for (slot, insn) in result[range.clone()].iter_mut().zip(&code.insns[range]) {
            *slot = held;
            held = step(held, insn);
        }
    }
    result
}
