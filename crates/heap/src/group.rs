//! Free slots of the smaller classes. Those that lie beside each other are a group, one bit each, and are given out by
//! ascending address: what a program allocates together then lies together, with its metadata and its shadow, however
//! often the memory was used before.
//!
//! ```text
//!  ChunkId  | group | 5..0 slot |        GroupWords  free: bit i = slot i is free, and in nobody's Stock
//!  Chain    head ─next▶ … ─next▶ tail    groups with free slots: a thread's, or the centre's
//!  Stock    the free slots of one group, taken from it as they were, and a chain of groups to go on with
//! ```
//!
//! Invariants: a slot is free in one place only, a bit of its group or of one stock. A group whose `free` is not zero
//! is in one chain; who made it so put it there. Who takes a group out of a chain takes its bits, too.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{ChunkId, Class};

/// Classes of slots up to 1 KiB: two groups of the largest are what a thread keeps.
pub(crate) const GROUPED_CLASSES: usize = 31;
/// A group has a bit for each slot in a word.
pub(crate) const GROUP_SHIFT: u32 = u64::BITS.trailing_zeros();

/// What is shared of a group.
#[derive(Debug, Default)]
pub struct GroupWords {
    free: AtomicU64,
    next: AtomicU32,
}

impl GroupWords {
    /// Makes slots free. Whether none was: the group is in no chain then.
    pub fn put(&self, bits: u64) -> bool {
        // Release pairs with the Acquire of `take`: what was done to the slots is done.
        self.free.fetch_or(bits, Ordering::AcqRel) == 0
    }

    /// How many slots are free, at this moment.
    pub fn count(&self) -> u32 {
        self.free.load(Ordering::Relaxed).count_ones()
    }

    /// Takes the free slots of a group that is in no chain any more.
    fn take(&self) -> u64 {
        self.free.swap(0, Ordering::AcqRel)
    }
}

/// The number of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group(pub u32);

impl Group {
    /// No group.
    pub const NONE: Self = Self(u32::MAX);

    /// A slot's group, and its bit there.
    #[inline]
    pub const fn of(id: ChunkId) -> (Self, u64) {
        (Self(id.0 >> GROUP_SHIFT), 1 << (id.0 % u64::BITS))
    }

    #[inline]
    const fn slot(self, number: u32) -> ChunkId {
        ChunkId((self.0 << GROUP_SHIFT).wrapping_add(number))
    }

    #[inline]
    pub fn words(self, groups: &[GroupWords]) -> &GroupWords {
        &groups[self.0 as usize]
    }

    pub fn next(self, groups: &[GroupWords]) -> Self {
        Self(self.words(groups).next.load(Ordering::Relaxed))
    }

    pub fn set_next(self, next: Self, groups: &[GroupWords]) {
        self.words(groups).next.store(next.0, Ordering::Relaxed);
    }
}

/// Groups with free slots, first in, first out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub head: Group,
    pub tail: Group,
    pub count: u32,
}

impl Chain {
    pub const EMPTY: Self = Self { head: Group::NONE, tail: Group::NONE, count: 0 };

    pub fn push(&mut self, group: Group, groups: &[GroupWords]) {
        if self.count == 0 {
            self.head = group;
        } else {
            self.tail.set_next(group, groups);
        }
        self.tail = group;
        self.count += 1;
    }

    fn pop(&mut self, groups: &[GroupWords]) -> Option<Group> {
        self.count = self.count.checked_sub(1)?;
        let group = self.head;
        if self.count > 0 {
            self.head = group.next(groups);
        }
        Some(group)
    }
}

/// A thread's free slots of one class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stock {
    bits: u64,
    group: Group,
    chain: Chain,
    /// How many slots the chain's groups have, about.
    behind: u32,
}

/// How many slots ahead the next ones are told of.
const AHEAD: u32 = 3;

impl Stock {
    pub const EMPTY: Self = Self { bits: 0, group: Group::NONE, chain: Chain::EMPTY, behind: 0 };

    /// The next slot of the group at hand, and one that comes some slots later, if not quite that.
    #[inline]
    pub fn pop(&mut self) -> Option<(ChunkId, ChunkId)> {
        if self.bits == 0 {
            return None;
        }
        let id = self.group.slot(self.bits.trailing_zeros());
        self.bits &= self.bits - 1;
        let coming = (1..AHEAD).fold(self.bits, |bits, _| bits & bits.wrapping_sub(1));
        Some((id, self.group.slot(coming.trailing_zeros())))
    }

    /// Goes on with the next group of the chain, when the one at hand has no more.
    pub fn turn(&mut self, groups: &[GroupWords]) {
        while self.bits == 0
            && let Some(next) = self.chain.pop(groups)
        {
            (self.group, self.bits) = (next, next.words(groups).take());
            self.behind = self.behind.saturating_sub(self.bits.count_ones());
        }
    }

