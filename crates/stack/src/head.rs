//! A place that walks started from before, with the few frames from there to the trail: when all of them stand as they
//! did, the stack's id is known.
//!
//! A function that allocates does so again, often through a function or two of its own, while its callers stay: those
//! are on the trail. A head is made of a walk that was met twice, as those of a recursion are hardly ever.
//!
//! ```text
//!  start (pc, sp, perhaps bp) ─ words that led on, [addr] = value ─▶ frame `next` of the trail ─ … ─▶ frame `last`
//! ```
//! Invariant: all the words lie between the start's stack pointer and that of frame `next`.

use core::cell::Cell;

use memcheck_model::StackId;

use crate::{Process, Registers, trail::Frame};

/// The most frames between a head's start, which is one of them, and the trail.
const INNER_FRAMES: usize = 4;

/// See the module's head. All zero is one that leads nowhere.
pub(crate) struct Head {
    pc: Cell<u64>,
    sp: Cell<u64>,
    bp: Cell<u64>,
    /// The bits of the rbp that matter: all or none.
    bp_mask: Cell<u64>,
    /// Frame `next`'s.
    epoch: Cell<u64>,
    id: Cell<u32>,
    next: Cell<u8>,
    last: Cell<u8>,
    word_count: Cell<u8>,
    /// Of the stack that was met last, and will be this head's when it is met again.
    candidate: Cell<u64>,
    /// Addresses with their values: a return address for each frame, and perhaps its rbp.
    words: [[Cell<u64>; 2]; 2 * INNER_FRAMES],
}

/// Where a head led: to frames `last..=next` of the trail, if `next` is still that of this epoch, and to this id.
pub(crate) struct Led {
    pub next: usize,
    pub last: usize,
    pub epoch: u64,
    pub id: StackId,
}

/// A walk that led to the trail.
pub(crate) struct Way<'t> {
    /// The frames before it, the first one first: where each was, and how it was reached.
    pub passed: &'t [Frame],
    /// The one that was met: its index, itself, and where below its stack pointer its rbp was found, or zero.
    pub next: usize,
    pub met: &'t Frame,
    pub met_offset: u64,
    /// The outermost that counts.
    pub last: usize,
    /// What tells the whole stack from others.
    pub key: u64,
    pub id: StackId,
}

impl Head {
    pub const fn new() -> Self {
        let [pc, sp, bp, bp_mask, epoch, candidate] = [const { Cell::new(0) }; 6];
        let [next, last, word_count] = [const { Cell::new(0) }; 3];
        let words = [const { [Cell::new(0), Cell::new(0)] }; 2 * INNER_FRAMES];
        Self { pc, sp, bp, bp_mask, epoch, id: Cell::new(0), next, last, word_count, candidate, words }
    }

    pub fn forget(&self) {
        self.pc.set(0);
        self.candidate.set(0);
    }

    /// Where a walk from this start led.
    #[inline(always)]
    pub fn find(&self, start: Registers) -> Option<Led> {
        let is_start = self.pc.get() == start.pc
            && self.sp.get() == start.sp
            && (self.bp.get() ^ start.bp) & self.bp_mask.get() == 0;
        is_start.then(|| Led {
            next: self.next.get().into(),
            last: self.last.get().into(),
            epoch: self.epoch.get(),
            id: StackId(self.id.get()),
        })
    }

    /// Whether the words from there to frame `next`, which is as it was, are as they were.
    #[inline(always)]
    pub fn stands(&self, process: &impl Process) -> bool {
        let count = usize::from(self.word_count.get()).min(self.words.len());
        self.words[..count].iter().all(|[addr, value]| process.read_again(addr.get()) == value.get())
    }

    /// Whether the stack of this key was met last, too.
    #[inline]
    pub fn is_noted(&self, key: u64) -> bool {
        self.candidate.replace(key) == key
    }

    /// A walk went this way: the second time it becomes the head's.
    pub fn note(&self, way: &Way<'_>) {
        if self.is_noted(way.key) {
            self.take(way);
        }
    }

    /// The way becomes the head's, if it is not too long.
    #[cold]
    pub fn take(&self, way: &Way<'_>) {
        if way.passed.is_empty() || way.passed.len() > INNER_FRAMES {
            return;
        }
        let mut words = self.words.iter();
        let mut add = |addr: u64, value: u64| {
            if let Some([to, its]) = words.next() {
                to.set(addr);
                its.set(value);
            }
        };
        let (mut needs, mut count) = (way.met.needs(), 0);
        let (mut outer, mut offset) = (way.met.registers(), way.met_offset);
        for frame in way.passed.iter().rev() {
            add(outer.sp.wrapping_sub(8), outer.pc);
            count += 1;
            if needs && offset != 0 {
                add(outer.sp.wrapping_sub(offset), outer.bp);
                count += 1;
            }
            needs = frame.needs() || (needs && offset == 0);
            (outer, offset) = (frame.registers(), frame.offset());
        }
        // What is left is the start.
        self.pc.set(outer.pc);
        self.sp.set(outer.sp);
        self.bp.set(outer.bp);
        self.bp_mask.set(if needs { u64::MAX } else { 0 });
        self.epoch.set(way.met.epoch());
        self.id.set(way.id.0);
        self.next.set(way.next as u8);
        self.last.set(way.last as u8);
        self.word_count.set(count);
    }
}
