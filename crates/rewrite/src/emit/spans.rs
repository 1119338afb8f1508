//! Checks of what one operand's address and size do not tell: repeated string instructions, bit strings, masked
//! accesses, gathers.

use super::Emitter;
use crate::{
    asm::{Cond, Gpr, Label, Mem},
    decode::Site,
    masked::{Index, Layout, Mask, Masked},
    prelude::{RANGE_SLOT, Settle},
};

/// Where the addresses are kept that a search begins at: of `rsi` and of `rdi`.
const SEARCH_SLOTS: [i32; 2] = [1, 2];
/// The first of the slots for a vector.
const VECTOR_SLOT: i32 = 8;
/// The largest count that is believed: log2. A larger one is a negative number, and the first elements show it.
const MOST_COUNT_LOG: u8 = 40;
const HEAD_COUNT: u32 = 1 << 17;

impl<'a> Emitter<'a> {
    /// Keeps three registers in slots 4 to 6, rax in slot 0, the flags in slot 3; `give_back` undoes it.
    fn keep(&mut self, registers: [Gpr; 3]) {
        for (register, slot) in registers.into_iter().zip(4..) {
            self.asm.store(self.slot(slot), register);
        }
        self.asm.store(self.slot(0), Gpr::RAX);
        self.asm.save_flags();
        self.asm.store(self.slot(3), Gpr::RAX);
        self.asm.load(Gpr::RAX, self.slot(0));
    }

    fn give_back(&mut self, registers: [Gpr; 3]) {
        self.asm.load(Gpr::RAX, self.slot(3));
        self.asm.restore_flags();
        self.asm.load(Gpr::RAX, self.slot(0));
        for (register, slot) in registers.into_iter().zip(4..) {
            self.asm.load(register, self.slot(slot));
        }
    }

    const WORK: [Gpr; 3] = [Gpr::RAX, Gpr::RCX, Gpr::RDX];

    /// `rcx` elements from the address register on, downwards when DF is set.
    pub(super) fn range(&mut self, site: &Site) {
        let Some(base) = site.mem.base().map(Gpr) else { return };
        let size = site.size as u8;
        self.keep(Self::WORK);
        let [skip, believed, backwards, settle] = [(); 4].map(|()| self.asm.new_label());
        self.asm.test(Gpr::RCX);
        self.asm.jcc(Cond::Equal, skip);
        self.asm.mov(Gpr::RAX, Gpr::RCX);
        self.asm.shr(Gpr::RAX, MOST_COUNT_LOG);
        self.asm.test(Gpr::RAX);
        self.asm.jcc(Cond::Equal, believed);
        self.asm.mov_imm(Gpr::RCX, HEAD_COUNT);
        self.asm.bind(believed);
        let bytes = Mem::absolute(0).with_index(Gpr::RCX, size);
        self.asm.lea(Gpr::RDX, bytes);
        self.asm.move_rsp(-128);
        self.asm.raw(&[0x9c, 0x58]); // pushfq; pop rax
        self.asm.move_rsp(128);
        self.asm.sar(Gpr::RAX, 8);
        self.asm.test_low(Gpr::RAX, 4); // DF is bit 10
        self.asm.jcc(Cond::NotEqual, backwards);
        self.asm.mov(Gpr::RAX, base);
        self.asm.jmp(settle);
        self.asm.bind(backwards);
        self.asm.mov(Gpr::RAX, base);
        self.asm.sub(Gpr::RAX, Gpr::RDX);
        self.asm.lea(Gpr::RAX, Mem::at(Gpr::RAX, i32::from(size)));
        self.asm.bind(settle);
        self.asm.store(self.slot(RANGE_SLOT as i32), Gpr::RDX);
        self.settle(Gpr::RAX, Settle { class: Settle::RANGE, kind: site.kind });
        self.asm.bind(skip);
        self.give_back(Self::WORK);
    }

