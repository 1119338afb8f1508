//! One function's bytes as instructions with what the analyses ask of each: registers and flags read and written,
//! accesses to memory, where it goes.
//!
//! A [`Set`] is a set of registers (bits 0 to 15) and status flags (bits 16 to 21) in one word.
//! What a set of written things holds is certain to be overwritten whole: 8- and 16-bit writes, conditional moves,
//! shifts by CL and repeated compares are not.

use alloc::vec::Vec;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfo, Mnemonic, OpKind, Register,
    UsedMemory,
};
use memcheck_model::{AccessKind, Pc};

use crate::{
    Extent, Module, Skip, SkipReason,
    asm::{Gpr, Mem},
    masked::{self, Masked},
    uses::{Accesses, Effects, Uses, is_repeated, kind_of},
};

/// Registers and flags; see the module's head.
pub(crate) type Set = u32;
pub(crate) const FLAGS: Set = 0x3f << 16;
pub(crate) const ALL: Set = 0x3f_ffff;

/// An access to memory that an instruction makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Index of the instruction.
    pub insn: u32,
    pub mem: Mem,
    pub size: u16,
    pub kind: AccessKind,
    pub shape: Shape,
}

/// How the bytes that an access touches follow from its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// From the operand's address.
    Plain,
    /// As plain, and the processor insists on alignment to the size.
    Aligned,
    /// `rcx` elements of `size` bytes, in the direction of DF.
    Repeated,
    /// Elements of `size` bytes until something is found: the register tells afterwards how far that went.
    Searched,
    /// What a mask selects.
    Masked(Masked),
    /// The element that holds the bit numbered by this register.
    Bit(u8),
    /// The byte numbered by `al`, as `xlat` reads it.
    ByAl,
}

/// Where an instruction goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    #[default]
    Next,
    /// `jmp`.
    Jump(u64),
    /// `jcc` with its condition code.
    Branch(u64, u8),
    /// `loop`, `jrcxz`: its first bytes up to the displacement are kept.
    Loop(u64),
    Call(u64),
    IndirectJump(Through),
    IndirectCall,
    /// `ret`, `ud2`, `hlt` and the like.
    End,
    Syscall,
    /// A client request of valgrind.h.
    Request,
}

/// What valgrind.h compiles a client request to on x86-64: four rotations of rdi, by 128 bits in all, and
/// `xchg rbx, rbx`. rax leads to the request, rdx holds its default and takes its result.
const REQUEST: [u8; 19] = *b"\x48\xc1\xc7\x03\x48\xc1\xc7\x0d\x48\xc1\xc7\x3d\x48\xc1\xc7\x33\x48\x87\xdb";
const RDX: Set = 1 << 2;

/// One instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Insn {
    pub pc: u64,
    pub len: u8,
    /// Where a RIP-relative displacement lies in it (0: none), and its target.
    pub rip: u8,
    pub rip_target: u64,
    pub flow: Flow,
    pub reads: Set,
    pub kills: Set,
    /// Registers written in any way.
    pub writes: Set,
    pub lock: bool,
    /// The register that a `lea` fills with `rip_target`.
    pub address_to: Option<u8>,
    /// The register that a `push` saves.
    pub pushed: Option<u8>,
    /// Whether it is a `pop`.
    pub popped: bool,
    /// Whether it does nothing.
    pub padding: bool,
    /// By how much the one register grows that it writes; zero where that is not known.
    pub growth: i8,
    /// Destination and source of a copy of an address: `mov`, or `lea` with a displacement (`true`).
    pub derive: Option<(u8, u8, bool)>,
}

/// The operand of an indirect jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    Register(u8),
    Memory(Mem),
    /// Memory at the instruction's `rip_target`.
    Static,
    /// One that has to be left native (segment override).
    Other,
}

/// A decoded extent, or several.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub insns: Vec<Insn>,
    pub sites: Vec<Site>,
    pub operands: u32,
    pub exempt: u32,
    pub unsupported: u32,
    /// Addresses of data and code that the function takes (`lea` from rip, `mov`, displacements of tables).
    pub taken: Vec<u64>,
    /// The extents that were decoded, in order.
    extents: Vec<Starts>,
}

/// Where the instructions of an extent start.
#[derive(Debug)]
struct Starts {
    start: u64,
    /// The index of the first instruction.
    first: usize,
    /// For each byte one more than the number of the instruction that starts there, counted from the first, or zero.
    index: Vec<u32>,
}

