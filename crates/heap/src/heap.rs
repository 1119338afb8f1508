//! The heap: allocation and freeing over the parts of this crate.
//!
//! In: sizes, addresses and who asks ([`Request`], [`Freeing`]). Out: addresses, and what is wrong as data
//! ([`FreeError`], [`Late`]); reports are made by others. Memory is touched through [`Backend`] alone.
//!
//! Invariants: a slot is in one place only: live, in one `Pending` or ring batch, or free in one group or stock. A thread
//! takes a lock only when a chain of its own ran empty or full. Runs before init, in signal handlers (with a cache
//! of their own, see [`ThreadCache`]), in a child of vfork.

use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use memcheck_model::{Addr, AddrRange, Damage, Function, Size, StackId, ThreadId};

use crate::{
    Backend, Batch, Chunk, ChunkId, ChunkMeta, ChunkState, Class, FreedMeta, GroupWords, Layout, Pattern,
    Reason, ThreadCache,
    cache::count,
    central::Central,
    chunk::{Info, user_start},
    group::Stock,
    known::KnownWrites,
    large::large_pages,
    layout::Slot,
    lock::Forker,
    quarantine::{QUARANTINES, Quarantine},
    redzone::{self, Zones},
    size_class::{CLASSES, ClassShape, LARGE_REDZONE},
    swept::Swept,
};

pub(crate) const PAGE: u64 = 4096;

/// The memory that the heap's own records live in. Zeroed.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// One for each of `Layout::chunk_count`.
    pub metas: &'a [ChunkMeta],
    /// As many.
    pub freed: &'a [FreedMeta],
    /// One for each of `Layout::group_count`.
    pub groups: &'a [GroupWords],
    /// Sizes of large chunks: `Layout::large_count`.
    pub large_sizes: &'a [AtomicU64],
    /// For the quarantines of small chunks and of big ones.
    pub batches: [&'a [Batch]; QUARANTINES],
}

impl Tables<'_> {
    /// How many batches a quarantine has in earnest.
    pub const BATCHES: usize = crate::quarantine::BATCHES;
}

/// What a chunk is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// How many bytes.
    pub size: u64,
    /// The alignment is `1 << align_shift`; zero for the ordinary one of 16.
    pub align_shift: u32,
    /// Who is asked.
    pub function: Function,
    /// Where.
    pub stack: StackId,
}

/// A chunk was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// The user's first byte.
    pub addr: Addr,
    /// Whether all of the user's bytes are zero.
    pub zeroed: bool,
}

/// How a chunk is freed.
#[derive(Clone, Copy, Debug)]
pub struct Freeing {
    /// Who is asked.
    pub function: Function,
    /// Where.
    pub stack: StackId,
}

/// Where the chunk is that an address is said to be the start of.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    addr: Addr,
    slot: Slot,
    slot_start: u64,
    id: ChunkId,
}

/// A chunk was freed: what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Its slot; what is known of it is still there.
    pub id: ChunkId,
    /// How many bytes it had.
    pub size: u64,
    /// Who allocated it.
    pub allocated_by: Function,
    /// The alignment it was asked for with, as a shift, or zero.
    pub align_shift: u32,
}

/// Why nothing was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The chunk was freed before.
    AlreadyFreed(Chunk),
    /// No chunk starts there.
    NoChunk,
}

/// Traces of an earlier write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// The chunk that was overrun, or written to after it was freed.
    pub chunk: Chunk,
    /// What changed.
    pub damage: Damage,
    /// Whether it happened to the chunk's own bytes, after it was freed.
    pub after_free: bool,
}

/// Sums over the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Chunks allocated.
    pub allocs: u64,
    /// Chunks freed.
    pub frees: u64,
    /// Bytes asked for.
    pub allocated_bytes: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
}

impl Statistics {
    /// Adds what a cache counted.
    pub fn add(&mut self, cache: &crate::CacheStatistics) {
        self.allocs += cache.allocs.load(Ordering::Relaxed);
        self.frees += cache.frees.load(Ordering::Relaxed);
        self.allocated_bytes += cache.allocated_bytes.load(Ordering::Relaxed);
        self.freed_bytes += cache.freed_bytes.load(Ordering::Relaxed);
    }
}

