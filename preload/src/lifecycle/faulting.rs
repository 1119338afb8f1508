//! What the instruction that faulted wanted of memory: how many bytes, and, where the kernel does not say, at
//! which address.
//!
//! Source: Intel SDM volume 2, by way of iced-x86. Its tables are built on first use, on the tool's heap; so this
//! is for a thread that dies next.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memcheck_model::{Access, AccessKind, Addr, Size};

use super::fatal::Context;

/// The longest instruction (Intel SDM 2.3.11).
const LONGEST: usize = 15;
const PAGE: u64 = 4096;

/// The access of the instruction at the context's instruction pointer, if it names one memory operand. The
/// kernel's word for the address, `told`, is believed.
///
/// # Safety
/// The processor fetched the instruction: its bytes are mapped and readable.
pub unsafe fn find_access(context: Context, told: Option<u64>) -> Option<Access> {
    let rip = context.rip();
    // What lies on the next page need not be mapped, unless the instruction reaches there.
    let on_page = ((PAGE - rip % PAGE) as usize).min(LONGEST);
    // SAFETY: the caller's word, and the page of the first byte holds these.
    let instruction = unsafe { decode(rip, on_page) }.or_else(|| {
        // SAFETY: the instruction goes on there, so the processor fetched that as well.
        (on_page < LONGEST).then(|| unsafe { decode(rip, LONGEST) }).flatten()
    })?;
    let operand =
        (0..instruction.op_count()).find(|&operand| instruction.op_kind(operand) == OpKind::Memory)?;
    let size = Size(instruction.memory_size().size() as u64);
    let addr = match told {
        Some(told) => told,
        None => instruction.virtual_address(operand, 0, |register, _, _| value_of(context, register))?,
    };
    Some(Access { kind: kind_of(&instruction, operand), addr: Addr(addr), size })
}

/// # Safety
/// `len` readable bytes lie at `rip`.
unsafe fn decode(rip: u64, len: usize) -> Option<Instruction> {
    // SAFETY: the caller's word.
    let bytes = unsafe { core::slice::from_raw_parts(rip as *const u8, len) };
    let instruction = Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// Most instructions write their first operand; those that only look at it are few.
fn kind_of(instruction: &Instruction, operand: u32) -> AccessKind {
    let only_reads = matches!(
        instruction.mnemonic(),
        Mnemonic::Cmp
            | Mnemonic::Test
            | Mnemonic::Bt
            | Mnemonic::Push
            | Mnemonic::Call
            | Mnemonic::Jmp
            | Mnemonic::Mul
            | Mnemonic::Imul
            | Mnemonic::Div
            | Mnemonic::Idiv
            | Mnemonic::Fld
            | Mnemonic::Fild
    );
    if operand == 0 && !only_reads { AccessKind::Write } else { AccessKind::Read }
}

/// A general register's value; nothing for segments but the flat ones.
fn value_of(context: Context, register: Register) -> Option<u64> {
    /// The order of `asm/sigcontext.h`.
    const ORDER: [Register; 16] = [
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
        Register::RDI,
        Register::RSI,
        Register::RBP,
        Register::RBX,
        Register::RDX,
        Register::RAX,
        Register::RCX,
        Register::RSP,
    ];
    if matches!(register, Register::CS | Register::DS | Register::ES | Register::SS) {
        return Some(0);
    }
    let index = ORDER.iter().position(|&known| known == register.full_register())?;
    let value = context.register(index);
    Some(if register.size() == 4 { value & 0xffff_ffff } else { value })
}