impl Decoded {
    /// The index of the instruction that starts at `pc`.
    pub fn find(&self, pc: u64) -> Option<usize> {
        let after = self.extents.partition_point(|extent| extent.start <= pc);
        let extent = &self.extents[after.checked_sub(1)?];
        let number = *extent.index.get((pc - extent.start) as usize)?;
        Some(extent.first + (number as usize).checked_sub(1)?)
    }

    /// This and an extent behind it.
    pub fn joined(mut self, behind: Self) -> Self {
        let first = self.insns.len();
        self.insns.extend(behind.insns);
        self.sites
            .extend(behind.sites.into_iter().map(|site| Site { insn: site.insn + first as u32, ..site }));
        self.operands += behind.operands;
        self.exempt += behind.exempt;
        self.unsupported += behind.unsupported;
        self.taken.extend(behind.taken);
        self.extents.extend(behind.extents.into_iter().map(|starts| Starts { first, ..starts }));
        self
    }
}

/// The number of a general-purpose register, if it is one.
pub(crate) fn gpr(register: Register) -> Option<u8> {
    // Those of 32 and of 64 bits, which most are, follow each other.
    const { assert!(Register::RAX as u32 == Register::EAX as u32 + 16) };
    let wide = (register as u32).wrapping_sub(Register::EAX as u32);
    if wide < 32 {
        return Some(wide as u8 & 15);
    }
    let full = register.full_register();
    full.is_gpr64().then(|| full.number() as u8)
}

/// The memory operand's address, unless it cannot be recomputed by `lea`.
pub(crate) fn operand(instruction: &Instruction) -> Option<Mem> {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    if index.is_vector_register() || base == Register::RIP || base == Register::EIP {
        return None;
    }
    let mut mem = based(base, instruction.memory_displacement64() as i32);
    if index.is_gpr32() || index.is_gpr64() {
        mem = mem.with_index(Gpr(index.number() as u8), instruction.memory_index_scale() as u8);
    }
    Some(if base.is_gpr32() || index.is_gpr32() { mem.narrowed() } else { mem })
}

/// The address `disp` behind `base`, if that is a register.
pub(crate) fn based(base: Register, disp: i32) -> Mem {
    if base == Register::None { Mem::absolute(disp) } else { Mem::at(Gpr(base.number() as u8), disp) }
}

fn flow_of(instruction: &Instruction) -> Flow {
    let target = || instruction.near_branch_target();
    match instruction.flow_control() {
        FlowControl::Next => match instruction.mnemonic() {
            Mnemonic::Hlt => Flow::End,
            Mnemonic::Syscall => Flow::Syscall,
            _ => Flow::Next,
        },
        FlowControl::UnconditionalBranch => Flow::Jump(target()),
        FlowControl::ConditionalBranch if instruction.is_jcc_short_or_near() => {
            Flow::Branch(target(), condition(instruction))
        }
        FlowControl::ConditionalBranch => Flow::Loop(target()),
        FlowControl::Call if instruction.is_call_near() => Flow::Call(target()),
        FlowControl::Call => Flow::Syscall,
        FlowControl::IndirectBranch => Flow::IndirectJump(through(instruction)),
        FlowControl::IndirectCall => Flow::IndirectCall,
        FlowControl::Return | FlowControl::Exception => Flow::End,
        FlowControl::Interrupt if instruction.mnemonic() == Mnemonic::Int3 => Flow::End,
        FlowControl::Interrupt => Flow::Syscall,
        _ => Flow::Next,
    }
}

fn through(instruction: &Instruction) -> Through {
    if instruction.op0_kind() == OpKind::Register {
        gpr(instruction.op0_register()).map_or(Through::Other, Through::Register)
    } else if instruction.is_ip_rel_memory_operand() {
        Through::Static
    } else if is_segmented(instruction) {
        Through::Other
    } else {
        operand(instruction).map_or(Through::Other, Through::Memory)
    }
}

fn is_segmented(instruction: &Instruction) -> bool {
    matches!(instruction.segment_prefix(), Register::FS | Register::GS)
}

/// iced's condition codes in the order of the encodings.
fn condition(instruction: &Instruction) -> u8 {
    use iced_x86::ConditionCode as C;
    match instruction.condition_code() {
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        _ => 15,
    }
}

