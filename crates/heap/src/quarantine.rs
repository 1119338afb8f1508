//! Freed chunks wait here before they are given out again: first in, first out, by bytes.
//!
//! ```text
//!  free ──put──▶ Pending (a thread's own) ──flush──▶ oldest ─next▶ … ─next▶ newest ──drain──▶ thread's free slots
//!                   └ both are batches: a page of ChunkIds each ┘
//! ```
//!
//! A batch changes hands by a few words; who has one has its ids to himself. Big chunks have batches and a budget of
//! their own: one of them never flushes thousands of small ones.
//!
//! Invariants: a batch is one thread's `Pending`, in the chain, on its way through a drain, or spare. `bytes` = sum over
//! the chain. The chain and the spare ones are touched under the lock only.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{ChunkId, lock::Lock};

/// One for small chunks and one for big ones.
pub(crate) const QUARANTINES: usize = 2;
/// A batch is flushed after this many chunks.
const BATCH_CHUNKS: usize = 1020;
/// Or after this many bytes.
const BATCH_BYTES: u64 = 128 << 10;
/// How many batches there are: room for 128 million chunks.
pub(crate) const BATCHES: usize = 1 << 17;

/// Freed chunks, in the order they were freed in. Zeroed memory is a valid one.
#[derive(Debug)]
#[repr(C)]
pub struct Batch {
    next: AtomicU32,
    count: AtomicU32,
    bytes: AtomicU64,
    ids: [AtomicU32; BATCH_CHUNKS],
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            next: AtomicU32::new(0),
            count: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            ids: [const { AtomicU32::new(0) }; BATCH_CHUNKS],
        }
    }
}

impl Batch {
    /// The chunks, each with the one that comes `ahead` chunks later.
    pub fn chunks(&self, ahead: usize) -> impl Iterator<Item = (ChunkId, Option<ChunkId>)> {
        let id = |word: &AtomicU32| ChunkId(word.load(Ordering::Relaxed));
        let ids = &self.ids[..self.count.load(Ordering::Relaxed) as usize];
        ids.iter().enumerate().map(move |(at, word)| (id(word), ids.get(at + ahead).map(id)))
    }

    /// The first `most` chunks.
    pub fn first(&self, most: usize) -> impl Iterator<Item = ChunkId> {
        self.chunks(0).take(most).map(|(id, _)| id)
    }
}

/// The number of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchId(u32);

impl BatchId {
    const NONE: Self = Self(u32::MAX);

    fn load(word: &AtomicU32) -> Self {
        Self(word.load(Ordering::Relaxed))
    }

    fn store(self, word: &AtomicU32) {
        word.store(self.0, Ordering::Relaxed);
    }
}

/// What a thread freed and has not yet flushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    batch: BatchId,
    count: u32,
    bytes: u64,
}

impl Pending {
    /// Without a batch: nothing can be put.
    pub const NONE: Self = Self { batch: BatchId::NONE, count: 0, bytes: 0 };

    /// Adds a chunk. Whether there was room; a flush makes some.
    #[inline]
    pub fn put(&mut self, id: ChunkId, bytes: u64, batches: &[Batch]) -> bool {
        let batch = batches.get(self.batch.0 as usize);
        let Some(word) = batch.and_then(|batch| batch.ids.get(self.count as usize)) else { return false };
        if self.bytes >= BATCH_BYTES {
            return false;
        }
        word.store(id.0, Ordering::Relaxed);
        self.count += 1;
        self.bytes += bytes;
        true
    }
}

/// One chain of batches.
#[derive(Debug)]
pub(crate) struct Quarantine<'a> {
    pub lock: Lock,
    pub batches: &'a [Batch],
    oldest: AtomicU32,
    newest: AtomicU32,
    bytes: AtomicU64,
    /// Spare batches, linked.
    spare: AtomicU32,
    /// How many batches were ever used: the first ones.
    used: AtomicU32,
}

impl<'a> Quarantine<'a> {
    pub const fn new(batches: &'a [Batch]) -> Self {
        Self {
            lock: Lock::new(),
            batches,
            oldest: AtomicU32::new(BatchId::NONE.0),
            newest: AtomicU32::new(BatchId::NONE.0),
            bytes: AtomicU64::new(0),
            spare: AtomicU32::new(BatchId::NONE.0),
            used: AtomicU32::new(0),
        }
    }

