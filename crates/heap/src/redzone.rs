//! Late checks: what redzones and freed chunks are filled with, and whose a change is. Freed chunks that keep what
//! they held ([`crate::Wishes`]) have a sum of it in their metadata instead.
//!
//! Bounds, so that big chunks cost what small ones do: of a redzone the [`ZONE_BYTES`] nearest to the chunk, of a
//! freed chunk its first [`FREED_HEAD_BYTES`] and its last [`FREED_TAIL_BYTES`]. What is written beyond those is
//! found by access checks only.
//!
//! A gap between two chunks is the right redzone of one and the left of the other. A change belongs to the chunk
//! that it is nearer to, and to the one before the gap when it is as near to both: programs run over the end
//! more often than over the start.

use memcheck_model::{Addr, AddrRange, Damage, Size};

use crate::{
    Backend, Change, Chunk, ChunkId, ChunkState, Heap, Late, Pattern,
    chunk::{Damaged, FreedSum, Info},
    heap::{Located, range},
    layout::Slot,
};

/// How much of a redzone is filled and checked.
pub const ZONE_BYTES: u64 = 256;
/// How much of a freed chunk's start is filled and checked.
pub const FREED_HEAD_BYTES: u64 = 2048;
/// How much of its end.
pub const FREED_TAIL_BYTES: u64 = 256;

/// What is watched before and after a chunk.
pub(crate) struct Zones {
    pub left: AddrRange,
    pub right: AddrRange,
}

/// The part of `[from, user)` that is watched.
#[inline]
pub(crate) fn left(from: u64, user: u64) -> AddrRange {
    range(from.max(user.saturating_sub(ZONE_BYTES)), user)
}

/// The part of `[end, to)` that is watched.
#[inline]
pub(crate) fn right(end: u64, to: u64) -> AddrRange {
    range(end, to.min(end + ZONE_BYTES))
}

/// The parts of a freed chunk that are watched; the second may be empty.
#[inline]
pub(crate) fn freed(chunk: AddrRange) -> [AddrRange; 2] {
    let (start, end) = (chunk.start().0, chunk.end().0);
    if chunk.size().0 <= FREED_HEAD_BYTES {
        return [chunk, range(end, end)];
    }
    let head_end = end.min(start + FREED_HEAD_BYTES);
    [range(start, head_end), range(head_end.max(end.saturating_sub(FREED_TAIL_BYTES)), end)]
}

/// What tells whether the watched parts of a freed chunk changed.
#[inline]
fn freed_sum(backend: &impl Backend, chunk: AddrRange) -> FreedSum {
    let [head, tail] = freed(chunk);
    let sum = backend.sum(head);
    FreedSum::of(if tail.is_empty() { sum } else { sum ^ backend.sum(tail).rotate_left(1) })
}

