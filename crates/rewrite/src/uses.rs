//! What an instruction reads and writes: registers, flags, and how it uses its operand in memory.
//!
//! iced's `InstructionInfoFactory` knows it of all instructions, but asking takes longer than decoding. Most code is made
//! of few: those that use nothing but their operands, the flags and the stack, and of the operands write at most the
//! first.

use iced_x86::{
    Code, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
    RflagsBits,
};
use memcheck_model::AccessKind;

use crate::decode::{Set, gpr};

/// What an instruction reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effects {
    pub reads: Set,
    pub kills: Set,
    pub writes: Set,
}

/// Tells what instructions do.
pub(crate) struct Uses(InstructionInfoFactory);

/// Where the accesses to memory are told.
pub(crate) enum Accesses<'a> {
    /// At most one that matters, to the operand in memory.
    Operand(Option<AccessKind>),
    /// Here.
    Listed(&'a InstructionInfo),
}

impl Uses {
    pub fn new() -> Self {
        Self(InstructionInfoFactory::new())
    }

    #[inline]
    pub fn of(&mut self, instruction: &Instruction) -> (Effects, Accesses<'_>) {
        let (mut effects, accesses) = match use_of_first(instruction) {
            Some(first) => {
                let access = operand_access(instruction, first);
                (effects_of_operands(instruction, first), Accesses::Operand(access.and_then(kind_of)))
            }
            None => {
                let info = self.0.info(instruction);
                (effects_of(info), Accesses::Listed(info))
            }
        };
        effects.reads |= flag_set(instruction.rflags_read());
        let is_conditional =
            is_shift_by_cl(instruction) || is_repeated(instruction) && instruction.is_string_instruction();
        if !is_conditional {
            effects.kills |= flag_set(instruction.rflags_modified());
        }
        (effects, accesses)
    }
}

/// How an instruction uses its first operand, if it is one of the many that use nothing but operands, flags and the
/// stack, and read all other operands. An address alone is no use.
fn use_of_first(instruction: &Instruction) -> Option<OpAccess> {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Mov | M::Lea | M::Movzx | M::Movsx | M::Movsxd => Some(OpAccess::Write),
        M::Movups | M::Movaps | M::Movdqu | M::Movdqa | M::Movd | M::Movq => Some(OpAccess::Write),
        M::Cmp | M::Test => Some(OpAccess::Read),
        M::Add | M::And | M::Or | M::Inc | M::Dec | M::Neg | M::Not => Some(OpAccess::ReadWrite),
        M::Sub | M::Xor => Some(if clears(instruction) { OpAccess::Write } else { OpAccess::ReadWrite }),
        M::Shl | M::Shr | M::Sar if instruction.op1_register() == Register::None => Some(OpAccess::ReadWrite),
        M::Imul if instruction.op_count() == 2 => Some(OpAccess::ReadWrite),
        M::Imul if instruction.op_count() == 3 => Some(OpAccess::Write),
        M::Push | M::Pop | M::Call | M::Ret if moves_stack(instruction) => {
            Some(if instruction.mnemonic() == M::Pop { OpAccess::Write } else { OpAccess::Read })
        }
        M::Nop => Some(OpAccess::None),
        _ if instruction.is_jcc_short_or_near() || instruction.is_jmp_short_or_near() => Some(OpAccess::None),
        _ => None,
    }
}

/// Whether both operands are one register, whose value does not matter then.
fn clears(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Sub | Mnemonic::Xor)
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
}

/// Whether the stack pointer is used and written besides, and the stack itself.
fn moves_stack(instruction: &Instruction) -> bool {
    let code = instruction.code();
    matches!(code, Code::Push_r64 | Code::Call_rel32_64 | Code::Retnq)
        || code == Code::Pop_r64 && instruction.op0_register() != Register::RSP
}

#[inline]
fn effects_of_operands(instruction: &Instruction, first: OpAccess) -> Effects {
    let (mut reads, mut kills, mut writes) = (0, 0, 0);
    let bit = |register| gpr(register).map_or(0, |number| 1 << number);
    let kinds = (instruction.op0_kind(), instruction.op1_kind());
    if kinds.0 == OpKind::Register && first != OpAccess::None {
        let register = instruction.op0_register();
        let bit = bit(register);
        if first != OpAccess::Write {
            reads |= bit;
        }
        if first != OpAccess::Read {
            writes |= bit;
            // Of 32 bits, the others are cleared (SDM vol. 1, 3.4.1.1).
            if register.is_gpr32() || first == OpAccess::Write && register.is_gpr64() {
                kills |= bit;
            }
        }
    }
    if kinds.1 == OpKind::Register && !clears(instruction) {
        reads |= bit(instruction.op1_register());
    }
    if kinds.0 == OpKind::Memory && first != OpAccess::None || kinds.1 == OpKind::Memory {
        reads |= bit(instruction.memory_base()) | bit(instruction.memory_index());
    }
    if moves_stack(instruction) {
        reads |= bit(Register::RSP);
        writes |= bit(Register::RSP);
    }
    Effects { reads, kills, writes }
}