    /// Adds slots: to the group at hand, or where their group is; that may be another thread's chain.
    #[inline]
    pub fn put(&mut self, group: Group, bits: u64, groups: &[GroupWords]) {
        if self.group == group {
            self.bits |= bits;
            return;
        }
        self.behind += bits.count_ones();
        if group.words(groups).put(bits) {
            self.chain.push(group, groups);
        }
    }

    /// Takes the chain, when it has as many slots, or groups, as a thread keeps.
    #[inline]
    pub fn take_full(&mut self, class: Class, most_groups: u32) -> Option<Chain> {
        (self.behind > class.shape().kept || self.chain.count > most_groups).then(|| {
            self.behind = 0;
            core::mem::replace(&mut self.chain, Chain::EMPTY)
        })
    }

    /// Takes over a chain with this many slots.
    pub fn go_on_with(&mut self, (chain, slots): (Chain, u32)) {
        (self.chain, self.behind) = (chain, slots);
    }

    /// All of it as a chain.
    pub fn into_chain(mut self, groups: &[GroupWords]) -> Chain {
        let (group, bits) = (core::mem::replace(&mut self.group, Group::NONE), self.bits);
        if bits != 0 {
            self.put(group, bits, groups);
        }
        self.chain
    }

    /// Goes on with fresh slots, when there are no others: those of the first group at hand, the others behind.
    pub fn begin(&mut self, fresh: impl Iterator<Item = ChunkId>, groups: &[GroupWords]) {
        let mut fresh = fresh.map(Group::of).peekable();
        let mut is_first = true;
        while let Some((group, mut bits)) = fresh.next() {
            while let Some((_, bit)) = fresh.next_if(|(of, _)| *of == group) {
                bits |= bit;
            }
            if is_first {
                (self.group, self.bits) = (group, 0);
            }
            self.put(group, bits, groups);
            is_first = false;
        }
    }
}

impl Class {
    /// Whether free slots of this class are in groups. Of larger ones a group would be much, and the one that was looked
    /// at last is the best to go on with: those are in lists.
    #[inline]
    pub(crate) const fn is_grouped(self) -> bool {
        self.index() < GROUPED_CLASSES
    }

    /// How many slots are made at once when there are `before` of them. The more there are, the more: whole batches, and
    /// not much of what there is.
    pub(crate) fn fresh_slots(self, before: u32) -> u32 {
        let batch = self.shape().batch;
        if self.is_grouped() { (before / 16).clamp(batch, self.shape().kept) / batch * batch } else { batch }
    }

    /// How many groups: if there are other threads not too many, as what those free of them is this thread's to use.
    #[inline]
    pub(crate) fn kept_groups(self, is_shared: bool) -> u32 {
        if is_shared { self.shape().batch / 2 } else { u32::MAX }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn groups(count: usize) -> Vec<GroupWords> {
        (0..count).map(|_| GroupWords::default()).collect()
    }

    #[test]
    fn slots_of_a_group_are_given_out_by_ascending_address() {
        let groups = groups(2);
        let mut stock = Stock::EMPTY;
        for id in [71, 64, 127, 90] {
            let (group, bit) = Group::of(ChunkId(id));
            stock.put(group, bit, &groups);
        }
        stock.turn(&groups);
        let given: Vec<_> = core::iter::from_fn(|| stock.pop()).map(|(id, _)| id.0).collect();
        assert_eq!(given, [64, 71, 90, 127]);
        assert_eq!(stock.into_chain(&groups).count, 0);
    }

    #[test]
    fn a_group_is_in_one_chain_however_often_slots_come_back() {
        let groups = groups(3);
        let mut stock = Stock::EMPTY;
        let put = |stock: &mut Stock, id| {
            let (group, bit) = Group::of(ChunkId(id));
            stock.put(group, bit, &groups);
        };
        (0..192).rev().for_each(|id| put(&mut stock, id));
        assert_eq!(stock.chain.count, 3);
        stock.turn(&groups);
        assert_eq!(stock.pop().map(|(id, _)| id), Some(ChunkId(128)));
        put(&mut stock, 128);
        assert_eq!(stock.chain.count, 2, "the group at hand is in no chain");
        assert_eq!(stock.pop().map(|(id, _)| id), Some(ChunkId(128)));
        assert_eq!(core::iter::from_fn(|| stock.pop()).count(), 63);
    }

    #[test]
    fn grouped_are_slots_of_up_to_one_kilobyte() {
        let last = Class::all().filter(|class| class.is_grouped()).last();
        assert_eq!(last.map(|class| class.shape().slot_bytes), Some(1024));
    }
}
