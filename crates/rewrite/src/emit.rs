//! The copy's bytes: each instruction with what it needs to work at another address, the checks before it, and
//! behind the last function what the checks' filters could not settle.
//!
//! Spill slots: 0 the scratch register, 1 rax under saved flags, 2 and 3 saved flags and work values, 4 to 6 what
//! `spans` keeps, 6 also the number of a system call while it is made, 7 a range's length, 8 to 15 a vector. Invariant: no slot is live from one original instruction to the
//! next.

mod spans;
mod walks;

use alloc::vec::Vec;

use memcheck_model::Pc;

use crate::{
    CALL_SLOT, CallTarget, Cell, CodeBlob, Config, Extent, Module, Part, PcMap, Place, Processor, Resolver,
    Skip, SkipReason, Stats, Stress, Syscalls,
    asm::{Asm, Cond, Gpr, Label, Mem, Operand},
    blob::Run,
    decode::{Decoded, Flow, Insn, Shape, Site, Through},
    discover::find_linkage_cell,
    flow::{Graph, ends, find_insn},
    masked::{Layout, Masked},
    plan::{Check, Crossing, Plan},
    prelude::{RANGE_SLOT, Settle},
    tables::{Entry, Table},
};

/// How far from a table's base its replacement may be: 2 GiB less room for the function itself.
const REACH: i64 = (1 << 31) - (64 << 20);

/// How many bytes of copy an instruction takes, or somewhat more.
const COPY_BYTES: usize = 24;

/// Distances in bytes, from a register, that are smaller than what nobody maps at address 0.
const NEAR: u32 = 4096;

/// What lies out of line for a check.
struct Stub<'a> {
    check: &'a Check,
    start: Label,
    resume: Label,
}

pub(crate) struct Emitter<'a> {
    config: &'a Config,
    module: &'a Module<'a>,
    resolver: &'a dyn Resolver,
    place: Place,
    extents: &'a [Extent],
    code: &'a Decoded,
    graph: &'a Graph,
    asm: Asm,
    /// One for each block.
    labels: Vec<Label>,
    stubs: Vec<Stub<'a>>,
    looks: Vec<walks::Look<'a>>,
    /// The jump back of the block that walks, and where it goes.
    turn: Option<(u32, Label)>,
    /// What the instruction that comes next searches, to be looked at behind it.
    searches: Vec<&'a Site>,
    /// Tables that the copy reads, and where the displacement to each lies.
    tables: Vec<(&'a Table, usize)>,
    asks_map: bool,
    runs: Vec<Run>,
    stats: Stats,
}

impl<'a> Emitter<'a> {
    pub fn new(
        config: &'a Config,
        module: &'a Module<'a>,
        resolver: &'a dyn Resolver,
        place: Place,
        extents: &'a [Extent],
        code: &'a Decoded,
        graph: &'a Graph,
    ) -> Self {
        let mut asm = Asm::new(place.code.0);
        asm.bytes.reserve(code.insns.len() * COPY_BYTES);
        let labels = graph.blocks.iter().map(|_| asm.new_label()).collect();
        let stats = Stats {
            instructions: code.insns.len() as u32,
            operands: code.operands,
            exempt: code.exempt,
            unsupported: code.unsupported,
            checked: code.operands - code.exempt - code.unsupported,
            ..Stats::default()
        };
        Self {
            config,
            module,
            resolver,
            place,
            extents,
            code,
            graph,
            asm,
            labels,
            stubs: Vec::new(),
            looks: Vec::new(),
            turn: None,
            searches: Vec::new(),
            tables: Vec::new(),
            asks_map: false,
            runs: Vec::with_capacity(2 * code.insns.len()),
            stats,
        }
    }

