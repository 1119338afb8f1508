//! Jump tables: indirect jumps whose targets are read from constant data at an address that is known. Their copies
//! read a table of the copy's own, so that such a jump costs nothing more.
//!
//! ```text
//!  cmp i,N; ja …        relative: entries of 32 bits, counted from an address in a register; the bound of just this
//!  lea t,[rip+T]                  index must be known, as nothing tells a table's end
//!  movsxd j,[t+4*i]
//!  add j,t; jmp j
//!
//!  lea t,[rip+T]        absolute: entries of 64 bits; without a bound, as far as there are addresses of the group's
//!  jmp [t+8*i]          inner places: pointers to functions may stand among other things, and end nowhere
//!                       (or: mov j,[t+8*i]; …; jmp j)
//! ```
//! An entry that leads out of the group stays as it is, so that taking a table for longer than it is does no harm;
//! taking it for shorter leads nowhere.

use alloc::vec::Vec;
use core::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memcheck_model::Pc;

use crate::{
    Module,
    asm::{Gpr, Mem},
    decode::{Decoded, FLAGS, Flow, Insn, Through, gpr, operand},
    flow::{Block, Graph, find_insn},
};

/// The most entries that are believed.
pub(crate) const MOST_ENTRIES: usize = 4096;
/// How many other entries may stand between two that lead into the group: tables of labels may be parts of structures.
const MOST_OTHERS: usize = 64;
/// How many blocks the search for a bound goes up.
const BOUND_REACH: usize = 4;

/// What an entry of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The distance from this address, in 32 bits.
    From(u64),
    /// The address, in 64 bits.
    Address,
}

/// A jump through a table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Index of the instruction that reads the table; may be the jump itself.
    pub load: u32,
    pub jump: u32,
    /// The operand of `load`, and the value of its base register there.
    pub mem: Mem,
    pub base: u64,
    /// What the jump goes through, when that is a register.
    pub register: Option<Gpr>,
    pub entry: Entry,
    /// The original targets, in the table's order.
    pub targets: Vec<u64>,
}

impl Table {
    /// Where the original table lies.
    pub fn start(&self) -> u64 {
        self.base.wrapping_add_signed(self.mem.disp.into())
    }
}

/// What a register holds: the same address on every path, or no one knows what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Unreached,
    Address(u64),
    Unknown,
}

type Values = [Value; 16];

/// The jumps through tables of the group.
pub(crate) fn find(code: &Decoded, module: &Module<'_>, graph: &Graph) -> Vec<Table> {
    let ends_so = |block: &Block| matches!(code.insns[block.end as usize - 1].flow, Flow::IndirectJump(_));
    if !graph.blocks.iter().any(ends_so) {
        return Vec::new();
    }
    let values = constant_registers(code, graph);
    let search = Search { code, module, graph, values: &values };
    (0..graph.blocks.len())
        .filter(|&block| ends_so(&graph.blocks[block]))
        .filter_map(|block| search.table_of(block))
        .collect()
}

/// The indirect jumps that can only be calls at a function's end: through memory, or through a register that no
/// arithmetic was done on. For groups where no address inside is ever taken.
pub(crate) fn find_tail_jumps(code: &Decoded, module: &Module<'_>, graph: &Graph) -> Vec<u32> {
    let search = Search { code, module, graph, values: &[] };
    let is_tail = |block: &Block| match code.insns[block.end as usize - 1].flow {
        Flow::IndirectJump(Through::Memory(mem)) => mem.index().is_none(),
        Flow::IndirectJump(Through::Static) => true,
        Flow::IndirectJump(Through::Register(register)) => {
            let insns = &code.insns[block.first as usize..block.end as usize - 1];
            let writer = insns.iter().rev().find(|insn| insn.writes >> register & 1 != 0);
            writer.is_none_or(|insn| {
                search.decode(insn).is_some_and(|instruction| {
                    matches!(
                        instruction.mnemonic(),
                        Mnemonic::Mov | Mnemonic::Pop | Mnemonic::Cmove | Mnemonic::Cmovne
                    )
                })
            })
        }
        _ => false,
    };
    graph.blocks.iter().filter(|block| is_tail(block)).map(|block| block.end - 1).collect()
}

