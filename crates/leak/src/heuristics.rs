//! Interior pointers that count as start pointers, because well-known code points to its blocks that way.
//!
//! The rules are those that Valgrind's manual gives for `--leak-check-heuristics`, and one more
//! (`crate::pools`). Each of Valgrind's looks at the chunk's own words, so it can be wrong about arbitrary data;
//! all that follows is a block called reachable instead of possibly lost.

use core::sync::atomic::Ordering;

use memcheck_model::{Addr, AddrRange, Size};

use crate::view::{Chunk, MemoryView};

const WORD_BYTES: u64 = 8;
/// Below this no object lies.
const FIRST_PAGE_BYTES: u64 = 4096;
/// How many words of a virtual table are looked at, and how many of them must point to code.
const VTABLE_WORDS: u64 = 20;
const VTABLE_FUNCTIONS: u32 = 2;

/// A set of heuristics, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heuristics(u8);

impl Heuristics {
    /// None.
    pub const NONE: Self = Self(0);
    /// A pointer to the characters of libstdc++'s old `std::string`, behind its length, capacity and count.
    pub const STDSTRING: Self = Self(1);
    /// A pointer behind a first word that holds the size of the rest, as SQLite allocates.
    pub const LENGTH64: Self = Self(2);
    /// A pointer behind a first word that holds the number of elements: `new T[n]` of a type with destructor.
    pub const NEWARRAY: Self = Self(4);
    /// A pointer to a base class inside an object, seen by a pointer to a virtual table at both.
    pub const MULTIPLE_INHERITANCE: Self = Self(8);
    /// Pointers from other chunks to several elements of a pool; ours, not Valgrind's.
    pub const POOL: Self = Self(16);
    /// All of them.
    pub const ALL: Self = Self(31);

    /// The set of these bits; bits that mean nothing are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    pub(crate) const fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }

    /// Whether a pointer `offset` bytes into `chunk` (`0 < offset < size`) counts as a start pointer.
    pub(crate) fn accept<V: MemoryView>(self, view: &V, chunk: Chunk, offset: u64) -> bool {
        let word = |at: u64| -> Option<u64> {
            let range = AddrRange::new(chunk.start.checked_add(Size(at))?, Size(WORD_BYTES))?;
            Some(view.words(range).first()?.load(Ordering::Relaxed))
        };
        let size = chunk.size.0;
        if offset == 3 * WORD_BYTES
            && self.has(Self::STDSTRING)
            && let (Some(length), Some(capacity)) = (word(0), word(WORD_BYTES))
            && length != 0
            && length <= capacity
            && capacity.checked_add(3 * WORD_BYTES + 1) == Some(size)
        {
            return true;
        }
        if offset == WORD_BYTES && size >= WORD_BYTES {
            let rest = size - WORD_BYTES;
            let Some(first) = word(0) else { return false };
            if first > 0
                && ((self.has(Self::LENGTH64) && first == rest)
                    || (self.has(Self::NEWARRAY) && rest.is_multiple_of(first)))
            {
                return true;
            }
        }
        self.has(Self::MULTIPLE_INHERITANCE)
            && offset.is_multiple_of(WORD_BYTES)
            && offset + WORD_BYTES <= size
            && word(offset).is_some_and(|inner| is_vtable(view, inner))
            && word(0).is_some_and(|first| is_vtable(view, first))
    }
}

impl Heuristics {
    /// Whether `value` is a pointer to an array of no elements with a destructor: to the end of a chunk that holds the
    /// array's length alone (Itanium C++ ABI 2.7).
    pub(crate) fn is_empty_array<V: MemoryView>(self, view: &V, chunk: Chunk, value: u64) -> bool {
        let is_end = chunk.size.0 == WORD_BYTES && value.wrapping_sub(chunk.start.0) == WORD_BYTES;
        is_end
            && self.has(Self::NEWARRAY)
            && view.is_array(chunk)
            && AddrRange::new(chunk.start, chunk.size)
                .and_then(|range| view.words(range).first())
                .is_some_and(|length| length.load(Ordering::Relaxed) == 0)
    }
}

/// Whether a table of functions lies at `addr`: in a mapped file, of words that are null or point to code.
fn is_vtable<V: MemoryView>(view: &V, addr: u64) -> bool {
    if !addr.is_multiple_of(WORD_BYTES) || addr < FIRST_PAGE_BYTES {
        return false;
    }
    let mut functions = 0;
    for at in 0..VTABLE_WORDS {
        match addr.checked_add(at * WORD_BYTES).and_then(|addr| view.find_file_word(Addr(addr))) {
            None => return false,
            Some(0) => {}
            Some(entry) if view.is_code(Addr(entry)) => functions += 1,
            Some(_) => return false,
        }
        if functions == VTABLE_FUNCTIONS {
            return true;
        }
    }
    false
}
