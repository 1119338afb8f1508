//! What the search knows of each slot: two bytes, so that the marks of millions of chunks stay in the cache.

use alloc::vec::Vec;

use memcheck_model::{Addr, Size};

use crate::search::OutOfMemory;
use crate::view::ChunkIndex;

/// What is known of a slot. A chunk's mark only ever goes down this list, except that `Leader` becomes
/// `Indirect` when another clique takes it over, and `InteriorSeen` may become `Reachable` or `Library`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    /// No live chunk.
    Dead = 0,
    /// Nothing was found that points to it.
    Unreached = 1,
    /// An interior pointer was found; a start pointer may still come.
    InteriorSeen = 2,
    /// Held by interior pointers only.
    Possible = 3,
    /// Held by start pointers.
    Reachable = 4,
    /// Lost, and held by a lost chunk.
    Indirect = 5,
    /// Lost, and so far held by nothing outside its own clique.
    Leader = 6,
    /// Held by start pointers, and only by way of a runtime library's own variables.
    Library = 7,
}

impl Mark {
    const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Unreached,
            2 => Self::InteriorSeen,
            3 => Self::Possible,
            4 => Self::Reachable,
            5 => Self::Indirect,
            6 => Self::Leader,
            7 => Self::Library,
            _ => Self::Dead,
        }
    }
}

/// The marks of all slots, and how many words each chunk has: a chunk that is pointed to where it begins needs no
/// look at its metadata.
///
/// ```text
///  15 … 8  words, or ASK      7 … 0  mark
/// ```
pub(crate) struct Marks(Vec<u16>);

/// In place of a number of words: the chunk has more, or does not begin where chunks do.
pub(crate) const ASK: u64 = 255;

impl Marks {
    /// All slots dead.
    pub(crate) fn new(slots: u32) -> Result<Self, OutOfMemory> {
        Ok(Self(filled(slots, Mark::Dead as u16)?))
    }

    /// Marks a live chunk `Unreached`, and notes its size if that is known.
    pub(crate) fn set_live(&mut self, index: ChunkIndex, size: Option<Size>) {
        let words = size.map_or(ASK, |size| (size.0 / 8).min(ASK));
        if let Some(entry) = self.0.get_mut(index.0 as usize) {
            *entry = (words << 8) as u16 | Mark::Unreached as u16;
        }
    }

    pub(crate) fn get(&self, index: ChunkIndex) -> Mark {
        self.entry(index).0
    }

    /// The mark, and how many words the chunk has, or `ASK`.
    #[inline]
    pub(crate) fn entry(&self, index: ChunkIndex) -> (Mark, u64) {
        let entry = self.0.get(index.0 as usize).copied().unwrap_or_default();
        (Mark::of(entry as u8), u64::from(entry >> 8))
    }

    #[inline]
    pub(crate) fn set(&mut self, index: ChunkIndex, mark: Mark) {
        if let Some(entry) = self.0.get_mut(index.0 as usize) {
            *entry = *entry & !0xff | mark as u16;
        }
    }

    /// Where the mark is, for fetching it.
    #[inline]
    pub(crate) fn address(&self, index: ChunkIndex) -> Addr {
        Addr(self.0.as_ptr().wrapping_add(index.0 as usize) as u64)
    }
}

/// `len` times `value`, or an error where `vec!` would end the process.
pub(crate) fn filled<T: Copy>(len: u32, value: T) -> Result<Vec<T>, OutOfMemory> {
    let mut list = reserved(len)?;
    list.resize(len as usize, value);
    Ok(list)
}

/// An empty list that holds `capacity` items without growing.
pub(crate) fn reserved<T>(capacity: u32) -> Result<Vec<T>, OutOfMemory> {
    let mut list = Vec::new();
    list.try_reserve_exact(capacity as usize).map_err(|_| OutOfMemory)?;
    Ok(list)
}
