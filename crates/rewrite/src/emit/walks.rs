//! What is laid for loops that walk along arrays; see `walks`.

use super::Emitter;
use crate::{
    asm::{Cond, Gpr, Label, Mem},
    blob::Part,
    walks::{SHORT, Stride, Walk},
};

/// How many words of shadow a look goes through, of 64 bytes each. The last page of user space is never mapped, so the
/// look at what lies behind any that is stays in the shadow.
const WORDS: u32 = 60;
/// How many are looked at in one go: a divisor of those.
const SEVERAL: u32 = 4;
/// More turns than any look finds.
const MOST_TURNS: u32 = 1 << 16;
/// The slots for the registers that a look works with.
const WORK_SLOTS: [i32; 4] = [0, 4, 5, 6];

/// What is to be laid out of line for a loop.
pub(super) struct Look<'a> {
    walk: &'a Walk,
    start: Label,
}

impl<'a> Emitter<'a> {
    /// Stands at the block's entry; gives the label of the place that its own jump goes to.
    pub(super) fn walk_begins(&mut self, walk: &'a Walk) -> Label {
        self.mark(&self.first_of(walk), Part::Check);
        let [top, start] = [(); 2].map(|()| self.asm.new_label());
        self.asm.mov_imm(Gpr(walk.limit), u32::from(SHORT).wrapping_neg());
        self.asm.bind(top);
        self.asm.add_imm(Gpr(walk.limit), 1);
        self.asm.jcc(Cond::Equal, start);
        self.looks.push(Look { walk, start });
        top
    }

    fn first_of(&self, walk: &Walk) -> crate::decode::Insn {
        self.code.insns[self.graph.blocks[walk.block as usize].first as usize]
    }

    /// The look, and the block without checks.
    pub(super) fn long_loop(&mut self, look: &Look<'a>) {
        let [again, resume] = [(); 2].map(|()| self.asm.new_label());
        self.look(look.walk, look.start);
        self.asm.jmp(resume);
        let block = &self.graph.blocks[look.walk.block as usize];
        self.mark(&self.first_of(look.walk), Part::Check);
        self.asm.bind(again);
        self.asm.cmp(Gpr(look.walk.counter), Gpr(look.walk.limit));
        self.asm.jcc(Cond::GreaterEqual, look.start);
        self.asm.bind(resume);
        self.turn = Some((block.end - 1, again));
        for index in block.first..block.end {
            let insn = &self.code.insns[index as usize];
            self.mark(insn, Part::Instruction);
            self.insn(index, insn);
        }
        let last = &self.code.insns[block.end as usize - 1];
        self.go_on(last.pc + u64::from(last.len));
    }

    /// Settles a turn's accesses and moves the limit. Flags are dead here.
    fn look(&mut self, walk: &Walk, start: Label) {
        let first = self.first_of(walk);
        let [address, granule, words, turns] = walk.work.map(Gpr);
        let (counter, limit) = (Gpr(walk.counter), Gpr(walk.limit));
        self.mark(&first, Part::Check);
        self.asm.bind(start);
        for (register, slot) in walk.work.into_iter().zip(WORK_SLOTS) {
            self.asm.store(self.slot(slot), Gpr(register));
        }
        self.asm.mov_imm(turns, MOST_TURNS);
        for stride in &walk.strides {
            self.asm.mov_imm(words, WORDS);
            self.find_end(stride, address, granule, words);
            self.count_turns(stride, address, granule, turns);
            self.mark(&first, Part::Check);
        }
        // Good are this turn and `turns` more.
        self.asm.shl(turns, walk.growth);
        self.asm.lea(limit, Mem::indexed(counter, turns, 1, 1));
        // A counter this large might wrap around below the limit.
        let is_small = self.asm.new_label();
        self.asm.mov(address, limit);
        self.asm.sar(address, 62);
        self.asm.cmp_imm(address, 1);
        self.asm.jcc(Cond::NotEqual, is_small);
        self.asm.mov_imm64(limit, i64::MIN);
        self.asm.bind(is_small);
        for (register, slot) in walk.work.into_iter().zip(WORK_SLOTS) {
            self.asm.load(Gpr(register), self.slot(slot));
        }
    }

    /// Puts the number of a granule into `granule`, up to which all from the stride's first on are good. Where an address
    /// has no shadow, each look passes, as those of all checks do.
    fn find_end(&mut self, stride: &Stride, address: Gpr, granule: Gpr, words: Gpr) {
        let shadow = Mem::at(granule, self.config.shadow_base.cast_signed());
        let asm = &mut self.asm;
        let [several, one_is_bad, more, found, done] = [(); 5].map(|()| asm.new_label());
        asm.lea(granule, stride.mem);
        asm.shr3(granule);
        asm.bind(several);
        for word in 0..SEVERAL as i32 {
            asm.cmp_mem_zero(8, shadow.plus(8 * word));
            asm.jcc(Cond::NotEqual, one_is_bad);
        }
        asm.lea(granule, Mem::at(granule, 8 * SEVERAL as i32));
        asm.lea(words, Mem::at(words, -(SEVERAL as i32)));
        asm.test(words);
        asm.jcc(Cond::NotEqual, several);
        asm.jmp(done);
        // One of these words is not all zero, unless another thread changed it meanwhile.
        asm.bind(one_is_bad);
        asm.mov_imm(words, SEVERAL);
        asm.bind(more);
        asm.load(address, shadow);
        asm.test(address);
        asm.jcc(Cond::NotEqual, found);
        asm.lea(granule, Mem::at(granule, 8));
        asm.lea(words, Mem::at(words, -1));
        asm.test(words);
        asm.jcc(Cond::NotEqual, more);
        asm.jmp(done);
        asm.bind(found);
        asm.find_lowest(address, address);
        asm.shr3(address);
        asm.lea(granule, Mem::indexed(granule, address, 1, 0));
        asm.bind(done);
    }

    /// Lowers `turns` to how often the stride can move before it passes `granule`; settles its accesses when even they
    /// are not all below it.
    fn count_turns(&mut self, stride: &Stride, address: Gpr, granule: Gpr, turns: Gpr) {
        let [is_good, next] = [(); 2].map(|()| self.asm.new_label());
        self.asm.lea(address, stride.mem);
        self.asm.shl(granule, 3);
        self.asm.sub(granule, address);
        self.asm.lea(granule, Mem::at(granule, stride.mem.disp.wrapping_sub(stride.end)));
        self.asm.test(granule);
        self.asm.jcc(Cond::NotNegative, is_good);
        for &(site, mem) in &stride.sites {
            let site = &self.code.sites[site as usize];
            self.mark(&self.code.insns[site.insn as usize], Part::Check);
            self.settle_site(address, site, mem);
        }
        self.asm.mov_imm(turns, 0);
        self.asm.jmp(next);
        self.asm.bind(is_good);
        if let Some(step) = stride.step {
            self.asm.shr(granule, step);
            self.asm.cmp(granule, turns);
            self.asm.jcc(Cond::GreaterEqual, next);
            self.asm.mov(turns, granule);
        }
        self.asm.bind(next);
    }
}
