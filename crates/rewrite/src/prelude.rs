//! The start of each arena of code: cells that point into the shim, and the routines that settle what the inline
//! filters could not.
//!
//! ```text
//!  0     cells (u64 each, see `Cell`)
//!  64    settle routines, 192 bytes each: accesses of 1, 2, 4, 8, 16, 32, 64 bytes, then a range
//!  1600  end (PRELUDE_BYTES)
//! ```
//! A settle routine is called with the stack of the crate's documentation; it changes flags and nothing else. It
//! returns when every byte may be touched, else it jumps to the report cell with the stack as it was. After each
//! call of one lie ten bytes: `lea rsp,[rsp+136]`, then `test al,DESCRIPTION`.

use alloc::vec::Vec;

use memcheck_model::AccessKind;

use crate::{
    Config,
    asm::{Asm, Cond, Gpr, Mem, Operand},
    decode::Site,
};

/// How long the prelude is.
pub const PRELUDE_BYTES: usize = 64 + 8 * ROUTINE_BYTES;
/// Where to go on after a report, from the return address.
pub const REPORT_RESUME: u64 = 10;
/// Where to go on after a hooked system call that is to be left out, from the return address.
pub const SYSCALL_SKIP: u64 = 2;

const ROUTINE_BYTES: usize = 192;
/// The spill slot that holds the number of a system call while it is made, for [`Cell::SyscallDone`].
pub const CALL_SLOT: usize = 6;
/// The spill slot that holds a range's length.
pub const RANGE_SLOT: usize = 7;

/// The pointers and numbers at the start of the prelude, for the engine to fill in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cell {
    /// The shim's entry for reports.
    Report = 0,
    /// The shim's entry for system calls.
    Syscall = 1,
    /// The original address that the jump map's first entry is for.
    TextStart = 2,
    /// For how many bytes of text the jump map has entries.
    TextBytes = 3,
    /// The address of the jump map: for each byte of text, a `u32`, zero or the copy's offset from the prelude.
    JumpMap = 4,
    /// The prelude's own address.
    Base = 5,
    /// The shim's entry for client requests.
    Request = 6,
    /// The shim's entry for system calls that were made.
    SyscallDone = 7,
}

impl Cell {
    /// The cell's offset in the prelude.
    #[must_use]
    pub const fn offset(self) -> u64 {
        8 * self as u64
    }
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the access reads or writes.
    pub kind: AccessKind,
    /// Its size in bytes, or `None` when that is in [`RANGE_SLOT`].
    pub size_bytes: Option<u64>,
    /// Whether it touches many elements, one of which is at fault.
    pub repeats: bool,
}

/// What the report with these ten bytes after its return address is about.
#[must_use]
pub fn describe_report(after_return: &[u8; 10]) -> Report {
    let description = after_return[9];
    let kind = if description & 8 == 0 { AccessKind::Read } else { AccessKind::Write };
    let class = description & !8;
    let size_bytes = (class & Settle::RANGE != Settle::RANGE).then(|| 1 << class);
    Report { kind, size_bytes, repeats: class == Settle::RANGE }
}

/// Which routine settles an access, and the description of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settle {
    /// log2 of the size, or one of the below, with the size in [`RANGE_SLOT`].
    pub class: u8,
    pub kind: AccessKind,
}

impl Settle {
    /// Many elements.
    pub const RANGE: u8 = 7;
    /// One access, whose size has no class.
    pub const ODD: u8 = 0x10 | Self::RANGE;

    /// For one access.
    pub fn of(site: &Site) -> Self {
        let class = if site.size.is_power_of_two() && site.size <= 64 {
            site.size.trailing_zeros() as u8
        } else {
            Self::ODD
        };
        Self { class, kind: site.kind }
    }

    pub fn offset(self) -> u64 {
        64 + u64::from(self.class & Self::RANGE) * ROUTINE_BYTES as u64
    }

