//! What one thread keeps for itself: free slots of each small class, frees not yet handed to the quarantine, and
//! its share of the statistics. No other thread touches it (but for reading the statistics), so no lock is
//! needed until a list runs empty or full.
//!
//! A cache may also be made for one call: a signal handler that interrupted its own thread in the middle of an
//! allocation works through a fresh one and `Heap::retire`s it.

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::ThreadId;

use crate::{
    ChunkId, Class, FreedMeta,
    group::{GROUPED_CLASSES, Stock},
    quarantine::{Pending, QUARANTINES},
    size_class::SMALL_CLASSES,
};

/// A singly linked list of chunks of one class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    pub head: ChunkId,
    pub count: u32,
}

impl List {
    pub const EMPTY: Self = Self { head: ChunkId::NONE, count: 0 };

    /// A list of one.
    pub const fn of(id: ChunkId) -> Self {
        Self { head: id, count: 1 }
    }

    /// As one number.
    pub const fn word(self) -> u64 {
        (self.count as u64) << 32 | self.head.0 as u64
    }

    /// The list of a number.
    pub const fn from_word(word: u64) -> Self {
        Self { head: ChunkId(word as u32), count: (word >> 32) as u32 }
    }

    #[inline]
    pub fn push(&mut self, id: ChunkId, freed: &[FreedMeta]) {
        freed[id.0 as usize].set_next(self.head);
        self.head = id;
        self.count += 1;
    }

    #[inline]
    pub fn pop(&mut self, freed: &[FreedMeta]) -> Option<ChunkId> {
        if self.count == 0 {
            return None;
        }
        let id = self.head;
        self.head = freed[id.0 as usize].next();
        self.count -= 1;
        Some(id)
    }

    /// The list, when it is as much as a thread keeps. It goes to the centre as it is.
    #[inline]
    pub fn take_full(&mut self, class: Class) -> Option<Self> {
        (self.count >= class.shape().kept).then(|| core::mem::replace(self, Self::EMPTY))
    }
}

/// Counted events. Written by the cache's thread alone, read by any.
#[derive(Debug, Default)]
pub struct CacheStatistics {
    pub(crate) allocs: AtomicU64,
    pub(crate) frees: AtomicU64,
    pub(crate) allocated_bytes: AtomicU64,
    pub(crate) freed_bytes: AtomicU64,
}

/// Adds without a locked instruction: there is one writer.
#[inline]
pub(crate) fn count(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// One thread's part of the heap.
#[derive(Debug)]
pub struct ThreadCache {
    pub(crate) tid: ThreadId,
    pub(crate) grouped: [Stock; GROUPED_CLASSES],
    /// Of the classes after those.
    listed: [List; SMALL_CLASSES - GROUPED_CLASSES],
    /// For each quarantine.
    pub(crate) pending: [Pending; QUARANTINES],
    /// Live bytes gained (or lost) since they were last added to the heap's.
    pub(crate) live_delta: i64,
    /// The most that `live_delta` has been since then.
    pub(crate) live_high: i64,
    /// What the thread did.
    pub statistics: CacheStatistics,
}

impl ThreadCache {
    /// An empty cache for a thread.
    #[must_use]
    pub const fn new(tid: ThreadId) -> Self {
        Self {
            tid,
            grouped: [Stock::EMPTY; GROUPED_CLASSES],
            listed: [List::EMPTY; SMALL_CLASSES - GROUPED_CLASSES],
            pending: [Pending::NONE; QUARANTINES],
            live_delta: 0,
            live_high: 0,
            statistics: CacheStatistics {
                allocs: AtomicU64::new(0),
                frees: AtomicU64::new(0),
                allocated_bytes: AtomicU64::new(0),
                freed_bytes: AtomicU64::new(0),
            },
        }
    }

    /// The free slots of a small class that is not grouped.
    pub(crate) fn listed(&mut self, class: Class) -> &mut List {
        &mut self.listed[class.index() - GROUPED_CLASSES]
    }

    /// The thread that works through the cache.
    #[must_use]
    pub const fn tid(&self) -> ThreadId {
        self.tid
    }

    /// Gives the cache, with all that is in it, to another thread.
    pub const fn set_tid(&mut self, tid: ThreadId) {
        self.tid = tid;
    }

    #[inline]
    pub(crate) fn note_alloc(&mut self, size: u64) {
        count(&self.statistics.allocs, 1);
        count(&self.statistics.allocated_bytes, size);
        self.live_delta += size as i64;
        self.live_high = self.live_high.max(self.live_delta);
    }

    #[inline]
    pub(crate) fn note_free(&mut self, size: u64) {
        count(&self.statistics.frees, 1);
        count(&self.statistics.freed_bytes, size);
        self.live_delta -= size as i64;
    }
}
