//! glibc's thread descriptors (`struct pthread`): which threads it knows, and the memory it keeps for those that
//! have ended.
//!
//! ```text
//!  a thread's stack mapping     [ guard | stack … | static TLS | struct pthread ]
//!                                                               ^ thread pointer
//!  struct pthread               [ self | dtv | self | …  list … tid … ]      dtv = block + 16 (an entry)
//! ```
//!
//! The offsets are those that libc exports for debuggers (nptl_db/structs.def: `_thread_db_…`, each
//! `{ bits, elements, offset }` as u32). Where they are missing nothing is known, and nothing left out.
//!
//! Reads the target's memory, which may be trampled: every pointer is tried before it is followed.

use alloc::vec::Vec;

use crate::{
    libc_symbols::{self, Symbols},
    sys::memory,
};

/// Lists longer than this are rings by accident.
const MOST_THREADS: usize = 1 << 20;

/// What glibc thinks of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, or is being made.
    Running,
    /// It has ended and nobody joined it yet: its result is kept.
    Ended,
    /// It has ended, and its stack waits for another thread.
    Cached,
}

/// One descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Its first address: the thread pointer.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// What it is of.
    pub life: Life,
}

/// Where the descriptors are.
pub struct ThreadLists {
    used: u64,
    user: u64,
    cache: u64,
    list_offset: u64,
    tid_offset: u64,
    size: u64,
}

impl ThreadLists {
    /// glibc's lists, if it says where they are (since 2.34 they are the loader's).
    pub fn find() -> Option<Self> {
        let modules = libc_symbols::find_loader()?;
        let libc = modules.symbols_of(b"libc.so.6")?;
        let loader = modules.symbols_of(b"ld-linux-x86-64.so.2")?;
        let number = |name: &[u8], index: u64| debug_number(&libc, name, index);
        let offset = |name: &[u8]| number(name, 2);
        let global = loader.find(b"_rtld_global")?.start;
        let user = global + offset(b"_thread_db_rtld_global__dl_stack_user")?;
        Some(Self {
            used: global + offset(b"_thread_db_rtld_global__dl_stack_used")?,
            user,
            // `_dl_stack_cache` follows `_dl_stack_user` (sysdeps/generic/ldsodefs.h), two pointers each.
            cache: user + 16,
            list_offset: offset(b"_thread_db_pthread_list")?,
            tid_offset: offset(b"_thread_db_pthread_tid")?,
            size: number(b"_thread_db_sizeof_pthread", 0)?,
        })
    }

    /// Shows every descriptor.
    pub fn for_each(&self, mut visit: impl FnMut(Descriptor)) {
        for (head, is_cache) in [(self.used, false), (self.user, false), (self.cache, true)] {
            let mut node = memory::try_read(head).unwrap_or(head);
            for _ in 0..MOST_THREADS {
                if node == head || node == 0 {
                    break;
                }
                let start = node.wrapping_sub(self.list_offset);
                // A descriptor's first word is its own address; anything else is not a list of them.
                if memory::try_read(start) != Some(start) {
                    break;
                }
                let tid = memory::try_read((start + self.tid_offset) & !7)
                    .map_or(0, |word| (word >> (if self.tid_offset % 8 == 4 { 32 } else { 0 })) as u32);
                let life = match tid {
                    _ if is_cache => Life::Cached,
                    0 => Life::Ended,
                    _ => Life::Running,
                };
                visit(Descriptor { start, end: start + self.size, life });
                match memory::try_read(node) {
                    Some(next) => node = next,
                    None => break,
                }
            }
        }
    }
}

/// One of the numbers that libc exports for debuggers.
fn debug_number(libc: &Symbols, name: &[u8], index: u64) -> Option<u64> {
    let at = libc.find(name)?.start + index * 4;
    let shift = if at % 8 == 4 { 32 } else { 0 };
    memory::try_read(at & !7).map(|word| word >> shift & u64::from(u32::MAX))
}

/// The thread-local storage of a module that was there when the program started.
///
/// ```text
///  | …  | a library's | the program's | thread pointer       start = thread pointer − distance
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// How far below the thread pointer it begins.
    pub distance: u64,
    /// How far it may reach from there: to the next, or to the thread pointer.
    pub size: u64,
    /// The module's dynamic section.
    pub dynamic: u64,
}

/// All of them, the nearest first; none where libc does not say where the loader notes them.
pub fn storages() -> Vec<Storage> {
    let loader = libc_symbols::find_loader();
    let libc = loader.and_then(|loader| loader.symbols_of(b"libc.so.6"));
    let place = libc.and_then(|libc| debug_number(&libc, b"_thread_db_link_map_l_tls_offset", 2));
    let Some((loader, place)) = loader.zip(place) else { return Vec::new() };
    let storage = |linked: libc_symbols::Linked| {
        let distance = memory::try_read(linked.entry + place)?;
        // The loader's numbers for none, and for one that is elsewhere, are 0 and −1.
        let dynamic = linked.dynamic;
        (distance != 0 && distance != u64::MAX).then_some(Storage { distance, size: distance, dynamic })
    };
    let mut storages: Vec<Storage> = loader.modules().filter_map(storage).collect();
    storages.sort_unstable_by_key(|storage| storage.distance);
    let mut nearer = 0;
    for storage in &mut storages {
        storage.size = storage.distance - nearer;
        nearer = storage.distance;
    }
    storages
}

/// The thread-local storage of a module that `dlopen` loaded, in one thread: a block, made at its first use.
#[derive(Clone, Copy, Debug)]
pub struct LateStorage {
    /// The block.
    pub block: u64,
    /// Where in it the storage begins.
    pub start: u64,
    /// The module's dynamic section.
    pub dynamic: u64,
}

/// Those of a thread.
///
/// ```text
///  dtv − 16   how many entries       dtv + 16·n   of module n: { start, block }
/// ```
/// `block` is null where the storage lies with the stack, `start` −1 before the first use (`dtv_t`).
pub fn late_storages(thread_pointer: u64) -> Vec<LateStorage> {
    let loader = libc_symbols::find_loader();
    let libc = loader.and_then(|loader| loader.symbols_of(b"libc.so.6"));
    let place = libc.and_then(|libc| debug_number(&libc, b"_thread_db_link_map_l_tls_modid", 2));
    let table = memory::try_read(thread_pointer + 8);
    let count = table.and_then(|table| memory::try_read(table.checked_sub(16)?));
    let (Some(loader), Some(place), Some(table), Some(count)) = (loader, place, table, count) else {
        return Vec::new();
    };
    let storage = |linked: libc_symbols::Linked| {
        let number = memory::try_read(linked.entry + place).filter(|number| (1..=count).contains(number))?;
        let entry = table.checked_add(number.checked_mul(16)?)?;
        let (start, block) = (memory::try_read(entry)?, memory::try_read(entry + 8)?);
        (block != 0 && start != u64::MAX).then_some(LateStorage { block, start, dynamic: linked.dynamic })
    };
    loader.modules().filter_map(storage).collect()
}

/// The start of the block that holds a thread's table of TLS blocks, if the thread has one: `dtv` points to its
/// second entry of two words.
pub fn table_of(thread_pointer: u64) -> Option<u64> {
    memory::try_read(thread_pointer.checked_add(8)?)?.checked_sub(16)
}
