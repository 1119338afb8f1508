//! Freed chunks wait here before they are given out again: first in, first out, by bytes.
//!
//! ```text
//!  free ──put──▶ Pending (a thread's own) ──flush──▶ ring of batches ──drain──▶ thread's free lists
//! ```
//!
//! Chunks are linked through their metadata; a batch is one link chain, so the shared part moves 512 chunks by
//! writing two words. Big chunks have a ring and a budget of their own: one of them never flushes thousands of
//! small ones.
//!
//! Invariant: `bytes` = sum over the ring's batches. Ring words are only touched under the lock.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{ChunkId, ChunkMeta, lock::Lock};

/// A chain of freed chunks, the oldest first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub head: ChunkId,
    tail: ChunkId,
    pub count: u32,
    pub bytes: u64,
}

/// A thread flushes after this many chunks.
const PENDING_CHUNKS: u32 = 512;
/// Or after this many bytes.
const PENDING_BYTES: u64 = 128 << 10;

impl Pending {
    pub const EMPTY: Self = Self { head: ChunkId::NONE, tail: ChunkId::NONE, count: 0, bytes: 0 };

    /// Adds a chunk; its link is `NONE` already.
    #[inline]
    pub fn put(&mut self, id: ChunkId, bytes: u64, metas: &[ChunkMeta]) {
        if self.count == 0 {
            self.head = id;
        } else {
            metas[self.tail.0 as usize].set_next(id);
        }
        self.tail = id;
        self.count += 1;
        self.bytes += bytes;
    }

    #[inline]
    pub const fn is_due(&self) -> bool {
        self.count >= PENDING_CHUNKS || self.bytes >= PENDING_BYTES
    }
}

/// Batches that a ring holds. Of 512 chunks each, that is 128 million chunks; beyond them the oldest batch leaves
/// whatever the budget says.
pub(crate) const RING_BATCHES: usize = 1 << 18;

/// One ring entry: `count << 32 | head`, and the batch's bytes.
#[derive(Debug, Default)]
pub struct BatchWords([AtomicU64; 2]);

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
        let BatchWords([chain, bytes]) = self.entry(number);
        chain.store(u64::from(batch.count) << 32 | u64::from(batch.head.0), Ordering::Relaxed);
        bytes.store(batch.bytes, Ordering::Relaxed);
        self.put.store(number + 1, Ordering::Relaxed);
        self.bytes.store(self.bytes() + batch.bytes, Ordering::Relaxed);
    }

    /// Takes the oldest batch when there is more than `budget`. The lock is held.
    pub fn take_over(&self, budget: u64) -> Option<Pending> {
        let number = self.drained.load(Ordering::Relaxed);
        if self.put.load(Ordering::Relaxed) == number || (self.bytes() <= budget && !self.is_full()) {
            return None;
        }
        let BatchWords([chain, bytes]) = self.entry(number);
        let (chain, bytes) = (chain.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
        self.drained.store(number + 1, Ordering::Relaxed);
        self.bytes.store(self.bytes() - bytes, Ordering::Relaxed);
        let head = ChunkId(chain as u32);
        Some(Pending { head, tail: ChunkId::NONE, count: (chain >> 32) as u32, bytes })
    }
}