/// Whether a memory operand is only named, not touched.
fn is_no_access(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Lea
            | M::Nop
            | M::Reservednop
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchnta
            | M::Prefetch
            | M::Prefetchw
            | M::Prefetchwt1
            | M::Prefetchit0
            | M::Prefetchit1
            | M::Cldemote
            | M::Clflush
            | M::Clflushopt
            | M::Clwb
            | M::Invlpg
    )
}

fn needs_alignment(instruction: &Instruction, size: usize) -> bool {
    use Mnemonic as M;
    size >= 16
        && matches!(
            instruction.mnemonic(),
            M::Movaps
                | M::Movapd
                | M::Movdqa
                | M::Movntdq
                | M::Movntps
                | M::Movntpd
                | M::Movntdqa
                | M::Vmovaps
                | M::Vmovapd
                | M::Vmovdqa
                | M::Vmovdqa32
                | M::Vmovdqa64
                | M::Vmovntdq
                | M::Vmovntps
                | M::Vmovntpd
                | M::Vmovntdqa
        )
}

/// Decodes an extent of the module's text.
pub(crate) fn decode(module: &Module<'_>, extent: Extent, want_sites: bool) -> Result<Decoded, Skip> {
    let Extent { start, end } = extent;
    let unsuitable = Skip { pc: start, reason: SkipReason::Unsuitable };
    let len = usize::try_from(end.0.saturating_sub(start.0)).map_err(|_| unsuitable)?;
    let bytes = module.find_text(start).and_then(|text| text.get(..len)).ok_or(unsuitable)?;
    let mut out = Decoded::default();
    let mut decoder = Decoder::with_ip(64, bytes, start.0, DecoderOptions::NONE);
    let mut uses = Uses::new();
    let mut instruction = Instruction::default();
    let mut index = alloc::vec![0; len];
    // x86-64 code has about four bytes an instruction, and accesses memory with two of five.
    out.insns.reserve(len / 4);
    out.sites.reserve(if want_sites { len / 10 } else { 0 });
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let pc = instruction.ip();
        if instruction.is_invalid() {
            return Err(Skip { pc: Pc(pc), reason: SkipReason::Undecodable });
        }
        if matches!(instruction.code(), Code::Xbegin_rel16 | Code::Xbegin_rel32) {
            return Err(Skip { pc: Pc(pc), reason: SkipReason::Transaction });
        }
        index[(pc - start.0) as usize] = out.insns.len() as u32 + 1;
        let insn = describe(&mut out, &mut uses, &instruction, want_sites);
        if instruction.is_ip_rel_memory_operand() {
            // Valid only right after decoding this instruction.
            insn.rip = decoder.get_constant_offsets(&instruction).displacement_offset() as u8;
            insn.rip_target = instruction.ip_rel_memory_address();
        }
        // Its last instruction.
        if instruction.mnemonic() == Mnemonic::Xchg
            && bytes[..(pc - start.0) as usize + instruction.len()].ends_with(&REQUEST)
        {
            (insn.flow, insn.reads, insn.kills) = (Flow::Request, ALL, 0);
            insn.writes |= RDX;
        }
        // Code at fixed addresses names labels and tables in this way too.
        if let Code::Mov_r32_imm32 | Code::Mov_r64_imm64 | Code::Mov_rm64_imm32 = instruction.code()
            && let named = instruction.immediate(1)
            && module.find_constants(Pc(named)).is_some()
        {
            out.taken.push(named);
        }
    }
    out.extents.push(Starts { start: start.0, first: 0, index });
    Ok(out)
}

/// How many instructions of a callee are looked at for what it overwrites, and for what it reads.
const CALLEE_LOOK: usize = 12;
const CALLEE_READ: usize = 256;

/// What the instructions at a function's entry tell its callers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callee {
    /// The callee-saved registers that it takes as its input, going by the order of its instructions: what it pushes
    /// or overwrites first is none. Compilers save each of them before its first use; hand-written helpers do take
    /// values in them.
    pub inputs: Set,
    /// What it overwrites before reading it, as far as its first instructions show.
    pub overwritten: Set,
}

