//! What becomes of freed chunks: they wait in the quarantine, are looked at once more, and are free slots then,
//! in a thread's chain or list or the centre's.
//!
//! In: a thread's batch of frees. Out: free slots; damage to the bytes of freed chunks as [`Late`].
//!
//! Invariant: nothing is read here that was not asked for some chunks ahead, because chunks that leave the quarantine
//! were last touched long ago.

use core::sync::atomic::{Ordering, fence};

use memcheck_model::ThreadId;

use crate::{
    Backend, ChunkId, ChunkState, Class, Heap, Late, ThreadCache,
    cache::List,
    group::{Chain, Group, Stock},
    heap::Located,
    large::large_pages,
    quarantine::{Batch, Pending, QUARANTINES},
};

/// What the quarantines hold at least, unless told otherwise.
const QUARANTINE_BYTES: [u64; QUARANTINES] = [16 << 20, 8 << 20];
/// How many batches at most leave the quarantine for one that comes.
const DRAIN_BATCHES: usize = 4;
/// How many chunks ahead memory is asked for.
const DRAIN_AHEAD: usize = 8;
/// Slots above this size wait in the quarantine of big chunks.
const BIG_SLOT_BYTES: u64 = 8 << 10;

impl Heap<'_> {
    /// Puts a freed chunk into the quarantine, where it costs so many bytes.
    #[inline(always)]
    pub(crate) fn hold_back(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        id: ChunkId,
        bytes: u64,
        late: &mut dyn FnMut(&Late),
    ) {
        let which = usize::from(bytes > BIG_SLOT_BYTES);
        let batches = self.tables.batches[which];
        if !cache.pending[which].put(id, bytes, batches) {
            self.flush(cache, backend, which, late);
            // Without any batch it stays where it is: freed, and in nobody's hands.
            cache.pending[which].put(id, bytes, batches);
        }
    }

    /// Hands a thread's frees to a quarantine, and recycles what has waited there long enough.
    #[cold]
    fn flush(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        which: usize,
        late: &mut dyn FnMut(&Late),
    ) {
        self.publish_live(cache);
        let quarantine = &self.quarantines[which];
        let live = self.live_bytes.load(Ordering::Relaxed).max(0) as u64;
        let budget = self.wishes.quarantine_bytes.unwrap_or(QUARANTINE_BYTES[which] + live / 16);
        let pending = core::mem::replace(&mut cache.pending[which], Pending::NONE);
        let mut drained = [None; DRAIN_BATCHES];
        quarantine.lock.hold(backend, &self.forker, cache.tid, || {
            quarantine.append(pending);
            for place in &mut drained {
                *place = quarantine.take_over(budget);
            }
        });
        for batch in drained.into_iter().flatten() {
            self.drain(cache, backend, quarantine.batch(batch), late);
        }
        cache.pending[which] = quarantine.lock.hold(backend, &self.forker, cache.tid, || {
            drained.into_iter().flatten().for_each(|batch| quarantine.spare(batch));
            quarantine.take_spare()
        });
    }

    /// Recycles the chunks of a batch.
    fn drain(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        batch: &Batch,
        late: &mut dyn FnMut(&Late),
    ) {
        let ask_for = |id| {
            let slot = self.layout.slot(id);
            self.ask_for(backend, id, slot.class, self.layout.slot_start(slot));
        };
        batch.first(DRAIN_AHEAD).for_each(ask_for);
        // Neighbours are often freed one after the other.
        let mut free = None;
        for (id, coming) in batch.chunks(DRAIN_AHEAD) {
            coming.map(ask_for);
            let class = self.recycle(backend, id, late);
            if !class.is_grouped() {
                self.put_in_list(cache, backend, class, id);
                continue;
            }
            let (group, bit) = Group::of(id);
            free = match free {
                Some((class, with, bits)) if with == group => Some((class, with, bits | bit)),
                other => {
                    self.put_free(cache, backend, other);
                    Some((class, group, bit))
                }
            };
        }
        self.put_free(cache, backend, free);
    }

    /// Makes a chunk that has left the quarantine ready to be given out again.
    fn recycle(&self, backend: &impl Backend, id: ChunkId, late: &mut dyn FnMut(&Late)) -> Class {
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
        } else {
            self.clear_freed(backend, &located);
        }
        slot.class
    }

    /// Makes slots of a group free.
    fn put_free(&self, cache: &mut ThreadCache, backend: &impl Backend, slots: Option<(Class, Group, u64)>) {
        let Some((class, group, bits)) = slots else { return };
        let stock = &mut cache.grouped[class.index()];
        stock.put(group, bits, self.tables.groups);
        if let Some(full) = stock.take_full(class, class.kept_groups(self.is_shared())) {
            self.give_back_chain(cache.tid, backend, class, full);
        }
    }

    /// Makes a slot of a class that is not grouped free.
    fn put_in_list(&self, cache: &mut ThreadCache, backend: &impl Backend, class: Class, id: ChunkId) {
        if class.is_large() {
            return self.give_back(cache.tid, backend, class, List::of(id));
        }
        let list = cache.listed(class);
        let full = list.take_full(class);
        list.push(id, self.tables.freed);
        if let Some(full) = full {
            self.give_back(cache.tid, backend, class, full);
        }
    }

    /// Puts groups into the centre.
    fn give_back_chain(&self, tid: ThreadId, backend: &impl Backend, class: Class, chain: Chain) {
        if chain.count > 0 {
            let central = &self.centrals[class.index()];
            central.lock.hold(backend, &self.forker, tid, || central.put(chain, self.tables.groups));
        }
    }

    /// Puts a list of free slots into the centre.
    pub(crate) fn give_back(&self, tid: ThreadId, backend: &impl Backend, class: Class, list: List) {
        if list.count > 0 {
            let central = &self.centrals[class.index()];
            central.lock.hold(backend, &self.forker, tid, || central.put_list(list, self.tables.freed));
        }
    }

    /// Empties a cache whose thread is gone, or whose one call is over.
    pub fn retire(&self, cache: &mut ThreadCache, backend: &impl Backend, late: &mut dyn FnMut(&Late)) {
        for (which, quarantine) in self.quarantines.iter().enumerate() {
            self.flush(cache, backend, which, late);
            let empty = core::mem::replace(&mut cache.pending[which], Pending::NONE);
            quarantine.lock.hold(backend, &self.forker, cache.tid, || quarantine.append(empty));
        }
        for class in Class::all().take_while(|class| !class.is_large()) {
            if let Some(stock) = cache.grouped.get_mut(class.index()) {
                let chain = core::mem::replace(stock, Stock::EMPTY).into_chain(self.tables.groups);
                self.give_back_chain(cache.tid, backend, class, chain);
            } else {
                let list = core::mem::replace(cache.listed(class), List::EMPTY);
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
