//! What becomes of freed chunks: they wait in the quarantine, are looked at once more, and are free slots then, a thread's
//! own or the centre's.
//!
//! In: a thread's batch of frees. Out: slots in its lists of free ones; damage to the bytes of freed chunks as [`Late`].
//!
//! Invariant: nothing is read here that was not asked for some chunks ahead, because chunks that leave the quarantine
//! were last touched long ago.

use core::sync::atomic::{Ordering, fence};

use memcheck_model::ThreadId;

use crate::{
    Backend, ChunkId, ChunkState, Class, Heap, Late, ThreadCache,
    cache::List,
    heap::Located,
    large::large_pages,
    quarantine::{Pending, Quarantine},
};

/// What the quarantine holds at least, unless told otherwise.
const QUARANTINE_BYTES: u64 = 16 << 20;
/// And what big chunks have of their own.
const BIG_QUARANTINE_BYTES: u64 = 8 << 20;
/// How many batches at most leave the quarantine for one that comes.
const DRAIN_BATCHES: u32 = 4;

impl Heap<'_> {
    #[cold]
    pub(crate) fn flush_small(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        late: &mut dyn FnMut(&Late),
    ) {
        let batch = core::mem::replace(&mut cache.pending_small, Pending::EMPTY);
        self.flush(cache, backend, &self.small_quarantine, QUARANTINE_BYTES, batch, late);
    }

    #[cold]
    pub(crate) fn flush_big(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        late: &mut dyn FnMut(&Late),
    ) {
        let batch = core::mem::replace(&mut cache.pending_big, Pending::EMPTY);
        self.flush(cache, backend, &self.big_quarantine, BIG_QUARANTINE_BYTES, batch, late);
    }

    /// Hands a thread's frees to the quarantine, and recycles what has waited long enough.
    fn flush(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        quarantine: &Quarantine<'_>,
        least: u64,
        batch: Pending,
        late: &mut dyn FnMut(&Late),
    ) {
        self.publish_live(cache);
        if batch.count == 0 {
            return;
        }
        let live = self.live_bytes.load(Ordering::Relaxed).max(0) as u64;
        let budget = self.wishes.quarantine_bytes.unwrap_or(least + live / 16);
        let mut drained = [None; DRAIN_BATCHES as usize];
        quarantine.lock.hold(backend, &self.forker, cache.tid, || {
            // Drained first, so that a full ring has room; `take_over` gives one when it is full.
            for place in &mut drained {
                *place = quarantine.take_over(budget.saturating_sub(batch.bytes));
            }
            quarantine.append(batch);
        });
        for mut batch in drained.into_iter().flatten() {
            let ask_for = |id| {
                let slot = self.layout.slot(id);
                self.ask_for(backend, self.meta(id), slot.class, self.layout.slot_start(slot));
            };
            batch.first().for_each(ask_for);
            while let Some((id, coming)) = batch.take(self.tables.metas) {
                if let Some(coming) = coming {
                    ask_for(coming);
                }
                self.recycle(cache, backend, id, late);
            }
        }
    }

    /// Makes a chunk that has left the quarantine ready to be given out again.
    fn recycle(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        id: ChunkId,
        late: &mut dyn FnMut(&Late),
    ) {
        let meta = self.meta(id);
        let info = meta.info();
        let located = self.locate(self.layout.slot(id), id, info);
        let Located { slot, start, size, .. } = located;
        self.check_freed(backend, &located, late);
        meta.set_info(info.with_state(ChunkState::Recycled));
        // Before its bytes change: goes with `ChunkMeta::info_after`.
        fence(Ordering::Release);
        if slot.class.is_large() {
            self.swept.wait(backend, id);
            backend.decommit(large_pages(start, start + size));
            self.give_back(cache.tid, backend, slot.class, List::of(id));
            return;
        }
        self.clear_freed(backend, &located);
        let stock = &mut cache.free[slot.class.index()];
        let full = stock.take_full(slot.class);
        stock.push(id, meta);
        if let Some(full) = full {
            self.give_back(cache.tid, backend, slot.class, full);
        }
    }

    /// Puts a list of free slots into the centre.
    pub(crate) fn give_back(&self, tid: ThreadId, backend: &impl Backend, class: Class, list: List) {
        if list.count > 0 {
            let central = &self.centrals[class.index()];
            central.lock.hold(backend, &self.forker, tid, || central.put(list, self.tables.metas));
        }
    }

    /// Empties a cache whose thread is gone, or whose one call is over.
    pub fn retire(&self, cache: &mut ThreadCache, backend: &impl Backend, late: &mut dyn FnMut(&Late)) {
        self.flush_small(cache, backend, late);
        self.flush_big(cache, backend, late);
        for class in Class::all().take_while(|class| !class.is_large()) {
            for list in cache.free[class.index()].lists() {
                let list = core::mem::replace(list, List::EMPTY);
                self.give_back(cache.tid, backend, class, list);
            }
        }
        let statistics = core::mem::take(&mut cache.statistics);
        self.retired.allocs.fetch_add(statistics.allocs.into_inner(), Ordering::Relaxed);
        self.retired.frees.fetch_add(statistics.frees.into_inner(), Ordering::Relaxed);
        self.retired.allocated_bytes.fetch_add(statistics.allocated_bytes.into_inner(), Ordering::Relaxed);
        self.retired.freed_bytes.fetch_add(statistics.freed_bytes.into_inner(), Ordering::Relaxed);
    }
}
