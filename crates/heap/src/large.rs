//! Large chunks: each has pages of its own, which it gives back when it is freed. Free slots are lists of one.

use core::sync::atomic::Ordering;

use memcheck_model::{Addr, AddrRange};

use crate::{
    Backend, Class, Heap, Pattern, Reason, Request, ThreadCache,
    cache::List,
    chunk::{Info, user_start},
    heap::{Allocated, PAGE, range},
    layout::Slot,
    redzone,
    size_class::LARGE_REDZONE,
};

/// Of a freed large chunk, this much from its start keeps its pages (and its pattern).
const LARGE_KEPT_BYTES: u64 = 1 << 16;

impl Heap<'_> {
    /// Makes a chunk with pages of its own.
    #[cold]
    pub(crate) fn allocate_large(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        request: &Request,
        mut class: Class,
    ) -> Option<Allocated> {
        let id = loop {
            let central = &self.centrals[class.index()];
            let id = central.lock.hold(backend, &self.forker, cache.tid, || {
                let recycled = central.take_list(1, self.tables.freed);
                if recycled.count > 0 {
                    return Some(recycled.head);
                }
                let number = central.frontier();
                (number < self.layout.slot_count(class)).then(|| {
                    central.set_frontier(number + 1);
                    self.layout.id(Slot { class, number })
                })
            });
            match id {
                Some(id) => break id,
                None => class = class.larger()?,
            }
        };
        let slot = self.layout.slot(id);
        let start = user_start(self.layout.slot_start(slot), class, request.align_shift);
        let end = start + request.size;
        let pages = large_pages(start, end);
        if !backend.commit(pages) {
            self.give_back(cache.tid, backend, class, List::of(id));
            return None;
        }
        backend.fill(redzone::left(pages.start().0, start), Pattern::Redzone);
        backend.fill(redzone::right(end, pages.end().0), Pattern::Redzone);
        backend.poison(range(pages.start().0, start), Reason::LeftRedzone);
        backend.unpoison(range(start, end));
        backend.poison(range(end.next_multiple_of(8), pages.end().0), Reason::RightRedzone);
        let meta = self.meta(id);
        meta.set_alloc_stack(request.stack);
        self.large_size(id).store(request.size, Ordering::Relaxed);
        cache.note_alloc(request.size);
        self.publish_live(cache);
        meta.set_info(Info::live(request.function, request.align_shift, 0, cache.tid));
        Some(Allocated { addr: Addr(start), zeroed: true })
    }

    /// Gives back most pages of a freed large chunk. How many bytes it still costs.
    pub(crate) fn trim(&self, backend: &impl Backend, class: Class, freed: AddrRange) -> u64 {
        if !class.is_large() {
            return class.shape().slot_bytes;
        }
        let from = (freed.start().0 + LARGE_KEPT_BYTES).next_multiple_of(PAGE);
        // The last bytes hold a pattern that will be checked.
        let to = (freed.end().0 - redzone::FREED_TAIL_BYTES) & !(PAGE - 1);
        if from < to {
            backend.discard(range(from, to));
        }
        LARGE_KEPT_BYTES + 2 * PAGE
    }
}

/// The pages of a large chunk, with its redzones.
pub(crate) fn large_pages(start: u64, end: u64) -> AddrRange {
    range((start - LARGE_REDZONE) & !(PAGE - 1), (end + LARGE_REDZONE).next_multiple_of(PAGE))
}