/// A slot, its metadata as it was read, and where that says that the chunk is.
#[derive(Clone, Copy)]
pub(crate) struct Located {
    pub slot: Slot,
    pub id: ChunkId,
    pub info: Info,
    pub slot_start: u64,
    pub start: u64,
    pub size: u64,
}

impl Located {
    /// The user's bytes.
    pub fn user(&self) -> AddrRange {
        range(self.start, self.start + self.size)
    }
}

/// What the user wants of the heap, if anything in particular.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// How many bytes of freed chunks are held back.
    pub quarantine_bytes: Option<u64>,
    /// Every chunk's alignment is a multiple of `1 << align_shift`.
    pub align_shift: u32,
    /// How many bytes more than its size a chunk has room for: they are a part of its right redzone.
    pub slack_bytes: u64,
    /// Freed chunks keep what they held until they are given out again, so that a program goes on as it would have
    /// after an access to one was reported. That such a chunk was changed then shows, but not where.
    pub keeps_freed: bool,
    /// What freed chunks are filled with, for the program to see; changes show as with `keeps_freed`.
    pub free_fill: Option<u8>,
}

/// The heap.
#[derive(Debug)]
pub struct Heap<'a> {
    pub(crate) layout: Layout,
    pub(crate) tables: Tables<'a>,
    pub(crate) centrals: [Central; CLASSES],
    pub(crate) quarantines: [Quarantine<'a>; QUARANTINES],
    pub(crate) wishes: Wishes,
    pub(crate) forker: Forker,
    pub(crate) retired: crate::CacheStatistics,
    pub(crate) live_bytes: AtomicI64,
    peak_bytes: AtomicI64,
    pub(crate) known: KnownWrites,
    pub(crate) swept: Swept,
    /// Whether more than one thread uses the heap, or may.
    is_shared: AtomicBool,
}

impl<'a> Heap<'a> {
    /// A heap over these tables.
    #[must_use]
    pub fn new(layout: Layout, tables: Tables<'a>, wishes: Wishes) -> Self {
        Self {
            layout,
            tables,
            centrals: [const { Central::new() }; CLASSES],
            quarantines: tables.batches.map(Quarantine::new),
            wishes,
            forker: Forker::default(),
            retired: crate::CacheStatistics::default(),
            live_bytes: AtomicI64::new(0),
            peak_bytes: AtomicI64::new(0),
            known: KnownWrites::new(),
            swept: Swept::new(),
            is_shared: AtomicBool::new(false),
        }
    }

    /// Where the heap lies.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A second thread is about to use the heap. Only frees of one chunk by two threads at once need to know.
    pub fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn meta(&self, id: ChunkId) -> &ChunkMeta {
        &self.tables.metas[id.0 as usize]
    }

    #[inline]
    pub(crate) fn freed_meta(&self, id: ChunkId) -> &FreedMeta {
        &self.tables.freed[id.0 as usize]
    }

    pub(crate) fn large_size(&self, id: ChunkId) -> &AtomicU64 {
        &self.tables.large_sizes[(id.0 - self.layout.first_large_id()) as usize]
    }

    #[inline]
    pub(crate) fn size_of(&self, id: ChunkId, class: Class, info: Info) -> u64 {
        // Acquire: see `try_resize`.
        if class.is_large() { self.large_size(id).load(Ordering::Acquire) } else { info.small_size() }
    }

    /// Makes a chunk. `None` when there is no memory, or no region for such a size.
    #[inline(always)]
    pub fn allocate(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        request: &Request,
    ) -> Option<Allocated> {
        let request = &Request { align_shift: request.align_shift.max(self.wishes.align_shift), ..*request };
        let class = Class::find(request.size.saturating_add(self.wishes.slack_bytes), request.align_shift)?;
        if class.is_large() {
            return self.allocate_large(cache, backend, request, class);
        }
        match cache.grouped.get_mut(class.index()).and_then(Stock::pop) {
            Some((id, coming)) => {
                // Its metadata is read; its bytes are only written, which nobody waits for.
                if let Some(meta) = self.tables.metas.get(coming.0 as usize) {
                    backend.prefetch(address_of(meta));
                }
                Some(self.furnish(cache, backend, request, class, id))
            }
            None => self.allocate_slowly(cache, backend, request, class),
        }
    }

