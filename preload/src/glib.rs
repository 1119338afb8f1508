//! GLib, which most desktop programs and many servers are written on, and how it keeps its memory.
//!
//! It hands out what lies behind words of its own (the private part of an object, a type's and an array's header), and
//! pieces of slabs (`g_slice_alloc`), so that only pointers into the middle lead to its blocks. It knows that tools
//! like this one see losses there: it asks whether it runs on Valgrind (`RUNNING_ON_VALGRIND`), and if so allocates each
//! piece by itself and keeps pointers to the starts. So it is told yes whatever the option says. It must be told the
//! same each time, because it frees otherwise what it allocated so. Without access checks its question is not seen;
//! then what it does with its blocks is known here instead (`Conventions`). Where the program's own allocator serves
//! GLib it is told no: it would mark blocks as freed in memory that is given out again unseen.
//!
//! In: modules as they are loaded. GLib is never unloaded (it is linked with `-z nodelete`).

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::{Addr, AddrRange, Pc};

use crate::{
    libc_symbols::{self, Linked},
    own_allocators,
};

const FILES: [&[u8]; 2] = [b"libglib-2.0.so.0", b"libgobject-2.0.so.0"];
/// The longest header: of a closure, four words (`GRealClosure`).
const HEADER_BYTES: u64 = 32;

/// From the first byte of each of `FILES` to its last; zero while it is not loaded.
static PLACES: [[AtomicU64; 2]; FILES.len()] = [const { [const { AtomicU64::new(0) }; 2] }; FILES.len()];

/// A module was loaded; runs in the thread that holds the loader's lock, before any code of the module.
pub fn module_loaded(linked: &Linked, range: AddrRange) {
    if let Some(place) = FILES.iter().position(|file| linked.file() == *file) {
        // Relaxed: whoever runs code of the module came to it by way of the loader's lock.
        PLACES[place][0].store(range.start().0, Ordering::Relaxed);
        PLACES[place][1].store(range.end().0, Ordering::Relaxed);
    }
}

fn range(place: usize) -> AddrRange {
    let [start, end] = PLACES[place].each_ref().map(|word| Addr(word.load(Ordering::Relaxed)));
    AddrRange::between(start, end).unwrap_or_default()
}

/// Whether code at `pc` is GLib's, to be told that it runs on Valgrind. The program's allocator is known before GLib is
/// loaded.
pub fn is_told(pc: Pc) -> bool {
    !own_allocators::is_heap_passed() && (0..FILES.len()).any(|place| range(place).contains(Addr(pc.0)))
}

/// Where GLib's functions that keep pointers into the middle of their blocks are.
pub struct Conventions {
    glib: AddrRange,
    gobject: AddrRange,
    slice_alloc: AddrRange,
}

impl Conventions {
    /// Those of the loaded GLib, if there is one. For the process' only thread.
    pub fn find() -> Option<Self> {
        let [glib, gobject] = [0, 1].map(range);
        if glib.is_empty() {
            return None;
        }
        let symbols = libc_symbols::find_loader()?.symbols_of(FILES[0])?;
        let entry = symbols.find(b"g_slice_alloc")?;
        let slice_alloc = AddrRange::new(Addr(entry.start), memcheck_model::Size(entry.size))?;
        Some(Self { glib, gobject, slice_alloc })
    }

    /// Whether a pointer `offset` bytes into a block with this allocation stack is how GLib points to it.
    pub fn is_start(&self, stack: &[Pc], offset: u64) -> bool {
        let [allocator, caller, ..] = stack else { return false };
        let (allocator, caller) = (Addr(allocator.0), Addr(caller.0));
        self.glib.contains(allocator)
            && (self.slice_alloc.contains(caller)
                || (self.gobject.contains(caller) && offset <= HEADER_BYTES && offset.is_multiple_of(8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_slabs_and_what_lies_behind_headers_count_as_starts() {
        let range = |start, end| AddrRange::between(Addr(start), Addr(end)).unwrap();
        let conventions = Conventions {
            glib: range(0x1000, 0x2000),
            gobject: range(0x3000, 0x4000),
            slice_alloc: range(0x1800, 0x1900),
        };
        let is_start = |stack: &[u64], offset| {
            conventions.is_start(&stack.iter().map(|&pc| Pc(pc)).collect::<alloc::vec::Vec<_>>(), offset)
        };
        assert!(is_start(&[0x1100, 0x1850, 0x5000], 208), "a slab");
        assert!(is_start(&[0x1100, 0x3100], 8) && is_start(&[0x1100, 0x3100], 32), "headers");
        assert!(!is_start(&[0x1100, 0x3100], 40) && !is_start(&[0x1100, 0x3100], 12), "behind no header");
        assert!(!is_start(&[0x1100, 0x5000], 8), "the program's by g_malloc");
        assert!(!is_start(&[0x5000, 0x3100], 8) && !is_start(&[0x1100], 8) && !is_start(&[], 8));
    }
}
