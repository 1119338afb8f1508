//! Where the heap lies: one region of addresses for each size class, so that an address leads to its slot, and a
//! slot to its metadata, by arithmetic alone.
//!
//! ```text
//!  base                          base + SMALL_CLASSES << small_shift             end
//!  | class 0 | class 1 | … | class 58 | class 59 (large) | … | class 102 |
//!   1 << small_shift bytes each         1 << large_shift bytes each
//!
//!  ChunkId  small:  class << small_id_bits | slot
//!           large:  SMALL_CLASSES << small_id_bits  +  ((class - SMALL_CLASSES) << large_id_bits | slot)
//! ```
//!
//! Pure arithmetic; runs anywhere.

use memcheck_model::{Addr, AddrRange, Size};

use crate::group::GROUP_SHIFT;
use crate::size_class::{CLASSES, Class, LARGE_CLASSES, LARGE_UNIT_SHIFT, SMALL_CLASSES, SMALL_UNIT_SHIFT};

/// A slot and its metadata: an index into the metadata of all classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u32);

impl ChunkId {
    /// No chunk: the end of a list. `Layout` gives this number to no slot.
    pub const NONE: Self = Self(u32::MAX);
}

/// A slot, as class and number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub class: Class,
    pub number: u32,
}

/// Where a class's slots begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    /// Its region's first address.
    start: u64,
    /// Its first slot's id.
    id: u32,
}

/// Where the heap lies and how large its regions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The first address of the first region.
    pub base: Addr,
    /// Of each class, as allocating and freeing ask for it.
    origins: [Origin; CLASSES],
    small_shift: u32,
    large_shift: u32,
    small_id_bits: u32,
    large_id_bits: u32,
}

/// Slots of one small class have at most this many bits of number; with 59 classes all ids fit 32 bits.
const MOST_SMALL_ID_BITS: u32 = 26;
/// A bit for every slot of the smallest large class in the largest region.
const MOST_LARGE_ID_BITS: u32 = 22;

impl Layout {
    /// The layouts to try, the largest first; each `(small, large)` is what a region's size is shifted by. The
    /// last ones are for processes whose address space is limited.
    pub const SHIFTS: [(u32, u32); 4] = [(36, 40), (32, 38), (30, 34), (27, 31)];

    /// A layout from `base` on with regions of `1 << small_shift` and `1 << large_shift` bytes.
    #[must_use]
    pub const fn new(base: Addr, small_shift: u32, large_shift: u32) -> Self {
        let small_id_bits =
            if small_shift - 5 < MOST_SMALL_ID_BITS { small_shift - 5 } else { MOST_SMALL_ID_BITS };
        let large_id_bits =
            if large_shift - 18 < MOST_LARGE_ID_BITS { large_shift - 18 } else { MOST_LARGE_ID_BITS };
        let origins = [Origin { start: 0, id: 0 }; CLASSES];
        let mut layout = Self { base, origins, small_shift, large_shift, small_id_bits, large_id_bits };
        let mut class = 0;
        while class < CLASSES {
            layout.origins[class] = if class < SMALL_CLASSES {
                let start = base.0 + ((class as u64) << small_shift);
                Origin { start, id: (class as u32) << small_id_bits }
            } else {
                let number = class - SMALL_CLASSES;
                let start = base.0 + layout.small_bytes() + ((number as u64) << large_shift);
                Origin { start, id: layout.first_large_id() + ((number as u32) << large_id_bits) }
            };
            class += 1;
        }
        layout
    }

    const fn small_bytes(&self) -> u64 {
        (SMALL_CLASSES as u64) << self.small_shift
    }

    /// The regions of the small classes, which are first.
    #[must_use]
    pub const fn small_range(&self) -> AddrRange {
        match AddrRange::new(self.base, Size(self.small_bytes())) {
            Some(range) => range,
            None => panic!("the heap lies at the end of the address space"),
        }
    }

    /// All of the heap's addresses.
    #[must_use]
    pub const fn range(&self) -> AddrRange {
        match AddrRange::new(
            self.base,
            Size(self.small_bytes() + ((LARGE_CLASSES as u64) << self.large_shift)),
        ) {
            Some(range) => range,
            None => panic!("the heap lies at the end of the address space"),
        }
    }

    /// How many chunks need metadata.
    #[must_use]
    pub const fn chunk_count(&self) -> usize {
        self.first_large_id() as usize + self.large_count()
    }

    /// How many groups the slots of small classes are.
    #[must_use]
    pub const fn group_count(&self) -> usize {
        (self.first_large_id() >> GROUP_SHIFT) as usize
    }

