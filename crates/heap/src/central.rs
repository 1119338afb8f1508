//! The centre of one size class: recycled slots that no thread keeps, and the frontier behind which no slot was
//! ever used.
//!
//! ```text
//!  top ─▶ first slot of a list ─below▶ first slot of another … lists come and go whole: nobody walks along one here
//!            └next▶ …                    └next▶ …
//! ```
//!
//! Invariants: slots `0..frontier` were carved: their left redzones hold the pattern and their shadow says so,
//! and so does the left redzone after the last one (the right redzone of its chunk). `committed` bytes of the
//! region from its start are mapped (small classes). Both only grow. The lists are touched under the lock only.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{ChunkMeta, cache::List, lock::Lock};

#[derive(Debug, Default)]
pub(crate) struct Central {
    pub lock: Lock,
    top: AtomicU64,
    frontier: AtomicU32,
    committed: AtomicU64,
}

impl Central {
    pub const fn new() -> Self {
        Self {
            lock: Lock::new(),
            top: AtomicU64::new(List::EMPTY.word()),
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

    /// Adds a list, which is not empty; the lock is held.
    pub fn put(&self, list: List, metas: &[ChunkMeta]) {
        metas[list.head.0 as usize].set_below(self.top.load(Ordering::Relaxed));
        self.top.store(list.word(), Ordering::Relaxed);
    }

    /// Takes the list that was added last, if there is one; the lock is held.
    pub fn take(&self, metas: &[ChunkMeta]) -> List {
        let list = List::from_word(self.top.load(Ordering::Relaxed));
        if list.count > 0 {
            self.top.store(metas[list.head.0 as usize].below(), Ordering::Relaxed);
        }
        list
    }
}