/// What the function at `at` tells; `saved` are the callee-saved registers.
pub(crate) fn look_at_callee(saved: Set, module: &Module<'_>, at: Pc, uses: &mut Uses) -> Callee {
    let Some(bytes) = module.find_text(at) else { return Callee { inputs: saved, overwritten: 0 } };
    let end = module.find_extent(at).map(|index| module.extents[index].end.0);
    let len = end.map_or(bytes.len(), |end| (end - at.0) as usize);
    let bytes = bytes.get(..len).unwrap_or(bytes);
    let mut decoder = Decoder::with_ip(64, bytes, at.0, DecoderOptions::NONE);
    let (mut open, mut inputs) = (saved, 0);
    let (mut live, mut overwritten) = (0, 0);
    let mut is_straight = true;
    let mut instruction = Instruction::default();
    for number in 0..CALLEE_READ {
        is_straight &= number < CALLEE_LOOK;
        if open == 0 && !is_straight || !decoder.can_decode() {
            break;
        }
        decoder.decode_out(&mut instruction);
        let (effects, _) = uses.of(&instruction);
        is_straight &= !instruction.is_invalid() && flow_of(&instruction) == Flow::Next;
        if is_straight {
            live |= effects.reads & !overwritten;
            overwritten |= effects.kills & !live;
        }
        if instruction.code() == Code::Push_r64 {
            open &= !(1 << instruction.op0_register().number());
        }
        inputs |= effects.reads & open;
        open &= !(effects.reads | effects.kills);
    }
    Callee { inputs, overwritten }
}

/// Adds an instruction.
fn describe<'a>(
    out: &'a mut Decoded,
    uses: &mut Uses,
    instruction: &Instruction,
    want_sites: bool,
) -> &'a mut Insn {
    let (Effects { mut reads, mut kills, writes }, accesses) = uses.of(instruction);
    let flow = flow_of(instruction);
    if matches!(flow, Flow::Call(_) | Flow::End | Flow::Syscall) {
        (reads, kills) = (ALL, 0);
    }
    let segmented = is_segmented(instruction);
    let rip = instruction.is_ip_rel_memory_operand();
    if rip {
        out.taken.push(instruction.ip_rel_memory_address());
    } else if instruction.memory_index() != Register::None {
        let disp = instruction.memory_displacement64();
        if (0x1000..1 << 31).contains(&disp) {
            out.taken.push(disp);
        }
    }
    match accesses {
        _ if !want_sites => {}
        Accesses::Operand(None) => {}
        Accesses::Operand(Some(kind)) => {
            add_operand(out, instruction, kind, segmented);
        }
        Accesses::Listed(_) if is_no_access(instruction) => {}
        Accesses::Listed(info) => add_sites(out, instruction, info, segmented),
    }
    // Filled where it lies: what is put together elsewhere by bytes and words is slow to copy whole.
    let at = out.insns.len();
    out.insns.push(Insn::default());
    let insn = &mut out.insns[at];
    insn.pc = instruction.ip();
    insn.len = instruction.len() as u8;
    insn.flow = flow;
    (insn.reads, insn.kills, insn.writes) = (reads, kills, writes);
    insn.lock = instruction.has_lock_prefix();
    let first = instruction.op0_register().number() as u8;
    match instruction.code() {
        Code::Mov_r64_rm64 | Code::Mov_rm64_r64
            if instruction.op0_kind() == OpKind::Register && instruction.op1_kind() == OpKind::Register =>
        {
            insn.derive = Some((first, instruction.op1_register().number() as u8, false));
        }
        Code::Lea_r64_m if rip => insn.address_to = Some(first),
        Code::Lea_r64_m
            if instruction.memory_index() == Register::None && instruction.memory_base().is_gpr64() =>
        {
            let from = instruction.memory_base().number() as u8;
            insn.derive = Some((first, from, true));
            if from == first {
                insn.growth = instruction.memory_displacement64().cast_signed().try_into().unwrap_or(0);
            }
        }
        Code::Add_rm64_imm8 if instruction.op0_kind() == OpKind::Register => {
            insn.growth = instruction.immediate8to64() as i8;
        }
        Code::Sub_rm64_imm8 if instruction.op0_kind() == OpKind::Register => {
            insn.growth = (instruction.immediate8to64() as i8).checked_neg().unwrap_or(0);
        }
        Code::Inc_rm64 if instruction.op0_kind() == OpKind::Register => insn.growth = 1,
        Code::Push_r64 => insn.pushed = Some(first),
        Code::Pop_r64 => insn.popped = true,
        _ => insn.padding = instruction.mnemonic() == Mnemonic::Nop,
    }
    insn
}