    /// As `allocate`, when the group at hand has no more. A full region passes the request on to the next.
    #[cold]
    fn allocate_slowly(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        request: &Request,
        mut class: Class,
    ) -> Option<Allocated> {
        while !class.is_large() {
            let mut found = self.find_kept(cache, class);
            if found.is_none() {
                self.publish_live(cache);
                self.refill(cache, backend, class);
                found = self.find_kept(cache, class);
            }
            if let Some(id) = found {
                return Some(self.furnish(cache, backend, request, class, id));
            }
            class = class.larger()?;
        }
        self.allocate_large(cache, backend, request, class)
    }

    /// Makes a slot of a small class into a live chunk.
    #[inline(always)]
    fn furnish(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        request: &Request,
        class: Class,
        id: ChunkId,
    ) -> Allocated {
        let slot_start = self.layout.slot_start(self.layout.slot_of(class, id));
        let ClassShape { slot_bytes, left_redzone, .. } = *class.shape();
        let meta = self.meta(id);
        let zeroed = meta.info().state() == ChunkState::Unused;
        let start = user_start(slot_start, class, request.align_shift);
        let end = start + request.size;
        let slot_end = slot_start + slot_bytes;
        meta.set_alloc_stack(request.stack);
        if request.align_shift > 4 {
            let left = slot_start + left_redzone;
            backend.poison(range(left, start), Reason::LeftRedzone);
            backend.fill(redzone::left(left, start), Pattern::Redzone);
        }
        backend.unpoison(range(start, end));
        let slack = range(end, slot_end);
        if !slack.is_empty() {
            backend.fill(redzone::right(end, slot_end), Pattern::Redzone);
            if slot_end - end >= 8 {
                backend.poison(range(end.next_multiple_of(8), slot_end), Reason::RightRedzone);
            }
        }
        cache.note_alloc(request.size);
        meta.set_info(Info::live(request.function, request.align_shift, request.size, cache.tid));
        Allocated { addr: Addr(start), zeroed }
    }

    /// A slot that the thread has.
    fn find_kept(&self, cache: &mut ThreadCache, class: Class) -> Option<ChunkId> {
        if let Some(stock) = cache.grouped.get_mut(class.index()) {
            stock.turn(self.tables.groups);
            return stock.pop().map(|(id, _)| id);
        }
        cache.listed(class).pop(self.tables.freed)
    }

    /// Slots for a thread that has none of this class: recycled ones, else fresh ones.
    fn refill(&self, cache: &mut ThreadCache, backend: &impl Backend, class: Class) {
        let central = &self.centrals[class.index()];
        let Tables { freed, groups, .. } = self.tables;
        central.lock.hold(backend, &self.forker, cache.tid, || {
            let recycled = if let Some(stock) = cache.grouped.get_mut(class.index()) {
                let most = class.kept_groups(self.is_shared());
                let taken = central.take(class.shape().kept / 2, most, groups);
                stock.go_on_with(taken);
                taken.1
            } else {
                *cache.listed(class) = central.take_list(class.shape().kept, freed);
                cache.listed(class).count
            };
            if recycled > 0 {
                return;
            }
            let first = central.frontier();
            let wanted = class.fresh_slots(first).min(self.layout.slot_count(class) - first);
            if wanted == 0 || !self.carve(backend, central, class, first, wanted) {
                return;
            }
            let ids = (first..first + wanted).map(|number| self.layout.id(Slot { class, number }));
            ids.clone().for_each(|id| self.meta(id).begin());
            central.set_frontier(first + wanted);
            match cache.grouped.get_mut(class.index()) {
                Some(stock) => stock.begin(ids, groups),
                None => ids.rev().for_each(|id| cache.listed(class).push(id, freed)),
            }
        });
    }

