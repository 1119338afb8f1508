//! Which error contexts a process had: each is sent once and counted in shared memory, so that the counts
//! outlive a target that is killed.
//!
//! Open addressing with linear probing, 64 places at most; an entry is never removed. Any thread, any time.

use core::sync::atomic::{AtomicU64, Ordering};

/// How many contexts a process can have. Valgrind stops showing errors at 1,000 contexts.
const ENTRIES: usize = 8192;
/// The bit of a count that says that the context is no error for the user.
const LEFT_OUT: u64 = 1 << 63;
/// How far an entry may lie from its hash's place; the table refuses before it becomes slow.
const PROBES: usize = 64;

/// The table.
#[repr(C)]
pub struct Contexts {
    entries: [Entry; ENTRIES],
}

#[repr(C)]
struct Entry {
    key: AtomicU64,
    count: AtomicU64,
}

/// What the table says of one occurrence of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It is the first of its context: send it, with this index.
    First(u32),
    /// It was counted.
    Again,
    /// It cannot be told from new ones: the table is full.
    Full,
}

impl Contexts {
    /// The size in shared memory.
    pub const BYTES: usize = size_of::<Self>();

    #[cfg(test)]
    #[expect(clippy::declare_interior_mutable_const, reason = "it initialises statics")]
    pub(crate) const NEW: Self =
        Self { entries: [const { Entry { key: AtomicU64::new(0), count: AtomicU64::new(0) } }; ENTRIES] };

    /// How often all contexts together were seen, but for those that are left out.
    pub fn total(&self) -> u64 {
        let counts = self.entries.iter().map(|entry| entry.count.load(Ordering::Relaxed));
        counts.filter(|count| count & LEFT_OUT == 0).sum()
    }

    /// The launcher keeps the context with this index out of the report: it is not among the errors.
    pub fn leave_out(&self, index: u32) {
        if let Some(entry) = self.entries.get(index as usize) {
            entry.count.fetch_or(LEFT_OUT, Ordering::Relaxed);
        }
    }

    /// Counts one occurrence of the context with this hash.
    pub fn sight(&self, hash: u64) -> Sighting {
        let key = hash | 1; // never the empty key
        for probe in 0..PROBES {
            let index = (hash >> 1) as usize % ENTRIES;
            let index = (index + probe) % ENTRIES;
            let entry = &self.entries[index];
            let seen = match entry.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    entry.count.fetch_add(1, Ordering::Relaxed);
                    return Sighting::First(index as u32);
                }
                Err(seen) => seen,
            };
            if seen == key {
                entry.count.fetch_add(1, Ordering::Relaxed);
                return Sighting::Again;
            }
        }
        Sighting::Full
    }

    /// How often the context with this index occurred; hostile indices give zero.
    #[must_use]
    pub fn count(&self, index: u32) -> u64 {
        self.entries.get(index as usize).map_or(0, |entry| entry.count.load(Ordering::Relaxed) & !LEFT_OUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_first_once_and_then_counted() {
        static TABLE: Contexts = Contexts::NEW;
        let contexts = &TABLE;
        let Sighting::First(index) = contexts.sight(1234) else { panic!("not first") };
        assert_eq!(contexts.sight(1234), Sighting::Again);
        assert_eq!(contexts.sight(1234), Sighting::Again);
        assert_eq!(contexts.count(index), 3);
        assert_eq!(contexts.count(u32::MAX), 0);
        assert_eq!(contexts.total(), 3);
        contexts.leave_out(index);
        contexts.leave_out(u32::MAX);
        assert_eq!(contexts.sight(1234), Sighting::Again);
        assert_eq!((contexts.count(index), contexts.total()), (4, 0));
    }

    #[test]
    fn contexts_with_one_place_are_told_apart_until_the_table_is_full() {
        static TABLE: Contexts = Contexts::NEW;
        let contexts = &TABLE;
        let clash = |n: u64| (n * 2 * ENTRIES as u64) | 1;
        for n in 0..PROBES as u64 {
            assert!(matches!(contexts.sight(clash(n)), Sighting::First(_)));
        }
        assert_eq!(contexts.sight(clash(PROBES as u64)), Sighting::Full);
        assert_eq!(contexts.sight(clash(0)), Sighting::Again);
    }
}
