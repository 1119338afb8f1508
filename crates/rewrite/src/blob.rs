//! What translation gives: the copy's bytes, where its parts came from, what was done, or why nothing was.

use alloc::{boxed::Box, vec::Vec};
use core::fmt;

use memcheck_model::Pc;

/// Why a function stays native.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// Bytes that are no instruction.
    Undecodable,
    /// A jump into the middle of an instruction.
    JumpIntoInstruction,
    /// `call` to the next instruction, which then takes its own address off the stack.
    CallNext,
    /// A transaction (`xbegin`).
    Transaction,
    /// Something addressed from the instruction pointer is out of reach of the copy.
    OutOfReach,
    /// The function is not in the module's text, or too large, or where exceptions lead in it is not known.
    Unsuitable,
    /// An indirect jump whose targets are not known, so that it may go on in the original, and that jumps to what the
    /// patch at the entry overwrites.
    JumpIntoPatch,
    /// Return addresses are looked at, and a copy's would not do: by the function's runtime, as
    /// [`translate`](crate::translate) cannot know, or behind its own calls.
    OwnFrames,
}

/// A refusal: the instruction and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The instruction that was in the way.
    pub pc: Pc,
    /// Why.
    pub reason: SkipReason,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undecodable => "undecodable bytes",
            Self::JumpIntoInstruction => "jump into an instruction",
            Self::CallNext => "call of the next instruction",
            Self::Transaction => "hardware transaction",
            Self::OutOfReach => "operand out of reach",
            Self::Unsuitable => "not translatable text",
            Self::JumpIntoPatch => "unknown jump targets, and a jump into the entry's patch",
            Self::OwnFrames => "return addresses are looked up",
        })
    }
}

/// What was done, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions copied.
    pub instructions: u32,
    /// Memory operands that were looked at.
    pub operands: u32,
    /// Those checked.
    pub checked: u32,
    /// Those exempt: stack, static data, thread-local.
    pub exempt: u32,
    /// Those left unchecked because their shape is not supported (masked, gather, scatter).
    pub unsupported: u32,
    /// Inline checks emitted; fewer than `checked` by grouping.
    pub checks: u32,
    /// Checks that had to save the flags.
    pub flags_saved: u32,
    /// Checks that had to spill a register.
    pub spilled: u32,
    /// Indirect jumps.
    pub indirect_jumps: u32,
    /// Those of them whose tables were made out.
    pub tables: u32,
}

/// The part of the copy that an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// At or in the copy of the instruction itself: registers are the program's.
    Instruction,
    /// In a check that guards the instruction: registers may be spilled.
    Check,
}

/// Where an address of the copy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The original instruction.
    pub pc: Pc,
    /// How long that is in the original, so that `pc + len` is the original return address of a call.
    pub len: u8,
    /// Which part of its copy the address is in.
    pub part: Part,
}

/// One run of bytes of the copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub copy_offset: u32,
    pub original_offset: u32,
    pub len: u8,
    pub part: Part,
}

/// Which original instruction each byte of the copy belongs to.
#[derive(Clone, Debug)]
pub struct PcMap {
    /// The lowest original address.
    pub(crate) base: Pc,
    /// Sorted by `copy_offset`.
    pub(crate) runs: Box<[Run]>,
}

impl PcMap {
    /// What the byte at `copy_offset` of the blob belongs to.
    #[must_use]
    pub fn find_origin(&self, copy_offset: u32) -> Option<Origin> {
        let after = self.runs.partition_point(|run| run.copy_offset <= copy_offset);
        let run = &self.runs[after.checked_sub(1)?];
        Some(Origin { pc: Pc(self.base.0 + u64::from(run.original_offset)), len: run.len, part: run.part })
    }

    /// The original return address for a return address in the copy.
    #[must_use]
    pub fn find_return(&self, copy_offset: u32) -> Option<Pc> {
        let call = self.find_origin(copy_offset.checked_sub(1)?)?;
        Some(Pc(call.pc.0 + u64::from(call.len)))
    }

    /// Where the copy of the instruction at `original` is.
    #[must_use]
    pub fn find_copy(&self, original: Pc) -> Option<u32> {
        let offset = u32::try_from(original.0.checked_sub(self.base.0)?).ok()?;
        let is_it = |run: &&Run| run.part == Part::Instruction && run.original_offset == offset;
        self.runs.iter().find(is_it).map(|run| run.copy_offset)
    }
}

/// The instrumented copy of one group of functions.
#[derive(Clone, Debug)]
pub struct CodeBlob {
    /// Position-dependent bytes, for the place they were made for.
    pub bytes: Vec<u8>,
    /// For each function of the group: its original entry, and where its copy starts in `bytes`.
    pub entries: Vec<(Pc, u32)>,
    /// Where indirect jumps may arrive: original address, and its copy's offset in `bytes`. To be entered into
    /// the module's jump map as offsets from the prelude.
    pub jump_targets: Vec<(Pc, u32)>,
    /// Whether the copy asks the jump map.
    pub asks_map: bool,
    /// Which byte came from where.
    pub pc_map: PcMap,
    /// What was done.
    pub stats: Stats,
}
