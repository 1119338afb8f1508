//! What the search knows of each slot: one byte, so that the marks of millions of chunks stay in the cache.

use alloc::vec::Vec;

use crate::search::OutOfMemory;
use crate::view::{ChunkIndex, MemoryView};

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

/// The marks of all slots.
pub(crate) struct Marks(Vec<u8>);

impl Marks {
    /// All slots dead.
    pub(crate) fn new(slots: u32) -> Result<Self, OutOfMemory> {
        Ok(Self(filled(slots, Mark::Dead as u8)?))
    }

    pub(crate) fn get(&self, index: ChunkIndex) -> Mark {
        self.0.get(index.0 as usize).map_or(Mark::Dead, |&byte| Mark::of(byte))
    }

    pub(crate) fn set(&mut self, index: ChunkIndex, mark: Mark) {
        if let Some(byte) = self.0.get_mut(index.0 as usize) {
            *byte = mark as u8;
        }
    }

    pub(crate) fn prefetch<V: MemoryView>(&self, view: &V, index: ChunkIndex) {
        if let Some(byte) = self.0.get(index.0 as usize) {
            view.prefetch_mark(byte);
        }
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
