//! What a thread's last walk saw, so that the next one need only check that it still stands.
//!
//! A walk from `(pc, sp, bp)` is determined by those registers, the rules, and the words that it reads: for each frame
//! the return address at `sp - 8` of the next, and perhaps the saved rbp. A program's outer frames rarely change
//! between two allocations, so once a walk reaches a frame of the last one, with equal registers, it compares the
//! words that led on from there. These loads do not wait for each other, as those of a walk by rules do; and the
//! hash of the frames from there on is known.
//!
//! ```text
//!  frames:  [0] outermost … [met] where the walk met it … [len-1] innermost        sp descends
//!  frame:   pc, sp, bp, link [ 17 needs | 16 passes | 15..0 offset ], hash of frames [0..=own]
//! ```
//!
//! Invariants: for `i < len - 1`, frame `i` was reached from frame `i + 1` by a rule that read `pc` at `sp - 8`, and
//! `bp` at `sp - offset`, or took it over (`passes`); so it is reached again whenever those words are there. Frames
//! further out depend on frame `i`'s rbp only if it `needs` one; otherwise that is not compared, `offset` is zero, and
//! `bp` may be an old one. A trail is of one generation of rules. A signal handler that interrupts a walk finds `busy`
//! set and walks without.
//!
//! A function that allocates and frees does so at several places, in one frame: a [`Head`] is such a place, met before,
//! whose caller is on the trail. When that caller's frames stand as they did, the stack's id is known.

use core::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering, compiler_fence},
};

use memcheck_model::{MAX_FRAMES, Pc, StackId};

use crate::{
    CfaBase, Depot, Process, Registers, Rule,
    depot::{OUTERMOST, StackHash},
    walk::{PcKind, Plain, plain_step, walk_in},
};

/// The most frames that are remembered.
const TRAIL_FRAMES: usize = MAX_FRAMES;
/// Up to so many frames inside those remembered are not worth remembering: the next walk likely has others.
const PASSING_FRAMES: usize = 1;

const OFFSET_MASK: u64 = 0xffff;
const PASSES: u64 = 1 << 16;
const NEEDS: u64 = 1 << 17;

struct Frame {
    pc: Cell<u64>,
    sp: Cell<u64>,
    bp: Cell<u64>,
    link: Cell<u64>,
    hash: Cell<u64>,
    /// The id of the stack of frames `[0..=own]`, if it is whole and was asked for.
    id: Cell<u32>,
}

impl Frame {
    const fn new() -> Self {
        let [pc, sp, bp, link, hash] = [const { Cell::new(0) }; 5];
        Self { pc, sp, bp, link, hash, id: Cell::new(0) }
    }

    fn set(&self, at: Registers, link: u64) {
        self.pc.set(at.pc);
        self.sp.set(at.sp);
        self.bp.set(at.bp);
        self.link.set(link);
    }

    #[inline]
    fn needs(&self) -> bool {
        self.link.get() & NEEDS != 0
    }

    #[inline]
    fn registers(&self) -> Registers {
        Registers { pc: self.pc.get(), sp: self.sp.get(), bp: self.bp.get() }
    }

    /// Whether a walk that stands at these registers goes on from here.
    #[inline]
    fn is_met(&self, at: Registers) -> bool {
        self.sp.get() == at.sp && self.pc.get() == at.pc && (!self.needs() || self.bp.get() == at.bp)
    }

    /// Whether the frame inside still leads here.
    #[inline]
    fn still_stands(&self, process: &impl Process) -> bool {
        let (sp, offset) = (self.sp.get(), self.link.get() & OFFSET_MASK);
        process.read_again(sp.wrapping_sub(8)) == self.pc.get()
            && (offset == 0 || process.read_again(sp.wrapping_sub(offset)) == self.bp.get())
    }
}

const _: () = assert!(TRAIL_FRAMES < 256);

/// How a frame that `needs` its rbp, or not, was reached when its rbp was `words` words below its stack pointer.
const fn link(needs: bool, words: u32) -> u64 {
    match (needs, words) {
        (false, _) => 0,
        (true, 0) => NEEDS | PASSES,
        (true, words) => NEEDS | (words as u64 * 8) & OFFSET_MASK,
    }
}

