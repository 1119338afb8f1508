//! Modules that carry an allocator of their own (a program linked with jemalloc or tcmalloc): its functions are led
//! to the shim's, because such a module wins the search for symbols over a preloaded one, and calls itself directly.
//!
//! In: modules as they are loaded. Out: entries led elsewhere; a word to the launcher when the program's own
//! allocator stays in use, so that nobody takes the silence of an empty heap for its health.
//!
//! A module with `__libc_malloc` among its imports wraps libc's allocator, which is the shim's: it is left alone. So is
//! one whose `malloc` is only one front of an allocator that has others. What an allocator gives out by names that only
//! it has (`mallocx`) is not known to the shim.
//!
//! Runs in the thread that holds the loader's lock, before any code of the module can.

use core::sync::atomic::{AtomicU64, Ordering};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind, Register};
use memcheck_model::{Addr, AddrRange, Pc};
use memcheck_wire::{Notice, NoticeKind, Record};

use crate::{
    channel,
    detour::{self, Island},
    engine::install,
    exports, heap,
    libc_symbols::{Linked, Symbols},
};

/// The program's own `malloc`, `free` and `aligned_alloc`, when its calls of them lead past the shim; zero where there is
/// none.
static PASSED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Whether what the program allocates is not seen.
pub fn is_heap_passed() -> bool {
    PASSED[0].load(Ordering::Relaxed) != 0
}

/// Allocates as libstdc++'s `operator new` does in a program whose own allocator is not seen: there. `align` is zero for
/// that of every block. `None` in other programs.
#[inline]
pub fn allocate_in_passed(size: u64, align: u64) -> Option<u64> {
    let [malloc, _, aligned_alloc] = &PASSED;
    let entry = if align == 0 { malloc } else { aligned_alloc }.load(Ordering::Relaxed);
    if entry == 0 {
        return None;
    }
    // SAFETY: the program's own `malloc`, or its `aligned_alloc`, which takes the size second.
    Some(unsafe {
        if align == 0 {
            let malloc: extern "C" fn(u64) -> u64 = core::mem::transmute(entry);
            malloc(size.max(1))
        } else {
            let aligned_alloc: extern "C" fn(u64, u64) -> u64 = core::mem::transmute(entry);
            aligned_alloc(align, size.max(1).next_multiple_of(align))
        }
    })
}

/// Gives back what is no block of the shim's as libstdc++'s `operator delete` does, in a program whose own allocator is
/// not seen. Whether it is one.
#[inline]
pub fn free_in_passed(block: u64) -> bool {
    let entry = PASSED[1].load(Ordering::Relaxed);
    if entry == 0 || heap::get().is_some_and(|heap| heap.contains(Addr(block))) {
        return false;
    }
    // SAFETY: the program's own `free`.
    let free: extern "C" fn(u64) = unsafe { core::mem::transmute(entry) };
    free(block);
    true
}

/// A module's own allocator, and whether the shim's can stand for it.
pub struct OwnAllocator {
    symbols: Symbols,
    is_program: bool,
    is_replaceable: bool,
}

impl OwnAllocator {
    /// The module's, if it has one. For modules whose text is still what the file has.
    pub fn find(linked: &Linked) -> Option<Self> {
        let name = linked.file();
        if name.starts_with(b"libc.so")
            || name.starts_with(b"ld-linux")
            || name.starts_with(b"libmemcheck_preload")
        {
            return None;
        }
        let symbols = Symbols::read(linked.bias, linked.dynamic)?;
        // A module with `operator new` alone has it call somebody's malloc.
        let malloc = symbols.find(b"malloc").filter(|_| symbols.find(b"free").is_some())?;
        if symbols.imports(b"__libc_malloc") {
            return None;
        }
        // SAFETY: the module's own symbols say that it is a function.
        let code = unsafe { core::slice::from_raw_parts(malloc.start as *const u8, malloc.size as usize) };
        let is_replaceable =
            heap::get().is_some() && channel::takes_allocator(linked.soname()) && !is_front(&symbols, code);
        Some(Self { symbols, is_program: linked.path.is_empty(), is_replaceable })
    }

