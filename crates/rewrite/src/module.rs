//! A module as the translator sees it: bytes at their actual addresses, and where its functions are.

use alloc::{collections::BTreeMap, vec::Vec};
use core::cell::RefCell;

use memcheck_model::Pc;

use crate::decode::Callee;

/// Bytes of a module at their actual address.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The address of the first byte.
    pub start: Pc,
    /// Its bytes: pristine, whatever has been patched in memory since.
    pub bytes: &'a [u8],
}

/// Where a function lies: `[start, end)`. Part of a function, where the compiler split it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Its entry.
    pub start: Pc,
    /// The first address after it.
    pub end: Pc,
}

/// A module's code and constant data.
#[derive(Clone, Debug)]
pub struct Module<'a> {
    /// The executable segments.
    pub text: Vec<Segment<'a>>,
    /// Data that no longer changes (read-only segments, and RELRO after relocation), where jump tables lie.
    pub constants: Vec<Segment<'a>>,
    /// The functions, sorted, without overlap.
    pub extents: Vec<Extent>,
    /// What was learnt of functions that others call.
    pub callees: Callees,
}

/// Remembers what the first instructions of functions told, by their entries.
#[derive(Clone, Debug, Default)]
pub struct Callees(pub(crate) RefCell<BTreeMap<Pc, Callee>>);

impl Segment<'_> {
    /// The bytes from `at` to the segment's end, if `at` lies in it.
    #[must_use]
    pub fn find_from(&self, at: Pc) -> Option<&[u8]> {
        let offset = usize::try_from(at.0.checked_sub(self.start.0)?).ok()?;
        self.bytes.get(offset..).filter(|rest| !rest.is_empty())
    }
}

impl Extent {
    /// How long it is.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether `pc` lies in it.
    #[must_use]
    pub fn contains(&self, pc: Pc) -> bool {
        self.start <= pc && pc < self.end
    }
}

impl Module<'_> {
    /// The text from `at` to the end of its segment.
    #[must_use]
    pub fn find_text(&self, at: Pc) -> Option<&[u8]> {
        self.text.iter().find_map(|segment| segment.find_from(at))
    }

    /// The constant data (or text) from `at` to the end of its segment.
    #[must_use]
    pub fn find_constants(&self, at: Pc) -> Option<&[u8]> {
        self.constants.iter().find_map(|segment| segment.find_from(at)).or_else(|| self.find_text(at))
    }

    /// The index of the extent that holds `pc`.
    #[must_use]
    pub fn find_extent(&self, pc: Pc) -> Option<usize> {
        let after = self.extents.partition_point(|extent| extent.start <= pc);
        after.checked_sub(1).filter(|&index| self.extents[index].contains(pc))
    }

    /// The index of the extent of the function that begins at `entry`.
    #[must_use]
    pub fn find_function(&self, entry: Pc) -> Option<usize> {
        self.extents.binary_search_by_key(&entry, |extent| extent.start).ok()
    }

    /// Whether `pc` is the entry of a function.
    #[must_use]
    pub fn is_entry(&self, pc: Pc) -> bool {
        self.find_function(pc).is_some()
    }
}