/// How many bytes an access touches, or each of its elements when it is repeated.
fn access_size(instruction: &Instruction, used: &UsedMemory) -> usize {
    use Mnemonic as M;
    let memory_size = if instruction.is_string_instruction() {
        // How much a repeated one touches is not a property of the instruction.
        instruction.memory_size()
    } else {
        used.memory_size()
    };
    match instruction.mnemonic() {
        // The legacy area and the header (SDM vol. 1, 13.4).
        M::Xsave
        | M::Xsavec
        | M::Xsaveopt
        | M::Xrstor
        | M::Xsave64
        | M::Xsavec64
        | M::Xsaveopt64
        | M::Xrstor64 => 576,
        _ if memory_size.is_broadcast() => memory_size.element_size(),
        _ => memory_size.size(),
    }
}

/// Whether a string instruction, when it is repeated, ends where it finds what it looks for.
fn searches(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq
    )
}

/// The address of a string instruction's operand, if it has one that can be looked at.
fn string_operand(used: &UsedMemory) -> Option<Mem> {
    let base = gpr(used.base())?;
    let is_elsewhere = matches!(used.segment(), Register::FS | Register::GS);
    // The count of a repeated one is 32 bits wide where the address is.
    (!is_elsewhere && !used.base().is_gpr32()).then(|| Mem::at(Gpr(base), 0))
}

/// Adds the access to the operand in memory, for an instruction that makes no other and knows no masks.
fn add_operand(out: &mut Decoded, instruction: &Instruction, kind: AccessKind, segmented: bool) {
    out.operands += 1;
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let is_static =
        base == Register::None && index == Register::None || instruction.is_ip_rel_memory_operand();
    if is_static || segmented || matches!(base, Register::RSP | Register::ESP) {
        out.exempt += 1;
        return;
    }
    let size = instruction.memory_size().size();
    add_site(out, kind, size, operand(instruction).map(|mem| (mem, shape_of(instruction, size))));
}

fn shape_of(instruction: &Instruction, size: usize) -> Shape {
    if needs_alignment(instruction, size) { Shape::Aligned } else { Shape::Plain }
}

/// Adds an access of the instruction that comes next, unless it cannot be looked at.
fn add_site(out: &mut Decoded, kind: AccessKind, size: usize, found: Option<(Mem, Shape)>) {
    match found {
        Some((mem, shape)) if size != 0 && size <= 1024 => {
            let insn = out.insns.len() as u32;
            out.sites.push(Site { insn, mem, size: size as u16, kind, shape });
        }
        _ => out.unsupported += 1,
    }
}

fn add_sites(out: &mut Decoded, instruction: &Instruction, info: &InstructionInfo, segmented: bool) {
    let is_bit_string =
        matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
            && instruction.op1_kind() == OpKind::Register;
    let is_string = instruction.is_string_instruction();
    let repeated = is_repeated(instruction);
    let is_masked = masked::is_masked(instruction);
    let has_operand = (0..instruction.op_count()).any(|op| instruction.op_kind(op) == OpKind::Memory);
    let mut operand_done = false;
    for used in info.used_memory() {
        let Some(kind) = kind_of(used.access()) else { continue };
        let stack = matches!(used.base(), Register::RSP | Register::ESP);
        if stack && (!has_operand || operand_done || instruction.memory_base() != used.base()) {
            continue;
        }
        if is_masked && operand_done {
            continue;
        }
        out.operands += 1;
        let static_ = used.base() == Register::None && used.index() == Register::None
            || instruction.is_ip_rel_memory_operand() && !is_string;
        if stack
            || static_
            || segmented && !is_string
            || matches!(instruction.mnemonic(), Mnemonic::Leave | Mnemonic::Enter)
        {
            out.exempt += 1;
            continue;
        }
        let size = access_size(instruction, used);
        let found = if is_string {
            let shape = match repeated {
                true if searches(instruction) => Shape::Searched,
                true => Shape::Repeated,
                false => Shape::Plain,
            };
            string_operand(used).map(|mem| (mem, shape))
        } else if is_masked {
            masked::find(instruction).map(|(mem, masked)| (mem, Shape::Masked(masked)))
        } else if operand_done || !has_operand {
            None
        } else {
            let shape = if is_bit_string {
                gpr(instruction.op1_register()).map_or(Shape::Plain, Shape::Bit)
            } else if instruction.mnemonic() == Mnemonic::Xlatb {
                Shape::ByAl
            } else {
                shape_of(instruction, size)
            };
            operand(instruction).map(|mem| (mem, shape))
        };
        operand_done |= !is_string;
        add_site(out, kind, size, found);
    }
}
