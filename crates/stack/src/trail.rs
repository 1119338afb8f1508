//! What a thread's last walk saw, so that the next one need only check that it still stands.
//!
//! A walk from `(pc, sp, bp)` is determined by those registers, the rules, and the words that it reads: for each frame
//! the return address at `sp - 8` of the next, and perhaps the saved rbp. A program's outer frames rarely change
//! between two allocations, so once a walk reaches a frame of the last one, with equal registers, it compares the
//! words that led on from there. These loads do not wait for each other, as those of a walk by rules do; and the
//! hash of the frames from there on is known, or their id.
//!
//! ```text
//!  frames:  [0] outermost … [met] where the walk met it … [len-1] innermost        sp descends
//!  frame:   pc, sp, bp, link [ 17 needs | 16 passes | 15..0 offset ], hash of frames [0..=own]
//!  passed:  [0] where the walk starts … outwards, up to where it met the trail
//! ```
//!
//! Invariants: for `i < len - 1`, frame `i` was reached from frame `i + 1` by a rule that read `pc` at `sp - 8`, and
//! `bp` at `sp - offset`, or took it over (`passes`); so it is reached again whenever those words are there. Frames
//! further out depend on frame `i`'s rbp only if it `needs` one; otherwise that is not compared, `offset` is zero, and
//! `bp` may be an old one. A trail is of one generation of rules. A signal handler that interrupts a walk finds `busy`
//! set and walks without.
//!
//! A walk's first frame is not remembered: the next walk likely starts elsewhere in that function. Places that walks
//! start from again are known by their [`Head`].

use core::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering, compiler_fence},
};

use memcheck_model::{MAX_FRAMES, Pc, StackId};

use crate::{
    CfaBase, Depot, Process, Registers, Rule,
    depot::{OUTERMOST, StackHash},
    head::{Head, Way},
    walk::{PcKind, Plain, plain_step, walk_in},
};

/// The most frames that are remembered.
const TRAIL_FRAMES: usize = MAX_FRAMES;

const OFFSET_MASK: u64 = 0xffff;
const PASSES: u64 = 1 << 16;
const NEEDS: u64 = 1 << 17;

/// A frame that a walk came through.
pub(crate) struct Frame {
    pc: Cell<u64>,
    sp: Cell<u64>,
    bp: Cell<u64>,
    link: Cell<u64>,
    hash: Cell<u64>,
    /// When it was put on the trail: all those outside it were there, or came with it.
    epoch: Cell<u64>,
    /// The id of the stack of frames `[0..=own]`, if it is whole and was asked for.
    id: Cell<u32>,
}

impl Frame {
    const fn new() -> Self {
        let [pc, sp, bp, link, hash, epoch] = [const { Cell::new(0) }; 6];
        Self { pc, sp, bp, link, hash, epoch, id: Cell::new(0) }
    }

    #[inline]
    fn set(&self, at: Registers, link: u64) {
        self.pc.set(at.pc);
        self.sp.set(at.sp);
        self.bp.set(at.bp);
        self.link.set(link);
    }

    /// Whether a walk needs the frame's rbp: to get on from there or, of a frame that was passed only, to leave it.
    #[inline]
    pub fn needs(&self) -> bool {
        self.link.get() & NEEDS != 0
    }

    /// Where below its stack pointer its rbp was found; zero when nobody needs to look there.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.link.get() & OFFSET_MASK
    }

    #[inline]
    pub fn registers(&self) -> Registers {
        Registers { pc: self.pc.get(), sp: self.sp.get(), bp: self.bp.get() }
    }

    /// A number that no other frame in this place was ever given.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Whether a walk that stands at these registers goes on from here.
    #[inline]
    fn is_met(&self, at: Registers) -> bool {
        self.sp.get() == at.sp && self.pc.get() == at.pc && (!self.needs() || self.bp.get() == at.bp)
    }

    /// Whether the frame inside still leads here.
    #[inline]
    fn still_stands(&self, process: &impl Process) -> bool {
        let (sp, offset) = (self.sp.get(), self.offset());
        process.read_again(sp.wrapping_sub(8)) == self.pc.get()
            && (offset == 0 || process.read_again(sp.wrapping_sub(offset)) == self.bp.get())
    }
}

