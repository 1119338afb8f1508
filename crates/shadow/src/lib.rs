//! Shadow memory: one byte for each granule of eight bytes of the target, which says how many of its leading
//! bytes may be touched, or why none may.
//!
//! ```text
//!  shadow byte        meaning
//!  0x00               all eight bytes addressable ("nothing to look at")
//!  0x01 .. 0x07       that many leading bytes addressable
//!  0xf1 .. 0xff       nothing addressable; the value is the reason (`Poison`)
//!
//!  address  a  ──▶  granule  g = a >> 3  ──▶  shadow byte at  SHADOW_BASE + g
//! ```
//!
//! You supply a [`Granules`] (real memory in the shim, a vector in tests); you get [`poison`] and [`unpoison`] for who
//! lays out the memory, [`forbid`] and [`allow`] for ranges of any kind, [`find_bad`], [`is_clean`] and
//! [`is_clean_short`], which work a machine word of shadow at a time, and [`reference`](mod@reference), which says the same byte by byte and is what the
//! tests compare them with.
//!
//! Invariant: 0 means "nothing to look at": what is later recorded beyond addressability must keep that.
//! Runs anywhere: no allocation, no locks, no system calls.
#![no_std]
#![forbid(unsafe_code)]

mod encoding;
mod fast;
mod mapping;
pub mod reference;

pub use encoding::{Poison, ShadowByte};
pub use fast::{SHORT_BYTES, allow, find_bad, forbid, is_clean, is_clean_short, poison, unpoison};
pub use mapping::{GRANULE_BYTES, GranuleIndex, Granules, SHADOW_BASE, SHADOW_BYTES, USER_END};
