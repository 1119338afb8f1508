//! The centre of one size class: recycled slots that no thread keeps, and the frontier behind which no slot was
//! ever used.
//!
//! ```text
//!  head ─next▶ … ─next▶ tail       groups with recycled slots
//!  list ─next▶ …                   recycled slots of classes that are not grouped
//! ```
//!
//! Invariants: slots `0..frontier` were carved: their left redzones hold the pattern and their shadow says so,
//! and so does the left redzone after the last one (the right redzone of its chunk). `committed` bytes of the
//! region from its start are mapped (small classes). Both only grow. Chain and list are touched under the lock only.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{
    FreedMeta, GroupWords,
    cache::List,
    group::{Chain, Group},
    lock::Lock,
};

#[derive(Debug)]
pub(crate) struct Central {
    pub lock: Lock,
    list: AtomicU64,
    /// Groups; all ones is none.
    head: AtomicU32,
    tail: AtomicU32,
    frontier: AtomicU32,
    committed: AtomicU64,
}

impl Central {
    pub const fn new() -> Self {
        Self {
            lock: Lock::new(),
            list: AtomicU64::new(List::EMPTY.word()),
            head: AtomicU32::new(u32::MAX),
            tail: AtomicU32::new(u32::MAX),
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

    /// Adds a chain, which is not empty; the lock is held.
    pub fn put(&self, chain: Chain, groups: &[GroupWords]) {
        match self.head() {
            Group::NONE => self.head.store(chain.head.0, Ordering::Relaxed),
            _ => Group(self.tail.load(Ordering::Relaxed)).set_next(chain.head, groups),
        }
        self.tail.store(chain.tail.0, Ordering::Relaxed);
    }

    /// Takes the groups that were added first, `most` of them or until they have `enough` slots, and how many slots these
    /// are; the lock is held.
    pub fn take(&self, enough: u32, most: u32, groups: &[GroupWords]) -> (Chain, u32) {
        let (mut taken, mut slots, mut next) = (Chain::EMPTY, 0, self.head());
        let last = Group(self.tail.load(Ordering::Relaxed));
        while slots < enough && taken.count < most && next != Group::NONE {
            let group = next;
            next = if group == last { Group::NONE } else { group.next(groups) };
            slots += group.words(groups).count();
            taken.push(group, groups);
        }
        self.head.store(next.0, Ordering::Relaxed);
        (taken, slots)
    }

    fn head(&self) -> Group {
        Group(self.head.load(Ordering::Relaxed))
    }

    /// Adds a list of a class that is not grouped; the lock is held.
    pub fn put_list(&self, mut list: List, freed: &[FreedMeta]) {
        let mut all = self.list();
        while let Some(id) = list.pop(freed) {
            all.push(id, freed);
        }
        self.list.store(all.word(), Ordering::Relaxed);
    }

    /// Takes the slots that were added last, `most` of them; the lock is held.
    pub fn take_list(&self, most: u32, freed: &[FreedMeta]) -> List {
        let (mut all, mut taken) = (self.list(), List::EMPTY);
        while taken.count < most
            && let Some(id) = all.pop(freed)
        {
            taken.push(id, freed);
        }
        self.list.store(all.word(), Ordering::Relaxed);
        taken
    }

    fn list(&self) -> List {
        List::from_word(self.list.load(Ordering::Relaxed))
    }
}