    fn search_slot(&self, base: Gpr) -> Mem {
        self.slot(SEARCH_SLOTS[usize::from(base == Gpr::RDI)])
    }

    /// How far a repeated compare reads is known behind it: it begins here, and nothing but the reading happens.
    pub(super) fn search_begins(&mut self, site: &'a Site) {
        let Some(base) = site.mem.base().map(Gpr) else { return };
        self.asm.store(self.search_slot(base), base);
        self.searches.push(site);
    }

    /// What a repeated compare has read: between where it began and where the address register is now.
    pub(super) fn search_ends(&mut self, site: &Site) {
        let Some(base) = site.mem.base().map(Gpr) else { return };
        self.keep(Self::WORK);
        let [skip, backwards, settle] = [(); 3].map(|()| self.asm.new_label());
        self.asm.load(Gpr::RAX, self.search_slot(base));
        self.asm.mov(Gpr::RDX, base);
        self.asm.cmp(Gpr::RDX, Gpr::RAX);
        self.asm.jcc(Cond::Equal, skip);
        self.asm.jcc(Cond::Below, backwards);
        self.asm.sub(Gpr::RDX, Gpr::RAX);
        self.asm.jmp(settle);
        self.asm.bind(backwards);
        self.asm.mov(Gpr::RDX, Gpr::RAX);
        self.asm.sub(Gpr::RDX, base);
        self.asm.lea(Gpr::RAX, Mem::at(base, i32::from(site.size)));
        self.asm.bind(settle);
        self.asm.store(self.slot(RANGE_SLOT as i32), Gpr::RDX);
        self.settle(Gpr::RAX, Settle { class: Settle::RANGE, kind: site.kind });
        self.asm.bind(skip);
        self.give_back(Self::WORK);
    }

    /// The element that holds bit number `register` counted from the operand's start (SDM, BT).
    pub(super) fn bit(&mut self, site: &Site, register: u8) {
        let size = site.size as u8;
        let mem = site.mem;
        let spare = |candidate: &u8| !mem.uses(*candidate) && *candidate != register;
        let scratch = [1u8, 2, 0].into_iter().find(spare).unwrap_or(1);
        if !spare(&scratch) {
            return; // three registers of the operand are rax, rcx and rdx
        }
        self.keep(Self::WORK);
        let scratch = Gpr(scratch);
        match size {
            8 => self.asm.mov(scratch, Gpr(register)),
            _ => self.asm.mov_signed(scratch, Gpr(register), size),
        }
        self.asm.sar(scratch, 3 + size.trailing_zeros() as u8);
        let elements = mem.with_index(scratch, size);
        self.asm.lea(scratch, elements);
        if let Some((index, scale)) = mem.index() {
            self.asm.lea(scratch, Mem::indexed(scratch, Gpr(index), scale, 0));
        }
        self.settle(scratch, Settle { class: size.trailing_zeros() as u8, kind: site.kind });
        self.give_back(Self::WORK);
    }

    /// The byte of a table that `al` numbers (SDM, XLAT).
    pub(super) fn by_al(&mut self, site: &Site) {
        self.keep(Self::WORK);
        self.asm.mov(Gpr::RCX, Gpr::RAX);
        self.asm.and_u32(Gpr::RCX, 0xff);
        self.asm.lea(Gpr::RCX, site.mem.with_index(Gpr::RCX, 1));
        self.settle(Gpr::RCX, Settle { class: 0, kind: site.kind });
        self.give_back(Self::WORK);
    }

