//! What a thread's last walk saw, so that the next one need only check that it still stands.
//!
//! A walk from `(pc, sp, bp)` is determined by those registers, the rules, and the words that it reads: for each frame
//! the return address at `sp - 8` of the next, and perhaps the saved rbp. A program's outer frames rarely change
//! between two allocations, so once a walk reaches a frame of the last one, with equal registers, it compares the
//! words that led on from there. These loads do not wait for each other, as those of a walk by rules do.
//!
//! ```text
//!  frames:  [0] outermost … [m] where the walk met it … [len-1] innermost        sp descends
//!  frame:   pc (48 bits) with saved-rbp words (8 bits) above, sp, bp
//! ```
//!
//! Invariants: for `i < len - 1`, frame `i` was reached from frame `i + 1` by a rule that read `pc` at `sp - 8`, and
//! `bp` at `sp - 8·words` unless `words` is zero, in which case both have the same `bp`. A trail is of one generation
//! of rules. A signal handler that interrupts a change finds `busy` set and walks without.

use core::{
    cell::Cell,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering, compiler_fence},
};

use memcheck_model::{Pc, StackId};

use crate::{
    Process, Registers,
    walk::{PcKind, Plain, plain_step},
};

/// The longest walk that is remembered; longer ones are made by rules alone.
pub const TRAIL_FRAMES: usize = 32;

const WORDS_SHIFT: u32 = 48;
const PC_MASK: u64 = (1 << WORDS_SHIFT) - 1;

/// Single words, so that a word just written can be read at once (a wider load would have to wait).
struct Frame {
    packed: Cell<u64>,
    sp: Cell<u64>,
    bp: Cell<u64>,
}

impl Frame {
    #[inline]
    fn set(&self, at: Registers, bp_words: u32) {
        self.packed.set(at.pc | u64::from(bp_words) << WORDS_SHIFT);
        self.sp.set(at.sp);
        self.bp.set(at.bp);
    }

    #[inline]
    fn copy(&self, from: &Self) {
        self.packed.set(from.packed.get());
        self.sp.set(from.sp.get());
        self.bp.set(from.bp.get());
    }

    #[inline]
    fn registers(&self) -> Registers {
        Registers { pc: self.packed.get() & PC_MASK, sp: self.sp.get(), bp: self.bp.get() }
    }

    /// Whether the frame inside still leads here.
    #[inline]
    fn still_stands(&self, process: &impl Process) -> bool {
        let (packed, sp) = (self.packed.get(), self.sp.get());
        let words = packed >> WORDS_SHIFT;
        process.read(sp.wrapping_sub(8)) == Some(packed & PC_MASK)
            && (words == 0 || process.read(sp.wrapping_sub(words * 8)) == Some(self.bp.get()))
    }
}

const _: () = assert!(TRAIL_FRAMES < 256);

/// One thread's trail; all zero is an empty one.
pub struct Trail {
    generation: Cell<u32>,
    busy: AtomicBool,
    len: Cell<u8>,
    /// The id of the walk of `known_len` frames from frame `known_from - 1` outwards, if that is not zero.
    known_from: Cell<u8>,
    known_len: Cell<u8>,
    known_id: Cell<u32>,
    frames: [Frame; TRAIL_FRAMES],
    /// The frames that the current walk went by rules, before they join the others.
    fresh: [Frame; TRAIL_FRAMES],
}

/// What a walk along the trail gave: how many frames, and their id if it is known.
struct Walked {
    len: usize,
    id: Option<StackId>,
    /// Whether the trail now starts with these frames.
    is_kept: bool,
}