/// A walk's first frame, which led to frame `next` of the trail by `link`, and the id of the whole walk to frame `last`.
/// That ends there, whatever memory holds.
struct Head {
    start: [Cell<u64>; 3],
    cfa: Cell<u64>,
    /// Frame `next`'s.
    hash: Cell<u64>,
    link: Cell<u64>,
    id: Cell<u32>,
    next: Cell<u8>,
    last: Cell<u8>,
}

const HEADS: usize = 64;

impl Head {
    const fn new() -> Self {
        Self {
            start: [const { Cell::new(0) }; 3],
            cfa: Cell::new(0),
            hash: Cell::new(0),
            link: Cell::new(0),
            id: Cell::new(0),
            next: Cell::new(0),
            last: Cell::new(0),
        }
    }
}

/// What a walk along the trail found.
struct Found {
    stack: Stack,
    head: Option<NewHead>,
}

enum Stack {
    /// All frames to the outermost, fewer than are kept: those of the trail from this one on, and perhaps one inside.
    Whole { met: usize, inner: Option<Pc> },
    /// Any other.
    Other(StackHash),
}

/// The trail's frame that a head leads to, and how, and the last one.
struct NewHead {
    next: usize,
    link: u64,
    last: usize,
}

/// One thread's trail; all zero is an empty one.
pub struct Trail {
    /// Of the rules, and how deep walks go.
    terms: Cell<u64>,
    /// Of the stack that its frames are on.
    stack_end: Cell<u64>,
    busy: AtomicBool,
    len: Cell<u8>,
    /// Whether frame 0 is the outermost by its rule.
    is_whole: Cell<bool>,
    /// What was found in the depot last.
    latest: Cell<u32>,
    frames: [Frame; TRAIL_FRAMES],
    heads: [Head; HEADS],
}

