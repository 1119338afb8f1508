//! The root set: where the target keeps pointers outside the heap.
//!
//! ```text
//!  every mapping that is readable and writable, or anonymous and readable
//!   − the heap, the shadow and everything else that the shim mapped, the shim's own data
//!   − each thread's storage of the shim's
//!   − stacks below their thread's stack pointer (and the 128 bytes that a leaf function may use below it)
//!   − what `exit` keeps on the stack: mostly what earlier functions left there
//!   − stacks and TLS of threads that have ended
//!   − pages that nobody touched
//!   + registers
//! ```
//!
//! Runs while all other threads stand still; allocates on the tool's heap.

use alloc::vec::Vec;

use memcheck_leak::Path;
use memcheck_model::{Addr, AddrRange, Pc, Root, RootKind, Size, Step, ThreadId};

use super::glibc::{self, Descriptor, LateStorage, Life, Storage, ThreadLists, table_of};
use super::{runtime_library::RuntimeLibraries, stop::Stand};
use crate::{
    lifecycle::end::{Departure, RED_ZONE},
    maps::{self, Mapping, Source},
    modules, stacks,
    sys::{file::File, memory, owned, process},
    thread,
};

const PAGE: u64 = 4096;
/// Mappings larger than this are asked about for pages that nobody touched.
const LARGE: u64 = 1 << 18;
/// `present` and `swapped` in an entry of /proc/self/pagemap.
const TOUCHED: u64 = 3 << 62;

/// The root set.
pub struct Roots {
    /// What the program reaches by itself.
    pub program: Vec<AddrRange>,
    /// What runtime libraries keep for themselves; the last range leads to `tables`.
    pub library: Vec<AddrRange>,
    /// The starts of threads' tables of TLS blocks. glibc holds pointers into their middle.
    #[expect(dead_code, reason = "a range of `library` leads to these words")]
    tables: Vec<u64>,
    /// The runtime libraries.
    pub libraries: RuntimeLibraries,
    threads: Vec<Thread>,
    /// Where the registers of threads are saved, and whose.
    registers: Vec<(AddrRange, u32)>,
    storages: Vec<Storage>,
    /// With the thread's id.
    late_storages: Vec<(LateStorage, u32)>,
}

impl Roots {
    /// What kind of place in the root set this is.
    pub fn describe(&self, address: Addr) -> Root {
        let (kind, tid) = self.owner(address);
        let is_local = kind == RootKind::ThreadLocal;
        let thread = self.threads.iter().find(|thread| is_local && thread.tid == tid);
        let address = thread.map_or(address, |thread| self.place_of_local(thread.thread_pointer - address.0));
        Root { kind, address, tid: ThreadId(tid) }
    }

    /// Where a path begins, and what is left of it: the thread-local storage of a module that was loaded late is a block,
    /// which is no step of the way for the program.
    pub fn describe_path<'a>(&self, path: &'a Path) -> (Root, &'a [Step]) {
        let whole = (self.describe(path.root), &path.steps[..]);
        // What follows blocks that are left out is not known.
        if path.left_out > 0 || self.late_storages.is_empty() {
            return whole;
        }
        let mut pointer = path.root;
        for (index, step) in path.steps.iter().enumerate().take(path.steps.len().saturating_sub(1)) {
            let Some(value) = memory::try_read(pointer.0) else { return whole };
            let block = value.wrapping_sub(step.into);
            if let Some(&(storage, tid)) = self.late_storages.iter().find(|(late, _)| late.block == block) {
                let offset = (block + step.at).wrapping_sub(storage.start);
                let address = place_in_storage(storage.dynamic, offset).unwrap_or(Addr::NULL);
                let root = Root { kind: RootKind::ThreadLocal, address, tid: ThreadId(tid) };
                return (root, &path.steps[index + 1..]);
            }
            pointer = Addr(block.wrapping_add(step.at));
        }
        whole
    }

    /// The place of the thread-local variable that lies so far below a thread pointer (see `Root`).
    fn place_of_local(&self, distance: u64) -> Addr {
        let storage = self.storages.iter().find(|storage| distance <= storage.distance);
        let place =
            storage.and_then(|storage| place_in_storage(storage.dynamic, storage.distance - distance));
        place.unwrap_or(Addr::NULL)
    }

    fn owner(&self, address: Addr) -> (RootKind, u32) {
        if let Some(&(_, tid)) = self.registers.iter().find(|(range, _)| range.contains(address)) {
            return (RootKind::Register, tid);
        }
        if modules::find(address.0).is_some() {
            return (RootKind::Variable, 0);
        }
        // The nearest thread pointer above or just below tells whose storage it is, the nearest stack pointer below
        // whose stack.
        let storage = |thread: &&Thread| {
            let storage_bytes = self.storages.last().map_or(0, |storage| storage.distance);
            let start = thread.thread_pointer.saturating_sub(storage_bytes);
            thread.thread_pointer != 0 && (start..thread.thread_pointer + DESCRIPTOR_MAX).contains(&address.0)
        };
        if let Some(thread) = self.threads.iter().find(storage) {
            let is_local = address.0 < thread.thread_pointer;
            return (if is_local { RootKind::ThreadLocal } else { RootKind::ThreadData }, thread.tid);
        }
        let below =
            self.threads.iter().filter(|thread| thread.rsp.saturating_sub(thread.red_zone) <= address.0);
        match below.max_by_key(|thread| thread.rsp) {
            Some(thread) if (thread.rsp..thread.stack_end).contains(&(address.0.max(thread.rsp))) => {
                (RootKind::Stack, thread.tid)
            }
            _ => (RootKind::Mapping, 0),
        }
    }
}