const _: () = assert!(TRAIL_FRAMES <= u64::BITS as usize);

/// How a frame was reached when its rbp was `words` words below its stack pointer.
#[inline]
const fn reached(words: u32) -> u64 {
    if words == 0 { PASSES } else { (words as u64 * 8) & OFFSET_MASK }
}

/// The same for a frame on the trail, whose rbp only counts if it is needed.
#[inline]
const fn link(needs: bool, reached: u64) -> u64 {
    if needs { NEEDS | reached } else { 0 }
}

/// Where [`Trail::climb`] met the trail, and how many frames it had passed.
struct Met {
    met: usize,
    inner: usize,
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
    /// What the depot has behind the stack that was found there last.
    next: Cell<u32>,
    epoch: Cell<u64>,
    /// Of each frame, where it was read and its pc; and which frames were reached by reading their rbp too.
    returns: [[Cell<u64>; 2]; TRAIL_FRAMES],
    with_rbp: Cell<u64>,
    frames: [Frame; TRAIL_FRAMES],
    passed: [Frame; MAX_FRAMES],
    heads: [Head; HEADS],
}

const HEADS: usize = 64;
/// How many frames [`Trail::climb`] passes at most.
const CLIMBED_FRAMES: usize = 8;

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
            next: Cell::new(0),
            epoch: Cell::new(0),
            returns: [const { [Cell::new(0), Cell::new(0)] }; TRAIL_FRAMES],
            with_rbp: Cell::new(0),
            frames: [const { Frame::new() }; TRAIL_FRAMES],
            passed: [const { Frame::new() }; MAX_FRAMES],
            heads: [const { Head::new() }; HEADS],
        }
    }

    /// The id of the stack from a return address outwards, of at most `depth` frames, as [`walk_in`] finds it with the
    /// rules of this generation; if a walk from there was met before.
    #[inline]
    pub fn find(
        &self,
        start: Registers,
        generation: u32,
        depth: usize,
        process: &impl Process,
    ) -> Option<StackId> {
        if self.busy.load(Ordering::Relaxed) || self.terms.get() != terms(generation, depth) {
            return None;
        }
        self.alone(|| {
            let len =
                if self.stack_end.get() == process.stack_end() { usize::from(self.len.get()) } else { 0 };
            let head = self.head(start);
            head.find(start).and_then(|led| {
                let stands = led.next < len
                    && self.frames.get(led.next).is_some_and(|frame| frame.epoch() == led.epoch)
                    && head.stands(process)
                    && self.stand(led.last, led.next, process);
                stands.then_some(led.id)
            })
        })
    }

    /// Runs `act`, which uses the trail: signal handlers keep off it meanwhile.
    #[inline(always)]
    fn alone<R>(&self, act: impl FnOnce() -> R) -> R {
        // Relaxed, with compiler fences: only this thread and its signal handlers see a trail.
        self.busy.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let result = act();
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
        result
    }

    /// The same, whatever stack it is; for those that neither `find` nor `climb` finds.
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
        self.alone(|| {
            if self.terms.get() != terms(generation, depth) {
                self.terms.set(terms(generation, depth));
                self.len.set(0);
                self.heads.iter().for_each(Head::forget);
            }
            if self.stack_end.get() != process.stack_end() {
                self.stack_end.set(process.stack_end());
                self.len.set(0);
            }
            self.walk_along(start, depth, process, depot)
        })
    }

    #[inline]
    fn head(&self, start: Registers) -> &Head {
        let hash = (start.pc ^ start.sp.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.heads[(hash >> 58) as usize % HEADS]
    }

    /// The id of a walk that meets the trail within a few frames by the usual rules, where all of it is whole and shorter
    /// than `depth`. So is nearly every walk; for the others this changes nothing.
    #[inline]
    pub fn climb(
        &self,
        start: Registers,
        generation: u32,
        depth: usize,
        process: &impl Process,
        depot: &Depot<'_>,
    ) -> Option<StackId> {
        if self.busy.load(Ordering::Relaxed)
            || self.terms.get() != terms(generation, depth)
            || self.stack_end.get() != process.stack_end()
        {
            return None;
        }
        self.alone(|| self.climb_alone(start, depth, process, depot))
    }

    /// The same, when nobody else is at the trail.
    #[inline(always)]
    fn climb_alone(
        &self,
        start: Registers,
        depth: usize,
        process: &impl Process,
        depot: &Depot<'_>,
    ) -> Option<StackId> {
        let Met { met, inner } = self.ascend(start, process)?;
        if !self.is_whole.get() || met + 1 + inner >= depth || !self.stand(0, met, process) {
            return None;
        }
        let mut id = StackId(self.frames[met].id.get());
        if id == StackId::NONE || inner == 0 {
            return Some(id).filter(|&id| id != StackId::NONE);
        }
        let reached = &self.passed[inner];
        if inner > 1 {
            self.lead(met, reached.registers(), link(self.frames[met].needs(), reached.link.get()));
            self.begin_epoch();
            let mut top = met;
            for passed in self.passed[1..inner].iter().rev() {
                top = (top + 1) % TRAIL_FRAMES;
                self.put_inside(top, passed);
                id = self.branch(id, Pc(passed.pc.get()), depot);
                self.frames[top].id.set(id.0);
            }
            self.len.set(top as u8 + 1);
        }
        id = self.branch(id, Pc(start.pc), depot);
        let key = head_key(id, start);
        let head = self.head(start);
        if head.is_noted(key) {
            let (passed, met_offset) = (&self.passed[..inner], reached.offset());
            head.take(&Way { passed, next: met, met: &self.frames[met], met_offset, last: 0, key, id });
        }
        Some(id)
    }

    /// Goes from frame to frame until one of the trail is met, by the usual rules and not far. The frames before it are
    /// the first that were `passed` then, and the next is the one that was met: as it was reached.
    #[inline(always)]
    fn ascend(&self, start: Registers, process: &impl Process) -> Option<Met> {
        let mut unseen = self.returns.get(..usize::from(self.len.get()))?;
        let (mut at, mut link_here) = (start, PASSES);
        for (inner, here) in self.passed[..=CLIMBED_FRAMES].iter().enumerate() {
            here.set(at, link_here);
            let read_at = at.sp.wrapping_sub(8);
            // A call in tail position starts on the trail.
            let outer = loop {
                match unseen {
                    [.., [from, _]] if from.get() >= read_at => break unseen,
                    [outer @ .., _] => unseen = outer,
                    [] => return None,
                }
            };
            if let [outer @ .., [from, pc]] = outer
                && from.get() == read_at
                && pc.get() == at.pc
                && let met = outer.len()
                && (!self.frames[met % TRAIL_FRAMES].needs()
                    || self.frames[met % TRAIL_FRAMES].bp.get() == at.bp)
            {
                return Some(Met { met, inner });
            }
            let Plain::Next { next, words, by_bp } = plain_step(at, PcKind::Return, process) else {
                return None;
            };
            // As in `walk_along`.
            if u64::from(words) * 8 > next.sp - at.sp {
                return None;
            }
            if by_bp {
                here.link.set(NEEDS | link_here);
            }
            (at, link_here) = (next, reached(words));
        }
        None
    }

    fn walk_along(
        &self,
        start: Registers,
        depth: usize,
        process: &impl Process,
        depot: &Depot<'_>,
    ) -> StackId {
        let mut hash = StackHash::new();
        let mut unseen = usize::from(self.len.get());
        let (mut at, mut link_here) = (start, PASSES);
        // Whether the frames that were passed can be remembered.
        let mut can_stay = true;
        // By rules until a frame of the trail is met, from which on it stands.
        let (met, last) = loop {
            while unseen > 0 && self.frames[unseen - 1].sp.get() < at.sp {
                unseen -= 1;
            }
            if unseen > 0 && self.frames[unseen - 1].is_met(at) {
                let met = unseen - 1;
                let last = unseen.saturating_sub(depth - hash.len());
                let mut frames = self.frames[last..met].iter();
                let changed = if self.stand(last, met, process) {
                    None
                } else {
                    frames.position(|frame| !frame.still_stands(process))
                };
                let Some(changed) = changed else { break (met, last) };
                // The frames outside that one stand. But where one is met again is for rules to find: what is not
                // needed of its registers may be old.
                unseen = last + changed;
                self.len.set(unseen as u8);
            }
            let frame = &self.passed[hash.len()];
            hash.push(Pc(at.pc));
            // For now as if it led on by its rbp.
            frame.set(at, NEEDS | link_here);
            if hash.len() == depth {
                self.begin_anew(depth, can_stay, process);
                return self.find_other(start, &hash, depth, process, depot);
            }
            match plain_step(at, PcKind::Return, process) {
                Plain::Next { next, words, by_bp } => {
                    if !by_bp {
                        frame.link.set(link_here);
                    }
                    // Its rbp may lie further in than itself, where nobody may look later.
                    can_stay &= u64::from(words) * 8 <= next.sp - at.sp;
                    (at, link_here) = (next, reached(words));
                }
                end => {
                    let count = hash.len();
                    self.begin_anew(count, can_stay, process);
                    if self.is_whole.get() {
                        return self.id_of(usize::from(self.len.get()), count, depot);
                    }
                    finish(at, &end, depth, process, &mut hash);
                    return self.find_other(start, &hash, depth, process, depot);
                }
            }
        };
        let inner = hash.len();
        let beyond = if last == 0 { 0 } else { self.frames[last - 1].hash.get() };
        hash.append(self.frames[met].hash.get(), beyond, met + 1 - last);
        let (id, is_usual) = if last == 0 && self.is_whole.get() && hash.len() < depth {
            let top = self.remember(met, inner, can_stay, (at, link_here));
            (self.id_of(top + 1, met + 1 + inner, depot), true)
        } else {
            // By rules again: usually one that says that there is no more.
            let along = hash.len();
            let mut outer = self.frames[last].registers();
            let end = loop {
                if hash.len() == depth {
                    break Plain::End;
                }
                match plain_step(outer, PcKind::Return, process) {
                    Plain::Next { next, .. } => {
                        hash.push(Pc(next.pc));
                        outer = next;
                    }
                    end => break end,
                }
            };
            let plain = hash.len();
            if plain > along || met + 1 + inner > TRAIL_FRAMES {
                // Anew, to remember all of it.
                self.len.set(0);
                return self.walk_along(start, depth, process, depot);
            }
            self.remember(met, inner, can_stay, (at, link_here));
            finish(outer, &end, depth, process, &mut hash);
            let id = self.find_other(start, &hash, depth, process, depot);
            (id, plain == depth || ends_here(outer.pc, process))
        };
        if can_stay && is_usual {
            self.head(start).note(&Way {
                passed: &self.passed[..inner],
                next: met,
                met: &self.frames[met],
                met_offset: link_here & OFFSET_MASK,
                last,
                key: head_key(id, start),
                id,
            });
        }
        id
    }

    /// The trail becomes the `count` frames that were passed, but the first, if they can be remembered.
    fn begin_anew(&self, count: usize, can_stay: bool, process: &impl Process) {
        let outermost = &self.passed[count - 1];
        self.is_whole.set(ends_here(outermost.pc.get(), process));
        self.len.set(0);
        if can_stay && count > 1 {
            self.begin_epoch();
            let link = if self.is_whole.get() { 0 } else { outermost.link.get() };
            self.place(0, outermost.registers(), link);
            self.frames[0].id.set(0);
            self.frames[0].hash.set(StackHash::with_inner(0, Pc(outermost.pc.get())));
            self.extend(0, count - 1);
        }
    }

    fn begin_epoch(&self) {
        self.epoch.set(self.epoch.get() + 1);
    }

    /// Puts a frame on the trail, in this epoch.
    #[inline]
    fn place(&self, index: usize, at: Registers, link: u64) {
        self.frames[index].epoch.set(self.epoch.get());
        self.lead(index, at, link);
    }

    /// Sets how a frame is reached.
    #[inline]
    fn lead(&self, index: usize, at: Registers, link: u64) {
        self.frames[index].set(at, link);
        let [from, pc] = &self.returns[index];
        from.set(at.sp.wrapping_sub(8));
        pc.set(at.pc);
        let bit = 1 << index;
        let others = self.with_rbp.get() & !bit;
        self.with_rbp.set(if link & OFFSET_MASK == 0 { others } else { others | bit });
    }

    /// Whether frames `last..next` still lead from each to the one outside it.
    #[inline(always)]
    fn stand(&self, last: usize, next: usize, process: &impl Process) -> bool {
        if self.with_rbp.get() != 0 {
            return self.frames[last..next].iter().all(|frame| frame.still_stands(process));
        }
        self.returns[last..next].iter().all(|[at, pc]| process.read_again(at.get()) == pc.get())
    }

    /// Adds the `inner` frames that were passed, but the first, to frame `met`, if they can be remembered. Which the
    /// innermost is then.
    fn remember(&self, met: usize, inner: usize, can_stay: bool, (at, link_here): (Registers, u64)) -> usize {
        if !can_stay || inner <= 1 {
            return met;
        }
        self.lead(met, at, link(self.frames[met].needs(), link_here));
        self.extend(met, inner);
        met + inner - 1
    }

    /// Puts the frames that were passed, but the first, inside frame `top`: there are `count` of them with that.
    fn extend(&self, top: usize, count: usize) {
        self.begin_epoch();
        for (index, passed) in (top + 1..).zip(self.passed[1..count].iter().rev()) {
            self.put_inside(index, passed);
            self.frames[index].id.set(0);
        }
        self.len.set((top + count) as u8);
    }

    /// Puts a frame that was passed on the trail, inside the one before.
    #[inline(always)]
    fn put_inside(&self, index: usize, passed: &Frame) {
        let (outside, frame) = (&self.frames[index - 1], &self.frames[index]);
        let needs = passed.needs() || outside.link.get() & PASSES != 0;
        self.place(index, passed.registers(), link(needs, passed.link.get()));
        frame.hash.set(StackHash::with_inner(outside.hash.get(), Pc(passed.pc.get())));
    }

    /// The id of the stack of the trail's first `count` frames and those of the `all` that were passed inside them.
    fn id_of(&self, count: usize, all: usize, depot: &Depot<'_>) -> StackId {
        let frames = &self.frames[..count];
        let known = frames.iter().rposition(|frame| frame.id.get() != 0);
        let mut id = known.map_or(OUTERMOST, |known| StackId(frames[known].id.get()));
        for frame in &frames[known.map_or(0, |known| known + 1)..] {
            id = self.branch(id, Pc(frame.pc.get()), depot);
            frame.id.set(id.0);
        }
        self.passed[..all - count]
            .iter()
            .rev()
            .fold(id, |id, frame| self.branch(id, Pc(frame.pc.get()), depot))
    }

    /// The id of the stack of `outer`'s frames and this one inside, if there is one of those.
    fn branch(&self, outer: StackId, inner: Pc, depot: &Depot<'_>) -> StackId {
        if outer == StackId::NONE {
            return outer;
        }
        let id = depot.branch(outer, inner, StackId(self.next.get()));
        self.next.set(Depot::behind_branch(id).0);
        id
    }

    /// The id of a stack that is not whole, or could not be remembered.
    fn find_other(
        &self,
        start: Registers,
        hash: &StackHash,
        depth: usize,
        process: &impl Process,
        depot: &Depot<'_>,
    ) -> StackId {
        let id = depot
            .find(hash, StackId(self.next.get()))
            .unwrap_or_else(|| capture_by_rules(start, depth, process, depot));
        self.next.set(depot.behind(id).0);
        id
    }
}

/// What tells a walk from others that its head may be of: the stack, and where it starts.
#[inline]
fn head_key(id: StackId, start: Registers) -> u64 {
    u64::from(id.0) ^ start.sp.rotate_left(32)
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
mod tests;
