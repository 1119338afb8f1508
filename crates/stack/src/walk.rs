//! Walking a stack from the inside out.
//!
//! Each step is one [`Rule`]; a step that does not lead upwards, or to memory that the caller will not read, ends
//! the walk: no frame is guessed. Where nothing is known of the code (`Rule::Unknown`), the frame pointer is followed
//! only while it looks like one: above the stack pointer, aligned, and the return address beside it in known code.

use memcheck_model::Pc;

use crate::{CfaBase, Rule, rule::UsualFrame};

/// Where a walk stands: the registers of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The instruction pointer, or the return address.
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer.
    pub bp: u64,
}

/// Whether the pc of a frame is an instruction or the address after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PcKind {
    /// The instruction itself: the innermost frame, or one that a signal interrupted.
    Exact,
    /// The instruction after a call.
    Return,
}

/// What a walk needs to know of the process.
pub trait Process {
    /// The word at `addr`, if that is stack which may be read.
    fn read(&self, addr: u64) -> Option<u64>;
    /// The word at `addr` once more: only for an address above the stack pointer that the walk started with, of which
    /// `read` had a word when the stack had this end, or one further out. Need not look whether it may be read.
    fn read_again(&self, addr: u64) -> u64;
    /// Where the stack ends.
    fn stack_end(&self) -> u64;
    /// The rule for a frame.
    fn rule(&self, pc: u64, kind: PcKind) -> Rule;
    /// The same, as [`Rule::encode`] has it.
    #[inline(always)]
    fn encoded_rule(&self, pc: u64, kind: PcKind) -> u32 {
        self.rule(pc, kind).encode()
    }
    /// Whether `pc` is known to be code.
    fn is_code(&self, pc: u64) -> bool;
    /// The walk goes on from this stack pointer, which may be on another stack: a signal's frame led there.
    fn enter(&self, _sp: u64) {}
}

/// What the usual rules say of a frame's caller.
pub(crate) enum Plain {
    /// Its registers are made of this frame's, of `[sp - 8]`, and of `[sp - 8·words]` unless `words` is zero.
    Next {
        /// The caller's registers.
        next: Registers,
        /// Where its rbp was.
        words: u32,
        /// Whether this frame's rbp led there.
        by_bp: bool,
    },
    /// There is none.
    End,
    /// The rule is not a usual one.
    Rare,
}

/// Offsets in the kernel's signal frame from the stack pointer that `rt_sigreturn` is entered with: the
/// `ucontext_t` lies there, `uc_mcontext` 40 bytes in it (asm/sigcontext.h: r8…r15 rdi rsi rbp rbx rdx rax rcx rsp rip).
const SIGNAL_RBP: u64 = 40 + 10 * 8;
const SIGNAL_RSP: u64 = 40 + 15 * 8;
const SIGNAL_RIP: u64 = 40 + 16 * 8;

/// Writes the pcs of the frames from `start` outwards to `out`, the innermost (`start.pc`) first, and returns how many.
#[inline]
pub fn walk_in(start: Registers, kind: PcKind, process: &impl Process, out: &mut [Pc]) -> usize {
    let (mut at, mut kind) = (start, kind);
    for (index, slot) in out.iter_mut().enumerate() {
        *slot = Pc(at.pc);
        match plain_step(at, kind, process) {
            Plain::Next { next, .. } => (at, kind) = (next, PcKind::Return),
            Plain::End => return index + 1,
            Plain::Rare => match step_rarely(at, kind, process) {
                Some((next, next_kind)) => (at, kind) = (next, next_kind),
                None => return index + 1,
            },
        }
    }
    out.len()
}

/// Inlined into the loops that go from frame to frame: the registers then stay in registers.
#[inline(always)]
pub(crate) fn plain_step(at: Registers, kind: PcKind, process: &impl Process) -> Plain {
    let rule = process.encoded_rule(at.pc, kind);
    let Some(UsualFrame { by_bp, cfa_words, rbp_words: words }) = UsualFrame::decode(rule) else {
        return match Rule::decode(rule) {
            Rule::Outermost | Rule::Refused => Plain::End,
            _ => Plain::Rare,
        };
    };
    let cfa = if by_bp { at.bp } else { at.sp }.wrapping_add(u64::from(cfa_words) * 8);
    if cfa <= at.sp {
        return Plain::End;
    }
    let Some(pc) = process.read(cfa.wrapping_sub(8)).filter(|&pc| pc != 0) else { return Plain::End };
    let bp = if words == 0 {
        at.bp
    } else if let Some(bp) = process.read(cfa.wrapping_sub(u64::from(words) * 8)) {
        bp
    } else {
        return Plain::End;
    };
    Plain::Next { next: Registers { pc, sp: cfa, bp }, words, by_bp }
}