    pub fn run(mut self, plan: &'a Plan) -> Result<CodeBlob, Skip> {
        let (mut checks, mut walks) = (plan.checks.iter().peekable(), plan.walks.iter().peekable());
        for (number, block) in self.graph.blocks.iter().enumerate() {
            let first = &self.code.insns[block.first as usize];
            if self.extents.iter().any(|extent| extent.start.0 == first.pc) {
                let padding = (16 - (self.place.code.0 + u64::from(self.asm.offset())) % 16) % 16;
                // One FDE may end where the next begins, in the middle of the code (glibc's setcontext): the padding
                // must let it through.
                let falls_in = number > 0 && !ends(self.code.insns[block.first as usize - 1].flow);
                let filler = if falls_in { [0x90; 16] } else { [0xcc; 16] };
                self.asm.raw(&filler[..padding as usize]);
            }
            self.asm.bind(self.labels[number]);
            if let Some(walk) = walks.next_if(|walk| walk.block as usize == number) {
                self.turn = Some((block.end - 1, self.walk_begins(walk)));
            }
            for index in block.first..block.end {
                while let Some(check) = checks.next_if(|check| check.at == index) {
                    self.check(check);
                }
                let insn = &self.code.insns[index as usize];
                self.mark(insn, Part::Instruction);
                self.insn(index, insn);
                for site in core::mem::take(&mut self.searches) {
                    self.mark(insn, Part::Check);
                    self.search_ends(site);
                }
                if !self.asm.fits {
                    return Err(Skip { pc: Pc(insn.pc), reason: SkipReason::OutOfReach });
                }
            }
            let last = &self.code.insns[block.end as usize - 1];
            let after = last.pc + u64::from(last.len);
            let goes_on = self.code.insns.get(block.end as usize).is_some_and(|next| next.pc == after);
            if !ends(last.flow) && !goes_on {
                self.leave(after);
            }
            self.turn = None;
        }
        for stub in core::mem::take(&mut self.stubs) {
            self.stub(&stub);
        }
        for look in core::mem::take(&mut self.looks) {
            self.long_loop(&look);
        }
        self.lay_tables();
        self.finish()
    }

    fn finish(self) -> Result<CodeBlob, Skip> {
        let base = self.extents[0].start;
        if !self.asm.fits {
            return Err(Skip { pc: base, reason: SkipReason::OutOfReach });
        }
        let entry = |extent: &Extent| {
            let insn = find_insn(self.code, extent.start.0)?;
            Some((extent.start, self.asm.offset_of(self.label_of(insn))))
        };
        let entries = self.extents.iter().filter_map(entry).collect();
        let starts = self.graph.blocks.iter().map(|block| Pc(self.code.insns[block.first as usize].pc));
        let offsets = self.labels.iter().map(|&label| self.asm.offset_of(label));
        let jump_targets = starts.zip(offsets).collect();
        let pc_map = PcMap { base, runs: self.runs.into_boxed_slice() };
        Ok(CodeBlob {
            entries,
            jump_targets,
            asks_map: self.asks_map,
            pc_map,
            stats: self.stats,
            bytes: self.asm.finish(),
        })
    }

    fn mark(&mut self, insn: &Insn, part: Part) {
        let original_offset = (insn.pc - self.extents[0].start.0) as u32;
        self.runs.push(Run { copy_offset: self.asm.offset(), original_offset, len: insn.len, part });
    }

    fn slot(&self, index: i32) -> Mem {
        Mem::fs(self.config.spill_offset + 8 * index)
    }

    // ---- instructions ----

    fn insn(&mut self, index: u32, insn: &Insn) {
        if let Some(table) = self.graph.tables.iter().find(|table| table.load == index)
            && self.is_replaced(table)
        {
            return self.load_from(table);
        }
        match insn.flow {
            Flow::Jump(target) => self.go_on(target),
            Flow::Branch(_, code) if let Some((_, again)) = self.turn.filter(|turn| turn.0 == index) => {
                self.asm.jcc_code(code, again);
            }
            Flow::Branch(target, code) => match find_insn(self.code, target) {
                Some(index) => self.asm.jcc_code(code, self.label_of(index)),
                None => self.leave_if(code, target),
            },
            Flow::Loop(target) => {
                // loop +2; jmp over the next; jmp target
                let bytes = self.bytes(insn);
                self.asm.raw(&bytes[..bytes.len() - 1]);
                self.asm.raw(&[2]);
                self.asm.raw(&[0xeb, 5, 0xe9]);
                match find_insn(self.code, target) {
                    Some(index) => {
                        // The same as `jmp`, always in its long form.
                        self.asm.bytes.pop();
                        self.asm.jmp_long(self.label_of(index));
                    }
                    None => self.asm.rel32(target, 0),
                }
            }
            Flow::Call(target) => self.call(target),
            Flow::IndirectJump(through) if through != Through::Other => {
                self.stats.indirect_jumps += 1;
                let table = self.graph.tables.iter().find(|table| table.jump == index);
                if table.is_some_and(|table| self.is_replaced(table))
                    || self.graph.tail_jumps.contains(&index)
                {
                    self.copy(insn);
                } else {
                    self.asks_map = true;
                    self.indirect_jump(insn, through);
                }
            }
            Flow::Syscall if self.config.syscalls != Syscalls::Native && self.bytes(insn) == [0x0f, 0x05] => {
                let is_followed = self.config.syscalls == Syscalls::Followed;
                if is_followed {
                    self.asm.store(self.slot(CALL_SLOT as i32), Gpr::RAX);
                }
                self.hook(Cell::Syscall);
                self.copy(insn);
                if is_followed {
                    self.hook(Cell::SyscallDone);
                    // So that the return address counts for this instruction.
                    self.asm.raw(&[0x90]);
                }
            }
            Flow::Request if self.config.syscalls != Syscalls::Native => {
                self.hook(Cell::Request);
                self.copy(insn);
            }
            _ => self.copy(insn),
        }
    }