impl Heap<'_> {
    fn damage(backend: &impl Backend, chunk: &Chunk, change: &Change) -> Damage {
        let span = change.last.0 - change.first.0 + 1;
        let mut content = [0; 16];
        let len = span.min(16) as usize;
        backend.read(change.first, &mut content[..len]);
        Damage {
            first: change.first.offset_from(chunk.start),
            last: change.last.offset_from(chunk.start),
            changed: Size(change.changed),
            content,
            content_len: len as u8,
        }
    }

    /// A bad write to `bad` is reported as it is made: what it leaves is not to be told again. More damage to the same
    /// freed chunk is not told either.
    pub fn damage_is_known(&self, bad: AddrRange) {
        let Some(chunk) = self.describe(bad.start()) else { return };
        let own = chunk.range();
        let meta = self.meta(chunk.id);
        if chunk.state != ChunkState::Live && own.contains(bad.start()) {
            return meta.set_known(Damaged::Freed);
        }
        // What is not watched is never asked for.
        let mut parts = [left(0, own.start().0), right(own.end().0, u64::MAX)]
            .into_iter()
            .filter_map(|part| AddrRange::between(part.start().max(bad.start()), part.end().min(bad.end())));
        if !parts.all(|part| self.known.note(part)) {
            meta.set_known(Damaged::Redzone);
        }
    }

    /// What is left of a change when the bytes that are known to be bad are repaired.
    fn find_unknown(&self, backend: &impl Backend, zone: AddrRange, change: Change) -> Option<Change> {
        let mut is_any = false;
        self.known.take_in(range(change.first.0, change.last.0 + 1), |at| {
            backend.fill(range(at.0, at.0 + 1), Pattern::Redzone);
            is_any = true;
        });
        if is_any { backend.find_change(zone, Pattern::Redzone) } else { Some(change) }
    }

    /// Whether there is more known damage than was noted around a chunk, or a neighbour that it shares a gap with.
    fn is_redzone_known(&self, slots: [Option<Slot>; 2]) -> bool {
        slots
            .into_iter()
            .flatten()
            .filter(|&slot| self.was_used(slot))
            .any(|slot| self.meta(self.layout.id(slot)).info().is_known(Damaged::Redzone))
    }

    /// Tells of a change, unless it is known, and repairs it so that it is told once.
    fn tell(
        &self,
        backend: &impl Backend,
        chunk: &Chunk,
        change: &Change,
        (pattern, is_known): (Pattern, bool),
        late: &mut dyn FnMut(&Late),
    ) {
        let damage = Self::damage(backend, chunk, change);
        backend.fill(range(change.first.0, change.last.0 + 1), pattern);
        if is_known {
            return;
        }
        late(&Late { chunk: *chunk, damage, after_free: pattern == Pattern::Freed });
    }

    /// Looks at the redzones of a chunk that is live, or was until now.
    #[inline(always)]
    pub(crate) fn check_redzones(
        &self,
        backend: &impl Backend,
        located: &Located,
        late: &mut dyn FnMut(&Late),
    ) {
        let zones = Self::zones(located);
        let Located { id, slot, .. } = *located;
        if let Some(change) = backend.find_change(zones.right, Pattern::Redzone) {
            self.judge_right(backend, id, slot, (zones.right, change), late);
        }
        if let Some(change) = backend.find_change(zones.left, Pattern::Redzone) {
            self.judge_left(backend, id, slot, (zones.left, change), late);
        }
    }

    #[cold]
    fn judge_right(
        &self,
        backend: &impl Backend,
        id: ChunkId,
        slot: Slot,
        (zone, change): (AddrRange, Change),
        late: &mut dyn FnMut(&Late),
    ) {
        let Some(change) = self.find_unknown(backend, zone, change) else { return };
        let chunk = self.live_view(id);
        let slot_end = self.layout.slot_start(slot) + slot.class.shape().slot_bytes;
        if !slot.class.is_large()
            && change.first.0 >= slot_end
            && let Some(next) = self.occupied(Slot { number: slot.number + 1, ..slot })
            && is_nearer_to_next(&change, &chunk, &next)
        {
            // It is the next chunk's left redzone, and will be seen with that.
            return;
        }
        let next = (!slot.class.is_large()).then_some(Slot { number: slot.number + 1, ..slot });
        let is_known = self.is_redzone_known([Some(slot), next]);
        self.tell(backend, &chunk, &change, (Pattern::Redzone, is_known), late);
    }

    #[cold]
    fn judge_left(
        &self,
        backend: &impl Backend,
        id: ChunkId,
        slot: Slot,
        (zone, change): (AddrRange, Change),
        late: &mut dyn FnMut(&Late),
    ) {
        let Some(change) = self.find_unknown(backend, zone, change) else { return };
        let chunk = self.live_view(id);
        let before = slot.number.checked_sub(1).filter(|_| !slot.class.is_large());
        let before = before.map(|number| Slot { number, ..slot });
        let is_known = self.is_redzone_known([Some(slot), before]);
        let owner = before
            .and_then(|before| self.occupied(before))
            .filter(|before| !is_nearer_to_next(&change, before, &chunk))
            .unwrap_or(chunk);
        self.tell(backend, &owner, &change, (Pattern::Redzone, is_known), late);
    }

    /// The chunk of a slot, as long as its memory was not given up.
    fn occupied(&self, slot: Slot) -> Option<Chunk> {
        if !self.was_used(slot) {
            return None;
        }
        let id = self.layout.id(slot);
        match self.meta(id).info().state() {
            ChunkState::Live | ChunkState::Quarantined => Some(self.view(id)),
            ChunkState::Unused | ChunkState::Recycled => None,
        }
    }

    /// The chunk as it was before the call that is freeing it.
    fn live_view(&self, id: ChunkId) -> Chunk {
        self.view_as(id, self.meta(id).info().with_state(ChunkState::Live))
    }

    fn sums_freed(&self) -> bool {
        self.wishes.keeps_freed || self.wishes.free_fill.is_some()
    }

    /// What a freed chunk holds from now on, if it has a sum.
    #[inline(always)]
    pub(crate) fn settle_freed(&self, backend: &impl Backend, chunk: AddrRange) -> FreedSum {
        if self.sums_freed() {
            if let Some(byte) = self.wishes.free_fill {
                backend.set(chunk, byte);
            }
            return freed_sum(backend, chunk);
        }
        for part in freed(chunk) {
            backend.fill(part, Pattern::Freed);
        }
        FreedSum::default()
    }

    /// Removes what a freed chunk held, so that the next owner's pointers are its own: the leak search believes what
    /// it finds.
    #[inline(always)]
    pub(crate) fn clear_freed(&self, backend: &impl Backend, located: &Located) {
        if self.sums_freed() {
            for part in freed(located.user()) {
                backend.fill(part, Pattern::Freed);
            }
        }
    }

    /// Looks at the bytes of a chunk that is in the quarantine.
    #[inline(always)]
    pub(crate) fn check_freed(&self, backend: &impl Backend, located: &Located, late: &mut dyn FnMut(&Late)) {
        if self.sums_freed() {
            let sum = freed_sum(backend, located.user());
            if sum != self.freed_meta(located.id).sum() {
                self.tell_sum(located, sum, late);
            }
            return;
        }
        for part in freed(located.user()) {
            if let Some(change) = backend.find_change(part, Pattern::Freed) {
                let is_known = located.info.is_known(Damaged::Freed);
                let told = (Pattern::Freed, is_known);
                self.tell(backend, &self.view(located.id), &change, told, late);
            }
        }
    }

    /// Tells that a freed chunk holds something else by now, unless that is known; once.
    #[cold]
    fn tell_sum(&self, located: &Located, sum: FreedSum, late: &mut dyn FnMut(&Late)) {
        self.freed_meta(located.id).set_sum(sum);
        if !located.info.is_known(Damaged::Freed) {
            let last = located.size.cast_signed() - 1;
            let damage = Damage { first: 0, last, changed: Size(0), content: [0; 16], content_len: 0 };
            late(&Late { chunk: self.view(located.id), damage, after_free: true });
        }
    }

    /// What of a live chunk or a freed one is looked at, and the pattern there if it has one.
    fn watched(&self, located: &Located) -> ([AddrRange; 2], Option<Pattern>) {
        if located.info.state() == ChunkState::Live {
            let zones = Self::zones(located);
            return ([zones.right, zones.left], Some(Pattern::Redzone));
        }
        (freed(located.user()), (!self.sums_freed()).then_some(Pattern::Freed))
    }

    /// Looks at everything: the redzones of live chunks and the bytes of quarantined ones. For the end of the
    /// process. Other threads may go on: what they have begun and not finished is passed over, and so is what
    /// overlaps the `unreadable` ranges, which are in the order of addresses.
    pub fn sweep(&self, backend: &impl Backend, unreadable: &[AddrRange], late: &mut dyn FnMut(&Late)) {
        self.for_each_slot(|id, slot, info| {
            if !slot.class.is_large() {
                self.sweep_slot(backend, unreadable, (id, slot, info), late);
                return;
            }
            self.swept.keep(id, || {
                self.sweep_slot(backend, unreadable, (id, slot, self.meta(id).info()), late);
            });
        });
    }

    fn sweep_slot(
        &self,
        backend: &impl Backend,
        unreadable: &[AddrRange],
        (id, slot, info): (ChunkId, Slot, Info),
        late: &mut dyn FnMut(&Late),
    ) {
        let is_at_rest = match info.state() {
            ChunkState::Live => true,
            ChunkState::Quarantined => info.is_settled(),
            ChunkState::Unused | ChunkState::Recycled => false,
        };
        if !is_at_rest {
            return;
        }
        let located = self.locate(slot, id, info);
        let (parts, pattern) = self.watched(&located);
        if parts.iter().any(|part| !part.among(unreadable).is_empty()) {
            return;
        }
        let is_damaged = match pattern {
            Some(pattern) => parts.into_iter().any(|part| backend.find_change(part, pattern).is_some()),
            None => freed_sum(backend, located.user()) != self.freed_meta(id).sum(),
        };
        // Whether the bytes were this chunk's: with a large one the size may have become another in its place.
        let is_same =
            || self.meta(id).info_after() == info && self.size_of(id, slot.class, info) == located.size;
        // Damage is repaired and sums are set anew: not before it is certain that nobody else has the chunk now.
        if !is_damaged || !is_same() {
            return;
        }
        let mut unless_changed = |found: &Late| {
            if is_same() {
                late(found);
            }
        };
        if info.state() == ChunkState::Live {
            self.check_redzones(backend, &located, &mut unless_changed);
        } else {
            self.check_freed(backend, &located, &mut unless_changed);
        }
    }
}

fn is_nearer_to_next(change: &Change, before: &Chunk, next: &Chunk) -> bool {
    let from_end = change.first.offset_from(before.range().end());
    let to_start = next.start.offset_from(Addr(change.last.0 + 1));
    to_start < from_end
}