/// All but the usual rules.
#[cold]
#[inline(never)]
fn step_rarely(at: Registers, kind: PcKind, process: &impl Process) -> Option<(Registers, PcKind)> {
    let (cfa, bp) = match process.rule(at.pc, kind) {
        Rule::Frame { base: CfaBase::SavedRsp, cfa_words, rbp_words } => {
            let cfa = process.read(at.sp.wrapping_add(u64::from(cfa_words) * 8))?.wrapping_add(8);
            let saved = cfa.wrapping_sub(u64::from(rbp_words) * 8);
            (cfa, if rbp_words == 0 { at.bp } else { process.read(saved)? })
        }
        Rule::Frame { base: CfaBase::Realigned, cfa_words, .. } => {
            (process.read(at.bp.wrapping_sub(u64::from(cfa_words) * 8))?, process.read(at.bp)?)
        }
        Rule::Signal => {
            let saved = |offset| process.read(at.sp.wrapping_add(offset));
            let next = Registers { pc: saved(SIGNAL_RIP)?, sp: saved(SIGNAL_RSP)?, bp: saved(SIGNAL_RBP)? };
            process.enter(next.sp);
            return Some((next, PcKind::Exact));
        }
        Rule::Unknown => return step_by_frame_pointer(at, process),
        Rule::Frame { .. } | Rule::Outermost | Rule::Refused => return None,
    };
    let pc = process.read(cfa.checked_sub(8).filter(|&slot| slot >= at.sp)?)?;
    (pc != 0).then_some((Registers { pc, sp: cfa, bp }, PcKind::Return))
}

fn step_by_frame_pointer(at: Registers, process: &impl Process) -> Option<(Registers, PcKind)> {
    if at.bp < at.sp || !at.bp.is_multiple_of(8) {
        return None;
    }
    let (bp, pc) = (process.read(at.bp)?, process.read(at.bp.checked_add(8)?)?);
    let next = Registers { pc, sp: at.bp.checked_add(16)?, bp };
    process.is_code(pc).then_some((next, PcKind::Return))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{collections::HashMap, vec::Vec};

    #[derive(Default)]
    struct Fake {
        memory: HashMap<u64, u64>,
        rules: HashMap<u64, Rule>,
    }

    impl Process for Fake {
        fn read(&self, addr: u64) -> Option<u64> {
            self.memory.get(&addr).copied()
        }
        fn read_again(&self, addr: u64) -> u64 {
            self.read(addr).unwrap()
        }
        fn stack_end(&self) -> u64 {
            u64::MAX
        }
        fn rule(&self, pc: u64, _: PcKind) -> Rule {
            self.rules.get(&pc).copied().unwrap_or(Rule::Unknown)
        }
        fn is_code(&self, pc: u64) -> bool {
            self.rules.contains_key(&pc)
        }
    }

    fn walk(process: &Fake, start: Registers) -> Vec<u64> {
        let mut out = [Pc(0); 8];
        let len = walk_in(start, PcKind::Exact, process, &mut out);
        out[..len].iter().map(|pc| pc.0).collect()
    }

    const START: Registers = Registers { pc: 1, sp: 0x1000, bp: 0x1020 };

    #[test]
    fn frames_of_both_bases_lead_to_the_outermost() {
        let mut fake = Fake::default();
        fake.rules.insert(1, Rule::frame(CfaBase::Rsp, 16, None));
        fake.rules.insert(2, Rule::frame(CfaBase::Rbp, 16, Some(-16)));
        fake.rules.insert(3, Rule::Outermost);
        fake.memory.extend([(0x1008, 2), (0x1028, 3), (0x1020, 0x5000)]);
        assert_eq!(walk(&fake, START), [1, 2, 3]);
    }

    #[test]
    fn a_signal_frame_leads_to_what_it_interrupted() {
        let mut fake = Fake::default();
        fake.rules.insert(1, Rule::Signal);
        fake.rules.insert(7, Rule::Outermost);
        fake.memory.extend([
            (0x1000 + SIGNAL_RIP, 7),
            (0x1000 + SIGNAL_RSP, 0x900),
            (0x1000 + SIGNAL_RBP, 0),
        ]);
        assert_eq!(walk(&fake, START), [1, 7]);
    }

    #[test]
    fn unknown_code_is_left_by_a_plausible_frame_pointer_only() {
        let mut fake = Fake::default();
        fake.rules.insert(2, Rule::Outermost);
        fake.memory.extend([(0x1020, 0x1100), (0x1028, 2)]);
        assert_eq!(walk(&fake, START), [1, 2]);
        fake.memory.insert(0x1028, 99);
        assert_eq!(walk(&fake, START), [1], "99 is no code");
        assert_eq!(walk(&fake, Registers { bp: 0x800, ..START }), [1], "below the stack pointer");
    }

    #[test]
    fn a_frame_that_does_not_lead_upwards_ends_the_walk() {
        let mut fake = Fake::default();
        fake.rules.insert(1, Rule::frame(CfaBase::Rbp, 16, None));
        fake.memory.extend([(0x808, 1)]);
        assert_eq!(walk(&fake, Registers { bp: 0x800, ..START }), [1]);
    }

    proptest! {
        #[test]
        fn any_memory_ends_the_walk(words in prop::collection::vec(any::<u64>(), 64), base: bool, cfa in 0i64..32) {
            let mut fake = Fake::default();
            for (index, &word) in words.iter().enumerate() {
                fake.memory.insert(0x1000 + index as u64 * 8, word);
                fake.rules.insert(word, Rule::frame(if base { CfaBase::Rsp } else { CfaBase::Rbp }, cfa * 8, None));
            }
            fake.rules.insert(1, Rule::frame(CfaBase::Rsp, 8, None));
            prop_assert!(walk(&fake, START).len() <= 8);
        }
    }
}
