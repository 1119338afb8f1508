//! Freed chunks wait here before they are given out again: first in, first out, by bytes.
//!
//! ```text
//!  free ──put──▶ Pending (a thread's own) ──flush──▶ ring of batches ──drain──▶ thread's free lists
//! ```
//!
//! Chunks are linked through their metadata, so the shared part moves 2048 chunks by writing a few words. A batch is
//! [`CHAINS`] chains, which take turns: each leads that many chunks ahead, so that nobody who goes through a batch waits
//! for one link after the other. Big chunks have a ring and a budget of their own: one of them never flushes thousands of
//! small ones.
//!
//! Invariant: `bytes` = sum over the ring's batches. Ring words are only touched under the lock.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{ChunkId, ChunkMeta, lock::Lock};

/// How many chains a batch has.
const CHAINS: usize = 8;

/// Freed chunks: the oldest is the first of chain 0, the next of chain 1, and so on in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    heads: [ChunkId; CHAINS],
    tails: [ChunkId; CHAINS],
    pub count: u32,
    pub bytes: u64,
}

/// A thread flushes after this many chunks.
const PENDING_CHUNKS: u32 = 2048;
/// Or after this many bytes.
const PENDING_BYTES: u64 = 128 << 10;

impl Pending {
    pub const EMPTY: Self =
        Self { heads: [ChunkId::NONE; CHAINS], tails: [ChunkId::NONE; CHAINS], count: 0, bytes: 0 };

    /// Adds a chunk.
    #[inline]
    pub fn put(&mut self, id: ChunkId, bytes: u64, metas: &[ChunkMeta]) {
        let chain = self.count as usize % CHAINS;
        if (self.count as usize) < CHAINS {
            self.heads[chain] = id;
        } else {
            metas[self.tails[chain].0 as usize].set_next(id);
        }
        self.tails[chain] = id;
        self.count += 1;
        self.bytes += bytes;
    }

    #[inline]
    pub const fn is_due(&self) -> bool {
        self.count >= PENDING_CHUNKS || self.bytes >= PENDING_BYTES
    }
}

/// Batches that a ring holds. Of 2048 chunks each, that is 128 million chunks; beyond them the oldest batch leaves
/// whatever the budget says.
pub(crate) const RING_BATCHES: usize = 1 << 16;

/// A batch in the ring, and what is left of one that has left it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    heads: [ChunkId; CHAINS],
    taken: u32,
    count: u32,
}

impl Batch {
    /// The chunks that `take` gives first.
    pub fn first(&self) -> impl Iterator<Item = ChunkId> {
        self.heads.into_iter().take(self.count as usize)
    }

    /// The oldest chunk that is left, and the one that comes [`CHAINS`] chunks later.
    #[inline]
    pub fn take(&mut self, metas: &[ChunkMeta]) -> Option<(ChunkId, Option<ChunkId>)> {
        if self.taken == self.count {
            return None;
        }
        let head = &mut self.heads[self.taken as usize % CHAINS];
        let id = *head;
        *head = metas[id.0 as usize].next();
        let coming = (self.taken + (CHAINS as u32) < self.count).then_some(*head);
        self.taken += 1;
        Some((id, coming))
    }
}

/// One ring entry.
#[derive(Debug, Default)]
pub struct BatchWords {
    count: AtomicU32,
    heads: [AtomicU32; CHAINS],
    bytes: AtomicU64,
}

/// One FIFO of batches.
#[derive(Debug)]
pub(crate) struct Quarantine<'a> {
    pub lock: Lock,
    ring: &'a [BatchWords],
    /// Batches ever drained and ever put; the ring index is the number modulo its length.
    drained: AtomicU64,
    put: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> Quarantine<'a> {
    /// `ring`'s length is a power of two.
    pub const fn new(ring: &'a [BatchWords]) -> Self {
        Self {
            lock: Lock::new(),
            ring,
            drained: AtomicU64::new(0),
            put: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn entry(&self, number: u64) -> &BatchWords {
        &self.ring[number as usize & (self.ring.len() - 1)]
    }

    /// Whether a batch must leave before another one comes. The lock is held.
    pub fn is_full(&self) -> bool {
        self.put.load(Ordering::Relaxed) - self.drained.load(Ordering::Relaxed) >= self.ring.len() as u64
    }

    /// Appends a batch. The lock is held and the ring is not full.
    pub fn append(&self, batch: Pending) {
        let number = self.put.load(Ordering::Relaxed);
        let entry = self.entry(number);
        entry.count.store(batch.count, Ordering::Relaxed);
        entry.heads.iter().zip(batch.heads).for_each(|(to, head)| to.store(head.0, Ordering::Relaxed));
        entry.bytes.store(batch.bytes, Ordering::Relaxed);
        self.put.store(number + 1, Ordering::Relaxed);
        self.bytes.store(self.bytes() + batch.bytes, Ordering::Relaxed);
    }

    /// Takes the oldest batch when there is more than `budget`. The lock is held.
    pub fn take_over(&self, budget: u64) -> Option<Batch> {
        let number = self.drained.load(Ordering::Relaxed);
        if self.put.load(Ordering::Relaxed) == number || (self.bytes() <= budget && !self.is_full()) {
            return None;
        }
        let entry = self.entry(number);
        let bytes = entry.bytes.load(Ordering::Relaxed);
        self.drained.store(number + 1, Ordering::Relaxed);
        self.bytes.store(self.bytes() - bytes, Ordering::Relaxed);
        Some(Batch {
            heads: core::array::from_fn(|chain| ChunkId(entry.heads[chain].load(Ordering::Relaxed))),
            taken: 0,
            count: entry.count.load(Ordering::Relaxed),
        })
    }
}