/// So many bytes from the start of a module's thread-local storage, as `Root` has it.
fn place_in_storage(dynamic: u64, offset: u64) -> Option<Addr> {
    let module = modules::find(dynamic)?.range;
    module.start().checked_add(Size(offset)).filter(|&place| module.contains(place))
}

/// `struct pthread` is smaller, in every version of libc so far.
const DESCRIPTOR_MAX: u64 = 4096;

/// Where one thread's stack is in use.
#[derive(Clone, Copy)]
struct Thread {
    tid: u32,
    /// Where the mapping of its stack ends.
    stack_end: u64,
    pc: u64,
    rsp: u64,
    red_zone: u64,
    thread_pointer: u64,
}

/// Gathers the root set of a process whose other threads stand so.
pub fn gather(departure: &Departure, stands: &[Stand]) -> Roots {
    let own = Thread {
        tid: process::tid(),
        stack_end: 0,
        pc: departure.pc,
        rsp: departure.rsp,
        red_zone: departure.red_zone,
        thread_pointer: thread::pointer(),
    };
    let other = |stand: &Stand| Thread {
        tid: stand.tid,
        stack_end: 0,
        pc: stand.pc,
        rsp: stand.rsp,
        red_zone: RED_ZONE,
        thread_pointer: stand.thread_pointer,
    };
    let mut threads: Vec<Thread> = stands.iter().map(other).collect();
    threads.push(own);
    let mut descriptors = Vec::new();
    if let Some(lists) = ThreadLists::find() {
        lists.for_each(|descriptor| descriptors.push(descriptor));
    }
    let mut mappings = Vec::new();
    maps::for_each(|mapping| {
        mappings.push(*mapping);
        for thread in threads.iter_mut().filter(|thread| mapping.range.contains(Addr(thread.rsp))) {
            thread.stack_end = mapping.range.end().0;
        }
        true
    });

    let mut excluded = Vec::new();
    owned::for_each(|range| excluded.push(range));
    excluded.extend(own_segments(PF_W));
    let mut libraries = RuntimeLibraries::find();
    let storages = glibc::storages();
    let pointers = threads.iter().map(|thread| thread.thread_pointer).filter(|&pointer| pointer != 0);
    for (pointer, storage) in
        pointers.flat_map(|pointer| storages.iter().map(move |storage| (pointer, storage)))
    {
        if libraries.contain(Addr(storage.dynamic)) {
            let start = pointer.saturating_sub(storage.distance);
            libraries.ranges.extend(AddrRange::new(Addr(start), Size(storage.size)));
        }
    }
    let (mut ranges, mut library) = (Vec::new(), Vec::new());
    for thread in threads.iter().filter(|thread| thread.thread_pointer != 0) {
        excluded.extend(thread_storage(thread.thread_pointer));
        ranges.extend(spilled(thread));
    }
    excluded.extend(exit_frames(departure, &libraries));
    for mapping in &mappings {
        exclude_stacks(mapping, &threads, &descriptors, &mut excluded);
    }
    excluded.sort_unstable_by_key(|range| range.start());

    for mapping in mappings.iter().filter(|mapping| is_root(mapping)) {
        mapping.range.for_each_rest(&excluded, |range| {
            for_each_touched(range, mapping.source, |range| {
                libraries.split(range, &mut |part| ranges.push(part), &mut |part| library.push(part));
            });
        });
    }
    let mut registers = Vec::new();
    let own = AddrRange::new(Addr(departure.registers), Size(departure.register_count * 8));
    registers.extend(own.map(|range| (range, process::tid())));
    for stand in stands.iter().filter(|stand| stand.context != 0) {
        registers.extend(super::registers::saved(stand.context).map(|range| (range, stand.tid)));
    }
    ranges.extend(registers.iter().map(|&(range, _)| range));
    // The table of a thread that glibc lists comes twice, which is no harm.
    let pointers = threads.iter().map(|thread| thread.thread_pointer);
    let tables: Vec<u64> =
        pointers.chain(descriptors.iter().map(|descriptor| descriptor.start)).filter_map(table_of).collect();
    library.extend(AddrRange::new(Addr(tables.as_ptr() as u64), Size(tables.len() as u64 * 8)));
    let late = |thread: &Thread| {
        let storages = glibc::late_storages(thread.thread_pointer).into_iter();
        storages.map(|storage| (storage, thread.tid)).collect::<Vec<_>>()
    };
    let late_storages = threads.iter().filter(|thread| thread.thread_pointer != 0).flat_map(late).collect();
    let storages = glibc::storages();
    Roots { program: ranges, library, tables, libraries, threads, registers, storages, late_storages }
}

