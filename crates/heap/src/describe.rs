//! What an address is to the heap, and all chunks in turn. Reads metadata only; takes no lock, so it may run in
//! signal handlers and while other threads are stopped anywhere.

use memcheck_model::{Addr, AddrRange, Function, Size, StackId, ThreadId};

use crate::{
    Chunk, ChunkId, ChunkState, Class, Heap,
    chunk::{Info, user_start},
    layout::Slot,
};

/// How far beyond a chunk's slot, where no slot was ever used, an address is still taken to have strayed from it.
const FARTHEST_STRAY_BYTES: u64 = 1 << 16;

/// What is known of a live chunk, without what is known of freed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSlot {
    /// Its first byte.
    pub start: Addr,
    /// The size that was asked for.
    pub size: Size,
    /// The thread that allocated it.
    pub alloc_tid: ThreadId,
    /// Where it was allocated.
    pub alloc_stack: StackId,
    /// The function that allocated it.
    pub allocated_by: Function,
}

impl Heap<'_> {
    /// Whether `addr` lies in the heap's address range.
    #[must_use]
    #[inline]
    pub fn contains(&self, addr: Addr) -> bool {
        self.layout.range().contains(addr)
    }

    /// What is known of a slot's chunk.
    #[must_use]
    pub fn view(&self, id: ChunkId) -> Chunk {
        self.view_as(id, self.meta(id).info())
    }

    /// The same if its metadata said this.
    pub(crate) fn view_as(&self, id: ChunkId, info: Info) -> Chunk {
        let slot = self.layout.slot(id);
        let start = user_start(self.layout.slot_start(slot), slot.class, info.align_shift());
        Chunk::new(id, start, self.size_of(id, slot.class, info), info, (self.meta(id), self.freed_meta(id)))
    }

    fn slot_chunk(&self, slot: Slot) -> Option<Chunk> {
        if !self.was_used(slot) {
            return None;
        }
        let chunk = self.view(self.layout.id(slot));
        (chunk.state != ChunkState::Unused).then_some(chunk)
    }

    /// The chunk that `addr` lies in or, in a gap between two, the one it most likely strayed from: a live one
    /// rather than a freed one, then the nearer, then the one before.
    #[must_use]
    pub fn describe(&self, addr: Addr) -> Option<Chunk> {
        let slot = self.layout.find_slot(addr)?;
        let here = self.slot_chunk(slot);
        let Some(here) = here else { return self.find_before(slot, addr) };
        if addr >= here.start {
            let after_end = addr.0.checked_sub(here.range().end().0);
            let next = slot.number.checked_add(1).and_then(|number| self.slot_chunk(Slot { number, ..slot }));
            return Some(match (after_end, next) {
                // Only a freed chunk gives way to the next one here; the next one's redzone is another slot.
                (Some(distance), Some(next))
                    if here.state != ChunkState::Live
                        && next.state == ChunkState::Live
                        && next.start.0 - addr.0 <= distance =>
                {
                    next
                }
                _ => here,
            });
        }
        let before = slot.number.checked_sub(1).and_then(|number| self.slot_chunk(Slot { number, ..slot }));
        let Some(before) = before else { return Some(here) };
        let is_live = |chunk: &Chunk| chunk.state == ChunkState::Live;
        let nearer_before = addr.0.saturating_sub(before.range().end().0) < here.start.0 - addr.0;
        Some(match (is_live(&before), is_live(&here)) {
            (true, false) => before,
            (false, true) => here,
            _ if nearer_before => before,
            _ => here,
        })
    }

    /// The nearest chunk before an unused slot, which an overrun that goes on and on has started from.
    fn find_before(&self, slot: Slot, addr: Addr) -> Option<Chunk> {
        let slot_bytes = slot.class.shape().slot_bytes;
        let farthest = (FARTHEST_STRAY_BYTES / slot_bytes).max(1) as u32;
        let used = slot.number.min(self.centrals[slot.class.index()].frontier());
        let numbers = slot.number.saturating_sub(farthest)..used;
        let chunk = numbers.rev().find_map(|number| self.slot_chunk(Slot { number, ..slot }))?;
        (chunk.start <= addr).then_some(chunk)
    }

    /// The live chunk that `addr` points to: into it, to its start when it is empty, or just past its end.
    #[must_use]
    #[inline]
    pub fn find_live(&self, addr: Addr) -> Option<Chunk> {
        let slot = self.layout.find_slot(addr)?;
        let chunk = self.slot_chunk(slot).filter(|chunk| chunk.state == ChunkState::Live)?;
        (chunk.start <= addr && addr <= chunk.range().end()).then_some(chunk)
    }

    /// All of the heap's addresses.
    #[must_use]
    pub const fn range(&self) -> AddrRange {
        self.layout.range()
    }

    /// The slot that `addr` lies in: its class, by index, and its number there. By arithmetic alone: the slot may
    /// never have been used.
    #[must_use]
    #[inline]
    pub fn find_slot(&self, addr: Addr) -> Option<(usize, u32)> {
        let slot = self.layout.find_slot(addr)?;
        Some((slot.class.index(), slot.number))
    }

    /// How many slots of a class were ever used: those with the lowest numbers.
    #[must_use]
    pub fn used_slots(&self, class: Class) -> u32 {
        self.centrals[class.index()].frontier()
    }

    /// Whether `addr` lies in a slot that was ever used.
    #[must_use]
    pub fn is_used(&self, addr: Addr) -> bool {
        self.layout.find_slot(addr).is_some_and(|slot| self.was_used(slot))
    }

    #[inline(always)]
    pub(crate) fn was_used(&self, slot: Slot) -> bool {
        slot.number < self.centrals[slot.class.index()].frontier()
    }

    /// Where a slot's chunk begins when it was asked for without alignment.
    #[must_use]
    #[inline]
    pub fn usual_start(&self, class: usize, number: u32) -> Addr {
        let class = Class(class as u8);
        Addr(user_start(self.layout.slot_start(Slot { class, number }), class, 0))
    }

    /// Shows the live chunks among the first `count` slots of a class, each with its slot's number and usual start.
    #[inline]
    pub fn for_each_live_slot(&self, class: Class, count: u32, mut visit: impl FnMut(u32, Addr, LiveSlot)) {
        let shape = class.shape();
        let first = self.layout.id(Slot { class, number: 0 });
        let mut usual = user_start(self.layout.slot_start(Slot { class, number: 0 }), class, 0);
        let metas = &self.tables.metas[first.0 as usize..][..count as usize];
        for (number, meta) in (0..).zip(metas) {
            let info = meta.info();
            if info.state() == ChunkState::Live {
                let shift = info.align_shift();
                let start = if shift > 4 { usual.next_multiple_of(1 << shift) } else { usual };
                visit(
                    number,
                    Addr(usual),
                    LiveSlot {
                        start: Addr(start),
                        size: Size(self.size_of(ChunkId(first.0 + number), class, info)),
                        alloc_tid: info.alloc_tid(),
                        alloc_stack: meta.alloc_stack(),
                        allocated_by: info.alloc_function(),
                    },
                );
            }
            usual += shape.slot_bytes;
        }
    }

    /// The live chunk of a slot, as [`Heap::view`] shows it: for who looks at every slot.
    #[must_use]
    #[inline(always)] // most callers want only some of it
    pub fn find_live_slot(&self, class: usize, number: u32) -> Option<LiveSlot> {
        let class = Class(class as u8);
        let id = self.layout.id(Slot { class, number });
        let meta = self.meta(id);
        let info = meta.info();
        (info.state() == ChunkState::Live).then(|| LiveSlot {
            start: Addr(user_start(
                self.layout.slot_start(Slot { class, number }),
                class,
                info.align_shift(),
            )),
            size: Size(self.size_of(id, class, info)),
            alloc_tid: info.alloc_tid(),
            alloc_stack: meta.alloc_stack(),
            allocated_by: info.alloc_function(),
        })
    }

    pub(crate) fn for_each_slot(&self, mut visit: impl FnMut(ChunkId, Slot, Info)) {
        for class in Class::all() {
            for number in 0..self.centrals[class.index()].frontier() {
                let slot = Slot { class, number };
                let id = self.layout.id(slot);
                visit(id, slot, self.meta(id).info());
            }
        }
    }

    /// Visits every live chunk, by class and ascending addresses.
    pub fn for_each_live(&self, mut visit: impl FnMut(&Chunk)) {
        self.for_each_slot(|id, _, info| {
            if info.state() == ChunkState::Live {
                visit(&self.view(id));
            }
        });
    }
}
