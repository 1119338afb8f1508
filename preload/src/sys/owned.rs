//! The memory that the shim mapped for itself, so that nothing of it is taken for the target's.
//!
//! Invariant: a range is listed before anything is stored in it. A full list counts what it could not hold; such
//! memory is then searched as if it were the target's, which can only hide a leak.
//!
//! May run anywhere; takes no lock.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use memcheck_model::{Addr, AddrRange};

/// The tool's heap maps a megabyte at a time, so this is enough for gigabytes.
const RANGES: usize = 4096;

/// Mappings are of whole pages.
const PAGE: u64 = 4096;

struct Range {
    start: AtomicU64,
    end: AtomicU64,
}

static OWNED: [Range; RANGES] =
    [const { Range { start: AtomicU64::new(0), end: AtomicU64::new(0) } }; RANGES];
/// How many entries were ever used; may exceed `RANGES`.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Lists the pages of `len` bytes from `start`.
pub fn note(start: u64, len: u64) {
    let used = USED.load(Ordering::Relaxed).min(RANGES);
    let vacant = OWNED[..used].iter().find(|range| {
        range.start.load(Ordering::Relaxed) == 0
            && range.start.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    });
    let entry = vacant.or_else(|| {
        let entry = OWNED.get(USED.fetch_add(1, Ordering::Relaxed))?;
        entry.start.store(start, Ordering::Relaxed);
        Some(entry)
    });
    if let Some(entry) = entry {
        // Release pairs with the Acquire of `for_each`: start and end belong together.
        entry.end.store(start.saturating_add(len).next_multiple_of(PAGE), Ordering::Release);
    }
}

/// Forgets the range that starts at `start`.
pub fn forget(start: u64) {
    let used = USED.load(Ordering::Relaxed).min(RANGES);
    for range in &OWNED[..used] {
        if range.start.load(Ordering::Relaxed) == start {
            range.end.store(0, Ordering::Relaxed);
            range.start.store(0, Ordering::Release);
        }
    }
}

/// Shows every range.
pub fn for_each(mut visit: impl FnMut(AddrRange)) {
    let used = USED.load(Ordering::Relaxed).min(RANGES);
    for range in &OWNED[..used] {
        let end = range.end.load(Ordering::Acquire);
        let start = range.start.load(Ordering::Relaxed);
        if let (true, Some(range)) = (start != 0, AddrRange::between(Addr(start), Addr(end))) {
            visit(range);
        }
    }
}

/// Whether `addr` lies in one of them.
pub fn contains(addr: Addr) -> bool {
    let mut found = false;
    for_each(|range| found |= range.contains(addr));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_listed(start: u64) -> bool {
        let mut found = false;
        for_each(|range| found |= range.start() == Addr(start));
        found
    }

    #[test]
    fn what_is_noted_is_shown_until_it_is_forgotten() {
        note(0x1000, 0x2000);
        assert!(is_listed(0x1000));
        forget(0x1000);
        assert!(!is_listed(0x1000));
    }
}