    pub fn description(self) -> u8 {
        self.class | if self.kind == AccessKind::Write { 8 } else { 0 }
    }
}

/// The prelude's bytes; position-independent. The cells are `cells`, in their order.
#[must_use]
pub fn prelude(config: &Config, cells: [u64; 8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
    for class in 0..=Settle::RANGE {
        bytes.resize(64 + usize::from(class) * ROUTINE_BYTES, 0xcc);
        bytes.extend(routine(config, class));
    }
    bytes.resize(PRELUDE_BYTES, 0xcc);
    bytes
}

/// The routine for accesses of `1 << class` bytes, or for a range.
fn routine(config: &Config, class: u8) -> Vec<u8> {
    let at = 64 + u64::from(class) * ROUTINE_BYTES as u64;
    let mut asm = Asm::new(at);
    let shadow = |register| Mem::at(register, config.shadow_base.cast_signed());
    let [ok, bad, again, last] = [(); 4].map(|()| asm.new_label());
    for register in [Gpr::RAX, Gpr::RCX, Gpr::RDX] {
        asm.push(register);
    }
    asm.load(Gpr::RAX, Mem::at(Gpr::RSP, 32));
    asm.mov(Gpr::RCX, Gpr::RAX);
    asm.shr3(Gpr::RCX);
    if class == Settle::RANGE {
        asm.load(Gpr::RDX, Mem::fs(config.spill_offset + 8 * RANGE_SLOT as i32));
        asm.lea(Gpr::RAX, Mem::indexed(Gpr::RAX, Gpr::RDX, 1, -1));
    } else {
        asm.lea(Gpr::RAX, Mem::at(Gpr::RAX, (1 << class) - 1));
    }
    asm.mov(Gpr::RDX, Gpr::RAX);
    asm.shr3(Gpr::RDX);
    // rcx = first granule, rdx = last granule, rax = last byte
    if class == Settle::RANGE {
        let bytewise = asm.new_label();
        let words = asm.new_label();
        asm.bind(words);
        asm.sub(Gpr::RDX, Gpr::RCX);
        asm.cmp_imm(Gpr::RDX, 8);
        asm.lea(Gpr::RDX, Mem::indexed(Gpr::RDX, Gpr::RCX, 1, 0));
        asm.jcc(Cond::Below, bytewise);
        asm.cmp_mem_zero(8, shadow(Gpr::RCX));
        asm.jcc(Cond::NotEqual, bad);
        asm.lea(Gpr::RCX, Mem::at(Gpr::RCX, 8));
        asm.jmp(words);
        asm.bind(bytewise);
    }
    asm.bind(again);
    asm.cmp(Gpr::RCX, Gpr::RDX);
    asm.jcc(Cond::Equal, last);
    asm.cmp_mem_zero(1, shadow(Gpr::RCX));
    asm.jcc(Cond::NotEqual, bad);
    asm.lea(Gpr::RCX, Mem::at(Gpr::RCX, 1));
    asm.jmp(again);
    asm.bind(last);
    asm.load_u8(Gpr::RCX, shadow(Gpr::RCX));
    asm.test(Gpr::RCX);
    asm.jcc(Cond::Equal, ok);
    asm.cmp_imm(Gpr::RCX, 7);
    asm.jcc(Cond::Above, bad);
    asm.and_imm(Gpr::RAX, 7);
    asm.cmp(Gpr::RAX, Gpr::RCX);
    asm.jcc(Cond::AboveEqual, bad);
    asm.bind(ok);
    for register in [Gpr::RDX, Gpr::RCX, Gpr::RAX] {
        asm.pop(register);
    }
    asm.ret();
    asm.bind(bad);
    for register in [Gpr::RDX, Gpr::RCX, Gpr::RAX] {
        asm.pop(register);
    }
    asm.jmp_mem(Operand::Rip(Cell::Report.offset()));
    asm.finish()
}
