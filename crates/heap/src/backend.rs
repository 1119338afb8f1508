//! What the heap asks of the memory that it manages but never touches itself.

use core::sync::atomic::AtomicU64;

use memcheck_model::{Addr, AddrRange, FREED_FILL, REDZONE_FILL};

/// What memory that nobody may write is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pattern {
    /// Redzones.
    Redzone = REDZONE_FILL,
    /// Freed chunks, where they do not keep what they held.
    Freed = FREED_FILL,
}

/// Why memory must not be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No chunk was made of it yet.
    Unused,
    /// It precedes a chunk.
    LeftRedzone,
    /// It follows a chunk.
    RightRedzone,
    /// Its chunk was freed.
    Freed,
}

/// Bytes of a range that no longer hold its pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The first of them.
    pub first: Addr,
    /// The last of them.
    pub last: Addr,
    /// How many differ between the two.
    pub changed: u64,
}

/// The effects. Ranges lie within the layout; `commit` was called for what is filled, searched or read.
///
/// Everything may run before init and in signal handlers.
pub trait Backend {
    /// Makes whole pages readable and writable and zero. False when the kernel refuses.
    fn commit(&self, range: AddrRange) -> bool;
    /// Whole pages, the heap's own records or such as `commit` was called for, will soon be written to.
    fn prepare(&self, range: AddrRange);
    /// Gives pages back; an access to them faults until they are committed again, as zeros.
    fn decommit(&self, range: AddrRange);
    /// Gives back what the pages hold; they read as zeros.
    fn discard(&self, range: AddrRange);
    /// Fills a range.
    fn fill(&self, range: AddrRange, pattern: Pattern);
    /// Sets each byte of a range.
    fn set(&self, range: AddrRange, byte: u8);
    /// A number that another content of the range would hardly give.
    fn sum(&self, range: AddrRange) -> u64;
    /// The bytes of a range that differ from its pattern, or `None` when none does.
    fn find_change(&self, range: AddrRange, pattern: Pattern) -> Option<Change>;
    /// Memory at an address will soon be looked at.
    fn prefetch(&self, addr: Addr);
    /// Copies bytes out.
    fn read(&self, from: Addr, into: &mut [u8]);
    /// Marks a range as not to be accessed. Granules that it enters in the middle keep their first bytes.
    fn poison(&self, range: AddrRange, reason: Reason);
    /// Marks a range, which starts at a granule, as accessible.
    fn unpoison(&self, range: AddrRange);
    /// Compares and exchanges, with what was there: among this thread and its signal handlers, and nobody else.
    fn exchange_alone(&self, word: &AtomicU64, from: u64, to: u64) -> u64;
    /// Keeps signal handlers away from this thread; gives what `leave_critical` needs.
    fn enter_critical(&self) -> u64;
    /// Lets them come again.
    fn leave_critical(&self, before: u64);
    /// Passes the time until another thread has left a lock.
    fn relax(&self);
}