    /// Calls the shim, with the stack of the crate's documentation.
    fn hook(&mut self, cell: Cell) {
        self.asm.move_rsp(-128);
        self.asm.push(Gpr::RAX);
        self.asm.call_mem(Operand::Rip(self.place.prelude.0 + cell.offset()));
    }

    /// The text from an instruction on.
    fn text_from(&self, insn: &Insn) -> &'a [u8] {
        self.module.find_text(Pc(insn.pc)).unwrap_or_default()
    }

    fn bytes(&self, insn: &Insn) -> &'a [u8] {
        self.text_from(insn).get(..usize::from(insn.len)).unwrap_or_default()
    }

    fn copy(&mut self, insn: &Insn) {
        if insn.rip == 0 {
            self.asm.copy(self.text_from(insn), insn.len.into());
            return;
        }
        let bytes = self.bytes(insn);
        let at = usize::from(insn.rip);
        self.asm.raw(&bytes[..at]);
        self.asm.rel32(insn.rip_target, (bytes.len() - at - 4) as u64);
        self.asm.raw(&bytes[at + 4..]);
    }

    fn label_of(&self, insn: usize) -> Label {
        self.labels[self.graph.block_of[insn] as usize]
    }

    fn target(&self, target: u64) -> CallTarget {
        self.resolver.call_target(Pc(target))
    }

    fn go_on(&mut self, target: u64) {
        match find_insn(self.code, target) {
            Some(index) => self.asm.jmp(self.label_of(index)),
            None => self.leave(target),
        }
    }

    fn leave(&mut self, target: u64) {
        match self.target(target) {
            CallTarget::Slot(slot) => self.asm.jmp_mem(Operand::Rip(slot.0)),
            CallTarget::Direct(copy) => self.asm.jmp_at(copy.0),
            CallTarget::Original => self.asm.jmp_at(target),
        }
    }

    fn leave_if(&mut self, code: u8, target: u64) {
        match self.target(target) {
            CallTarget::Slot(slot) => {
                self.asm.raw(&[0x70 | code ^ 1, 6]);
                self.asm.jmp_mem(Operand::Rip(slot.0));
            }
            CallTarget::Direct(copy) => self.asm.jcc_at(code, copy.0),
            CallTarget::Original => self.asm.jcc_at(code, target),
        }
    }

    fn call(&mut self, target: u64) {
        if let Some(index) = find_insn(self.code, target) {
            self.asm.call(self.label_of(index));
            return;
        }
        match self.target(target) {
            CallTarget::Slot(slot) => self.asm.call_mem(Operand::Rip(slot.0)),
            CallTarget::Direct(copy) => self.asm.call_at(copy.0),
            CallTarget::Original => match find_linkage_cell(self.module, Pc(target)) {
                Some(cell) if !self.module.is_entry(Pc(target)) => self.asm.call_mem(Operand::Rip(cell)),
                _ => self.asm.call_at(target),
            },
        }
    }

    /// Looks the target up in the module's jump map; what is not there is gone to natively.
    fn indirect_jump(&mut self, insn: &Insn, through: Through) {
        let cell = |cell: Cell| Operand::Rip(self.place.prelude.0 + cell.offset());
        let (start, bytes, map, base) =
            (cell(Cell::TextStart), cell(Cell::TextBytes), cell(Cell::JumpMap), cell(Cell::Base));
        let slots: Vec<Mem> = (0..4).map(|index| self.slot(index)).collect();
        let asm = &mut self.asm;
        let go = asm.new_label();
        asm.store(slots[0], Gpr::RAX);
        asm.store(slots[1], Gpr::RCX);
        match through {
            Through::Register(register) => asm.mov(Gpr::RCX, Gpr(register)),
            Through::Memory(mem) => asm.load(Gpr::RCX, mem),
            Through::Static => asm.load(Gpr::RCX, Operand::Rip(insn.rip_target)),
            Through::Other => {}
        }
        asm.save_flags();
        asm.store(slots[3], Gpr::RCX);
        asm.sub_mem(Gpr::RCX, start);
        asm.cmp_mem(Gpr::RCX, bytes);
        asm.jcc(Cond::AboveEqual, go);
        asm.store(slots[2], Gpr::RDX);
        asm.load(Gpr::RDX, map);
        asm.load_u32(Gpr::RCX, Mem::indexed(Gpr::RDX, Gpr::RCX, 4, 0));
        asm.load(Gpr::RDX, slots[2]);
        asm.test(Gpr::RCX);
        asm.jcc(Cond::Equal, go);
        asm.add_mem(Gpr::RCX, base);
        asm.store(slots[3], Gpr::RCX);
        asm.bind(go);
        asm.restore_flags();
        asm.load(Gpr::RAX, slots[0]);
        asm.load(Gpr::RCX, slots[1]);
        asm.jmp_mem(slots[3]);
    }

    // ---- tables ----

    /// Whether the copy reads a table of its own: it is within reach, and nothing looks at what was read from it.
    fn is_replaced(&self, table: &Table) -> bool {
        let distance = self.place.code.0.wrapping_sub(table.base).cast_signed();
        let unseen = |register: Gpr| {
            table.targets.iter().filter_map(|&target| find_insn(self.code, target)).all(|target| {
                let block = &self.graph.blocks[self.graph.block_of[target] as usize];
                let insns = &self.code.insns[target..block.end as usize];
                let first = insns.iter().find(|insn| (insn.reads | insn.writes) >> register.0 & 1 != 0);
                first.is_none_or(|insn| insn.flow != Flow::Next || insn.reads >> register.0 & 1 == 0)
            })
        };
        (-REACH..REACH).contains(&distance) && table.register.is_none_or(unseen)
    }

    fn load_from(&mut self, table: &'a Table) {
        // Any displacement that takes four bytes.
        let mem = table.mem.with_disp(i32::MAX);
        match (table.register, table.entry) {
            (None, _) => {
                self.stats.indirect_jumps += 1;
                self.asm.jmp_mem(mem);
            }
            (Some(register), Entry::Address) => self.asm.load(register, mem),
            (Some(register), Entry::From(_)) => self.asm.load_i32(register, mem),
        }
        self.stats.tables += 1;
        self.tables.push((table, self.asm.bytes.len() - 4));
    }

    /// Writes the tables behind the code.
    fn lay_tables(&mut self) {
        let mut laid: Vec<(&Table, u64)> = Vec::new();
        for (table, disp_at) in core::mem::take(&mut self.tables) {
            let same = |other: &&(&Table, u64)| {
                other.0.entry == table.entry
                    && other.0.start() == table.start()
                    && other.0.targets.len() == table.targets.len()
            };
            let at = match laid.iter().find(same) {
                Some(&(_, at)) => at,
                None => self.lay_table(table),
            };
            laid.push((table, at));
            // Within reach: `is_replaced`, and functions are smaller than what that leaves.
            let disp = at.wrapping_sub(table.base) as i32;
            self.asm.bytes[disp_at..disp_at + 4].copy_from_slice(&disp.to_le_bytes());
        }
    }

    fn lay_table(&mut self, table: &Table) -> u64 {
        while !(self.place.code.0 + u64::from(self.asm.offset())).is_multiple_of(8) {
            self.asm.raw(&[0xcc]);
        }
        let at = self.place.code.0 + u64::from(self.asm.offset());
        for &target in &table.targets {
            let to = match find_insn(self.code, target) {
                Some(insn) => self.place.code.0 + u64::from(self.asm.offset_of(self.label_of(insn))),
                None => target,
            };
            match table.entry {
                Entry::Address => self.asm.raw(&to.to_le_bytes()),
                Entry::From(from) => self.asm.raw(&(to.wrapping_sub(from) as i32).to_le_bytes()),
            }
        }
        at
    }

    // ---- checks ----

    fn site(&self, check: &Check) -> &'a Site {
        &self.code.sites[check.members[0] as usize]
    }

    fn check(&mut self, check: &'a Check) {
        let insn = self.code.insns[self.site(check).insn as usize];
        self.mark(&insn, Part::Check);
        self.stats.checks += 1;
        if self.config.stress == Stress::On {
            self.spoil(check);
        }
        match check.shape {
            Shape::Repeated => self.range(self.site(check)),
            Shape::Searched => self.search_begins(self.site(check)),
            Shape::Bit(register) => self.bit(self.site(check), register),
            Shape::ByAl => self.by_al(self.site(check)),
            Shape::Masked(Masked { layout: Layout::Indexed(index), mask, element, count }) => {
                self.gather(self.site(check), mask, index, element, count);
            }
            Shape::Plain | Shape::Aligned | Shape::Masked(_) => self.filter(check),
        }
    }

    /// Fills with garbage what liveness calls dead.
    fn spoil(&mut self, check: &Check) {
        for register in (0..16).filter(|register| check.dead >> register & 1 != 0) {
            self.asm.mov_imm(Gpr(register), 0x5bad_0000 | u32::from(register));
        }
        if !check.save_flags {
            self.asm.cmp_imm(Gpr::RSP, 0x55);
        }
    }

    fn filter(&mut self, check: &'a Check) {
        let scratch = Gpr(check.scratch);
        let rax_lives = check.dead & 1 == 0;
        self.stats.flags_saved += u32::from(check.save_flags);
        self.stats.spilled += u32::from(check.spill_scratch);
        let [slot0, slot1] = [0, 1].map(|index| self.slot(index));
        let asm = &mut self.asm;
        let [start, resume] = [(); 2].map(|()| asm.new_label());
        if check.spill_scratch {
            asm.store(slot0, scratch);
        }
        // Of an address that is a register and whole granules more, only the register is looked at: a register that
        // holds no address gives none with a small distance either.
        let disp = check.mem.disp;
        let is_direct = check.mem.index().is_none()
            && !check.mem.is_narrow()
            && disp % 8 == 0
            && disp.unsigned_abs() <= NEAR
            && !check.save_flags;
        let direct = check.mem.base().filter(|_| is_direct).map(|base| (Gpr(base), disp / 8));
        let rotates = self.config.processor == Processor::Bmi2 && check.crossing == Crossing::Tested(7);
        match direct {
            Some(_) if rotates => {}
            Some((base, _)) => asm.mov(scratch, base),
            None => asm.lea(scratch, check.mem),
        }
        if check.save_flags {
            if rax_lives {
                asm.store(slot1, Gpr::RAX);
            }
            asm.save_flags();
        }
        let looked_at = direct.filter(|_| rotates).map_or(scratch, |(base, _)| base);
        if let Crossing::Tested(mask) = check.crossing {
            asm.test_low(looked_at, mask);
            asm.jcc(Cond::NotEqual, start);
        }
        if check.crossing == Crossing::Always {
            asm.jmp(start);
        } else {
            if looked_at == scratch {
                asm.shr3(scratch);
            } else {
                // The three lowest bits are zero.
                asm.rotate3(scratch, looked_at);
            }
            let offset = direct.map_or(0, |(_, granules)| granules);
            self.compare_granules(scratch, offset, check.granules, start);
        }
        let asm = &mut self.asm;
        asm.bind(resume);
        if check.save_flags {
            asm.restore_flags();
            if rax_lives {
                asm.load(Gpr::RAX, slot1);
            }
        }
        if check.spill_scratch {
            asm.load(scratch, slot0);
        }
        self.stubs.push(Stub { check, start, resume });
    }

    /// Settles each member precisely.
    fn stub(&mut self, stub: &Stub<'a>) {
        let check = stub.check;
        self.asm.bind(stub.start);
        let kept_rax = check.save_flags && check.dead & 1 == 0;
        if check.save_flags {
            self.asm.store(self.slot(2), Gpr::RAX);
            if kept_rax {
                self.asm.load(Gpr::RAX, self.slot(1));
            }
        }
        let done = self.asm.new_label();
        match check.crossing {
            Crossing::Covered { inside: Some(mask) } => self.pass_inside(check, mask, done),
            Crossing::Tested(_) => self.pass_unaligned(check, done),
            Crossing::Covered { inside: None } | Crossing::Never | Crossing::Always => {}
        }
        for &member in &check.members {
            let site = &self.code.sites[member as usize];
            let insn = self.code.insns[site.insn as usize];
            self.mark(&insn, Part::Check);
            if let Shape::Masked(masked) = site.shape {
                self.settle_masked(Gpr(check.scratch), site, masked);
                continue;
            }
            self.settle_site(Gpr(check.scratch), site, site.mem);
        }
        self.asm.bind(done);
        if check.save_flags {
            self.asm.load(Gpr::RAX, self.slot(2));
        }
        self.asm.jmp(stub.resume);
    }

    /// Goes to `done` if an access that stays in its first granule may be made: then only the granule more that the filter
    /// looked at is bad, which is the end of a block.
    fn pass_inside(&mut self, check: &Check, mask: u8, done: Label) {
        let crosses = self.asm.new_label();
        let scratch = self.address(check);
        self.asm.test_low(scratch, mask);
        self.asm.jcc(Cond::NotEqual, crosses);
        self.asm.shr3(scratch);
        self.compare_granules(scratch, 0, 1, crosses);
        self.asm.jmp(done);
        self.asm.bind(crosses);
    }

    /// Goes to `done` if wherever in its granule the address begins, no granule that the accesses may lie in is bad:
    /// what made the filter fail is that it is not aligned, as much of packed data is not.
    fn pass_unaligned(&mut self, check: &Check, done: Label) {
        let is_bad = self.asm.new_label();
        let scratch = self.address(check);
        self.asm.shr3(scratch);
        self.compare_granules(scratch, 0, check.granules + 1, is_bad);
        self.asm.jmp(done);
        self.asm.bind(is_bad);
    }

    /// Computes the check's address out of line.
    fn address(&mut self, check: &Check) -> Gpr {
        self.mark(&self.code.insns[self.site(check).insn as usize], Part::Check);
        self.asm.lea(Gpr(check.scratch), check.mem);
        Gpr(check.scratch)
    }

    /// Goes to `bad` unless `count` granules are addressable, from number `scratch + first` on; `scratch` is lost.
    fn compare_granules(&mut self, scratch: Gpr, first: i32, count: u8, bad: Label) {
        let shadow = self.config.shadow_base.cast_signed() + first;
        let [first, last] = compares(count);
        let at = |offset: u8| Mem::at(scratch, shadow + i32::from(offset));
        if let Some((offset, size)) = first {
            self.asm.cmp_mem_zero(size, at(offset));
            self.asm.jcc(Cond::NotEqual, bad);
        }
        // A load and a test, which processors fuse with the jump, take less than a comparison with memory.
        if let Some((offset, size)) = last {
            self.asm.load_extended(size, scratch, at(offset));
            self.asm.test(scratch);
            self.asm.jcc(Cond::NotEqual, bad);
        }
    }

    /// Settles an access to `mem`, which does not use `register`; that and the flags are lost.
    fn settle_site(&mut self, register: Gpr, site: &Site, mem: Mem) {
        let settle = Settle::of(site);
        if settle.class == Settle::ODD {
            self.asm.mov_imm(register, site.size.into());
            self.asm.store(self.slot(RANGE_SLOT as i32), register);
        }
        self.asm.lea(register, mem);
        self.settle(register, settle);
    }

    /// Calls a settle routine for the address in `register`; flags are lost.
    fn settle(&mut self, register: Gpr, settle: Settle) {
        self.asm.move_rsp(-128);
        self.asm.push(register);
        self.asm.call_at(self.place.prelude.0 + settle.offset());
        self.asm.move_rsp(136);
        self.asm.raw(&[0xa8, settle.description()]);
    }
}

/// Offset and size of the one or two comparisons that look at exactly `granules` shadow bytes, at most sixteen.
fn compares(granules: u8) -> [Option<(u8, u8)>; 2] {
    let largest = 1 << granules.ilog2().min(3);
    let rest = granules - largest;
    // The second may look at some of the first's again, never beyond the end.
    let second = rest.next_power_of_two();
    if rest == 0 {
        [None, Some((0, largest))]
    } else {
        [Some((0, largest)), Some((granules - second, second))]
    }
}
