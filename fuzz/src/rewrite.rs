//! Any bytes as functions: which they are, which belong together, and their copies.
//!
//! Oracle, for each copy that is made: each instruction of the original has a copy of its own, which does the same to the
//! same operands; each jump and call leads to the copy of what it led to, or where it led when that is elsewhere; all
//! that can be reached in the copy decodes, does not overlap, and leaves the copy only by those exits, the prelude's
//! routines and its cells.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use memcheck_model::{Addr, Pc};
use memcheck_rewrite::{
    CallTarget, Callees, Cell, Checks, CodeBlob, Config, Extent, Module, PRELUDE_BYTES, Part, Place,
    Processor, REPORT_RESUME, Resolver, SYSCALL_SKIP, Segment, Stress, Syscalls, Translation, discover,
    entry_room, find_linkage_cell, jumps_out, translate,
};

use crate::{fixture::library, input::Input};

const TEXT: u64 = 0x4000_1000;
const PLACE: Place = Place { code: Addr(0x5000_1000), prelude: Addr(0x5000_0000) };
const SLOT: u64 = 0x5800_0000;
const COPIES: u64 = 0x5900_0000;
/// Longer functions would only be slow.
const MOST_BYTES: usize = 1 << 11;

/// Where calls go, by the target's address: each way comes.
struct Ways(u8);

impl Resolver for Ways {
    fn call_target(&self, entry: Pc) -> CallTarget {
        match (entry.0 ^ u64::from(self.0)) % 3 {
            0 => CallTarget::Slot(Addr(SLOT + (entry.0 & 0xfff8))),
            1 => CallTarget::Direct(Addr(COPIES + (entry.0 & 0xffff))),
            _ => CallTarget::Original,
        }
    }
}

/// A byte of options, one for where calls go, up to seven cuts between functions, and the code.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let options = input.u8();
    let is = |bit: u8| options & bit != 0;
    let config = Config {
        shadow_base: 0x7fff_8000,
        spill_offset: -256,
        checks: if is(1) { Checks::Off } else { Checks::On },
        stress: if is(2) { Stress::On } else { Stress::Off },
        syscalls: if is(4) { Syscalls::Hooked } else { Syscalls::Native },
        processor: if is(8) { Processor::Baseline } else { Processor::Bmi2 },
    };
    let ways = Ways(input.u8());
    let cuts = input.u8() % 8;
    let mut ends: Vec<u64> = (0..cuts).map(|_| input.u16().into()).collect();
    let bytes = input.take(MOST_BYTES);
    ends.sort_unstable();
    let text = [Segment { start: Pc(TEXT), bytes }];
    let extent = |start: u64, end: u64| Extent { start: Pc(TEXT + start), end: Pc(TEXT + end) };
    let starts = [&[0][..], &ends].concat();
    ends.push(bytes.len() as u64);
    // Cuts may lie behind the text, as in a broken table.
    let stated: Vec<Extent> = starts.iter().zip(ends).map(|(&start, end)| extent(start, end)).collect();
    let symbols = if is(16) { &stated[..] } else { &stated[..0] };
    let unwind = if is(32) { &stated[..1] } else { &stated[..] };
    let extents = discover(&text, unwind, symbols).extents;
    let module = Module { text: text.to_vec(), constants: Vec::new(), extents, callees: Callees::default() };
    check_extents(&module, unwind);
    for index in 0..module.extents.len().min(8) {
        let Translation { functions: group, copy } = translate(&config, &module, index, &ways, PLACE);
        assert!(
            group.is_sorted()
                && group.contains(&index)
                && group.iter().all(|&each| each < module.extents.len())
        );
        if let Ok(blob) = copy {
            let extents = group.iter().map(|&index| module.extents[index]).collect();
            Copy { config: &config, module: &module, extents, ways: &ways, blob: &blob }.check();
        }
    }
}