    /// How many chunks are of large classes: the last ones.
    #[must_use]
    pub const fn large_count(&self) -> usize {
        LARGE_CLASSES << self.large_id_bits
    }

    pub(crate) const fn first_large_id(&self) -> u32 {
        (SMALL_CLASSES as u32) << self.small_id_bits
    }

    /// The first address of a class's region.
    #[inline]
    pub(crate) const fn region_start(&self, class: Class) -> u64 {
        self.origins[class.0 as usize].start
    }

    /// How many slots a class has. One more redzone than slots fits its region.
    pub(crate) fn slot_count(&self, class: Class) -> u32 {
        let (shift, bits) = if class.is_large() {
            (self.large_shift, self.large_id_bits)
        } else {
            (self.small_shift, self.small_id_bits)
        };
        let shape = class.shape();
        let spare = if class.is_large() { 0 } else { shape.left_redzone };
        let slots = ((1u64 << shift) - spare) / shape.slot_bytes;
        slots.min(1 << bits) as u32
    }

    #[inline]
    pub(crate) fn slot_start(&self, slot: Slot) -> u64 {
        self.region_start(slot.class) + u64::from(slot.number) * slot.class.shape().slot_bytes
    }

    /// The slot that holds an address of the heap.
    #[inline]
    pub(crate) fn find_slot(&self, addr: Addr) -> Option<Slot> {
        let offset = addr.0.wrapping_sub(self.base.0);
        let small_class = offset >> self.small_shift;
        let (class, unit_shift) = if small_class < SMALL_CLASSES as u64 {
            (small_class, SMALL_UNIT_SHIFT)
        } else {
            let large_class = (offset - self.small_bytes()) >> self.large_shift;
            (large_class + SMALL_CLASSES as u64, LARGE_UNIT_SHIFT)
        };
        if class >= CLASSES as u64 {
            return None;
        }
        let class = Class(class as u8);
        let units = (addr.0 - self.region_start(class)) >> unit_shift;
        let number = (u128::from(units) * u128::from(class.shape().reciprocal)) >> 64;
        Some(Slot { class, number: number as u32 })
    }

    /// The slot's id; the slot must be one of `slot_count`.
    #[inline]
    pub(crate) const fn id(&self, slot: Slot) -> ChunkId {
        ChunkId(self.origins[slot.class.0 as usize].id + slot.number)
    }

    /// The slot of a class with this id, which is one of its slots'.
    #[inline]
    pub(crate) const fn slot_of(&self, class: Class, id: ChunkId) -> Slot {
        Slot { class, number: id.0 - self.origins[class.0 as usize].id }
    }

    #[inline]
    pub(crate) const fn slot(&self, id: ChunkId) -> Slot {
        let small_class = id.0 >> self.small_id_bits;
        let class = if small_class < SMALL_CLASSES as u32 {
            small_class
        } else {
            SMALL_CLASSES as u32 + ((id.0 - self.first_large_id()) >> self.large_id_bits)
        };
        self.slot_of(Class(class as u8), id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_found_from_its_addresses_and_from_its_id() {
        for (small, large) in Layout::SHIFTS {
            let layout = Layout::new(Addr(0x2000_0000_0000), small, large);
            assert!(u32::try_from(layout.chunk_count()).is_ok_and(|count| count < ChunkId::NONE.0));
            for class in Class::all() {
                let count = layout.slot_count(class);
                for number in (0..count.min(500)).chain(count.saturating_sub(500)..count) {
                    let slot = Slot { class, number };
                    let start = layout.slot_start(slot);
                    let last = start + class.shape().slot_bytes - 1;
                    assert_eq!(layout.find_slot(Addr(start)), Some(slot));
                    assert_eq!(layout.find_slot(Addr(last)), Some(slot));
                    assert_eq!(layout.slot(layout.id(slot)), slot);
                    assert!((layout.id(slot).0 as usize) < layout.chunk_count());
                }
            }
            assert_eq!(layout.find_slot(layout.range().end()), None);
            assert_eq!(layout.find_slot(Addr(layout.base.0 - 1)), None);
            assert_eq!(layout.find_slot(Addr(0)), None);
        }
    }

    #[test]
    fn the_largest_layout_leaves_room_below_position_independent_executables() {
        let (small, large) = Layout::SHIFTS[0];
        let layout = Layout::new(Addr(0x2000_0000_0000), small, large);
        assert!(layout.range().end() <= Addr(0x5555_0000_0000));
    }
}
