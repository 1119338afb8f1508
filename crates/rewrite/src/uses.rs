//! What an instruction reads and writes: registers, flags, and how it uses its operand in memory.
//!
//! iced's `InstructionInfoFactory` knows it of all instructions, but asking takes longer than decoding. Most code is made
//! of few: those that use nothing but their operands and the flags, and of the operands write at most the first.

use iced_x86::{
    Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, RflagsBits,
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
    /// At most one, to the operand in memory.
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

/// How an instruction uses its first operand, if it is one of the many that use nothing but operands and flags, and read
/// all other operands. An address alone is no use.
fn use_of_first(instruction: &Instruction) -> Option<OpAccess> {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Mov | M::Lea | M::Movzx | M::Movsx | M::Movsxd => Some(OpAccess::Write),
        M::Movups | M::Movaps | M::Movdqu | M::Movdqa | M::Movd | M::Movq => Some(OpAccess::Write),
        M::Cmp | M::Test => Some(OpAccess::Read),
        M::Add | M::And | M::Or | M::Inc | M::Dec | M::Neg | M::Not => Some(OpAccess::ReadWrite),
        // Of one register, they only clear it.
        M::Sub | M::Xor if instruction.op0_register() != instruction.op1_register() => {
            Some(OpAccess::ReadWrite)
        }
        M::Shl | M::Shr | M::Sar if instruction.op1_register() == Register::None => Some(OpAccess::ReadWrite),
        M::Imul if instruction.op_count() == 2 => Some(OpAccess::ReadWrite),
        M::Imul if instruction.op_count() == 3 => Some(OpAccess::Write),
        _ if instruction.is_jcc_short_or_near() || instruction.is_jmp_short_or_near() => Some(OpAccess::None),
        _ => None,
    }
}

#[inline]
fn effects_of_operands(instruction: &Instruction, first: OpAccess) -> Effects {
    let (mut reads, mut kills, mut writes) = (0, 0, 0);
    let bit = |register| gpr(register).map_or(0, |number| 1 << number);
    for op in 0..instruction.op_count() {
        match instruction.op_kind(op) {
            OpKind::Register if op == 0 => {
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
            OpKind::Register => reads |= bit(instruction.op_register(op)),
            OpKind::Memory => reads |= bit(instruction.memory_base()) | bit(instruction.memory_index()),
            _ => {}
        }
    }
    Effects { reads, kills, writes }
}

/// The access to the operand in memory, if there is one.
fn operand_access(instruction: &Instruction, first: OpAccess) -> Option<OpAccess> {
    match (instruction.op0_kind(), instruction.op1_kind()) {
        _ if instruction.mnemonic() == Mnemonic::Lea => None,
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
            let accesses: Vec<OpAccess> = info.used_memory().iter().map(|used| used.access()).collect();
            assert_eq!(accesses, operand_access(&instruction, first).as_slice(), "{instruction:?}");
            let sizes = info.used_memory().iter().map(|used| used.memory_size());
            assert!(sizes.eq(accesses.iter().map(|_| instruction.memory_size())), "{instruction:?}");
        }
        assert!(common > 100_000, "{common}");
    }
}
