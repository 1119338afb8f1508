//! A small assembler: the few instructions that checks and jumps are made of, and labels.
//!
//! Operands are 64 bits wide unless a name says otherwise. Source: Intel SDM vol. 2, chapter 2 (ModRM, SIB, REX).
//! Invariant: `finish` fails only when a displacement does not fit 32 bits; `fits` then is false.

use alloc::vec::Vec;
use core::fmt;

use crate::decode::Set;

/// A general-purpose register by its number in encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gpr(pub u8);

impl Gpr {
    pub const RAX: Self = Self(0);
    pub const RCX: Self = Self(1);
    pub const RDX: Self = Self(2);
    pub const RSP: Self = Self(4);
    pub const RDI: Self = Self(7);
}

/// Condition codes, as their number in encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cond {
    Below = 2,
    AboveEqual = 3,
    Equal = 4,
    NotEqual = 5,
    Above = 7,
    NotNegative = 9,
    GreaterEqual = 13,
}

/// What an address is computed from. Small, as it is compared and copied a lot.
///
/// ```text
///  parts  0..5 base + 1   5..10 index + 1   10..12 log2 of the index' scale   12 thread   13 narrow
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mem {
    parts: u32,
    pub disp: i32,
}

impl Mem {
    const THREAD: u32 = 1 << 12;
    const NARROW: u32 = 1 << 13;

    /// The address `disp`.
    pub const fn absolute(disp: i32) -> Self {
        Self { parts: 0, disp }
    }

    pub const fn at(base: Gpr, disp: i32) -> Self {
        Self { parts: base.0 as u32 + 1, disp }
    }

    pub const fn indexed(base: Gpr, index: Gpr, scale: u8, disp: i32) -> Self {
        Self::at(base, disp).with_index(index, scale)
    }

    pub const fn fs(disp: i32) -> Self {
        Self { parts: Self::THREAD, disp }
    }

    /// The same with another index or the first, and its scale (1, 2, 4, 8).
    pub const fn with_index(self, index: Gpr, scale: u8) -> Self {
        let index = (index.0 as u32 + 1) << 5 | scale.trailing_zeros() << 10;
        Self { parts: self.parts & !(0x7f << 5) | index, ..self }
    }

    /// The same with registers that are read as 32 bits wide.
    pub const fn narrowed(self) -> Self {
        Self { parts: self.parts | Self::NARROW, ..self }
    }

    pub const fn with_disp(self, disp: i32) -> Self {
        Self { disp, ..self }
    }

    /// The same further on by `bytes`.
    pub const fn plus(self, bytes: i32) -> Self {
        self.with_disp(self.disp.wrapping_add(bytes))
    }

    pub fn base(&self) -> Option<u8> {
        (self.parts as u8 & 0x1f).checked_sub(1)
    }

    /// Register and scale.
    pub fn index(&self) -> Option<(u8, u8)> {
        let index = ((self.parts >> 5) as u8 & 0x1f).checked_sub(1)?;
        Some((index, 1 << (self.parts >> 10 & 3)))
    }

    /// Whether it counts from the thread pointer.
    pub const fn is_thread(&self) -> bool {
        self.parts & Self::THREAD != 0
    }

    /// Whether registers are read as 32 bits wide.
    pub const fn is_narrow(&self) -> bool {
        self.parts & Self::NARROW != 0
    }

    /// Whether the address depends on `register`.
    pub fn uses(&self, register: u8) -> bool {
        self.registers() >> register & 1 != 0
    }

    /// The registers that the address depends on.
    pub const fn registers(&self) -> Set {
        // The lowest bit stands for none.
        (1 << (self.parts & 0x1f) | 1 << (self.parts >> 5 & 0x1f)) >> 1
    }
}

impl fmt::Debug for Mem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?} + {:?} + {}]", self.base(), self.index(), self.disp)
    }
}

/// What an instruction finds its operand in memory by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Mem(Mem),
    /// This address, from the instruction pointer.
    Rip(u64),
}

impl From<Mem> for Operand {
    fn from(mem: Mem) -> Self {
        Self::Mem(mem)
    }
}

/// A place in the code, bound once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(u32);

#[derive(Debug)]
struct Fixup {
    /// Where the 32-bit displacement lies; it counts from its own end.
    at: usize,
    label: Label,
}