    /// Settles the elements that a mask selects, until one is bad; flags are lost, and so is `address`.
    pub(super) fn settle_masked(&mut self, address: Gpr, site: &Site, masked: Masked) {
        let bits = if address == Gpr::RCX { Gpr::RDX } else { Gpr::RCX };
        let element = masked.element;
        let settle = Settle { class: element.trailing_zeros() as u8, kind: site.kind };
        let [again, skip, done] = [(); 3].map(|()| self.asm.new_label());
        self.asm.lea(address, site.mem);
        self.asm.store(self.slot(4), bits);
        self.load_mask(bits, masked.mask, masked.count);
        let apart = masked.layout == Layout::Apart;
        if masked.layout == Layout::Together {
            self.asm.popcnt(bits, bits);
        } else if masked.layout == Layout::Same {
            self.asm.test(bits);
            self.asm.jcc(Cond::Equal, done);
            self.asm.mov_imm(bits, 1);
        }
        self.asm.bind(again);
        self.asm.test(bits);
        self.asm.jcc(Cond::Equal, done);
        if apart {
            self.asm.test_low(bits, 1);
            self.asm.jcc(Cond::Equal, skip);
        }
        self.settle_or_end(address, settle, done);
        self.asm.bind(skip);
        self.asm.lea(address, Mem::at(address, i32::from(element)));
        if apart {
            self.asm.shr(bits, 1);
        } else {
            self.asm.lea(bits, Mem::at(bits, -1));
        }
        self.asm.jmp(again);
        self.asm.bind(done);
        self.asm.load(bits, self.slot(4));
    }

    /// Settles the elements of a gather or scatter, until one is bad.
    pub(super) fn gather(&mut self, site: &Site, mask: Mask, index: Index, element: u8, count: u8) {
        let base = site.mem.base();
        let mut spare = [0u8, 1, 2, 6].into_iter().filter(|&register| base != Some(register)).map(Gpr);
        let registers = [(); 3].map(|()| spare.next().unwrap_or(Gpr::RAX));
        let [address, bits, number] = registers;
        let settle = Settle { class: element.trailing_zeros() as u8, kind: site.kind };
        let [again, skip, done] = [(); 3].map(|()| self.asm.new_label());
        let vector = self.slot(VECTOR_SLOT);
        self.keep(registers);
        self.asm.store_vector(vector.disp, index.register, index.bytes, index.evex);
        self.load_mask(bits, mask, count);
        self.asm.mov_imm(number, 0);
        self.asm.bind(again);
        self.asm.test(bits);
        self.asm.jcc(Cond::Equal, done);
        self.asm.test_low(bits, 1);
        self.asm.jcc(Cond::Equal, skip);
        let entry = vector.with_index(number, index.entry);
        if index.entry == 4 {
            self.asm.load_i32(address, entry);
        } else {
            self.asm.load(address, entry);
        }
        self.asm.lea(address, site.mem.with_index(address, index.scale));
        self.settle_or_end(address, settle, done);
        self.asm.bind(skip);
        self.asm.lea(number, Mem::at(number, 1));
        self.asm.shr(bits, 1);
        self.asm.jmp(again);
        self.asm.bind(done);
        self.give_back(registers);
    }

    /// Puts the mask's lowest `count` bits into a register of the first eight.
    fn load_mask(&mut self, to: Gpr, mask: Mask, count: u8) {
        match mask {
            Mask::Opmask(register) => {
                self.asm.load_opmask(to, register, count.next_power_of_two().clamp(16, 64))
            }
            Mask::Signs { register, wide, element } => self.asm.load_signs(to, register, wide, element),
            Mask::Bytes(register) => self.asm.load_byte_signs(to, register),
            Mask::ShortBytes(register) => self.asm.load_short_byte_signs(to, register),
        }
        if count < 16 {
            self.asm.and_u32(to, (1 << count) - 1);
        }
    }

    /// As `settle`, but goes to `bad` after a report.
    fn settle_or_end(&mut self, register: Gpr, settle: Settle, bad: Label) {
        self.asm.move_rsp(-128);
        self.asm.push(register);
        self.asm.call_at(self.place.prelude.0 + settle.offset());
        // jmp +13; after a report it goes on behind these ten bytes, at the second jump.
        self.asm.raw(&[0xeb, 13, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, settle.description()]);
        self.asm.jmp_long(bad);
        self.asm.move_rsp(136);
    }
}
