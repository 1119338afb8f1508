//! Which registers and flags may still be read, before each instruction; and which registers hold addresses of the
//! own stack frame, or are saved in it.
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
/// that enters code of its own conventions. Makes calls read such registers, of those `unread`; says whether there are
/// any.
pub(crate) fn hand_over(code: &mut Decoded, unread: Set) -> bool {
    let handed = unread & CALLEE_SAVED & !RSP;
    let calls = code.insns.iter_mut().filter(|insn| matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall));
    calls.for_each(|insn| insn.reads |= handed);
    handed != 0
}

/// What liveness tells.
pub(crate) struct Live {
    /// For each instruction what is live before it.
    pub before: Vec<Set>,
    /// What some instruction overwrites and nothing reads then.
    pub unread: Set,
}

pub(crate) fn analyse(code: &Decoded, graph: &Graph) -> Live {
    let insns_of = |block: &Block| &code.insns[block.first as usize..block.end as usize];
    // A block's effect: live before = reads | live after & !kills.
    let effect = |block| {
        insns_of(block)
            .iter()
            .rev()
            .fold((0, 0), |(reads, kills), insn| (insn.reads | reads & !insn.kills, kills | insn.kills))
    };
    let effects: Vec<(Set, Set)> = graph.blocks.iter().map(effect).collect();
    let mut before = alloc::vec![0; graph.blocks.len()];
    let after = |before: &[Set], block: &Block| {
        graph.next(block).iter().fold(block.beyond, |live, &next| live | before[next as usize])
    };
    loop {
        let mut changed = false;
        for (index, block) in graph.blocks.iter().enumerate().rev() {
            let (reads, kills) = effects[index];
            let live = reads | after(&before, block) & !kills;
            changed |= live != before[index];
            before[index] = live;
        }
        if !changed {
            break;
        }
    }
    let mut result = alloc::vec![ALL; code.insns.len()];
    let mut unread = 0;
    for block in &graph.blocks {
        let mut live = after(&before, block);
        let slots = &mut result[block.first as usize..block.end as usize];
        for (slot, insn) in slots.iter_mut().zip(insns_of(block)).rev() {
            unread |= insn.kills & !live;
            live = insn.reads | live & !insn.kills;
            *slot = live;
        }
    }
    Live { before: result, unread }
}

/// What is known of registers before an instruction: which hold an address in the frame (bits 0 to 15), and which are
/// saved on the stack (bits 16 to 31).
#[derive(Clone, Copy)]
pub(crate) struct Held(u32);

impl Held {
    const ENTRY: Self = Self(RSP);

    /// The registers that hold an address in the frame.
    pub const fn frame(self) -> Set {
        self.0 & 0xffff
    }

    /// The callee-saved registers that are not on the stack: an exception that passes through the function finds the
    /// caller's values in them, so that they live even where nothing reads them.
    pub const fn unsaved(self) -> Set {
        CALLEE_SAVED & !(self.0 >> 16)
    }

    fn after(self, insn: &Insn) -> Self {
        let mut frame = self.frame() & !insn.writes | RSP;
        if matches!(insn.flow, Flow::Call(_) | Flow::IndirectCall | Flow::Syscall | Flow::Request) {
            frame &= CALLEE_SAVED;
        }
        if let Some((to, from, moved)) = insn.derive {
            // `lea` only from rsp and rbp: a pointer that a loop moves on could leave the frame.
            let holds = self.0 >> from & 1 != 0 && (!moved || matches!(from, 4 | 5) && to != from);
            if holds {
                frame |= 1 << to;
            }
        }
        let saved = match insn.pushed {
            Some(register) => self.0 >> 16 | 1 << register,
            // `pop` gives it back; another write does not matter.
            None if insn.popped => self.0 >> 16 & !insn.writes,
            None => self.0 >> 16,
        };
        Self(frame | saved << 16)
    }
}

/// For each instruction what is known of registers before it, on every path.
pub(crate) fn held_registers(code: &Decoded, graph: &Graph) -> Vec<Held> {
    let insns_of = |block: &Block| &code.insns[block.first as usize..block.end as usize];
    let at_start = |block: &Block| if block.entered { Held::ENTRY } else { Held(u32::MAX) };
    let mut before: Vec<Held> = graph.blocks.iter().map(at_start).collect();
    let mut is_due = alloc::vec![true; before.len()];
    loop {
        let mut changed = false;
        for (index, block) in graph.blocks.iter().enumerate() {
            if !core::mem::take(&mut is_due[index]) {
                continue;
            }
            let after = insns_of(block).iter().fold(before[index], |held, insn| held.after(insn));
            for next in graph.next(block).iter().map(|&next| next as usize) {
                let met = before[next].0 & after.0;
                is_due[next] |= met != before[next].0;
                changed |= is_due[next];
                before[next] = Held(met);
            }
        }
        if !changed {
            break;
        }
    }
    let mut result = alloc::vec![Held::ENTRY; code.insns.len()];
    for (block, &start) in graph.blocks.iter().zip(&before) {
        let mut held = start;
        for (slot, insn) in result[block.first as usize..].iter_mut().zip(insns_of(block)) {
            *slot = held;
            held = held.after(insn);
        }
    }
    result
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