fn check_extents(module: &Module<'_>, unwind: &[Extent]) {
    for (index, extent) in module.extents.iter().enumerate() {
        assert!(extent.start < extent.end, "{extent:?}");
        assert!(module.extents.get(index + 1).is_none_or(|next| extent.end <= next.start), "{extent:?}");
        assert!(unwind.contains(extent) || module.find_text(Pc(extent.end.0 - 1)).is_some(), "{extent:?}");
        let room = entry_room(module, index);
        let next = module.extents.get(index + 1).map_or(u64::MAX, |next| next.start.0);
        assert!(room >= extent.end.0 - extent.start.0 && extent.start.0 + room <= next, "{extent:?} {room}");
        assert!(jumps_out(module, *extent).iter().all(|&target| !extent.contains(target)));
    }
}

/// A copy, and what it was made of.
struct Copy<'a> {
    config: &'a Config,
    module: &'a Module<'a>,
    extents: Vec<Extent>,
    ways: &'a Ways,
    blob: &'a CodeBlob,
}

/// Where a jump or call of the copy should lead.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Goal {
    /// To this address.
    At(u64),
    /// To where the word at this address says.
    Through(u64),
}

impl Copy<'_> {
    fn check(&self) {
        let originals = self.originals();
        let copies: BTreeMap<u64, u32> = originals
            .keys()
            .map(|&pc| {
                (pc, self.blob.pc_map.find_copy(Pc(pc)).unwrap_or_else(|| panic!("{pc:#x} has no copy")))
            })
            .collect();
        let distinct: BTreeSet<u32> = copies.values().copied().collect();
        assert_eq!(distinct.len(), copies.len(), "two instructions have one copy");
        assert_eq!(self.blob.stats.instructions as usize, copies.len());
        for (extent, (pc, at)) in self.extents.iter().zip(&self.blob.entries) {
            assert_eq!((extent.start, self.find_arrival(pc.0)), (*pc, Some(*at)));
        }
        let mut exits = BTreeSet::new();
        for (&pc, original) in &originals {
            let at = copies[&pc];
            let origin = self.blob.pc_map.find_origin(at).expect("a copy has an origin");
            assert_eq!((origin.pc.0, usize::from(origin.len)), (pc, original.len()));
            assert_eq!(origin.part, Part::Instruction);
            self.check_instruction(original, at, &mut exits);
            if original.flow_control() != FlowControl::UnconditionalBranch {
                exits.extend(self.goals(original.next_ip()));
            }
        }
        self.check_reachable(copies.values().copied(), &exits);
    }

    /// The instructions of the originals, by address.
    fn originals(&self) -> BTreeMap<u64, Instruction> {
        let mut found = BTreeMap::new();
        for extent in &self.extents {
            let len = (extent.end.0 - extent.start.0) as usize;
            let bytes = &self.module.find_text(extent.start).expect("what is copied is there")[..len];
            let mut decoder = Decoder::with_ip(64, bytes, extent.start.0, DecoderOptions::NONE);
            while decoder.can_decode() {
                let instruction = decoder.decode();
                assert!(
                    !instruction.is_invalid(),
                    "copied, though {:#x} is no instruction",
                    instruction.ip()
                );
                found.insert(instruction.ip(), instruction);
            }
        }
        found
    }

    fn decode(&self, at: u32) -> Instruction {
        let bytes = self.blob.bytes.get(at as usize..).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, bytes, PLACE.code.0 + u64::from(at), DecoderOptions::NONE);
        decoder.decode()
    }

    /// Where jumps to this instruction of the group arrive in the copy.
    fn find_arrival(&self, pc: u64) -> Option<u32> {
        let find = |pc| self.blob.jump_targets.iter().find(|target| target.0.0 == pc).map(|target| target.1);
        // Behind a lock prefix: at the locked instruction.
        find(pc).or_else(|| find(pc - 1))
    }

    /// Where a jump of the original to `target` may lead in the copy.
    fn goals(&self, target: u64) -> Vec<Goal> {
        if self.extents.iter().any(|extent| extent.contains(Pc(target))) {
            let arrival = self.find_arrival(target);
            return arrival.map(|at| Goal::At(PLACE.code.0 + u64::from(at))).into_iter().collect();
        }
        match self.ways.call_target(Pc(target)) {
            CallTarget::Slot(slot) => vec![Goal::Through(slot.0)],
            CallTarget::Direct(copy) => vec![Goal::At(copy.0)],
            CallTarget::Original => {
                let cell = find_linkage_cell(self.module, Pc(target)).map(Goal::Through);
                cell.into_iter().chain([Goal::At(target)]).collect()
            }
        }
    }

    fn check_instruction(&self, original: &Instruction, at: u32, exits: &mut BTreeSet<Goal>) {
        let copy = self.decode(at);
        let context =
            || format!("{:#x} {:?} as {:?} at {at:#x}", original.ip(), original.code(), copy.code());
        let is_branch = (0..original.op_count()).any(|op| is_near_branch(original.op_kind(op)));
        if is_branch {
            let mut goals = self.goals(original.near_branch_target());
            if original.is_jcx_short() || original.is_loopcc() || original.is_loop() {
                // Out of the group they go natively.
                goals.push(Goal::At(original.near_branch_target()));
            }
            let (reached, condition) = self.reached(&copy, at);
            assert!(goals.contains(&reached), "{}: {reached:x?} is none of {goals:x?}", context());
            let of = |condition| {
                if original.is_jcc_short_or_near() { condition } else { original.condition_code() }
            };
            assert_eq!(of(condition), original.condition_code(), "{}", context());
            assert_eq!(
                original.flow_control() == FlowControl::Call,
                copy.flow_control() == FlowControl::Call
                    || matches!(copy.flow_control(), FlowControl::IndirectCall),
                "{}",
                context()
            );
            exits.extend(goals);
            return;
        }
        if original.flow_control() == FlowControl::IndirectBranch && copy.mnemonic() != Mnemonic::Jmp {
            // It looks the target up: first it makes room.
            assert_eq!(
                (copy.mnemonic(), copy.segment_prefix()),
                (Mnemonic::Mov, Register::FS),
                "{}",
                context()
            );
            return;
        }
        if original.mnemonic() == Mnemonic::Syscall && self.config.syscalls == Syscalls::Hooked {
            return;
        }
        self.check_operands(original, &copy, &context);
    }

    fn check_operands(&self, original: &Instruction, copy: &Instruction, context: &dyn Fn() -> String) {
        let is_table =
            self.blob.stats.tables > 0 && copy.memory_displacement64() != original.memory_displacement64();
        assert!(original.code() == copy.code() || is_table, "{}", context());
        assert_eq!(original.op_count(), copy.op_count(), "{}", context());
        let prefixes = |one: &Instruction| {
            (
                one.has_lock_prefix(),
                one.has_rep_prefix(),
                one.has_repne_prefix(),
                one.segment_prefix(),
                one.op_mask(),
                one.zeroing_masking(),
                one.rounding_control(),
                one.is_broadcast(),
            )
        };
        assert_eq!(prefixes(original), prefixes(copy), "{}", context());
        for op in 0..original.op_count() {
            assert_eq!(original.op_kind(op), copy.op_kind(op), "{}", context());
            match original.op_kind(op) {
                OpKind::Register => {
                    assert_eq!(original.op_register(op), copy.op_register(op), "{}", context())
                }
                OpKind::Memory => {
                    let shape =
                        |one: &Instruction| (one.memory_base(), one.memory_index(), one.memory_index_scale());
                    assert_eq!(shape(original), shape(copy), "{}", context());
                    let same = original.memory_displacement64() == copy.memory_displacement64();
                    assert!(same || is_table && !original.is_ip_rel_memory_operand(), "{}", context());
                }
                OpKind::Immediate8
                | OpKind::Immediate8_2nd
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate64
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64 => {
                    assert_eq!(original.immediate(op), copy.immediate(op), "{}", context());
                }
                _ => {}
            }
        }
    }

    /// Where the copy of a jump or call leads, and on which condition.
    fn reached(&self, copy: &Instruction, at: u32) -> (Goal, iced_x86::ConditionCode) {
        let condition = copy.condition_code();
        let next = at + copy.len() as u32;
        match copy.flow_control() {
            FlowControl::ConditionalBranch if copy.is_jcc_short_or_near() => {
                let then = self.decode(next);
                if copy.near_branch_target() == then.next_ip() && then.code() == Code::Jmp_rm64 {
                    // Over a jump through a slot.
                    let mut negated = *copy;
                    negated.negate_condition_code();
                    return (Goal::Through(then.memory_displacement64()), negated.condition_code());
                }
                (Goal::At(copy.near_branch_target()), condition)
            }
            FlowControl::ConditionalBranch => {
                // loop over a short jump, to a long one
                let over = self.decode(next);
                let long = self.decode(next + over.len() as u32);
                assert_eq!(
                    (copy.near_branch_target(), over.near_branch_target()),
                    (long.ip(), long.next_ip())
                );
                assert_eq!(long.code(), Code::Jmp_rel32_64);
                (Goal::At(long.near_branch_target()), condition)
            }
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                assert!(copy.is_ip_rel_memory_operand(), "{:?}", copy.code());
                (Goal::Through(copy.memory_displacement64()), condition)
            }
            _ => (Goal::At(copy.near_branch_target()), condition),
        }
    }

    /// Follows the copy from these places on.
    fn check_reachable(&self, copies: impl Iterator<Item = u32>, exits: &BTreeSet<Goal>) {
        let len = self.blob.bytes.len() as u32;
        let routines = PLACE.prelude.0 + 64..PLACE.prelude.0 + PRELUDE_BYTES as u64;
        let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
        let mut next: Vec<u32> = copies.chain(self.blob.jump_targets.iter().map(|target| target.1)).collect();
        while let Some(at) = next.pop() {
            assert!(at < len, "the copy runs past its end");
            let instruction = self.decode(at);
            assert!(!instruction.is_invalid(), "no instruction at {at:#x} of the copy");
            let end = at + instruction.len() as u32;
            if seen.insert(at, end).is_some() {
                continue;
            }
            let target = instruction.near_branch_target();
            // Exits first: a jump of the original may lead to where its copy happens to be.
            let mut follow = |target: u64| match target.checked_sub(PLACE.code.0) {
                _ if exits.contains(&Goal::At(target)) => {}
                Some(to) if to < len.into() => next.push(to as u32),
                _ => panic!("{at:#x} of the copy leads to {target:#x}"),
            };
            match instruction.flow_control() {
                FlowControl::UnconditionalBranch => follow(target),
                FlowControl::ConditionalBranch => {
                    follow(target);
                    next.push(end);
                }
                FlowControl::Call if is_near_branch(instruction.op0_kind()) => {
                    if routines.contains(&target) {
                        next.push(end + REPORT_RESUME as u32);
                    } else {
                        follow(target);
                    }
                    next.push(end);
                }
                FlowControl::IndirectCall => {
                    if instruction.memory_displacement64() == PLACE.prelude.0 + Cell::Syscall.offset() {
                        next.push(end + SYSCALL_SKIP as u32);
                    }
                    next.push(end);
                }
                FlowControl::Next | FlowControl::Call | FlowControl::XbeginXabortXend
                    if instruction.mnemonic() != Mnemonic::Hlt =>
                {
                    next.push(end);
                }
                FlowControl::Interrupt if instruction.mnemonic() != Mnemonic::Int3 => next.push(end),
                _ => {}
            }
        }
        let ends = seen.values();
        for ((at, _), end) in seen.iter().skip(1).zip(ends) {
            assert!(end <= at, "instructions at {at:#x} of the copy overlap");
        }
    }
}