impl Trail {
    /// An empty trail.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            generation: Cell::new(0),
            busy: AtomicBool::new(false),
            len: Cell::new(0),
            known_from: Cell::new(0),
            known_len: Cell::new(0),
            known_id: Cell::new(0),
            frames: [const { Frame { packed: Cell::new(0), sp: Cell::new(0), bp: Cell::new(0) } };
                TRAIL_FRAMES],
            fresh: [const { Frame { packed: Cell::new(0), sp: Cell::new(0), bp: Cell::new(0) } };
                TRAIL_FRAMES],
        }
    }

    /// Writes the frames from a return address outwards to `out`, as [`crate::walk_in`] does with the rules of this
    /// generation, and gives their id: `intern` tells it for frames that were not met just before.
    #[inline]
    pub fn walk_id_in(
        &self,
        start: Registers,
        generation: u32,
        process: &impl Process,
        out: &mut [Pc],
        intern: impl FnOnce(&[Pc]) -> StackId,
    ) -> StackId {
        // Relaxed, with compiler fences: only this thread and its signal handlers see a trail.
        if out.len() > TRAIL_FRAMES || start.pc > PC_MASK || self.busy.load(Ordering::Relaxed) {
            let len = finish_in(start, process, out);
            return intern(&out[..len]);
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if self.generation.get() != generation {
            self.generation.set(generation);
            self.len.set(0);
            self.known_from.set(0);
        }
        let walked = self.walk_along_in(start, process, out);
        let id = walked.id.unwrap_or_else(|| {
            let id = intern(&out[..walked.len]);
            if walked.is_kept {
                self.known_id.set(id.0);
            }
            id
        });
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
        id
    }

    #[inline]
    fn walk_along_in(&self, start: Registers, process: &impl Process, out: &mut [Pc]) -> Walked {
        let mut unseen = usize::from(self.len.get());
        let (mut at, mut bp_words) = (start, 0);
        let mut len = 0;
        // By rules until a frame of the trail is met.
        let met = loop {
            if len == out.len() {
                break None;
            }
            out[len] = Pc(at.pc);
            while unseen > 0 && self.frames[unseen - 1].sp.get() < at.sp {
                unseen -= 1;
            }
            if unseen > 0 && self.frames[unseen - 1].registers() == at {
                len += 1;
                break Some(unseen - 1);
            }
            self.fresh[len].set(at, bp_words);
            len += 1;
            match plain_step(at, PcKind::Return, process) {
                Plain::Next { next, words } if next.pc <= PC_MASK => (at, bp_words) = (next, words),
                Plain::End => break None,
                _ => {
                    len += finish_in(at, process, &mut out[len - 1..]) - 1;
                    return Walked { len, id: None, is_kept: false };
                }
            }
        };
        let Some(met) = met else {
            self.replace(0..0, len, 0);
            return Walked { len, id: None, is_kept: true };
        };
        // Along the trail while it stands.
        let inner = len - 1;
        let mut outermost = met;
        while outermost > 0 && len < out.len() {
            let frame = &self.frames[outermost - 1];
            if !frame.still_stands(process) {
                break;
            }
            out[len] = Pc(frame.packed.get() & PC_MASK);
            len += 1;
            outermost -= 1;
        }
        // By rules again: usually one that says that there is no more.
        let along = len;
        let mut at = self.frames[outermost].registers();
        while len < out.len() {
            match plain_step(at, PcKind::Return, process) {
                Plain::Next { next, words } if next.pc <= PC_MASK => {
                    out[len] = Pc(next.pc);
                    self.fresh[len].set(next, words);
                    len += 1;
                    at = next;
                }
                Plain::End => break,
                _ => {
                    len += finish_in(at, process, &mut out[len - 1..]) - 1;
                    return Walked { len, id: None, is_kept: false };
                }
            }
        }
        let outer = len - along;
        if inner == 0 && outer == 0 {
            let is_known = usize::from(self.known_from.get()) == met + 1
                && usize::from(self.known_len.get()) == len
                && self.known_id.get() != 0;
            if is_known {
                return Walked { len, id: Some(StackId(self.known_id.get())), is_kept: true };
            }
            self.know(met, len);
        } else {
            if inner > 0 {
                self.frames[met].set(self.frames[met].registers(), bp_words);
            }
            self.replace(outermost..met + 1, inner, outer);
        }
        Walked { len, id: None, is_kept: true }
    }

    /// Puts `inner` fresh frames, from the first on, inside those `kept`, and `outer` ones, which follow in `fresh` where
    /// the kept ones lie in the walk, outside.
    fn replace(&self, kept: Range<usize>, inner: usize, outer: usize) {
        let middle = kept.len();
        // Without new ones outside, those there before stay, as many as there is room for.
        let below = if outer == 0 { kept.start.min(TRAIL_FRAMES - inner - middle) } else { outer };
        if outer == 0 {
            self.slide(kept.start - below..kept.end, 0);
        } else {
            self.slide(kept, outer);
        }
        for index in 0..outer {
            self.frames[outer - 1 - index].copy(&self.fresh[inner + middle + index]);
        }
        let total = below + middle + inner;
        for index in 0..inner {
            self.frames[total - 1 - index].copy(&self.fresh[index]);
        }
        self.len.set(total as u8);
        self.know(total - 1, inner + middle + outer);
    }

    /// Moves frames to where `to` is the first.
    fn slide(&self, from: Range<usize>, to: usize) {
        let put = |index: usize| self.frames[to + index].copy(&self.frames[from.start + index]);
        if to < from.start {
            (0..from.len()).for_each(put);
        } else if to > from.start {
            (0..from.len()).rev().for_each(put);
        }
    }

    /// The walk of `len` frames from `from` outwards is about to be told its id.
    fn know(&self, from: usize, len: usize) {
        self.known_from.set(from as u8 + 1);
        self.known_len.set(len as u8);
        self.known_id.set(0);
    }
}