impl Trail {
    /// An empty trail.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            terms: Cell::new(0),
            stack_end: Cell::new(0),
            busy: AtomicBool::new(false),
            len: Cell::new(0),
            is_whole: Cell::new(false),
            latest: Cell::new(0),
            frames: [const { Frame::new() }; TRAIL_FRAMES],
            heads: [const { Head::new() }; HEADS],
        }
    }

    /// The id of the stack from a return address outwards, of at most `depth` frames, as [`walk_in`] finds it with the
    /// rules of this generation; if it is one of the usual.
    #[inline]
    pub fn find(
        &self,
        start: Registers,
        generation: u32,
        depth: usize,
        process: &impl Process,
    ) -> Option<StackId> {
        // Relaxed, with compiler fences: only this thread and its signal handlers see a trail.
        if self.busy.load(Ordering::Relaxed) || self.terms.get() != terms(generation, depth) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let id = self.find_known(start, process);
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
        id
    }

    /// The same, whatever stack it is.
    pub fn capture(
        &self,
        start: Registers,
        generation: u32,
        depth: usize,
        process: &impl Process,
        depot: &Depot<'_>,
    ) -> StackId {
        if depth > MAX_FRAMES || self.busy.load(Ordering::Relaxed) {
            return capture_by_rules(start, depth, process, depot);
        }
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if self.terms.get() != terms(generation, depth) {
            self.terms.set(terms(generation, depth));
            self.len.set(0);
            self.heads.iter().for_each(|head| head.start.iter().for_each(|word| word.set(0)));
        }
        let found = self.walk_along(&start, depth, process);
        let id = match found.stack {
            Stack::Whole { met, inner } => {
                let id = self.id_of(met, depot);
                inner.filter(|_| id != StackId::NONE).map_or(id, |pc| self.branch(id, pc, depot))
            }
            Stack::Other(hash) => {
                let id = depot
                    .find(&hash, StackId(self.latest.get()))
                    .unwrap_or_else(|| capture_by_rules(start, depth, process, depot));
                self.latest.set(id.0);
                id
            }
        };
        if let Some(NewHead { next, link, last }) = found.head {
            let (head, frame) = (self.head(start), &self.frames[next]);
            let Registers { pc, sp, bp } = start;
            head.start.iter().zip([pc, sp, bp]).for_each(|(word, value)| word.set(value));
            head.cfa.set(frame.sp.get());
            head.hash.set(frame.hash.get());
            head.link.set(link);
            head.id.set(id.0);
            head.next.set(next as u8);
            head.last.set(last as u8);
        }
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
        id
    }

    #[inline]
    fn head(&self, start: Registers) -> &Head {
        let hash = (start.pc ^ start.sp.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.heads[(hash >> 58) as usize % HEADS]
    }

    /// The id of a walk that starts with a head.
    #[inline]
    fn find_known(&self, start: Registers, process: &impl Process) -> Option<StackId> {
        let head = self.head(start);
        let [pc, sp, bp] = &head.start;
        let (next, last) = (usize::from(head.next.get()), usize::from(head.last.get()));
        if (pc.get(), sp.get(), bp.get()) != (start.pc, start.sp, start.bp)
            || next >= usize::from(self.len.get())
            || self.stack_end.get() != process.stack_end()
        {
            return None;
        }
        let (rest, frame) = (self.frames.get(last..next)?, self.frames.get(next)?);
        let (cfa, link) = (frame.sp.get(), head.link.get());
        let offset = link & OFFSET_MASK;
        let is_same = cfa == head.cfa.get()
            && frame.hash.get() == head.hash.get()
            && process.read_again(cfa.wrapping_sub(8)) == frame.pc.get()
            && (offset == 0 || process.read_again(cfa.wrapping_sub(offset)) == frame.bp.get())
            && (link & PASSES == 0 || frame.bp.get() == start.bp);
        (is_same && rest.iter().all(|frame| frame.still_stands(process))).then_some(StackId(head.id.get()))
    }

    fn branch(&self, outer: StackId, pc: Pc, depot: &Depot<'_>) -> StackId {
        let id = depot.branch(outer, pc, StackId(self.latest.get()));
        self.latest.set(id.0);
        id
    }

    /// The id of the stack of frames `[0..=top]`.
    fn id_of(&self, top: usize, depot: &Depot<'_>) -> StackId {
        let known = self.frames[..=top].iter().rposition(|frame| frame.id.get() != 0);
        let mut id = known.map_or(OUTERMOST, |known| StackId(self.frames[known].id.get()));
        for frame in &self.frames[known.map_or(0, |known| known + 1)..=top] {
            id = self.branch(id, Pc(frame.pc.get()), depot);
            if id == StackId::NONE {
                break;
            }
            frame.id.set(id.0);
        }
        id
    }

    fn walk_along(&self, start: &Registers, depth: usize, process: &impl Process) -> Found {
        if self.stack_end.get() != process.stack_end() {
            self.stack_end.set(process.stack_end());
            self.len.set(0);
        }
        let mut hash = StackHash::new();
        let mut unseen = usize::from(self.len.get());
        let (mut at, mut bp_words) = (*start, 0);
        // By rules until a frame of the trail is met.
        let met = loop {
            while unseen > 0 && self.frames[unseen - 1].sp.get() < at.sp {
                unseen -= 1;
            }
            if unseen > 0 && self.frames[unseen - 1].is_met(at) {
                break unseen - 1;
            }
            hash.push(Pc(at.pc));
            if hash.len() == depth {
                self.remember(start, 0, hash.len(), process);
                return Found { stack: Stack::Other(hash), head: None };
            }
            match plain_step(at, PcKind::Return, process) {
                Plain::Next { next, words, .. } => (at, bp_words) = (next, words),
                end => {
                    self.remember(start, 0, hash.len(), process);
                    finish(at, &end, depth, process, &mut hash);
                    return Found { stack: self.whole(hash), head: None };
                }
            }
        };
        let inner = hash.len();
        // Along the trail while it stands.
        let last = (met + 1).saturating_sub(depth - inner);
        if let Some(changed) = self.frames[last..met].iter().position(|frame| !frame.still_stands(process)) {
            // The frames outside that one stand. But where one is met again is for rules to find: what is not needed
            // of its registers may be old.
            self.len.set((last + changed) as u8);
            return self.walk_along(start, depth, process);
        }
        if last == 0 && self.is_whole.get() && met + 1 + inner < depth {
            if inner > PASSING_FRAMES {
                hash.append(self.frames[met].hash.get(), 0, met + 1);
                self.remember(start, met + 1, inner, process);
                return Found { stack: self.whole(hash), head: None };
            }
            let innermost = (inner > 0).then_some(Pc(start.pc));
            let head = self.new_head(start, met, last, inner, bp_words);
            return Found { stack: Stack::Whole { met, inner: innermost }, head };
        }
        let beyond = if last == 0 { 0 } else { self.frames[last - 1].hash.get() };
        hash.append(self.frames[met].hash.get(), beyond, met + 1 - last);
        // By rules again: usually one that says that there is no more.
        let mut at = self.frames[last].registers();
        let along = hash.len();
        let end = loop {
            if hash.len() == depth {
                break Plain::End;
            }
            match plain_step(at, PcKind::Return, process) {
                Plain::Next { next, .. } => {
                    hash.push(Pc(next.pc));
                    at = next;
                }
                end => break end,
            }
        };
        let plain = hash.len();
        let mut head = None;
        if plain > along || met + 1 + inner > TRAIL_FRAMES {
            self.remember(start, 0, plain, process);
        } else if inner > PASSING_FRAMES {
            self.remember(start, met + 1, inner, process);
        } else if plain == depth || ends_here(at.pc, process) {
            head = self.new_head(start, met, last, inner, bp_words);
        }
        finish(at, &end, depth, process, &mut hash);
        Found { stack: Stack::Other(hash), head }
    }

    /// The head for a walk whose first frame is frame `met` (`inner` is zero) or led there.
    fn new_head(
        &self,
        start: &Registers,
        met: usize,
        last: usize,
        inner: usize,
        bp_words: u32,
    ) -> Option<NewHead> {
        match inner {
            0 if met > last => {
                let next = met - 1;
                Some(NewHead { next, link: self.frames[next].link.get(), last })
            }
            1 if u64::from(bp_words) * 8 <= self.frames[met].sp.get() - start.sp => {
                Some(NewHead { next: met, link: link(self.frames[met].needs(), bp_words), last })
            }
            _ => None,
        }
    }

    /// The stack that was just walked and, if that went well, remembered.
    fn whole(&self, hash: StackHash) -> Stack {
        match usize::from(self.len.get()).checked_sub(1) {
            Some(met) if self.is_whole.get() && met + 1 == hash.len() => Stack::Whole { met, inner: None },
            _ => Stack::Other(hash),
        }
    }

    /// Makes the `count` frames from `start` outwards, which plain steps lead through, those from `base` on.
    fn remember(&self, start: &Registers, base: usize, count: usize, process: &impl Process) {
        self.len.set(0);
        let (mut at, mut bp_words) = (*start, 0);
        let top = base + count;
        for index in (base..top).rev() {
            // For now as if it needed its rbp, and as if it led on by that.
            self.frames[index].set(at, link(true, bp_words));
            if index == 0 {
                break;
            }
            // Another thread may have written to the stack meanwhile.
            let Plain::Next { next, words, by_bp } = plain_step(at, PcKind::Return, process) else { return };
            if u64::from(words) * 8 > next.sp - at.sp {
                // Its rbp lies further in than itself, where nobody may look later.
                return;
            }
            if !by_bp {
                self.frames[index].link.set(self.frames[index].link.get() & !NEEDS);
            }
            (at, bp_words) = (next, words);
        }
        let mut hash = 0;
        if let Some(outside) = base.checked_sub(1).map(|met| &self.frames[met]) {
            if !outside.is_met(at) {
                return;
            }
            outside.set(at, link(outside.needs(), bp_words));
            hash = outside.hash.get();
        } else {
            self.is_whole.set(ends_here(at.pc, process));
            if self.is_whole.get() {
                self.frames[0].link.set(0);
            }
        }
        for index in base..top {
            let frame = &self.frames[index];
            frame.id.set(0);
            let is_needed_outside = index > 0 && self.frames[index - 1].link.get() & PASSES != 0;
            if is_needed_outside {
                frame.link.set(frame.link.get() | NEEDS);
            } else if !frame.needs() {
                frame.link.set(0);
            }
            hash = StackHash::with_inner(hash, Pc(frame.pc.get()));
            frame.hash.set(hash);
        }
        self.len.set((base + count) as u8);
    }
}