fn is_near_branch(kind: OpKind) -> bool {
    matches!(kind, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

/// The functions of a library, and a few of all that instructions can do.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let pieces: [&[u8]; 12] = [
        &[0x48, 0x8b, 0x47, 8, 0x48, 0x8b, 0x4f, 16, 0x48, 1, 0xc8, 0x48, 0x89, 0x47, 24, 0xc3],
        &[0x39, 0xf2, 0x48, 0x8b, 0x0f, 0x7c, 1, 0x90, 0x31, 0xc0, 0xc3],
        &[0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x8b, 0x45, 0xf8, 0xc9, 0xc3],
        &[0xf3, 0x48, 0xab, 0xf3, 0xa6, 0xc3],
        &[0x0f, 0xab, 0x07, 0xff, 0xe0],
        &[0x31, 0xc0, 3, 7, 0xe2, 0xfc, 0xe3, 1, 0x90, 0xc3],
        &[0x74, 1, 0xf0, 0x0f, 0xb1, 0x0f, 0xc3],
        &[0x0f, 0x05, 0xe8, 0x10, 0, 0, 0, 0x74, 0x20, 0xeb, 0x20],
        &[0x62, 0xf1, 0x7c, 0x49, 0x10, 0x07, 0xc4, 0xe2, 0x7d, 0x2c, 0x07, 0xc3],
        &[0x62, 0xf2, 0x7d, 0x49, 0x90, 0x04, 0x87, 0xc4, 0xe2, 0x6d, 0x92, 0x04, 0x8f, 0xc3],
        &[0x48, 0x8b, 0x05, 0x10, 0, 0, 0, 0xff, 0x25, 0x20, 0, 0, 0],
        &[0x48, 0x8d, 0x15, 12, 0, 0, 0, 0x48, 0x63, 0x04, 0xba, 0x48, 1, 0xd0, 0xff, 0xe0, 0xc3],
    ];
    // cmp edi,1; ja 28; lea rdx,[rip+30]; movsxd rax,[rdx+rdi*4]; add rax,rdx; jmp rax; mov eax,1; ret; mov eax,2;
    // 28: ret │ 41: the table
    let mut table = vec![0x83, 0xff, 1, 0x77, 0x17, 0x48, 0x8d, 0x15, 29, 0, 0, 0];
    table.extend([0x48, 0x63, 0x04, 0xba, 0x48, 1, 0xd0, 0xff, 0xe0]);
    table.extend([0xb8, 1, 0, 0, 0, 0xc3, 0xc3, 0xb8, 2, 0, 0, 0, 0xc3]);
    table.resize(41, 0xcc);
    table.extend((21i32 - 41).to_le_bytes());
    table.extend((28i32 - 41).to_le_bytes());
    let mut seeds = vec![[&[0, 0, 1, 34, 0][..], &table].concat(), [&[4, 0, 1, 34, 0][..], &table].concat()];
    let all = pieces.concat();
    for (index, piece) in pieces.iter().enumerate() {
        let options = (index as u8).wrapping_mul(7);
        seeds.push([&[options, index as u8, 0][..], piece].concat());
        seeds.push([&[options ^ 4, index as u8, 2, 20, 0, 60, 0][..], &all[index..]].concat());
    }
    for options in [&["-O0"][..], &["-O2"], &["-O3", "-march=x86-64-v3"]] {
        let library = library(options);
        let elf = goblin::elf::Elf::parse(&library).expect("gcc makes ELF files");
        let functions = elf.syms.iter().filter(|symbol| symbol.is_function() && symbol.st_size > 0);
        for symbol in functions {
            let (start, size) = (symbol.st_value as usize, symbol.st_size as usize);
            // The first segment is mapped from the file's start.
            seeds.push([&[0, 1, 0][..], library.get(start..start + size).unwrap_or_default()].concat());
            seeds.push([&[14, 2, 0][..], library.get(start..start + size).unwrap_or_default()].concat());
        }
    }
    seeds
}