fn is_root(mapping: &Mapping) -> bool {
    let permissions = mapping.permissions;
    match mapping.source {
        Source::Device => false,
        Source::File | Source::Shared => permissions.read() && permissions.write(),
        Source::MainStack | Source::Other => {
            permissions.read() && !permissions.execute() || permissions.write()
        }
    }
}

/// Adds what of a mapping is dead stack.
fn exclude_stacks(
    mapping: &Mapping,
    threads: &[Thread],
    descriptors: &[Descriptor],
    excluded: &mut Vec<AddrRange>,
) {
    let holds = |addr: u64| mapping.range.contains(Addr(addr));
    // Where the stack that ends at `top` begins: behind what lies below it in the mapping.
    let bottom = |top: u64| {
        descriptors
            .iter()
            .map(|descriptor| descriptor.end)
            .filter(|&end| holds(end) && end <= top)
            .fold(mapping.range.start().0, u64::max)
    };
    for thread in threads.iter().filter(|thread| holds(thread.rsp)) {
        // A stack that is neither the kernel's nor topped by its thread's descriptor is one of the program's
        // making, and what lies below it may be anything.
        let is_whole = mapping.source == Source::MainStack
            || (holds(thread.thread_pointer) && thread.rsp < thread.thread_pointer);
        if is_whole {
            let used = Addr(thread.rsp.saturating_sub(thread.red_zone));
            excluded.extend(AddrRange::between(Addr(bottom(thread.rsp)), used));
        }
    }
    for descriptor in descriptors.iter().filter(|descriptor| holds(descriptor.start)) {
        let end = match descriptor.life {
            Life::Running => continue,
            Life::Ended => descriptor.start,
            Life::Cached => descriptor.end,
        };
        excluded.extend(AddrRange::between(Addr(bottom(descriptor.start)), Addr(end)));
    }
}

/// From the return address to the registers that `__run_exit_handlers` saved for its caller, in a thread that
/// came to `_exit` by way of it.
///
/// ```text
///  rsp → [ return to __run_exit_handlers | its variables | six registers | return to exit | … ]
///        └─────────────── left out ──────────────────────┘
/// ```
/// The variables point to no block of the program; where
/// they have no value yet, words of frames that ended before would.
fn exit_frames(departure: &Departure, libraries: &RuntimeLibraries) -> Option<AddrRange> {
    const MOST_WORDS: u64 = 64;
    const SAVED_BYTES: u64 = 6 * 8;
    let is_in_exit = |pc: u64| {
        // The call is the last instruction: it does not return.
        let call = Addr(Pc(stacks::original_return(pc)).call_site().0);
        libraries.exits.iter().any(|function| function.contains(call))
    };
    // Another function's call of `_exit`, or a signal in the middle of something.
    let caller = memory::try_read(departure.rsp).map(stacks::original_return);
    if departure.pc != 0 || !caller.is_some_and(|pc| libraries.contain(Addr(pc))) {
        return None;
    }
    let returns = |&at: &u64| memory::try_read(at).is_some_and(is_in_exit);
    let at = (1..MOST_WORDS).map(|index| departure.rsp + index * 8).find(returns)?;
    AddrRange::between(Addr(departure.rsp), Addr(at - SAVED_BYTES))
}

