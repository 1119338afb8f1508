//! The centre of one size class: recycled slots that no thread keeps, and the frontier behind which no slot was
//! ever used.
//!
//! Invariants: slots `0..frontier` were carved: their left redzones hold the pattern and their shadow says so,
//! and so does the left redzone after the last one (the right redzone of its chunk). `committed` bytes of the
//! region from its start are mapped (small classes). Both only grow. The list is touched under the lock only.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{ChunkId, cache::List, lock::Lock};

#[derive(Debug, Default)]
pub(crate) struct Central {
    pub lock: Lock,
    head: AtomicU32,
    count: AtomicU32,
    frontier: AtomicU32,
    committed: AtomicU64,
}

impl Central {
    pub const fn new() -> Self {
        Self {
            lock: Lock::new(),
            head: AtomicU32::new(ChunkId::NONE.0),
            count: AtomicU32::new(0),
            frontier: AtomicU32::new(0),
            committed: AtomicU64::new(0),
        }
    }

    /// The first slot that was never used. Release pairs with Acquire: metadata of slots before it is readable.
    #[inline]
    pub fn frontier(&self) -> u32 {
        self.frontier.load(Ordering::Acquire)
    }

    pub fn set_frontier(&self, frontier: u32) {
        self.frontier.store(frontier, Ordering::Release);
    }

    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    pub fn set_committed(&self, bytes: u64) {
        self.committed.store(bytes, Ordering::Relaxed);
    }

    /// The free list; the lock is held.
    pub fn list(&self) -> List {
        List { head: ChunkId(self.head.load(Ordering::Relaxed)), count: self.count.load(Ordering::Relaxed) }
    }

    pub fn set_list(&self, list: List) {
        self.head.store(list.head.0, Ordering::Relaxed);
        self.count.store(list.count, Ordering::Relaxed);
    }
}