    /// Leads its functions here, if that can be.
    pub fn replace(&self) {
        let is_led = self.is_replaceable && lead(&self.symbols);
        if self.is_program && !is_led {
            for (name, entry) in [b"malloc".as_slice(), b"free", b"aligned_alloc"].into_iter().zip(&PASSED) {
                let start = self.symbols.find(name).map_or(0, |found| found.start);
                entry.store(start, Ordering::Relaxed);
            }
            channel::send(&Record::Notice(Notice { kind: NoticeKind::OwnMalloc, text: b"the program" }));
        }
    }
}

/// Whether this `malloc` is only one front of its allocator, others of which take and give the same blocks: it calls
/// through a table of functions, as that of Chromium and of what is built on it; or it is mozjemalloc, Firefox's.
fn is_front(symbols: &Symbols, malloc: &[u8]) -> bool {
    symbols.find(b"moz_arena_malloc").is_some() || calls_through_table(malloc)
}

/// Whether this code calls what it reads through a pointer.
fn calls_through_table(code: &[u8]) -> bool {
    let is_pointer = |base| !matches!(base, Register::None | Register::RIP | Register::RSP | Register::RBP);
    // The registers that were read so, by their numbers.
    let mut read = 0u16;
    for instruction in &mut Decoder::new(64, code, DecoderOptions::NONE) {
        let register = instruction.op0_register().full_register();
        let bit = if register.is_gpr() { 1 << register.number() } else { 0 };
        let through_pointer = is_pointer(instruction.memory_base());
        if matches!(instruction.flow_control(), FlowControl::IndirectCall | FlowControl::IndirectBranch)
            && (read & bit != 0 || through_pointer)
        {
            return true;
        }
        let reads = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op1_kind() == OpKind::Memory
            && through_pointer;
        read = if reads { read | bit } else { read & !bit };
    }
    false
}

/// Whether all allocator functions that the module has are led here: none is if one cannot be, because it would not
/// know the blocks of the others.
fn lead(symbols: &Symbols) -> bool {
    let handlers = || {
        exports::libc_allocator().into_iter().chain(exports::cxx::allocator()).chain(exports::of_tcmalloc())
    };
    let entries = || handlers().filter_map(|(name, handler)| Some((name, symbols.find(name)?, handler)));
    // SAFETY: the module's own symbols say that these are functions.
    let has_room = |entry| unsafe { detour::room(entry) } >= detour::NEAR_JUMP_BYTES;
    let starts = || entries().map(|(_, entry, _)| Addr(entry.start));
    let reach = starts().min().zip(starts().max()).and_then(|(first, last)| AddrRange::between(first, last));
    let island = reach.filter(|_| entries().all(|(_, entry, _)| has_room(entry))).and_then(Island::near);
    let Some(mut island) = island else { return false };
    // One function by two names cannot tell who calls it: no block is its mismatch then.
    let entry_of = |name: &[u8]| symbols.find(name).map(|entry| entry.start);
    let is_shared =
        [(b"free".as_slice(), b"_ZdlPv".as_slice()), (b"_ZdlPv", b"_ZdaPv"), (b"_Znwm", b"_Znam")]
            .into_iter()
            .any(|(one, other)| entry_of(one).is_some() && entry_of(one) == entry_of(other));
    let mut are_led = true;
    for (name, entry, handler) in entries() {
        let is_release = name == b"free" || name.starts_with(b"_Zd");
        let handler = if is_shared && is_release { exports::release_of_any() } else { handler };
        are_led &= install::redirect(Pc(entry.start), Addr(handler))
            // SAFETY: the handler is the shim's function of that name; nothing of the module runs yet; there is room.
            || unsafe { island.install(entry, handler) }.is_ok();
    }
    are_led
}
