//! Finding functions of libc by name without libc: through the loader's list of modules and their symbol tables.
//!
//! Sources: gABI chapter 5 ("Dynamic Linking"), the GNU hash table as glibc reads it (`elf/dl-lookup.c`),
//! `<link.h>` for `struct r_debug` and `struct link_map`.
//!
//! Runs at init, while nobody loads or unloads modules. Trusts the loader's structures: when those are damaged,
//! the process does not run either.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{detour::Entry, sys::file::File};

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_SONAME: u64 = 14;
const DT_DEBUG: u64 = 21;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
/// A symbol version that is not the default.
const VERSION_HIDDEN: u16 = 0x8000;

/// The word at `address`.
///
/// # Safety
/// Mapped memory of a loaded module or of the loader.
unsafe fn word(address: u64) -> u64 {
    // SAFETY: the caller's word.
    unsafe { (address as *const u64).read_unaligned() }
}

/// # Safety
/// As for `word`.
unsafe fn half(address: u64) -> u32 {
    // SAFETY: the caller's word.
    unsafe { (address as *const u32).read_unaligned() }
}

/// # Safety
/// A zero-terminated string of a loaded module or of the loader.
unsafe fn string<'a>(address: u64) -> &'a [u8] {
    // SAFETY: the caller's word.
    unsafe { core::ffi::CStr::from_ptr(address as *const core::ffi::c_char) }.to_bytes()
}

/// The symbol tables of one module.
#[derive(Clone, Copy, Debug)]
pub struct Symbols {
    bias: u64,
    symbols: u64,
    strings: u64,
    hash: u64,
    versions: u64,
}

/// One entry of the loader's list of modules (`struct link_map`).
#[derive(Clone, Copy, Debug)]
pub struct Linked {
    /// The address of the entry, which names it as long as the module is loaded.
    pub entry: u64,
    /// The module's load bias.
    pub bias: u64,
    /// Its file; empty for the program's own.
    pub path: &'static [u8],
    /// Its dynamic section.
    pub dynamic: u64,
}

impl Linked {
    /// The name of its file, without folders.
    pub fn file(&self) -> &'static [u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// The name that the module gives itself.
    pub fn soname(&self) -> Option<&'static [u8]> {
        let strings = Symbols::read(self.bias, self.dynamic)?.strings;
        let offset = find_dynamic(self.dynamic, DT_SONAME)?;
        // SAFETY: an offset into the module's own table of strings.
        Some(unsafe { string(strings + offset) })
    }
}

/// The loader's account of the process.
#[derive(Clone, Copy, Debug)]
pub struct Loader {
    /// Its `struct r_debug`.
    debug: u64,
    /// The program's own program headers.
    pub headers: u64,
    /// How many those are.
    pub header_count: u64,
}

impl Loader {
    /// Whether the list is whole: no module is being added or removed.
    pub fn is_consistent(self) -> bool {
        // SAFETY: the loader's `struct r_debug { int r_version; link_map *r_map; addr r_brk; int r_state; … }`.
        let state = unsafe { half(self.debug + 24) };
        state == 0
    }

    /// The modules, the program first. For the thread that holds the loader's lock, or the process' only one.
    pub fn modules(self) -> impl Iterator<Item = Linked> {
        // SAFETY: as above.
        let mut at = unsafe { word(self.debug + 8) };
        core::iter::from_fn(move || {
            if at == 0 {
                return None;
            }
            // SAFETY: the loader's list: { l_addr, l_name, l_ld, l_next, … }.
            let (bias, path, dynamic, next) =
                unsafe { (word(at), string(word(at + 8)), word(at + 16), word(at + 24)) };
            let linked = Linked { entry: at, bias, path, dynamic };
            at = next;
            Some(linked)
        })
    }

    /// The symbols of the first module whose file has this name.
    pub fn symbols_of(self, file: &[u8]) -> Option<Symbols> {
        let linked = self.modules().find(|linked| linked.file() == file)?;
        Symbols::read(linked.bias, linked.dynamic)
    }
}

/// A function of a library, looked up until the library is loaded and then no more; it stays loaded, by the word of
/// whoever names it.
pub struct LibraryFunction {
    library: &'static [u8],
    name: &'static [u8],
    /// Zero before it is known, `NO_FUNCTION` when the library has none of that name.
    address: AtomicU64,
}

const NO_FUNCTION: u64 = 1;

impl LibraryFunction {
    /// The function `name` of the library whose file is called `library`.
    pub const fn new(library: &'static [u8], name: &'static [u8]) -> Self {
        Self { library, name, address: AtomicU64::new(0) }
    }

    /// Its address.
    pub fn find(&self) -> Option<u64> {
        let mut address = self.address.load(Ordering::Relaxed);
        if address == 0 {
            let symbols = find_loader()?.symbols_of(self.library)?;
            address = symbols.find(self.name).map_or(NO_FUNCTION, |entry| entry.start);
            self.address.store(address, Ordering::Relaxed);
        }
        (address != NO_FUNCTION).then_some(address)
    }
}

/// libc's symbols, if libc is loaded.
pub fn find_libc() -> Option<Symbols> {
    find_loader()?.symbols_of(b"libc.so.6")
}