/// For each block what the registers hold at its start.
fn constant_registers(code: &Decoded, graph: &Graph) -> Vec<Values> {
    let mut before: Vec<Values> = graph
        .blocks
        .iter()
        .map(|block| [if block.entered { Value::Unknown } else { Value::Unreached }; 16])
        .collect();
    let mut is_due = alloc::vec![true; before.len()];
    loop {
        let mut changed = false;
        for (index, block) in graph.blocks.iter().enumerate() {
            let mut values = before[index];
            if values[0] == Value::Unreached || !core::mem::take(&mut is_due[index]) {
                continue;
            }
            for insn in &code.insns[block.first as usize..block.end as usize] {
                step(&mut values, insn);
            }
            for next in graph.next(block).iter().map(|&next| next as usize) {
                let old = before[next];
                for (met, &value) in before[next].iter_mut().zip(&values) {
                    *met = match (*met, value) {
                        (Value::Unreached, value) => value,
                        (old, value) if old == value => old,
                        _ => Value::Unknown,
                    };
                }
                is_due[next] |= before[next] != old;
                changed |= is_due[next];
            }
        }
        if !changed {
            return before;
        }
    }
}

/// rax, rcx, rdx, rsi, rdi, r8 to r11.
const CALL_CLOBBERED: u32 = 0x0fc7;

fn step(values: &mut Values, insn: &Insn) {
    let copied =
        insn.derive.filter(|&(_, _, moved)| !moved).map(|(to, from, _)| (to, values[usize::from(from)]));
    let clobbered = match insn.flow {
        Flow::Call(_) | Flow::IndirectCall | Flow::Syscall | Flow::Request => insn.writes | CALL_CLOBBERED,
        _ => insn.writes,
    };
    for (register, value) in values.iter_mut().enumerate() {
        if clobbered >> register & 1 != 0 {
            *value = Value::Unknown;
        }
    }
    if let Some(to) = insn.address_to {
        values[usize::from(to)] = Value::Address(insn.rip_target);
    } else if let Some((to, value)) = copied {
        values[usize::from(to)] = value;
    }
}

/// Where the index of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    Register(u8),
    Memory(Mem),
}

/// What going back through some instructions showed.
enum Traced {
    /// The index is what it was, or a copy of it.
    Through,
    /// It is less than this.
    Masked(usize),
}

/// A comparison of `operand` with `limit`.
struct Compare {
    at: u32,
    operand: Index,
    limit: usize,
}

struct Search<'a> {
    code: &'a Decoded,
    module: &'a Module<'a>,
    graph: &'a Graph,
    values: &'a [Values],
}