    /// Prepares the slots `first..first + count` and the redzone behind them. The class's lock is held.
    fn carve(&self, backend: &impl Backend, central: &Central, class: Class, first: u32, count: u32) -> bool {
        let ClassShape { slot_bytes, left_redzone, .. } = *class.shape();
        let region = self.layout.region_start(class);
        let end = u64::from(first + count) * slot_bytes + left_redzone;
        let committed = central.committed();
        if end > committed {
            // An eighth more than there is keeps mappings few and idle memory little.
            let step = (64 << 10).max(committed / 8).min(32 << 20);
            let wanted = end.max(committed + step).next_multiple_of(PAGE);
            let least = end.next_multiple_of(PAGE);
            let commit = |to| backend.commit(range(region + committed, region + to));
            if commit(wanted) {
                central.set_committed(wanted);
            } else if commit(least) {
                central.set_committed(least);
            } else {
                return false;
            }
        }
        let start = region + u64::from(first) * slot_bytes;
        let metas = address_of(self.meta(self.layout.id(Slot { class, number: 0 }))).0;
        let meta_bytes = |slots: u32| u64::from(slots) * size_of::<ChunkMeta>() as u64;
        let all_metas = meta_bytes(self.layout.slot_count(class));
        prepare(backend, metas, meta_bytes(first), meta_bytes(first + count), all_metas);
        prepare(backend, region, start - region, end, central.committed());
        // The redzone at `start` stands already, unless this is the region's first slot.
        if first == 0 {
            backend.fill(redzone::left(start, start + left_redzone), Pattern::Redzone);
            backend.poison(range(start, start + left_redzone), Reason::LeftRedzone);
        }
        backend.poison(range(start + left_redzone, region + end), Reason::Unused);
        for number in 1..=u64::from(count) {
            let next = start + number * slot_bytes;
            backend.fill(redzone::left(next, next + left_redzone), Pattern::Redzone);
            // Of a short one that was all of it.
            if left_redzone > redzone::ZONE_BYTES {
                backend.fill(redzone::right(next, next + left_redzone), Pattern::Redzone);
            }
            backend.poison(range(next, next + left_redzone), Reason::LeftRedzone);
        }
        true
    }

    /// Inlined, as what follows: its parts then stay in registers.
    #[inline(always)]
    pub(crate) fn locate(&self, slot: Slot, id: ChunkId, info: Info) -> Located {
        self.locate_from(self.layout.slot_start(slot), slot, id, info)
    }

    #[inline(always)]
    fn locate_from(&self, slot_start: u64, slot: Slot, id: ChunkId, info: Info) -> Located {
        let start = user_start(slot_start, slot.class, info.align_shift());
        Located { slot, id, info, slot_start, start, size: self.size_of(id, slot.class, info) }
    }

    /// A slot will soon be looked at: its metadata, and the first and the last bytes of a small one.
    #[inline(always)]
    pub(crate) fn ask_for(&self, backend: &impl Backend, id: ChunkId, class: Class, slot_start: u64) {
        if let (Some(meta), Some(freed)) =
            (self.tables.metas.get(id.0 as usize), self.tables.freed.get(id.0 as usize))
        {
            backend.prefetch(address_of(meta));
            backend.prefetch(address_of(freed));
        }
        backend.prefetch(Addr(slot_start + class.shape().left_redzone));
        backend.prefetch(Addr(slot_start + class.shape().slot_bytes));
    }

    /// The chunk that was sought if it starts there, live or not.
    #[inline(always)]
    fn find_chunk(&self, Sought { addr, slot, slot_start, id }: Sought) -> Option<Located> {
        if !self.was_used(slot) {
            return None;
        }
        let located = self.locate_from(slot_start, slot, id, self.meta(id).info());
        (located.info.state() != ChunkState::Unused && located.start == addr.0).then_some(located)
    }

    /// Where the chunk that starts at `addr` is, if there is one. Its memory is asked for, so that it is there when
    /// it is freed.
    #[inline]
    pub fn seek(&self, backend: &impl Backend, addr: Addr) -> Option<Sought> {
        let slot = self.layout.find_slot(addr)?;
        let (slot_start, id) = (self.layout.slot_start(slot), self.layout.id(slot));
        self.ask_for(backend, id, slot.class, slot_start);
        Some(Sought { addr, slot, slot_start, id })
    }

    /// Frees the chunk that starts at `addr`. Damage that comes to light on the way goes to `late`.
    pub fn free(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        addr: Addr,
        how: &Freeing,
        late: &mut dyn FnMut(&Late),
    ) -> Result<Freed, FreeError> {
        let sought = self.seek(backend, addr).ok_or(FreeError::NoChunk)?;
        self.free_sought(cache, backend, sought, how, late)
    }