/// The shim's storage in a thread.
fn thread_storage(thread_pointer: u64) -> Option<AddrRange> {
    let start = thread_pointer.checked_add_signed(thread::block_offset() as i64)?;
    AddrRange::new(Addr(start), Size(size_of::<thread::ThreadBlock>() as u64))
}

/// What emitted code keeps for a thread that is in the middle of it, or in the shim for it. At other times the
/// words are left over from before, and would keep lost blocks.
fn spilled(thread: &Thread) -> Option<AddrRange> {
    let in_shim = own_segments(PF_X).any(|segment| segment.contains(Addr(thread.pc)));
    let block = thread.thread_pointer.checked_add_signed(thread::block_offset() as i64)?;
    let start = block + core::mem::offset_of!(thread::ThreadBlock, spill) as u64;
    (in_shim || owned::contains(Addr(thread.pc)))
        .then(|| AddrRange::new(Addr(start), Size(memcheck_rewrite::SPILL_SLOTS as u64 * 8)))?
}

unsafe extern "C" {
    /// The linker's name for the first byte of this module's file.
    #[link_name = "__ehdr_start"]
    static FILE_HEADER: [u8; 64];
}

/// In a segment's flags: it may be executed, it may be written (gABI chapter 5).
const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// The shim's own segments with one of these flags, as its program headers state them.
fn own_segments(flags: u32) -> impl Iterator<Item = AddrRange> {
    const PT_LOAD: u32 = 1;
    const HEADER_BYTES: u64 = 56;
    let base = (&raw const FILE_HEADER) as u64;
    // SAFETY: the loader mapped the file's first page, which holds its header and the program headers.
    let half = move |offset: u64| unsafe { ((base + offset) as *const u16).read() };
    // SAFETY: as above.
    let int = move |offset: u64| unsafe { ((base + offset) as *const u32).read() };
    // SAFETY: as above.
    let word = move |offset: u64| unsafe { ((base + offset) as *const u64).read() };
    // e_phoff at 32, e_phnum at 56; p_type at 0, p_flags at 4, p_vaddr at 16, p_memsz at 40.
    let (first, count) = (word(32), half(56));
    (0..u64::from(count)).map(move |index| first + index * HEADER_BYTES).filter_map(move |at| {
        (int(at) == PT_LOAD && int(at + 4) & flags != 0)
            .then(|| AddrRange::new(Addr(base + word(at + 16)), Size(word(at + 40))))?
    })
}

/// Calls `visit` with the parts of a mapping that hold something. Pages of a file that are not in memory hold
/// what the file holds, or lie past its end, where they must not be read.
fn for_each_touched(range: AddrRange, source: Source, mut visit: impl FnMut(AddrRange)) {
    let has_end = matches!(source, Source::File | Source::Shared);
    if range.size().0 < LARGE && !has_end {
        visit(range);
        return;
    }
    let Ok(file) = File::open(b"/proc/self/pagemap\0", false) else {
        if !has_end {
            visit(range);
            return;
        }
        // A process that gave up its privileges may not open it: page by page, as far as the kernel can read.
        let pages = (range.start().0..range.end().0).step_by(PAGE as usize);
        for page in pages.filter(|&page| memory::is_readable(Addr(page))) {
            AddrRange::between(Addr(page), Addr((page + PAGE).min(range.end().0))).map(&mut visit);
        }
        return;
    };
    let mut entries = [0u8; 8192];
    let mut run: Option<(u64, u64)> = None;
    let mut page = range.start().0 / PAGE;
    let last = range.end().0.div_ceil(PAGE);
    while page < last {
        let wanted = ((last - page) as usize * 8).min(entries.len());
        let read = file.read_at(&mut entries[..wanted], page * 8).unwrap_or(0);
        if read == 0 {
            break;
        }
        for entry in entries[..read].chunks_exact(8) {
            let touched = u64::from_le_bytes(entry.try_into().unwrap_or_default()) & TOUCHED != 0;
            run = match run {
                Some((start, _)) if touched => Some((start, page + 1)),
                None if touched => Some((page, page + 1)),
                Some((start, end)) => {
                    visit_pages(range, start, end, &mut visit);
                    None
                }
                None => None,
            };
            page += 1;
        }
    }
    if let Some((start, end)) = run {
        visit_pages(range, start, end, &mut visit);
    }
}

fn visit_pages(range: AddrRange, first: u64, end: u64, visit: &mut impl FnMut(AddrRange)) {
    let start = range.start().max(Addr(first * PAGE));
    if let Some(part) = AddrRange::between(start, range.end().min(Addr(end * PAGE))) {
        visit(part);
    }
}