/// Code under construction that will lie at `base`.
#[derive(Debug)]
pub(crate) struct Asm {
    pub bytes: Vec<u8>,
    base: u64,
    labels: Vec<u32>,
    fixups: Vec<Fixup>,
    /// Whether every absolute operand was within reach so far.
    pub fits: bool,
}

const UNBOUND: u32 = u32::MAX;

/// `lea rsp,[rsp+disp32]` without its displacement.
const MOVE_RSP: [u8; 4] = [0x48, 0x8d, 0xa4, 0x24];

/// Steps of a copy that only moved the stack pointer: what they take back makes the copy do them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackSteps {
    /// How many bytes of code they are.
    pub code_bytes: u64,
    /// How far they moved the stack pointer down.
    pub stack_bytes: u64,
}

/// No steps to a call of the shim have more bytes.
pub const MOST_STEP_BYTES: usize = 10;

/// The steps to a call of the shim that were done, if `code` ends with some: the one over the red zone, and perhaps a
/// `push`.
#[must_use]
pub fn find_stack_steps(code: &[u8]) -> Option<StackSteps> {
    let (rest, code_bytes, stack_bytes) = match code {
        // `push`, always with its prefix
        [rest @ .., 0x40 | 0x41, 0x50..=0x57] => (rest, 10, 136),
        _ => (code, 8, 128),
    };
    rest.strip_suffix(&(-128_i32).to_le_bytes())?.strip_suffix(&MOVE_RSP)?;
    Some(StackSteps { code_bytes, stack_bytes })
}

/// How a check looks at the shadow: all its accesses are one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It compares it with zero (`cmp_mem_zero`).
    Compare,
    /// It loads it into this register, by its number in encodings (`load_extended`).
    Load(u8),
}

/// The look that code of a check begins with, and its length; none where it does not look at the shadow there.
///
/// ```text
///  [66] [REX] 80|83 /7 disp32 00     cmp [register+disp32], 0
///  [REX] 8b|0f b6|0f b7 /r disp32    mov or movzx register, [register+disp32]
/// ```
#[must_use]
pub fn find_look(code: &[u8; 8]) -> Option<(Look, u64)> {
    let prefixes = code.iter().take_while(|&&byte| byte == 0x66 || byte & 0xf0 == 0x40).count();
    let (is_load, opcode_len) = match code.get(prefixes..)? {
        [0x80 | 0x83, ..] => (false, 1),
        [0x8b, ..] => (true, 1),
        [0x0f, 0xb6 | 0xb7, ..] => (true, 2),
        _ => return None,
    };
    let modrm = *code.get(prefixes + opcode_len)?;
    let field = modrm >> 3 & 7;
    // mod = 2, a displacement of 32 bits; the field of a comparison is 7, cmp.
    if modrm >> 6 != 2 || !is_load && field != 7 {
        return None;
    }
    let is_extended = code[..prefixes].last().is_some_and(|&rex| rex & 0xf4 == 0x44);
    let look = if is_load { Look::Load(field | u8::from(is_extended) << 3) } else { Look::Compare };
    let scaled = usize::from(modrm & 7 == 4);
    let immediate = usize::from(!is_load);
    Some((look, (prefixes + opcode_len + 1 + scaled + 4 + immediate) as u64))
}

impl Asm {
    pub fn new(base: u64) -> Self {
        Self { bytes: Vec::new(), base, labels: Vec::new(), fixups: Vec::new(), fits: true }
    }

    pub fn offset(&self) -> u32 {
        self.bytes.len() as u32
    }