/// The access to the operand in memory, if there is one.
fn operand_access(instruction: &Instruction, first: OpAccess) -> Option<OpAccess> {
    match (instruction.op0_kind(), instruction.op1_kind()) {
        _ if first == OpAccess::None || instruction.mnemonic() == Mnemonic::Lea => None,
        (OpKind::Memory, _) => Some(first),
        (_, OpKind::Memory) => Some(OpAccess::Read),
        _ => None,
    }
}

/// Whether an access is one, and how it counts.
pub(crate) fn kind_of(access: OpAccess) -> Option<AccessKind> {
    match access {
        OpAccess::Read | OpAccess::CondRead => Some(AccessKind::Read),
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
            Some(AccessKind::Write)
        }
        _ => None,
    }
}

fn effects_of(info: &InstructionInfo) -> Effects {
    let (mut reads, mut kills, mut writes) = (0, 0, 0);
    for used in info.used_registers() {
        let Some(number) = gpr(used.register()) else { continue };
        let whole = used.register().is_gpr64();
        let bit = 1 << number;
        match used.access() {
            OpAccess::Write => {
                writes |= bit;
                if whole {
                    kills |= bit;
                }
            }
            OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
                writes |= bit;
                reads |= bit;
            }
            OpAccess::Read | OpAccess::CondRead => reads |= bit,
            _ => {}
        }
    }
    Effects { reads, kills, writes }
}

/// The status flags among iced's, which are its lowest six.
const fn flag_set(bits: u32) -> Set {
    const STATUS: u32 =
        RflagsBits::CF | RflagsBits::PF | RflagsBits::AF | RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF;
    const { assert!(STATUS == 0x3f) };
    (bits & STATUS) << 16
}

pub(crate) fn is_repeated(instruction: &Instruction) -> bool {
    instruction.has_rep_prefix() || instruction.has_repne_prefix()
}

fn is_shift_by_cl(instruction: &Instruction) -> bool {
    let last = instruction.op_count().saturating_sub(1);
    matches!(
        instruction.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Sal
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Shld
            | Mnemonic::Shrd
    ) && (instruction.op_register(last) == Register::CL
        || instruction.op_kind(last) == OpKind::Immediate8 && instruction.immediate8() & 0x1f == 0)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    /// Instructions of all short opcodes with several prefixes and all kinds of operands.
    fn instructions() -> impl Iterator<Item = Instruction> {
        let prefixes: [&[u8]; 9] =
            [&[], &[0x66], &[0x48], &[0x45], &[0x4d], &[0xf0], &[0xf2], &[0xf3, 0x4c], &[0x64, 0x67]];
        let opcodes =
            (0..=0xff).map(|byte| [byte].to_vec()).chain((0..=0xff).map(|byte| [0x0f, byte].to_vec()));
        opcodes.flat_map(move |opcode| {
            prefixes.into_iter().flat_map(move |prefix| {
                let opcode = opcode.clone();
                (0..=0xff).filter_map(move |modrm| {
                    let bytes: Vec<u8> =
                        [prefix, &opcode, &[modrm, 0x5c, 0x40, 0, 0x21, 0, 0, 0, 0, 0]].concat();
                    let instruction = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).decode();
                    (!instruction.is_invalid()).then_some(instruction)
                })
            })
        })
    }

    #[test]
    fn what_common_instructions_do_is_what_the_factory_says() {
        let mut factory = InstructionInfoFactory::new();
        let mut common = 0;
        for instruction in instructions() {
            let Some(first) = use_of_first(&instruction) else { continue };
            common += 1;
            let info = factory.info(&instruction);
            assert_eq!(effects_of_operands(&instruction, first), effects_of(info), "{instruction:?}");
            let used = info.used_memory().iter();
            let used: Vec<_> = used.map(|used| (used.access(), used.memory_size())).collect();
            let access = operand_access(&instruction, first);
            let operand: Vec<_> =
                access.map(|access| (access, instruction.memory_size())).into_iter().collect();
            // The stack needs no check.
            assert!(used == operand || moves_stack(&instruction) && operand.is_empty(), "{instruction:?}");
        }
        assert!(common > 100_000, "{common}");
    }
}
