//! What a shadow byte says.
//!
//! Invariant: `leading() == 8` exactly for the byte 0; a byte that is neither 0..=7 nor a `Poison` is read as
//! poisoned without a known reason.

use crate::GRANULE_BYTES;

/// Why a granule must not be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Poison {
    /// Memory of the heap that no block was ever made of.
    Unused = 0xf1,
    /// Before a live block.
    LeftRedzone = 0xfa,
    /// After a live block.
    RightRedzone = 0xfb,
    /// Memory that the target forbids itself, by a client request.
    Forbidden = 0xfc,
    /// A freed block.
    Freed = 0xfd,
    /// A guard page beside a large block.
    Guard = 0xfe,
}

impl Poison {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Unused, Self::LeftRedzone, Self::RightRedzone, Self::Forbidden, Self::Freed, Self::Guard];
}

/// The state of one granule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShadowByte(pub u8);

impl ShadowByte {
    /// All eight bytes may be touched.
    pub const ADDRESSABLE: Self = Self(0);

    /// The granule whose first `bytes` bytes may be touched, of at most eight; with none, `otherwise` is why.
    #[must_use]
    pub const fn with_leading(bytes: u64, otherwise: Poison) -> Self {
        match bytes {
            0 => Self(otherwise as u8),
            1..GRANULE_BYTES => Self(bytes as u8),
            _ => Self::ADDRESSABLE,
        }
    }

    /// How many leading bytes may be touched: 0 to 8.
    #[must_use]
    pub const fn leading(self) -> u64 {
        match self.0 {
            0 => GRANULE_BYTES,
            bytes @ 1..=7 => bytes as u64,
            _ => 0,
        }
    }

    /// Why the granule is poisoned, when it is and the reason is known.
    #[must_use]
    pub fn find_reason(self) -> Option<Poison> {
        Poison::ALL.into_iter().find(|&poison| poison as u8 == self.0)
    }
}