/// What `find_loader` found, the account's address last.
static FOUND: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// The loader's account, by way of the auxiliary vector and the program's dynamic section. It stays where it is, and a
/// process that gave up its privileges may not read the vector again.
pub fn find_loader() -> Option<Loader> {
    let [headers, header_count, debug] = &FOUND;
    // Acquire pairs with the Release below.
    let known = debug.load(Ordering::Acquire);
    if known != 0 {
        let [headers, header_count] = [headers, header_count].map(|word| word.load(Ordering::Relaxed));
        return Some(Loader { debug: known, headers, header_count });
    }
    let found = read_loader()?;
    headers.store(found.headers, Ordering::Relaxed);
    header_count.store(found.header_count, Ordering::Relaxed);
    debug.store(found.debug, Ordering::Release);
    Some(found)
}

fn read_loader() -> Option<Loader> {
    let file = File::open(b"/proc/self/auxv\0", false).ok()?;
    let mut vector = [0u8; 1024];
    let len = file.read(&mut vector).ok()?;
    let find = |wanted: u64| {
        vector[..len].chunks_exact(16).find_map(|entry| {
            let (kind, value) = entry.split_at(8);
            (kind == wanted.to_le_bytes()).then(|| u64::from_le_bytes(value.try_into().unwrap_or_default()))
        })
    };
    let (headers, count) = (find(AT_PHDR)?, find(AT_PHNUM)?);
    let header = |kind: u32| {
        (0..count).map(|index| headers + index * 56).find(|&at| {
            // SAFETY: the program's headers, which the kernel mapped with it.
            let found = unsafe { half(at) };
            found == kind
        })
    };
    // SAFETY: as above; offset 16 of a program header is p_vaddr.
    let stated = |at: u64| unsafe { word(at + 16) };
    let bias = header(PT_PHDR).map_or(0, |at| headers.wrapping_sub(stated(at)));
    let dynamic = bias.wrapping_add(stated(header(PT_DYNAMIC)?));
    let debug = find_dynamic(dynamic, DT_DEBUG)?;
    (debug != 0).then_some(Loader { debug, headers, header_count: count })
}

/// The value of the first entry with this tag in a dynamic section.
fn find_dynamic(dynamic: u64, tag: u64) -> Option<u64> {
    let mut at = dynamic;
    loop {
        // SAFETY: a loaded module's dynamic section up to its DT_NULL.
        let (found, value) = unsafe { (word(at), word(at + 8)) };
        if found == tag {
            return Some(value);
        }
        if found == 0 {
            return None;
        }
        at += 16;
    }
}

impl Symbols {
    /// The tables of the module with this dynamic section, if it has all that are needed.
    pub fn read(bias: u64, dynamic: u64) -> Option<Self> {
        // The loader adds the bias to these in place, except in modules whose dynamic section is read-only.
        let find = |tag| {
            let value = find_dynamic(dynamic, tag)?;
            Some(if value < bias { value.wrapping_add(bias) } else { value })
        };
        Some(Self {
            bias,
            symbols: find(DT_SYMTAB)?,
            strings: find(DT_STRTAB)?,
            hash: find(DT_GNU_HASH)?,
            versions: find(DT_VERSYM)?,
        })
    }

    /// Whether the module wants a symbol of this name from another.
    pub fn imports(&self, name: &[u8]) -> bool {
        // Those that are not defined come before the first that the hash table knows.
        // SAFETY: the module's hash table and symbol table, as the loader reads them.
        unsafe {
            let first = half(self.hash + 4);
            (1..first).any(|index| {
                let symbol = self.symbols + u64::from(index) * 24;
                half(symbol + 4) >> 16 == 0 && string(self.strings + u64::from(half(symbol))) == name
            })
        }
    }

    /// The function or variable with this name, in its default version.
    pub fn find(&self, name: &[u8]) -> Option<Entry> {
        let hash = name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
        // { nbuckets, symoffset, bloom_size, bloom_shift, bloom[], buckets[], chains[] }
        // SAFETY: the module's hash table and symbol table, as the loader reads them; chains end in an odd word.
        unsafe {
            let (buckets, first) = (half(self.hash), half(self.hash + 4));
            let buckets_at = self.hash + 16 + u64::from(half(self.hash + 8)) * 8;
            let chains_at = buckets_at + u64::from(buckets) * 4;
            let mut index = half(buckets_at + u64::from(hash % buckets.max(1)) * 4);
            if index < first {
                return None;
            }
            loop {
                let found = half(chains_at + u64::from(index - first) * 4);
                let symbol = self.symbols + u64::from(index) * 24;
                if found | 1 == hash | 1 && string(self.strings + u64::from(half(symbol))) == name {
                    let version = half(self.versions + u64::from(index) * 2) as u16;
                    let is_defined = half(symbol + 4) >> 16 != 0;
                    if version & VERSION_HIDDEN == 0 && is_defined {
                        let start = self.bias.wrapping_add(word(symbol + 8));
                        return Some(Entry { start, size: word(symbol + 16) });
                    }
                }
                if found & 1 != 0 {
                    return None;
                }
                index += 1;
            }
        }
    }
}