/// What walks of a trail depend on beside memory. Never zero.
#[inline]
const fn terms(generation: u32, depth: usize) -> u64 {
    (generation as u64) << 32 | depth as u64
}

/// Whether there is no frame further out because the rule says so.
#[inline]
fn ends_here(pc: u64, process: &impl Process) -> bool {
    matches!(process.rule(pc, PcKind::Return), Rule::Outermost | Rule::Refused)
}

/// The rest of a walk that no trail can hold, outwards from the frame that was found last.
#[inline]
fn finish(at: Registers, end: &Plain, depth: usize, process: &impl Process, hash: &mut StackHash) {
    if !matches!(end, Plain::End) {
        finish_by_rules([at.pc, at.sp, at.bp], depth, process, hash);
    }
}

/// The registers come as words, so that those of the loops that lead here need not be in memory.
#[cold]
#[inline(never)]
fn finish_by_rules([pc, sp, bp]: [u64; 3], depth: usize, process: &impl Process, hash: &mut StackHash) {
    let at = Registers { pc, sp, bp };
    let mut frames = [Pc(0); MAX_FRAMES];
    let len = walk_in(at, PcKind::Return, process, &mut frames[..depth + 1 - hash.len()]);
    frames[1..len].iter().for_each(|&pc| hash.push(pc));
}

