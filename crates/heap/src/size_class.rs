//! Which slots there are: their sizes, their left redzones, and how many bytes fit.
//!
//! ```text
//!  slot  [ left redzone | user bytes ............ | slack ][ next slot's left redzone | …
//!        ^ start        ^ start + left_redzone            ^ start + slot_bytes
//! ```
//!
//! Small classes step by 16 bytes to 256, by an eighth of a doubling to 2 KiB, by a quarter to 16 KiB and by a
//! half to 256 KiB; large ones by a half to 1 TiB.
//!
//! Invariants: `capacity = slot_bytes - left_redzone - tail`; capacities strictly increase; every slot size is
//! a multiple of its group's unit; the right redzone of a chunk is its slack and the next slot's left redzone,
//! so it too has at least `left_redzone` bytes. Tables are computed by the compiler; pure data, runs anywhere.

/// How many classes share pages; their slots are committed with their region.
pub const SMALL_CLASSES: usize = 59;
/// How many classes commit each chunk's pages alone, with guard pages around them.
pub const LARGE_CLASSES: usize = 44;
/// All classes.
pub const CLASSES: usize = SMALL_CLASSES + LARGE_CLASSES;

/// What is always kept uncommitted before a large chunk's redzone.
pub const GUARD_BYTES: u64 = 4096;
/// The redzone of a large chunk, on either side.
pub const LARGE_REDZONE: u64 = 2048;

/// Slot sizes are multiples of `1 << UNIT_SHIFT[group]`, so that offsets divided by it stay below 2^32.
pub(crate) const SMALL_UNIT_SHIFT: u32 = 4;
pub(crate) const LARGE_UNIT_SHIFT: u32 = 16;

/// The number of a size class, below [`CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub(crate) u8);

/// What one class is like.
#[derive(Clone, Copy, Debug)]
pub struct ClassShape {
    /// From one slot to the next.
    pub slot_bytes: u64,
    /// From a slot's start to the user's bytes, when no larger alignment was asked for.
    pub left_redzone: u64,
    /// The most user bytes of ordinary alignment.
    pub capacity: u64,
    /// `floor(2^64 / units) + 1`: the high half of its product with `n < 2^32` is `n / units` exactly, because
    /// `n * units < 2^64` (Lemire, Kaser, Kurz: "Faster remainder by direct computation", 2019).
    pub(crate) reciprocal: u64,
    /// How many slots move between a thread and the centre at once.
    pub(crate) batch: u32,
    /// How many free slots a thread keeps behind the group or the list at hand.
    pub(crate) kept: u32,
}

impl Class {
    /// Every class.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).map(|index| Self(index as u8))
    }

    /// Whether the chunks of this class are committed one by one.
    #[must_use]
    pub const fn is_large(self) -> bool {
        self.0 as usize >= SMALL_CLASSES
    }

    /// The class's shape.
    #[must_use]
    #[inline]
    pub fn shape(self) -> &'static ClassShape {
        &SHAPES[self.0 as usize]
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The next larger class.
    pub(crate) fn larger(self) -> Option<Self> {
        (self.index() + 1 < CLASSES).then_some(Self(self.0 + 1))
    }

    /// The smallest class that holds `size` bytes at an alignment of `1 << align_shift`, or `None` when none does.
    #[must_use]
    #[inline]
    pub fn find(size: u64, align_shift: u32) -> Option<Self> {
        if align_shift <= 4 && size <= QUICK_BYTES {
            return Some(Self(QUICK[(size as usize).div_ceil(16)]));
        }
        Self::find_slowly(size, align_shift)
    }

    fn find_slowly(size: u64, align_shift: u32) -> Option<Self> {
        // A slot may start at any multiple of 16, so up to `align - 16` bytes are lost before the user's.
        let lost = if align_shift > 4 { 1u64.checked_shl(align_shift)? - 16 } else { 0 };
        // One byte at least, so that an empty chunk too starts inside its slot.
        let needed = size.max(1).checked_add(lost)?;
        let class = SHAPES.partition_point(|shape| shape.capacity < needed);
        (class < CLASSES).then_some(Self(class as u8))
    }
}

/// What a thread keeps of free slots of one class: eight batches, unless those are of many slots.
const KEPT_BYTES: u64 = 128 << 10;

/// Sizes up to this are looked up.
const QUICK_BYTES: u64 = 1024;

static SHAPES: [ClassShape; CLASSES] = shapes();
static QUICK: [u8; QUICK_BYTES as usize / 16 + 1] = quick();