/// The rest of a walk that no trail can hold, from the return address on that was found last.
#[cold]
#[inline(never)]
fn finish_in(at: Registers, process: &impl Process, out: &mut [Pc]) -> usize {
    crate::walk_in(at, PcKind::Return, process, out)
}

impl Default for Trail {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::{CfaBase, Rule};
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A stack of a few hundred words, and rules that depend on the low bits of the pc.
    struct Fake {
        words: Vec<u64>,
    }

    const BASE: u64 = 0x1000;

    impl Process for Fake {
        fn read(&self, addr: u64) -> Option<u64> {
            let index = addr.checked_sub(BASE).filter(|offset| offset.is_multiple_of(8))? / 8;
            self.words.get(index as usize).copied()
        }
        fn rule(&self, pc: u64, _: PcKind) -> Rule {
            let size = (pc >> 4 & 3) as i64 * 8;
            match pc & 15 {
                0..=5 => Rule::frame(CfaBase::Rsp, 8 + size, None),
                6..=9 => Rule::frame(CfaBase::Rsp, 16 + size, Some(-16)),
                10 | 11 => Rule::frame(CfaBase::Rbp, 16, Some(-16)),
                12 => Rule::Unknown,
                13 => Rule::frame(CfaBase::Realigned, 8, None),
                14 => Rule::Outermost,
                _ => Rule::Refused,
            }
        }
        fn is_code(&self, pc: u64) -> bool {
            pc & 0x40 == 0
        }
    }

    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 1u64..0x80,
            1 => (0u64..300).prop_map(|index| BASE + index * 8),
            1 => any::<u64>(),
        ]
    }

    fn id_of(frames: &[Pc]) -> StackId {
        StackId(frames.iter().fold(7u32, |hash, pc| hash.wrapping_mul(31).wrapping_add(pc.0 as u32 + 1)) | 1)
    }

    proptest! {
        #[test]
        fn a_trail_never_changes_what_a_walk_finds(
            words in prop::collection::vec(word(), 300),
            depth in 1usize..=TRAIL_FRAMES,
            captures in prop::collection::vec(
                (prop::collection::vec((0usize..300, word()), 0..3), 0u64..60, 1u64..0x40, any::<bool>()), 1..60),
        ) {
            let mut fake = Fake { words };
            let trail = Trail::new();
            let (mut bp, mut generation) = (BASE + 80, 1);
            for (changes, sp, pc, is_fresh) in captures {
                for (index, word) in changes {
                    fake.words[index] = word;
                }
                if is_fresh {
                    bp = BASE + sp * 16;
                    generation += u32::from(sp == 7);
                }
                let start = Registers { pc, sp: BASE + sp / 4 * 8, bp };
                for _ in 0..2 {
                    let (mut plain, mut by_trail) = ([Pc(0); TRAIL_FRAMES], [Pc(0); TRAIL_FRAMES]);
                    let len = crate::walk_in(start, PcKind::Return, &fake, &mut plain[..depth]);
                    let id = trail.walk_id_in(start, generation, &fake, &mut by_trail[..depth], id_of);
                    prop_assert_eq!(&by_trail[..len], &plain[..len]);
                    prop_assert_eq!(id, id_of(&plain[..len]));
                }
            }
        }
    }

    #[test]
    fn a_stack_met_again_is_not_interned_again() {
        let fake = Fake { words: std::vec![0x10, 0x20, 0x1e, 0, 0, 0] };
        let trail = Trail::new();
        let mut out = [Pc(0); 8];
        let start = Registers { pc: 1, sp: BASE, bp: 0 };
        let id = trail.walk_id_in(start, 1, &fake, &mut out, id_of);
        let again = trail.walk_id_in(start, 1, &fake, &mut out, |_| panic!("it is known"));
        assert_eq!(id, again);
        let with_new_rules = trail.walk_id_in(start, 2, &fake, &mut out, |_| StackId(5));
        assert_eq!(with_new_rules, StackId(5));
    }

    #[test]
    fn a_trail_in_use_is_left_alone() {
        let fake = Fake { words: std::vec![0x10, 0x20, 0x1e, 0, 0, 0] };
        let trail = Trail::new();
        let start = Registers { pc: 1, sp: BASE, bp: 0 };
        let (mut outer, mut inner) = ([Pc(0); 8], [Pc(0); 8]);
        let id = trail.walk_id_in(start, 1, &fake, &mut outer, |frames| {
            let interrupting = Registers { pc: 2, ..start };
            assert_ne!(trail.walk_id_in(interrupting, 1, &fake, &mut inner, id_of), id_of(frames));
            id_of(frames)
        });
        assert_eq!(trail.walk_id_in(start, 1, &fake, &mut outer, |_| panic!("it is known")), id);
    }
}