/// The id of the stack from a return address outwards, found by rules alone.
#[cold]
#[inline(never)]
pub fn capture_by_rules(
    start: Registers,
    depth: usize,
    process: &impl Process,
    depot: &Depot<'_>,
) -> StackId {
    let mut frames = [Pc(0); MAX_FRAMES];
    let len = walk_in(start, PcKind::Return, process, &mut frames[..depth.min(MAX_FRAMES)]);
    let rule = |pc: &Pc| process.rule(pc.0, PcKind::Return);
    let is_whole = matches!(frames[..len].split_last(), Some((outermost, inner)) if len < depth
        && matches!(rule(outermost), Rule::Outermost | Rule::Refused)
        && inner.iter().all(|pc| matches!(rule(pc), Rule::Frame { base: CfaBase::Rsp | CfaBase::Rbp, .. })));
    if is_whole { depot.intern_whole(&frames[..len]) } else { depot.intern(&frames[..len]) }
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
    use crate::CfaBase;
    use core::sync::atomic::AtomicU64;
    use proptest::prelude::*;
    use std::{collections::HashMap, vec::Vec};

    /// A stack of a few hundred words, and rules that depend on the low bits of the pc.
    struct Fake {
        words: Vec<u64>,
        /// The stack pointer of the walk.
        start: u64,
    }

    const BASE: u64 = 0x1000;

    impl Process for Fake {
        fn read(&self, addr: u64) -> Option<u64> {
            let index = addr.checked_sub(BASE).filter(|offset| offset.is_multiple_of(8))? / 8;
            self.words.get(index as usize).copied()
        }
        fn read_again(&self, addr: u64) -> u64 {
            assert!(addr >= self.start, "{addr:#x} lies below the stack pointer");
            self.read(addr).unwrap()
        }
        fn stack_end(&self) -> u64 {
            BASE + 8 * self.words.len() as u64
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

    fn memory(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    proptest! {
        #[test]
        fn a_trail_never_changes_what_a_walk_finds(
            words in prop::collection::vec(word(), 300),
            depth in 1usize..=MAX_FRAMES,
            captures in prop::collection::vec(
                (prop::collection::vec((0usize..300, word()), 0..3), 0u64..60, 1u64..0x40, any::<bool>()), 1..60),
        ) {
            let mut fake = Fake { words, start: 0 };
            let trail = Trail::new();
            let (index, store) = (memory(1024), memory(16384));
            let depot = Depot::new(&index, &store);
            let mut ids: HashMap<Vec<Pc>, StackId> = HashMap::new();
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
                fake.start = start.sp;
                for _ in 0..3 {
                    let mut plain = [Pc(0); MAX_FRAMES];
                    let len = walk_in(start, PcKind::Return, &fake, &mut plain[..depth]);
                    let known = trail.find(start, generation, depth, &fake);
                    let id = trail.capture(start, generation, depth, &fake, &depot);
                    prop_assert!(known.is_none_or(|known| known == id));
                    let mut frames = [Pc(0); MAX_FRAMES];
                    prop_assert_eq!(depot.get_in(id, &mut frames), &plain[..len]);
                    prop_assert_eq!(*ids.entry(plain[..len].to_vec()).or_insert(id), id);
                    prop_assert_eq!(capture_by_rules(start, depth, &fake, &depot), id);
                }
            }
        }
    }

    /// A stack of frames of two words each, all of one pc, with an outermost one.
    fn recursion(frames: usize) -> Fake {
        let mut words: Vec<u64> = (0..frames).flat_map(|_| [0, 0x10]).collect();
        words.extend([0, 0x1e]);
        Fake { words, start: BASE }
    }

    #[test]
    fn a_recursion_deeper_than_a_trail_keeps_its_stacks() {
        let fake = recursion(200);
        let trail = Trail::new();
        let (index, store) = (memory(1024), memory(16384));
        let depot = Depot::new(&index, &store);
        for depth in [1, 5, 30, MAX_FRAMES] {
            for sp in (0..200).chain((0..200).rev()).step_by(3) {
                let start = Registers { pc: 0x10, sp: BASE + sp * 16, bp: 0 };
                let mut plain = [Pc(0); MAX_FRAMES];
                let len = walk_in(start, PcKind::Return, &fake, &mut plain[..depth]);
                let id = trail.capture(start, 1, depth, &fake, &depot);
                let mut frames = [Pc(0); MAX_FRAMES];
                assert_eq!(depot.get_in(id, &mut frames), &plain[..len], "{depth} {sp}");
                assert_eq!(id, capture_by_rules(start, depth, &fake, &depot), "{depth} {sp}");
            }
        }
    }

    #[test]
    fn two_places_of_one_function_are_known_when_met_again() {
        let fake = recursion(10);
        let trail = Trail::new();
        let (index, store) = (memory(1024), memory(1024));
        let depot = Depot::new(&index, &store);
        let places = [0x10, 0x50].map(|pc| Registers { pc, sp: BASE + 16, bp: 7 });
        for start in places.into_iter().chain(places) {
            trail.capture(start, 1, 30, &fake, &depot);
        }
        for start in places {
            let id = trail.find(start, 1, 30, &fake).unwrap();
            assert_eq!(id, trail.capture(start, 1, 30, &fake, &depot));
            assert_eq!(trail.find(start, 2, 30, &fake), None);
            assert_eq!(trail.find(start, 1, 29, &fake), None);
        }
    }

    #[test]
    fn new_rules_are_asked_again() {
        struct Changing<'a>(&'a Fake, Rule);
        impl Process for Changing<'_> {
            fn read(&self, addr: u64) -> Option<u64> {
                self.0.read(addr)
            }
            fn read_again(&self, addr: u64) -> u64 {
                self.0.read_again(addr)
            }
            fn stack_end(&self) -> u64 {
                self.0.stack_end()
            }
            fn rule(&self, _: u64, _: PcKind) -> Rule {
                self.1
            }
            fn is_code(&self, _: u64) -> bool {
                true
            }
        }
        let fake = recursion(8);
        let trail = Trail::new();
        let (index, store) = (memory(1024), memory(1024));
        let depot = Depot::new(&index, &store);
        let start = Registers { pc: 0x10, sp: BASE, bp: 0 };
        let every = Changing(&fake, Rule::frame(CfaBase::Rsp, 16, None));
        let other = Changing(&fake, Rule::frame(CfaBase::Rsp, 32, None));
        let before = trail.capture(start, 1, 30, &every, &depot);
        assert_ne!(trail.capture(start, 2, 30, &other, &depot), before);
    }

    #[test]
    fn a_trail_in_use_is_left_alone() {
        let fake = recursion(8);
        let trail = Trail::new();
        let (index, store) = (memory(1024), memory(1024));
        let depot = Depot::new(&index, &store);
        let start = Registers { pc: 0x10, sp: BASE, bp: 0 };
        let id = trail.capture(start, 1, 30, &fake, &depot);
        trail.busy.store(true, Ordering::Relaxed);
        let interrupting = Registers { pc: 0x20, ..start };
        assert_ne!(trail.capture(interrupting, 2, 30, &fake, &depot), id);
        assert_eq!(trail.terms.get(), terms(1, 30));
    }
}