    pub fn batch(&self, id: BatchId) -> &'a Batch {
        &self.batches[id.0 as usize]
    }

    fn add_bytes(&self, bytes: u64) {
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }

    /// Appends what a thread freed. The lock is held.
    pub fn append(&self, pending: Pending) {
        let Pending { batch: id, count, bytes } = pending;
        if count == 0 {
            return self.spare(id);
        }
        let batch = self.batch(id);
        self.add_bytes(bytes);
        let newest = BatchId::load(&self.newest);
        if newest != BatchId::NONE && self.join(self.batch(newest), batch, pending) {
            return self.spare(id);
        }
        batch.count.store(count, Ordering::Relaxed);
        batch.bytes.store(bytes, Ordering::Relaxed);
        BatchId::NONE.store(&batch.next);
        let before = if newest == BatchId::NONE { &self.oldest } else { &self.batch(newest).next };
        id.store(before);
        id.store(&self.newest);
    }

    /// Moves a few chunks behind those of the newest batch, as of a thread that lived for one call. Whether there was room.
    fn join(&self, newest: &Batch, batch: &Batch, Pending { count, bytes, .. }: Pending) -> bool {
        let (before, all) =
            (newest.count.load(Ordering::Relaxed), newest.bytes.load(Ordering::Relaxed) + bytes);
        let Some(room) = newest.ids.get(before as usize..(before + count) as usize) else { return false };
        if all > BATCH_BYTES {
            return false;
        }
        room.iter()
            .zip(&batch.ids)
            .for_each(|(to, id)| to.store(id.load(Ordering::Relaxed), Ordering::Relaxed));
        newest.count.store(before + count, Ordering::Relaxed);
        newest.bytes.store(all, Ordering::Relaxed);
        true
    }

    /// Takes the oldest batch when there is more than `budget`, or no batch is left. The lock is held.
    pub fn take_over(&self, budget: u64) -> Option<BatchId> {
        let id = BatchId::load(&self.oldest);
        if id == BatchId::NONE || self.bytes.load(Ordering::Relaxed) <= budget && !self.is_exhausted() {
            return None;
        }
        let batch = self.batch(id);
        BatchId::load(&batch.next).store(&self.oldest);
        if BatchId::load(&self.newest) == id {
            BatchId::NONE.store(&self.newest);
        }
        self.add_bytes(batch.bytes.load(Ordering::Relaxed).wrapping_neg());
        Some(id)
    }

    fn is_exhausted(&self) -> bool {
        BatchId::load(&self.spare) == BatchId::NONE
            && self.used.load(Ordering::Relaxed) as usize == self.batches.len()
    }

    /// An empty batch, for a thread to go on with. The lock is held.
    pub fn take_spare(&self) -> Pending {
        let (spare, used) = (BatchId::load(&self.spare), self.used.load(Ordering::Relaxed));
        if spare != BatchId::NONE {
            BatchId::load(&self.batch(spare).next).store(&self.spare);
            return Pending { batch: spare, ..Pending::NONE };
        }
        if used as usize == self.batches.len() {
            return Pending::NONE;
        }
        self.used.store(used + 1, Ordering::Relaxed);
        Pending { batch: BatchId(used), ..Pending::NONE }
    }

    /// A batch is not needed any more, if it is one. The lock is held.
    pub fn spare(&self, id: BatchId) {
        if id != BatchId::NONE {
            BatchId::load(&self.spare).store(&self.batch(id).next);
            id.store(&self.spare);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn batches(count: usize) -> Vec<Batch> {
        (0..count).map(|_| Batch::default()).collect()
    }

    /// What a thread has freed.
    fn pending(quarantine: &Quarantine<'_>, ids: core::ops::Range<u32>, bytes: u64) -> Pending {
        let mut pending = quarantine.take_spare();
        for id in ids {
            assert!(pending.put(ChunkId(id), bytes, quarantine.batches));
        }
        pending
    }

    fn ids(quarantine: &Quarantine<'_>, batch: BatchId) -> Vec<u32> {
        quarantine.batch(batch).chunks(1).map(|(id, _)| id.0).collect()
    }

    #[test]
    fn chunks_leave_in_the_order_they_came_in_and_their_batches_are_used_again() {
        let batches = batches(3);
        let quarantine = Quarantine::new(&batches);
        for first in [0, 1000, 2000] {
            quarantine.append(pending(&quarantine, first..first + 1000, 32));
        }
        assert_eq!(quarantine.take_spare().batch, BatchId::NONE);
        for first in [0, 1000, 2000, 3000, 4000] {
            let oldest = quarantine.take_over(0).unwrap();
            assert_eq!(ids(&quarantine, oldest), (first..first + 1000).collect::<Vec<_>>());
            quarantine.spare(oldest);
            quarantine.append(pending(&quarantine, first + 3000..first + 4000, 32));
        }
    }

    #[test]
    fn a_few_chunks_join_the_newest_batch_if_there_is_room() {
        let batches = batches(4);
        let quarantine = Quarantine::new(&batches);
        quarantine.append(pending(&quarantine, 0..3, 32));
        quarantine.append(pending(&quarantine, 3..5, 32));
        quarantine.append(pending(&quarantine, 5..6, BATCH_BYTES));
        quarantine.append(pending(&quarantine, 6..7, 32));
        let taken: Vec<_> = core::iter::from_fn(|| quarantine.take_over(0)).collect();
        let taken: Vec<_> = taken.into_iter().map(|batch| ids(&quarantine, batch)).collect();
        assert_eq!(taken, [(0..5).collect::<Vec<_>>(), [5].into(), [6].into()]);
    }

    #[test]
    fn the_oldest_leave_when_there_are_too_many_bytes_or_no_batch_is_left() {
        let batches = batches(2);
        let quarantine = Quarantine::new(&batches);
        quarantine.append(pending(&quarantine, 0..1000, 32));
        assert_eq!(quarantine.take_over(32_000), None);
        quarantine.append(pending(&quarantine, 1000..2000, 32));
        assert!(quarantine.take_over(u64::MAX).is_some());
        assert!(quarantine.take_over(31_999).is_some());
        assert_eq!(quarantine.take_over(0), None);
    }

    #[test]
    fn a_thread_without_a_batch_or_with_a_full_one_has_no_room() {
        let batches = batches(1);
        let quarantine = Quarantine::new(&batches);
        let mut none = Pending::NONE;
        assert!(!none.put(ChunkId(1), 32, &batches));
        let mut pending = pending(&quarantine, 0..BATCH_CHUNKS as u32, 1);
        assert!(!pending.put(ChunkId(1), 1, &batches));
    }
}