const fn slot_bytes(class: usize) -> u64 {
    let class = class as u64;
    match class {
        0..15 => 32 + 16 * class,
        15..39 => {
            let (doubling, step) = ((class - 15) / 8, (class - 15) % 8);
            (256 << doubling) + ((256 << doubling) / 8) * (step + 1)
        }
        39..51 => {
            let (doubling, step) = ((class - 39) / 4, (class - 39) % 4);
            (2048 << doubling) + ((2048 << doubling) / 4) * (step + 1)
        }
        _ => {
            let (doubling, step) = ((class - 51) / 2, (class - 51) % 2);
            (16384 << doubling) + ((16384 << doubling) / 2) * (step + 1)
        }
    }
}

const fn shapes() -> [ClassShape; CLASSES] {
    let mut shapes =
        [ClassShape { slot_bytes: 0, left_redzone: 0, capacity: 0, reciprocal: 0, batch: 0, kept: 0 };
            CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let slot_bytes = slot_bytes(class);
        let large = class >= SMALL_CLASSES;
        let left_redzone = if large {
            GUARD_BYTES + LARGE_REDZONE
        } else {
            // A sixteenth of the slot, as a power of two.
            match (slot_bytes / 16).next_power_of_two() {
                0..=16 => 16,
                2048.. => 2048,
                bytes => bytes,
            }
        };
        let tail = if large { LARGE_REDZONE } else { 0 };
        let units = slot_bytes >> if large { LARGE_UNIT_SHIFT } else { SMALL_UNIT_SHIFT };
        let batch = match 16384 / slot_bytes {
            0 => 1,
            129.. => 128,
            // Whole groups.
            64.. => 64,
            slots => slots as u32,
        };
        shapes[class] = ClassShape {
            slot_bytes,
            left_redzone,
            capacity: slot_bytes - left_redzone - tail,
            reciprocal: u64::MAX / units + 1,
            batch,
            kept: if slot_bytes < KEPT_BYTES / 8 { (KEPT_BYTES / slot_bytes) as u32 } else { 8 },
        };
        class += 1;
    }
    shapes
}

const fn quick() -> [u8; QUICK_BYTES as usize / 16 + 1] {
    let shapes = shapes();
    let mut table = [0; QUICK_BYTES as usize / 16 + 1];
    let mut sixteenths = 0;
    let mut class = 0;
    while sixteenths < table.len() {
        while shapes[class].capacity < 16 * sixteenths as u64 {
            class += 1;
        }
        table[sixteenths] = class as u8;
        sixteenths += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_larger_than_the_one_before_and_made_of_whole_units() {
        let mut last = 0;
        for class in Class::all() {
            let shape = class.shape();
            let unit = 1 << if class.is_large() { LARGE_UNIT_SHIFT } else { SMALL_UNIT_SHIFT };
            assert!(shape.capacity > last, "{class:?}");
            assert_eq!(shape.slot_bytes % unit, 0, "{class:?}");
            assert!(shape.left_redzone >= 16 && shape.left_redzone.is_multiple_of(16));
            assert!((1..=128).contains(&shape.batch));
            last = shape.capacity;
        }
        assert_eq!(Class(SMALL_CLASSES as u8 - 1).shape().slot_bytes, 256 << 10);
        assert_eq!(Class(CLASSES as u8 - 1).shape().slot_bytes, 1 << 40);
    }

    #[test]
    fn small_capacities_fit_the_eighteen_bits_of_the_metadata() {
        assert!(Class(SMALL_CLASSES as u8 - 1).shape().capacity < 1 << 18);
    }

    #[test]
    fn the_class_found_is_the_smallest_that_holds_the_size() {
        let check = |size: u64| {
            let class = Class::find(size, 0).unwrap();
            assert!(class.shape().capacity >= size);
            assert!(class.index() == 0 || SHAPES[class.index() - 1].capacity < size, "{size}");
        };
        (0..300_000).for_each(check);
        for class in Class::all() {
            let capacity = class.shape().capacity;
            check(capacity);
            assert_eq!(Class::find(capacity + 1, 0), class.larger());
        }
        assert_eq!(Class::find(u64::MAX, 0), None);
        assert_eq!(Class::find(1 << 41, 0), None);
        assert_eq!(Class::find(16, 63), None);
    }

    #[test]
    fn reciprocals_divide_exactly() {
        for class in Class::all() {
            let shape = class.shape();
            let units =
                shape.slot_bytes >> if class.is_large() { LARGE_UNIT_SHIFT } else { SMALL_UNIT_SHIFT };
            let divide = |n: u64| ((u128::from(n) * u128::from(shape.reciprocal)) >> 64) as u64;
            let most = if class.is_large() { 1 << 24 } else { 1u64 << 32 };
            let quotients = (0..1000).chain((most / units).saturating_sub(1000)..=most / units);
            for n in
                quotients.flat_map(|q| [q * units, (q * units + units - 1), (q * units).saturating_sub(1)])
            {
                if n < most {
                    assert_eq!(divide(n), n / units, "{class:?} {n}");
                }
            }
        }
    }
}
