//! Addresses and sizes in the target's address space, as types without implicit arithmetic.
//!
//! Invariant: `AddrRange { start, end }` has `start <= end`; the range is `[start, end)`.

use core::fmt;

/// An address in the target's memory, in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub u64);

/// An address of code in the target, always that of the original text, never of an instrumented copy,
/// unless a name says otherwise.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pc(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// The addresses `[start, end)`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AddrRange {
    start: Addr,
    end: Addr,
}

impl Addr {
    /// The null address.
    pub const NULL: Self = Self(0);

    /// The address `size` bytes further, or `None` past the end of the address space.
    #[must_use]
    pub const fn checked_add(self, size: Size) -> Option<Self> {
        match self.0.checked_add(size.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The address `size` bytes before, or `None` below zero.
    #[must_use]
    pub const fn checked_sub(self, size: Size) -> Option<Self> {
        match self.0.checked_sub(size.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// `self - other` in bytes, negative when `self` lies before `other`.
    #[must_use]
    pub const fn offset_from(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// Whether the address is a multiple of `align_bytes`, which is a power of two.
    #[must_use]
    pub const fn is_aligned(self, align_bytes: u64) -> bool {
        self.0 & (align_bytes - 1) == 0
    }
}

impl Size {
    /// Nothing.
    pub const ZERO: Self = Self(0);
}

impl AddrRange {
    /// The range of `size` bytes from `start`, or `None` when it would wrap around.
    #[must_use]
    pub const fn new(start: Addr, size: Size) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The range `[start, end)`, or `None` when `end` lies before `start`.
    #[must_use]
    pub const fn between(start: Addr, end: Addr) -> Option<Self> {
        if start.0 <= end.0 { Some(Self { start, end }) } else { None }
    }

    /// The first address of the range.
    #[must_use]
    pub const fn start(self) -> Addr {
        self.start
    }

    /// The first address after the range.
    #[must_use]
    pub const fn end(self) -> Addr {
        self.end
    }

    /// How many bytes the range holds.
    #[must_use]
    pub const fn size(self) -> Size {
        Size(self.end.0 - self.start.0)
    }

    /// Whether the range holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `addr` lies in the range.
    #[must_use]
    pub const fn contains(self, addr: Addr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }

    /// Of ranges that lie apart, in the order of addresses, those that this one overlaps.
    #[must_use]
    #[inline]
    pub fn among(self, apart: &[Self]) -> &[Self] {
        let first = apart.partition_point(|each| each.end <= self.start);
        let count = apart[first..].partition_point(|each| each.start < self.end);
        &apart[first..first + count]
    }

    /// Calls `visit` with what is left of this range, piece by piece, without the `holes`, which are in the order of
    /// their starts.
    #[inline]
    pub fn for_each_rest(self, holes: &[Self], mut visit: impl FnMut(Self)) {
        let mut from = self.start;
        for hole in holes.iter().take_while(|hole| hole.start < self.end) {
            if let Some(before) = Self::between(from, hole.start).filter(|before| !before.is_empty()) {
                visit(before);
            }
            from = from.max(hole.end);
        }
        if let Some(rest) = Self::between(from, self.end).filter(|rest| !rest.is_empty()) {
            visit(rest);
        }
    }

    /// Whether the two ranges share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0 && !self.is_empty() && !other.is_empty()
    }
}

impl Pc {
    /// The address to look a *return address* up at: the last byte of the call instruction, so that a call
    /// which ends its function or its line is not taken for what follows.
    #[must_use]
    pub const fn call_site(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The same address in the module that was the `number`th to be unloaded, whose place another may have by now.
    /// User addresses leave the bits above 47 free.
    #[must_use]
    pub const fn in_unloaded(self, number: u16) -> Self {
        Self(self.0 & ADDRESS_MASK | (number as u64) << ADDRESS_BITS)
    }

    /// The address without that number.
    #[must_use]
    pub const fn addr(self) -> Addr {
        Addr(self.0 & ADDRESS_MASK)
    }

    /// The number of the unloaded module; zero for an address as it is now.
    #[must_use]
    pub const fn unloaded(self) -> u16 {
        (self.0 >> ADDRESS_BITS) as u16
    }
}

const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;

macro_rules! hex {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}
hex!(Addr Pc);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_range_holds_its_start_and_not_its_end() {
        let range = AddrRange::new(Addr(16), Size(8)).unwrap();
        assert!(range.contains(Addr(16)) && range.contains(Addr(23)));
        assert!(!range.contains(Addr(15)) && !range.contains(Addr(24)));
    }

    #[test]
    fn a_range_that_wraps_is_refused() {
        assert_eq!(AddrRange::new(Addr(u64::MAX), Size(2)), None);
        assert_eq!(AddrRange::between(Addr(2), Addr(1)), None);
    }

    #[test]
    fn empty_and_adjacent_ranges_do_not_overlap() {
        let at = |start, size| AddrRange::new(Addr(start), Size(size)).unwrap();
        assert!(at(0, 8).overlaps(at(7, 1)));
        assert!(!at(0, 8).overlaps(at(8, 1)));
        assert!(!at(0, 8).overlaps(at(4, 0)));
    }

    #[test]
    fn holes_are_left_out_wherever_they_lie() {
        let range = |start, end| AddrRange::between(Addr(start), Addr(end)).unwrap();
        let rest = |holes: &[AddrRange]| {
            let mut rest = Vec::new();
            range(100, 200).for_each_rest(holes, |part| rest.push((part.start().0, part.end().0)));
            rest
        };
        assert_eq!(rest(&[]), [(100, 200)]);
        assert_eq!(
            rest(&[range(0, 50), range(90, 110), range(120, 120), range(130, 140)]),
            [(110, 120), (120, 130), (140, 200)]
        );
        assert_eq!(rest(&[range(50, 300), range(60, 70)]), []);
        assert_eq!(rest(&[range(110, 190), range(120, 130), range(250, 260)]), [(100, 110), (190, 200)]);
    }

    #[test]
    fn ranges_that_only_touch_are_not_among_those_that_are_overlapped() {
        let range = |start, end| AddrRange::between(Addr(start), Addr(end)).unwrap();
        let apart = [range(0, 10), range(20, 30), range(30, 40), range(60, 70)];
        assert_eq!(range(10, 20).among(&apart), []);
        assert_eq!(range(9, 31).among(&apart), &apart[..3]);
        assert_eq!(range(40, 100).among(&apart), &apart[3..]);
        assert_eq!(range(70, 80).among(&apart), []);
    }

    #[test]
    fn offsets_are_signed() {
        assert_eq!(Addr(8).offset_from(Addr(16)), -8);
    }
}
