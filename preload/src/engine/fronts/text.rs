//! Strings of bytes and of wide characters, for the fronts that treat both alike.
//!
//! Lengths are in elements; `UNIT` makes bytes of them.

use super::{STRLEN, STRNLEN, WCSLEN, WCSNLEN, scan};

/// One kind of string.
pub trait Text {
    /// Bytes of an element.
    const UNIT: u64;
    /// How many elements stand before the terminator.
    fn len(string: u64) -> u64;
    /// The same, of at most `most`.
    fn len_within(string: u64, most: u64) -> u64;
}

/// `char` strings.
pub struct Narrow;
/// `wchar_t` strings.
pub struct Wide;

impl Text for Narrow {
    const UNIT: u64 = 1;

    #[inline]
    fn len(string: u64) -> u64 {
        if scan::has_block(string) {
            let [zeros, _] = scan::find_in_block(string, 0);
            if zeros != 0 {
                return zeros.trailing_zeros().into();
            }
        }
        STRLEN.call1(string)
    }

    #[inline]
    fn len_within(string: u64, most: u64) -> u64 {
        STRNLEN.call2(string, most)
    }
}

impl Text for Wide {
    const UNIT: u64 = 4;

    #[inline]
    fn len(string: u64) -> u64 {
        WCSLEN.call1(string)
    }

    #[inline]
    fn len_within(string: u64, most: u64) -> u64 {
        WCSNLEN.call2(string, most)
    }
}

/// The bytes of `count` elements; too many are more than any memory holds.
#[inline]
pub fn bytes<T: Text>(count: u64) -> u64 {
    count.saturating_mul(T::UNIT)
}