    /// The same for one that was sought before.
    #[inline(always)]
    pub fn free_sought(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        sought: Sought,
        how: &Freeing,
        late: &mut dyn FnMut(&Late),
    ) -> Result<Freed, FreeError> {
        // Twice the same, so that the one for small chunks, which are by far the most, is made for those.
        if sought.slot.class.is_large() {
            self.free_large(cache, backend, sought, how, late)
        } else {
            self.free_slot(cache, backend, sought, how, late)
        }
    }

    #[cold]
    fn free_large(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        sought: Sought,
        how: &Freeing,
        late: &mut dyn FnMut(&Late),
    ) -> Result<Freed, FreeError> {
        self.free_slot(cache, backend, sought, how, late)
    }

    #[inline(always)]
    fn free_slot(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        sought: Sought,
        how: &Freeing,
        late: &mut dyn FnMut(&Late),
    ) -> Result<Freed, FreeError> {
        let located = self.find_chunk(sought).ok_or(FreeError::NoChunk)?;
        let Located { slot, id, info, size, .. } = located;
        let meta = self.meta(id);
        let freed_info = info.freed_by(how.function);
        if info.state() != ChunkState::Live || !meta.try_free(backend, self.is_shared(), info, freed_info) {
            return Err(FreeError::AlreadyFreed(self.view(id)));
        }
        self.check_redzones(backend, &located, late);
        meta.set_free_stack(how.stack);
        cache.note_free(size);
        let freed = located.user();
        backend.poison(freed, Reason::Freed);
        self.freed_meta(id).set(cache.tid, self.settle_freed(backend, freed));
        meta.set_info(freed_info.settled());
        self.hold_back(cache, backend, id, self.trim(backend, slot.class, freed), late);
        Ok(Freed { id, size, allocated_by: info.alloc_function(), align_shift: info.align_shift() })
    }

    /// Changes a live chunk's size where it is, if its slot allows. Whether that was done. The caller has made
    /// sure that nobody else frees it meanwhile, as `realloc` may.
    pub fn try_resize(
        &self,
        cache: &mut ThreadCache,
        backend: &impl Backend,
        addr: Addr,
        request: &Request,
        late: &mut dyn FnMut(&Late),
    ) -> bool {
        let Some(located) = self.seek(backend, addr).and_then(|sought| self.find_chunk(sought)) else {
            return false;
        };
        let Located { slot, id, info, slot_start, size: old, .. } = located;
        let slot_end = slot_start + slot.class.shape().slot_bytes;
        let (start, size) = (addr.0, request.size);
        let tail = if slot.class.is_large() { LARGE_REDZONE } else { 0 };
        // A slot much too large would waste it.
        if info.state() != ChunkState::Live
            || size.saturating_add(self.wishes.slack_bytes) > slot_end - start - tail
            || size < slot.class.shape().capacity / 2
        {
            return false;
        }
        self.check_redzones(backend, &located, late);
        let (old_pages, pages) = (large_pages(start, start + old), large_pages(start, start + size));
        let is_large = slot.class.is_large();
        if is_large
            && pages.end() > old_pages.end()
            && !backend.commit(range(old_pages.end().0, pages.end().0))
        {
            return false;
        }
        let end = start + size;
        let zone_end = if is_large { pages.end().0 } else { slot_end };
        backend.unpoison(range(start, end));
        backend.fill(redzone::right(end, zone_end), Pattern::Redzone);
        if end.next_multiple_of(8) < zone_end {
            backend.poison(range(end.next_multiple_of(8), zone_end), Reason::RightRedzone);
        }
        if is_large {
            // Release: who looks at the chunk with this size finds the redzone filled.
            self.large_size(id).store(size, Ordering::Release);
            if pages.end() < old_pages.end() {
                self.swept.wait(backend, id);
                backend.decommit(range(pages.end().0, old_pages.end().0));
            }
        }
        cache.note_free(old);
        cache.note_alloc(size);
        self.publish_live(cache);
        let meta = self.meta(id);
        meta.set_alloc_stack(request.stack);
        meta.set_info(Info::live(request.function, info.align_shift(), size, cache.tid));
        true
    }