impl Search<'_> {
    fn table_of(&self, block: usize) -> Option<Table> {
        let jump = self.graph.blocks[block].end - 1;
        match self.code.insns[jump as usize].flow {
            Flow::IndirectJump(Through::Memory(mem)) => self.absolute(block, jump, jump, mem, None),
            Flow::IndirectJump(Through::Register(register)) => self.through_register(block, jump, register),
            _ => None,
        }
    }

    /// Looks back from the jump for where its register comes from.
    fn through_register(&self, block: usize, jump: u32, register: u8) -> Option<Table> {
        let mut wanted = register;
        let mut from = None;
        for at in (self.graph.blocks[block].first..jump).rev() {
            let insn = &self.code.insns[at as usize];
            let touches = (insn.reads | insn.writes) >> wanted & 1 != 0;
            if !touches {
                continue;
            }
            let instruction = self.decode(insn)?;
            let writes_wanted =
                instruction.op0_kind() == OpKind::Register && gpr(instruction.op0_register()) == Some(wanted);
            match instruction.code() {
                Code::Add_r64_rm64 | Code::Add_rm64_r64
                    if writes_wanted && instruction.op1_kind() == OpKind::Register && from.is_none() =>
                {
                    let other = gpr(instruction.op1_register())?;
                    let (base, loaded) = match (self.value(block, at, other), self.value(block, at, wanted)) {
                        (Some(base), _) => (base, wanted),
                        (None, Some(base)) => (base, other),
                        (None, None) => return None,
                    };
                    (from, wanted) = (Some(base), loaded);
                }
                Code::Movsxd_r64_rm32 if writes_wanted && instruction.op1_kind() == OpKind::Memory => {
                    let mem = operand_of(&instruction)?;
                    return self.relative(block, jump, at, mem, Gpr(wanted), from?);
                }
                Code::Mov_r64_rm64
                    if writes_wanted && instruction.op1_kind() == OpKind::Memory && from.is_none() =>
                {
                    return self.absolute(block, jump, at, operand_of(&instruction)?, Some(Gpr(wanted)));
                }
                _ => return None,
            }
        }
        None
    }

    fn relative(
        &self,
        block: usize,
        jump: u32,
        load: u32,
        mem: Mem,
        loaded: Gpr,
        from: u64,
    ) -> Option<Table> {
        let (base, data) = self.data(block, load, mem, 4)?;
        let count = self.find_bound(block, load, mem.index()?.0)?;
        let targets: Vec<u64> = data
            .chunks_exact(4)
            .take(count)
            .map(|entry| {
                let distance = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
                from.wrapping_add_signed(distance.into())
            })
            .collect();
        let entry = Entry::From(from);
        (targets.len() == count).then_some(Table {
            load,
            jump,
            mem,
            base,
            register: Some(loaded),
            entry,
            targets,
        })
    }

    fn absolute(&self, block: usize, jump: u32, load: u32, mem: Mem, loaded: Option<Gpr>) -> Option<Table> {
        let (base, data) = self.data(block, load, mem, 8)?;
        let entries = data.chunks_exact(8).map(|entry| entry.try_into().map_or(0, u64::from_le_bytes));
        let bound = self.find_bound(block, load, mem.index()?.0);
        let mut targets: Vec<u64> = entries.take(bound.unwrap_or(MOST_ENTRIES)).collect();
        match bound {
            Some(count) if targets.len() == count => {}
            Some(_) => return None,
            None => targets.truncate(self.last_label(&targets)? + 1),
        }
        let entry = Entry::Address;
        (targets.len() > 1).then_some(Table { load, jump, mem, base, register: loaded, entry, targets })
    }

    /// The last entry that leads to a place inside the group, with no more than [`MOST_OTHERS`] entries between two
    /// such.
    fn last_label(&self, targets: &[u64]) -> Option<usize> {
        let is_label = |&target: &u64| {
            let start = self.module.find_extent(Pc(target)).map(|index| self.module.extents[index].start);
            start.is_some_and(|start| start != Pc(target)) && find_insn(self.code, target).is_some()
        };
        let mut last = None;
        while let Some(next) = {
            let from = last.map_or(0, |last| last + 1);
            targets[from..].iter().take(MOST_OTHERS).position(is_label).map(|place| from + place)
        } {
            last = Some(next);
        }
        last
    }

    /// The table's bytes, and what its base register holds.
    fn data(&self, block: usize, load: u32, mem: Mem, scale: u8) -> Option<(u64, &[u8])> {
        let is_plain = !mem.is_narrow() && !mem.is_thread();
        if !is_plain || mem.index()?.1 != scale {
            return None;
        }
        let base = match mem.base() {
            Some(base) => self.value(block, load, base)?,
            None => 0,
        };
        let data = self.module.find_constants(Pc(base.wrapping_add_signed(mem.disp.into())))?;
        Some((base, data))
    }

    /// What a register holds before instruction `at` of a block.
    fn value(&self, block: usize, at: u32, register: u8) -> Option<u64> {
        let mut values = self.values[block];
        for insn in &self.code.insns[self.graph.blocks[block].first as usize..at as usize] {
            step(&mut values, insn);
        }
        match values[usize::from(register)] {
            Value::Address(address) => Some(address),
            Value::Unreached | Value::Unknown => None,
        }
    }

    fn decode(&self, insn: &Insn) -> Option<Instruction> {
        let bytes = self.module.find_text(Pc(insn.pc))?.get(..usize::from(insn.len))?;
        Some(Decoder::with_ip(64, bytes, insn.pc, DecoderOptions::NONE).decode())
    }

    /// How many entries a table has, by the comparison or the mask of its index before its use.
    fn find_bound(&self, block: usize, load: u32, index: u8) -> Option<usize> {
        let mut index = Index::Register(index);
        if let Traced::Masked(count) = self.trace(self.graph.blocks[block].first..load, &mut index)? {
            return Some(count);
        }
        let mut at = block;
        for _ in 0..BOUND_REACH {
            let above = self.only_predecessor(at)?;
            let Block { first, end, .. } = self.graph.blocks[above];
            let taken = |target| self.code.insns[self.graph.blocks[at].first as usize].pc == target;
            // Unsigned: above, above or equal, below, below or equal.
            let includes = match self.code.insns[end as usize - 1].flow {
                Flow::Branch(target, condition) => match (condition, taken(target)) {
                    (7, false) | (6, true) => Some(1),
                    (3, false) | (2, true) => Some(0),
                    _ => None,
                },
                _ => None,
            };
            if let Some(includes) = includes
                && let Some(compare) = self.find_compare(above)
            {
                let mut compared = index;
                self.trace(compare.at + 1..end, &mut compared)?;
                if compared == compare.operand {
                    return compare.limit.checked_add(includes).filter(|&count| count <= MOST_ENTRIES);
                }
            }
            if let Traced::Masked(count) = self.trace(first..end, &mut index)? {
                return Some(count);
            }
            at = above;
        }
        None
    }

    /// Goes back through instructions to where the index comes from; none when it is computed there.
    fn trace(&self, range: Range<u32>, index: &mut Index) -> Option<Traced> {
        for at in range.rev() {
            let insn = &self.code.insns[at as usize];
            let clobbered = match insn.flow {
                Flow::Call(_) | Flow::IndirectCall | Flow::Syscall | Flow::Request => {
                    insn.writes | CALL_CLOBBERED
                }
                _ => insn.writes,
            };
            let register = match index {
                Index::Register(register) if clobbered >> *register & 1 != 0 => *register,
                Index::Register(_) => continue,
                Index::Memory(mem) => {
                    let moves = clobbered & mem.registers() != 0;
                    if moves {
                        return None;
                    }
                    continue;
                }
            };
            let instruction = self.decode(insn)?;
            if instruction.op0_kind() != OpKind::Register || gpr(instruction.op0_register()) != Some(register)
            {
                return None;
            }
            match (instruction.mnemonic(), instruction.op1_kind()) {
                (Mnemonic::Mov | Mnemonic::Movzx, OpKind::Register) => {
                    *index = Index::Register(gpr(instruction.op1_register())?);
                }
                (Mnemonic::Mov | Mnemonic::Movzx, OpKind::Memory) => {
                    *index = Index::Memory(operand_of(&instruction)?);
                }
                (Mnemonic::And, OpKind::Immediate8to32 | OpKind::Immediate32) => {
                    let count = usize::try_from(instruction.immediate(1)).ok()?.checked_add(1)?;
                    return (count <= MOST_ENTRIES).then_some(Traced::Masked(count));
                }
                _ => return None,
            }
        }
        Some(Traced::Through)
    }

    fn only_predecessor(&self, block: usize) -> Option<usize> {
        if self.graph.blocks[block].entered {
            return None;
        }
        let mut leading = (0..self.graph.blocks.len())
            .filter(|&other| self.graph.next(&self.graph.blocks[other]).contains(&(block as u32)));
        let only = leading.next()?;
        leading.next().is_none().then_some(only)
    }

    /// The comparison that the block's last instruction branches on, if it is with a constant.
    fn find_compare(&self, block: usize) -> Option<Compare> {
        let Block { first, end, .. } = self.graph.blocks[block];
        let at = (first..end - 1).rev().find(|&at| self.code.insns[at as usize].kills & FLAGS != 0)?;
        let compare = self.decode(&self.code.insns[at as usize])?;
        if compare.mnemonic() != Mnemonic::Cmp {
            return None;
        }
        let immediate = matches!(
            compare.op1_kind(),
            OpKind::Immediate8
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate32to64
        );
        let bits = 8 * compare.op0_register().size().clamp(1, 8) as u32;
        let width = if compare.op0_kind() == OpKind::Register {
            bits
        } else {
            8 * compare.memory_size().size() as u32
        };
        let operand = match compare.op0_kind() {
            OpKind::Register => Index::Register(gpr(compare.op0_register())?),
            OpKind::Memory => Index::Memory(operand_of(&compare)?),
            _ => return None,
        };
        let limit = compare.immediate(1) & (u64::MAX >> (64 - width.clamp(8, 64)));
        immediate.then_some(Compare { at, operand, limit: limit as usize })
    }
}

fn operand_of(instruction: &Instruction) -> Option<Mem> {
    let segmented = matches!(instruction.segment_prefix(), Register::FS | Register::GS);
    if segmented { None } else { operand(instruction) }
}