    pub fn new_label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }

    pub fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = self.offset();
    }

    /// Where a bound label is.
    pub fn offset_of(&self, label: Label) -> u32 {
        self.labels[label.0 as usize]
    }

    pub fn finish(mut self) -> Vec<u8> {
        for fixup in &self.fixups {
            let target = self.labels[fixup.label.0 as usize];
            let disp = target.wrapping_sub(fixup.at as u32 + 4);
            self.bytes[fixup.at..fixup.at + 4].copy_from_slice(&disp.to_le_bytes());
        }
        self.bytes
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The first `len` bytes of `text`, at most sixteen: copying sixteen takes less than asking how many.
    pub fn copy(&mut self, text: &[u8], len: usize) {
        match text.first_chunk::<16>() {
            Some(whole) => {
                let end = self.bytes.len() + len;
                self.raw(whole);
                self.bytes.truncate(end);
            }
            None => self.raw(&text[..len]),
        }
    }

    /// The displacement from the end of an instruction, which is `after` bytes beyond the displacement's start.
    fn relative(&mut self, target: u64, after: u64) -> i32 {
        let from = self.base.wrapping_add(self.bytes.len() as u64 + after);
        let disp = target.wrapping_sub(from).cast_signed();
        self.fits &= i32::try_from(disp).is_ok();
        disp as i32
    }

    /// A 32-bit displacement to `target`, with `after` bytes of the instruction following it.
    pub fn rel32(&mut self, target: u64, after: u64) {
        let disp = self.relative(target, 4 + after);
        self.raw(&disp.to_le_bytes());
    }

    /// An instruction with a ModRM operand; `after` is how many bytes of immediate will follow.
    fn modrm(&mut self, wide: bool, opcode: &[u8], reg: u8, operand: impl Into<Operand>, after: u64) {
        let mem = match operand.into() {
            Operand::Mem(mem) => mem,
            Operand::Rip(target) => {
                let rex = u8::from(wide) << 3 | (reg >> 3) << 2;
                if rex != 0 {
                    self.bytes.push(0x40 | rex);
                }
                self.raw(opcode);
                self.bytes.push((reg & 7) << 3 | 5);
                self.rel32(target, after);
                return;
            }
        };
        if mem.is_thread() {
            self.bytes.push(0x64);
        }
        if mem.is_narrow() {
            self.bytes.push(0x67);
        }
        let (base, index) = (mem.base().unwrap_or(0), mem.index().map_or(0, |(index, _)| index));
        let rex = u8::from(wide) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        if rex != 0 {
            self.bytes.push(0x40 | rex);
        }
        self.raw(opcode);
        let reg = (reg & 7) << 3;
        let Some(base) = mem.base() else {
            let (index, scale) = mem.index().unwrap_or((4, 1));
            self.raw(&[reg | 4, (scale.trailing_zeros() as u8) << 6 | (index & 7) << 3 | 5]);
            self.raw(&mem.disp.to_le_bytes());
            return;
        };
        let short = i8::try_from(mem.disp);
        let mode = match short {
            Ok(0) if base & 7 != 5 => 0,
            Ok(_) => 0x40,
            Err(_) => 0x80,
        };
        if mem.index().is_some() || base & 7 == 4 {
            let (index, scale) = mem.index().unwrap_or((4, 1));
            let sib = (scale.trailing_zeros() as u8) << 6 | (index & 7) << 3 | base & 7;
            self.raw(&[mode | reg | 4, sib]);
        } else {
            self.bytes.push(mode | reg | base & 7);
        }
        match (mode, short) {
            (0, _) => {}
            (0x40, Ok(disp)) => self.bytes.push(disp as u8),
            _ => self.raw(&mem.disp.to_le_bytes()),
        }
    }

    fn registers(&mut self, opcode: u8, reg: Gpr, rm: Gpr) {
        self.raw(&[0x48 | (reg.0 >> 3) << 2 | rm.0 >> 3, opcode, 0xc0 | (reg.0 & 7) << 3 | rm.0 & 7]);
    }

    pub fn lea(&mut self, to: Gpr, mem: Mem) {
        self.modrm(true, &[0x8d], to.0, mem, 0);
    }

    pub fn load(&mut self, to: Gpr, mem: impl Into<Operand>) {
        self.modrm(true, &[0x8b], to.0, mem, 0);
    }

    pub fn load_u32(&mut self, to: Gpr, mem: Mem) {
        self.modrm(false, &[0x8b], to.0, mem, 0);
    }

    /// Sign-extends 32 bits.
    pub fn load_i32(&mut self, to: Gpr, mem: Mem) {
        self.modrm(true, &[0x63], to.0, mem, 0);
    }

    pub fn load_u8(&mut self, to: Gpr, mem: Mem) {
        self.modrm(false, &[0x0f, 0xb6], to.0, mem, 0);
    }

    /// The `size` bytes at `mem`, extended with zeros.
    pub fn load_extended(&mut self, size: u8, to: Gpr, mem: Mem) {
        match size {
            1 => self.load_u8(to, mem),
            2 => self.modrm(false, &[0x0f, 0xb7], to.0, mem, 0),
            4 => self.load_u32(to, mem),
            _ => self.load(to, mem),
        }
    }

    pub fn store(&mut self, mem: Mem, from: Gpr) {
        self.modrm(true, &[0x89], from.0, mem, 0);
    }

    pub fn add_mem(&mut self, to: Gpr, mem: impl Into<Operand>) {
        self.modrm(true, &[0x03], to.0, mem, 0);
    }

    pub fn sub_mem(&mut self, to: Gpr, mem: impl Into<Operand>) {
        self.modrm(true, &[0x2b], to.0, mem, 0);
    }

    pub fn cmp_mem(&mut self, left: Gpr, mem: impl Into<Operand>) {
        self.modrm(true, &[0x3b], left.0, mem, 0);
    }

    /// `cmp` of `size` bytes (1, 2, 4, 8) at `mem` with zero.
    pub fn cmp_mem_zero(&mut self, size: u8, mem: Mem) {
        if size == 2 {
            self.bytes.push(0x66);
        }
        self.modrm(size == 8, &[if size == 1 { 0x80 } else { 0x83 }], 7, mem, 1);
        self.bytes.push(0);
    }

    pub fn mov(&mut self, to: Gpr, from: Gpr) {
        self.registers(0x89, from, to);
    }

    pub fn sub(&mut self, to: Gpr, from: Gpr) {
        self.registers(0x29, from, to);
    }

    pub fn cmp(&mut self, left: Gpr, right: Gpr) {
        self.registers(0x39, right, left);
    }

    pub fn test(&mut self, register: Gpr) {
        self.registers(0x85, register, register);
    }

    /// `test` of the register's lowest byte with `mask`.
    pub fn test_low(&mut self, register: Gpr, mask: u8) {
        self.raw(&[0x40 | register.0 >> 3, 0xf6, 0xc0 | register.0 & 7, mask]);
    }

    pub fn shr3(&mut self, register: Gpr) {
        self.raw(&[0x48 | register.0 >> 3, 0xc1, 0xe8 | register.0 & 7, 3]);
    }

    /// `to = from` rotated right by three (BMI2; SDM vol. 2, RORX); flags stay.
    pub fn rotate3(&mut self, to: Gpr, from: Gpr) {
        let [not_r, not_b] = [to, from].map(|register| u8::from(register.0 < 8));
        self.raw(&[0xc4, not_r << 7 | 0x40 | not_b << 5 | 3, 0xfb, 0xf0]);
        self.raw(&[0xc0 | (to.0 & 7) << 3 | from.0 & 7, 3]);
    }

    pub fn shr(&mut self, register: Gpr, bits: u8) {
        self.raw(&[0x48 | register.0 >> 3, 0xc1, 0xe8 | register.0 & 7, bits]);
    }

    pub fn shl(&mut self, register: Gpr, bits: u8) {
        self.raw(&[0x48 | register.0 >> 3, 0xc1, 0xe0 | register.0 & 7, bits]);
    }

    /// The number of the lowest bit that is set in `from`, which is not zero (SDM vol. 2, BSF).
    pub fn find_lowest(&mut self, to: Gpr, from: Gpr) {
        self.raw(&[0x48 | (to.0 >> 3) << 2 | from.0 >> 3, 0x0f, 0xbc, 0xc0 | (to.0 & 7) << 3 | from.0 & 7]);
    }

    pub fn mov_imm64(&mut self, to: Gpr, value: i64) {
        self.raw(&[0x48 | to.0 >> 3, 0xb8 | to.0 & 7]);
        self.raw(&value.to_le_bytes());
    }

    pub fn sar(&mut self, register: Gpr, bits: u8) {
        self.raw(&[0x48 | register.0 >> 3, 0xc1, 0xf8 | register.0 & 7, bits]);
    }

    /// Sign-extends the lowest `size` bytes (2, 4) of `from`.
    pub fn mov_signed(&mut self, to: Gpr, from: Gpr, size: u8) {
        let rex = 0x48 | (to.0 >> 3) << 2 | from.0 >> 3;
        let modrm = 0xc0 | (to.0 & 7) << 3 | from.0 & 7;
        if size == 2 {
            self.raw(&[rex, 0x0f, 0xbf, modrm]);
        } else {
            self.raw(&[rex, 0x63, modrm]);
        }
    }

    pub fn mov_imm(&mut self, to: Gpr, value: u32) {
        self.raw(&[0x48 | to.0 >> 3, 0xc7, 0xc0 | to.0 & 7]);
        self.raw(&value.to_le_bytes());
    }

    pub fn and_imm(&mut self, register: Gpr, value: i8) {
        self.raw(&[0x48 | register.0 >> 3, 0x83, 0xe0 | register.0 & 7, value as u8]);
    }

    pub fn add_imm(&mut self, register: Gpr, value: i8) {
        self.raw(&[0x48 | register.0 >> 3, 0x83, 0xc0 | register.0 & 7, value as u8]);
    }

    pub fn cmp_imm(&mut self, register: Gpr, value: i8) {
        self.raw(&[0x48 | register.0 >> 3, 0x83, 0xf8 | register.0 & 7, value as u8]);
    }

    /// `and` of the lower half with `value`; clears the upper half.
    pub fn and_u32(&mut self, register: Gpr, value: u32) {
        self.raw(&[0x40 | register.0 >> 3, 0x81, 0xe0 | register.0 & 7]);
        self.raw(&value.to_le_bytes());
    }

    pub fn popcnt(&mut self, to: Gpr, from: Gpr) {
        self.raw(&[0xf3, 0x48 | (to.0 >> 3) << 2 | from.0 >> 3, 0x0f, 0xb8]);
        self.raw(&[0xc0 | (to.0 & 7) << 3 | from.0 & 7]);
    }

    /// `kmov` of the lowest `bits` (16, 32, 64) of an opmask register to one of the first eight.
    pub fn load_opmask(&mut self, to: Gpr, opmask: u8, bits: u8) {
        match bits {
            16 => self.raw(&[0xc5, 0xf8]),
            32 => self.raw(&[0xc5, 0xfb]),
            _ => self.raw(&[0xc4, 0xe1, 0xfb]),
        }
        self.raw(&[0x93, 0xc0 | (to.0 & 7) << 3 | opmask & 7]);
    }

    /// `vmovmskps` or `vmovmskpd` to one of the first eight: the signs of elements of four or eight bytes.
    pub fn load_signs(&mut self, to: Gpr, vector: u8, wide: bool, element: u8) {
        let not_b = u8::from(vector < 8) << 5;
        let form = 0x78 | u8::from(wide) << 2 | u8::from(element == 8);
        self.raw(&[0xc4, 0xc1 | not_b, form, 0x50, 0xc0 | (to.0 & 7) << 3 | vector & 7]);
    }

    /// `pmovmskb` of an xmm register to one of the first eight.
    pub fn load_byte_signs(&mut self, to: Gpr, vector: u8) {
        self.raw(&[0x66, 0x40 | vector >> 3, 0x0f, 0xd7, 0xc0 | (to.0 & 7) << 3 | vector & 7]);
    }

    /// The same of an mm register.
    pub fn load_short_byte_signs(&mut self, to: Gpr, vector: u8) {
        self.raw(&[0x0f, 0xd7, 0xc0 | (to.0 & 7) << 3 | vector & 7]);
    }

    /// `vmovdqu` of a vector register of `bytes` (16, 32, 64) to `fs:[disp]`; with EVEX (`vmovdqu32`) if `evex`.
    pub fn store_vector(&mut self, disp: i32, vector: u8, bytes: u8, evex: bool) {
        let not_r = u8::from(vector & 8 == 0) << 7;
        if evex {
            let not_r2 = u8::from(vector & 16 == 0) << 4;
            let length = bytes.trailing_zeros() as u8 - 4;
            self.raw(&[0x64, 0x62, 0x61 | not_r | not_r2, 0x7e, 0x08 | length << 5]);
        } else {
            self.raw(&[0x64, 0xc4, 0x61 | not_r, 0x7a | u8::from(bytes == 32) << 2]);
        }
        self.raw(&[0x7f, (vector & 7) << 3 | 4, 0x25]);
        self.raw(&disp.to_le_bytes());
    }

    pub fn push(&mut self, register: Gpr) {
        self.raw(&[0x40 | register.0 >> 3, 0x50 | register.0 & 7]);
    }

    pub fn pop(&mut self, register: Gpr) {
        self.raw(&[0x40 | register.0 >> 3, 0x58 | register.0 & 7]);
    }

    pub fn ret(&mut self) {
        self.bytes.push(0xc3);
    }

    /// Saves the status flags in ax (`lahf; seto al`).
    pub fn save_flags(&mut self) {
        self.raw(&[0x9f, 0x0f, 0x90, 0xc0]);
    }

    /// Undoes `save_flags` (`add al,0x7f` sets OF again; `sahf`).
    pub fn restore_flags(&mut self) {
        self.raw(&[0x04, 0x7f, 0x9e]);
    }

    /// `lea rsp,[rsp+disp]` in its eight-byte form.
    pub fn move_rsp(&mut self, disp: i32) {
        self.raw(&MOVE_RSP);
        self.raw(&disp.to_le_bytes());
    }

    fn label_disp(&mut self, label: Label) {
        self.fixups.push(Fixup { at: self.bytes.len(), label });
        self.raw(&[0; 4]);
    }

    /// The displacement to a bound label that a two-byte branch reaches.
    fn find_short(&self, label: Label) -> Option<u8> {
        let target = self.labels[label.0 as usize];
        let disp = i64::from(target) - self.bytes.len() as i64 - 2;
        (target != UNBOUND).then(|| i8::try_from(disp).ok()).flatten().map(|disp| disp as u8)
    }

    pub fn jcc(&mut self, cond: Cond, label: Label) {
        self.jcc_code(cond as u8, label);
    }

    pub fn jcc_code(&mut self, code: u8, label: Label) {
        if let Some(short) = self.find_short(label) {
            self.raw(&[0x70 | code, short]);
        } else {
            self.raw(&[0x0f, 0x80 | code]);
            self.label_disp(label);
        }
    }

    pub fn jmp(&mut self, label: Label) {
        if let Some(short) = self.find_short(label) {
            self.raw(&[0xeb, short]);
        } else {
            self.bytes.push(0xe9);
            self.label_disp(label);
        }
    }

    /// `jmp` in its five-byte form.
    pub fn jmp_long(&mut self, label: Label) {
        self.bytes.push(0xe9);
        self.label_disp(label);
    }

    pub fn call(&mut self, label: Label) {
        self.bytes.push(0xe8);
        self.label_disp(label);
    }

    pub fn call_at(&mut self, target: u64) {
        self.bytes.push(0xe8);
        self.rel32(target, 0);
    }

    pub fn jmp_at(&mut self, target: u64) {
        self.bytes.push(0xe9);
        self.rel32(target, 0);
    }

    pub fn jcc_at(&mut self, code: u8, target: u64) {
        self.raw(&[0x0f, 0x80 | code]);
        self.rel32(target, 0);
    }

    pub fn jmp_mem(&mut self, mem: impl Into<Operand>) {
        self.modrm(false, &[0xff], 4, mem, 0);
    }

    pub fn call_mem(&mut self, mem: impl Into<Operand>) {
        self.modrm(false, &[0xff], 2, mem, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_of_each_size_and_register_are_found_as_they_are_made() {
        for (register, base) in
            (0..16).flat_map(|register| (0..16).map(move |base| (Gpr(register), Gpr(base))))
        {
            let shadow = Mem::at(base, 0x7fff_8000);
            let looks = |size: u8| {
                let [mut compare, mut load] = [(); 2].map(|()| Asm::new(0));
                compare.cmp_mem_zero(size, shadow);
                load.load_extended(size, register, shadow);
                [(compare, Look::Compare), (load, Look::Load(register.0))]
            };
            for (mut asm, look) in [1, 2, 4, 8].into_iter().flat_map(looks) {
                let len = u64::from(asm.offset());
                asm.raw(&[0x90; 8]);
                assert_eq!(
                    find_look(asm.bytes[..8].try_into().unwrap()),
                    Some((look, len)),
                    "{:x?}",
                    asm.bytes
                );
            }
        }
        // mov eax, [rcx]; add [rax+disp32], 1
        for other in [[0x8b, 0x01, 0, 0, 0, 0, 0, 0], [0x83, 0x80, 0, 0x80, 0xff, 0x7f, 1, 0]] {
            assert_eq!(find_look(&other), None);
        }
    }

    #[test]
    fn steps_to_a_call_of_the_shim_are_known_from_behind() {
        for register in [Gpr::RAX, Gpr(13)] {
            let mut asm = Asm::new(0x1000);
            asm.raw(&[0x90; 16]);
            asm.move_rsp(-128);
            asm.push(register);
            asm.call_at(0x2000);
            asm.move_rsp(136);
            let steps = |end: usize| {
                find_stack_steps(&asm.bytes[..end]).map(|steps| (steps.code_bytes, steps.stack_bytes))
            };
            assert_eq!(steps(16), None);
            assert_eq!(steps(24), Some((8, 128)));
            assert_eq!(steps(26), Some((10, 136)));
            assert_eq!(steps(31), None);
            assert_eq!(steps(asm.bytes.len()), None);
        }
    }
}