    /// Adds a thread's change of live bytes to the whole, and the highest point it had on the way to the peak.
    /// Exact for one thread; with several the peak errs by what each did since it last came here: at most a
    /// batch of chunks.
    pub(crate) fn publish_live(&self, cache: &mut ThreadCache) {
        let before = self.live_bytes.fetch_add(cache.live_delta, Ordering::Relaxed);
        self.peak_bytes.fetch_max(before + cache.live_high, Ordering::Relaxed);
        cache.live_delta = 0;
        cache.live_high = 0;
    }

    /// The most bytes that were live at once, as far as threads have told.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed).max(0) as u64
    }

    /// What retired caches had counted.
    #[must_use]
    pub fn retired_statistics(&self) -> Statistics {
        let mut sums = Statistics::default();
        sums.add(&self.retired);
        sums
    }

    /// Tells the heap what the cache did since it last came to it.
    pub fn publish(&self, cache: &mut ThreadCache) {
        self.publish_live(cache);
    }

    /// Counts for a process that has just been forked: nothing of its own yet but what it inherited.
    pub fn forget_thread(&self, cache: &ThreadCache) {
        let statistics = &cache.statistics;
        let add = |to: &AtomicU64, from: &AtomicU64| count(to, from.load(Ordering::Relaxed));
        add(&self.retired.allocs, &statistics.allocs);
        add(&self.retired.frees, &statistics.frees);
        add(&self.retired.allocated_bytes, &statistics.allocated_bytes);
        add(&self.retired.freed_bytes, &statistics.freed_bytes);
    }

    /// Takes every lock, in order, because `tid` forks. That thread may go on allocating.
    pub fn lock_for_fork(&self, backend: &impl Backend, tid: ThreadId) {
        for central in &self.centrals {
            central.lock.acquire(backend);
        }
        for quarantine in &self.quarantines {
            quarantine.lock.acquire(backend);
        }
        self.forker.set(tid);
    }

    /// Gives the locks back, in the parent and in the child.
    pub fn unlock_after_fork(&self) {
        self.forker.set(ThreadId(0));
        for quarantine in self.quarantines.iter().rev() {
            quarantine.lock.release();
        }
        for central in self.centrals.iter().rev() {
            central.lock.release();
        }
    }

    /// This is a forked child's only thread: no other looks at the heap.
    pub fn forget_sweep(&self) {
        self.swept.forget();
    }

    /// What is around a chunk's bytes.
    #[inline(always)]
    pub(crate) fn zones(located: &Located) -> Zones {
        let Located { slot, slot_start, start, size, .. } = *located;
        let end = start + size;
        if slot.class.is_large() {
            let pages = large_pages(start, end);
            return Zones {
                left: redzone::left(pages.start().0, start),
                right: redzone::right(end, pages.end().0),
            };
        }
        let ClassShape { slot_bytes, left_redzone, .. } = *slot.class.shape();
        Zones {
            left: redzone::left(slot_start, start),
            right: redzone::right(end, slot_start + slot_bytes + left_redzone),
        }
    }
}

/// Memory that is used from `start` on, up to `from` until now and up to `to` from now on, of `all` bytes that may be:
/// when it is much already, the next pages are made ready some at a time, instead of by a fault for each.
fn prepare(backend: &impl Backend, start: u64, from: u64, to: u64, all: u64) {
    const MUCH_BYTES: u64 = 1 << 20;
    const STEP_BYTES: u64 = 128 << 10;
    let step = to / STEP_BYTES * STEP_BYTES;
    if from >= MUCH_BYTES && step > from && step + STEP_BYTES <= all {
        backend.prepare(range((start + step) & !(PAGE - 1), start + step + STEP_BYTES));
    }
}

/// Where a record is, to ask for it.
#[inline]
fn address_of<T>(record: &T) -> Addr {
    Addr(core::ptr::from_ref(record) as u64)
}

/// `[start, end)`, or nothing at `start` when `end` lies before it.
#[inline]
pub(crate) fn range(start: u64, end: u64) -> AddrRange {
    AddrRange::new(Addr(start), Size(end.saturating_sub(start))).unwrap_or_default()
}
