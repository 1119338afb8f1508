//! The registry of loaded modules: which file an address of code belongs to, and its unwind information.
//!
//! In: the loader's list, at init and whenever the loader says that it changed (its `_dl_debug_state`, which does
//! nothing but be a place for debuggers, is led here: `dlopen` calls it after mapping and before relocation and
//! constructors, `dlclose` after unmapping). Out: records of modules to the launcher, lookups by address.
//!
//! Invariants:
//! - Only `refresh` writes, in the thread that holds the loader's lock or in the process' only thread.
//! - A reader takes no lock: an entry counts while its `end` is set, which is written last and cleared first.
//!   A reader that meets a change may miss a module, never mix two.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use memcheck_model::{Addr, AddrRange, StackId};
use memcheck_stack::{UnwindInfo, find_frames};
use memcheck_wire::{Module as ModuleRecord, Record};

use crate::{
    channel, detour,
    engine::{image::ProgramHeader, install},
    glib,
    libc_symbols::{Linked, Loader, find_loader},
    lifecycle::alt_stack,
    own_allocators::OwnAllocator,
    stacks,
    sys::process,
};

/// More modules than programs load (a large browser has some 300); what comes after them has no unwind rules.
const MOST: usize = 2048;
const HEADER_BYTES: u64 = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;
const NT_GNU_BUILD_ID: u32 = 3;
/// `ELF_NOTE_GOBUILDID_TAG`.
const GO_BUILD_ID: u32 = 4;

/// One module, as a reader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// From its first mapping to the end of its last.
    pub range: AddrRange,
    /// From its first executable segment to the end of its last.
    pub code: AddrRange,
    /// What is added to the addresses stated in its file.
    pub bias: u64,
    unwind_header: AddrRange,
    frames: AddrRange,
}

impl Module {
    /// Its unwind information, if it has any.
    pub fn unwind_info(&self) -> Option<UnwindInfo<'static>> {
        if self.unwind_header.is_empty() {
            return None;
        }
        // SAFETY: both ranges lie in a readable segment of a loaded module, which stays mapped while code of it is on
        // the stack that is being walked.
        let bytes = |range: AddrRange| unsafe {
            core::slice::from_raw_parts(range.start().0 as *const u8, range.size().0 as usize)
        };
        Some(UnwindInfo {
            header: bytes(self.unwind_header),
            header_addr: self.unwind_header.start().0,
            frames: bytes(self.frames),
            frames_addr: self.frames.start().0,
        })
    }
}

/// The words of one entry; `END` zero is "no module here".
struct Entry([AtomicU64; WORDS]);
const WORDS: usize = 11;
const START: usize = 0;
const END: usize = 1;
const LINK: usize = 9;
/// The first stack that may lead through the module.
const SINCE: usize = 10;

impl Entry {
    fn read(&self) -> Option<Module> {
        // Acquire pairs with the Release in `publish`.
        let end = self.0[END].load(Ordering::Acquire);
        let word = |index: usize| self.0[index].load(Ordering::Relaxed);
        let range = |first: usize| AddrRange::between(Addr(word(first)), Addr(word(first + 1)));
        let module = Module {
            range: AddrRange::between(Addr(word(START)), Addr(end))?,
            code: range(2)?,
            bias: word(4),
            unwind_header: range(5)?,
            frames: range(7)?,
        };
        core::sync::atomic::fence(Ordering::Acquire);
        (end != 0 && self.0[END].load(Ordering::Relaxed) == end).then_some(module)
    }

    fn publish(&self, module: &Module, link: u64) {
        let words = [
            (START, module.range.start()),
            (2, module.code.start()),
            (3, module.code.end()),
            (4, Addr(module.bias)),
            (5, module.unwind_header.start()),
            (6, module.unwind_header.end()),
            (7, module.frames.start()),
            (8, module.frames.end()),
            (LINK, Addr(link)),
            (SINCE, Addr(stacks::next_id().0.into())),
        ];
        for (index, addr) in words {
            self.0[index].store(addr.0, Ordering::Relaxed);
        }
        self.0[END].store(module.range.end().0, Ordering::Release);
    }

    fn is_linked_as(&self, linked: &Linked) -> bool {
        self.0[END].load(Ordering::Relaxed) != 0 && self.0[LINK].load(Ordering::Relaxed) == linked.entry
    }
}

static ENTRIES: [Entry; MOST] = [const { Entry([const { AtomicU64::new(0) }; WORDS]) }; MOST];
/// How many entries were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// How many modules were unloaded. Only the loader's lock's holder changes it.
static UNLOADED: AtomicU16 = AtomicU16::new(0);
/// Counts the changes, so that others can tell that what they remember of modules is old.
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// The loader's account; written by `begin` before the loader is led here, then only read by `on_change`.
struct LoaderCell(UnsafeCell<Option<Loader>>);
// SAFETY: as the invariant above says.
unsafe impl Sync for LoaderCell {}
static LOADER: LoaderCell = LoaderCell(UnsafeCell::new(None));

/// Reads the loader's list and has the loader tell of changes. Call it once, in the process' only thread.
pub fn begin() {
    let Some(loader) = find_loader() else { return };
    // SAFETY: the process' only thread, before `on_change` can be called.
    unsafe { *LOADER.0.get() = Some(loader) };
    refresh(loader);
    if let Some(entry) =
        loader.symbols_of(b"ld-linux-x86-64.so.2").and_then(|symbols| symbols.find(b"_dl_debug_state"))
    {
        // SAFETY: `_dl_debug_state` takes and returns nothing, and does nothing.
        let _ = unsafe { detour::install(entry, on_change as *const () as u64) };
    }
}

/// The loader calls this in place of `_dl_debug_state`, before and after each change.
extern "C" fn on_change() {
    // SAFETY: written once, before this function could be called.
    let loader = unsafe { *LOADER.0.get() };
    if let Some(loader) = loader.filter(|loader| loader.is_consistent()) {
        refresh(loader);
    }
}

/// The module whose code or data hold `addr`.
pub fn find(addr: u64) -> Option<Module> {
    all().find(|module| module.range.contains(Addr(addr)))
}

/// Every module.
pub fn all() -> impl Iterator<Item = Module> {
    ENTRIES[..USED.load(Ordering::Acquire).min(MOST)].iter().filter_map(Entry::read)
}

/// How often the list changed.
pub fn changes() -> u32 {
    CHANGES.load(Ordering::Acquire)
}

fn refresh(loader: Loader) {
    let eager = channel::connect().eager;
    for entry in &ENTRIES[..USED.load(Ordering::Relaxed)] {
        let Some(module) = entry.read() else { continue };
        if !loader.modules().any(|linked| entry.is_linked_as(&linked)) {
            entry.0[END].store(0, Ordering::Release);
            // Past the last number, the names of what is unloaded are not known.
            let number = UNLOADED.load(Ordering::Relaxed).saturating_add(1);
            UNLOADED.store(number, Ordering::Relaxed);
            channel::send(&Record::ModuleUnloaded(module.range.start(), number));
            let since = StackId(entry.0[SINCE].load(Ordering::Relaxed) as u32);
            stacks::settle(module.range, since, number);
            install::module_unloaded(module.range.start());
        }
    }
    for linked in loader.modules() {
        let used = USED.load(Ordering::Relaxed);
        if ENTRIES[..used].iter().any(|entry| entry.is_linked_as(&linked)) {
            continue;
        }
        let Some(headers) = Headers::of(&linked, loader) else { continue };
        let Some(module) = headers.module() else { continue };
        let free = ENTRIES[..used].iter().position(|entry| entry.0[END].load(Ordering::Relaxed) == 0);
        let place = free.unwrap_or(used);
        let Some(entry) = ENTRIES.get(place) else { return };
        entry.publish(&module, linked.entry);
        USED.store(used.max(place + 1), Ordering::Release);
        announce(&linked, &headers, &module);
        let is_go = headers.is_go();
        if is_go {
            alt_stack::leave_to_target();
        }
        let allocator = OwnAllocator::find(&linked);
        install::module_loaded(linked.path, module.bias, headers.as_table(), is_go, eager);
        if let Some(allocator) = allocator {
            allocator.replace();
        }
        glib::module_loaded(&linked, module.range);
    }
    CHANGES.fetch_add(1, Ordering::Release);
    stacks::forget_rules();
}

fn announce(linked: &Linked, headers: &Headers, module: &Module) {
    let mut program = [0u8; 4096];
    let path = if linked.path.is_empty() {
        let len = process::program_path_in(&mut program);
        &program[..len]
    } else {
        linked.path
    };
    channel::send(&Record::ModuleLoaded(ModuleRecord {
        start: module.range.start(),
        end: module.range.end(),
        bias: module.bias,
        build_id: headers.build_id(),
        path,
    }));
}

/// A module's program headers (gABI, chapter 5).
struct Headers {
    bytes: &'static [u8],
    bias: u64,
}

/// One program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    range: AddrRange,
}

impl Headers {
    /// The headers of a module: the program's as the kernel says, another's behind the ELF header at its load bias.
    fn of(linked: &Linked, loader: Loader) -> Option<Self> {
        let (at, count) = if linked.path.is_empty() {
            (loader.headers, loader.header_count)
        } else {
            // A library that states a first address other than zero (prelink) has no ELF header there.
            if linked.bias == 0 || !process::is_mapped(linked.bias) {
                return None;
            }
            // SAFETY: just seen to be readable; an ELF header is shorter than a page.
            let header = unsafe { core::slice::from_raw_parts(linked.bias as *const u8, 64) };
            if !header.starts_with(b"\x7fELF") {
                return None;
            }
            let offset = u64::from_le_bytes(header[32..40].try_into().ok()?);
            (linked.bias + offset, u64::from(u16::from_le_bytes([header[56], header[57]])))
        };
        // SAFETY: the loader read the same headers, which lie in the module's first segment.
        let bytes = unsafe { core::slice::from_raw_parts(at as *const u8, (count * HEADER_BYTES) as usize) };
        Some(Self { bytes, bias: linked.bias })
    }

    /// The headers as the table that they are.
    fn as_table(&self) -> &'static [ProgramHeader] {
        let count = self.bytes.len() / HEADER_BYTES as usize;
        // SAFETY: as many headers lie there, aligned as the gABI has them, as long as the module is loaded.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().cast(), count) }
    }

    fn segments(&self) -> impl Iterator<Item = Segment> {
        self.bytes.chunks_exact(HEADER_BYTES as usize).filter_map(|header| {
            let half = |at: usize| Some(u32::from_le_bytes(header[at..at + 4].try_into().ok()?));
            let word = |at: usize| Some(u64::from_le_bytes(header[at..at + 8].try_into().ok()?));
            let start = Addr(self.bias.wrapping_add(word(16)?));
            let range = AddrRange::new(start, memcheck_model::Size(word(40)?))?;
            Some(Segment { kind: half(0)?, flags: half(4)?, range })
        })
    }

    fn module(&self) -> Option<Module> {
        const PAGE: u64 = 4096;
        let hull = |wanted: fn(&Segment) -> bool| {
            let chosen = || self.segments().filter(|segment| segment.kind == PT_LOAD && wanted(segment));
            let start = chosen().map(|segment| segment.range.start().0).min()? / PAGE * PAGE;
            let end = chosen().map(|segment| segment.range.end().0).max()?.next_multiple_of(PAGE);
            AddrRange::between(Addr(start), Addr(end))
        };
        let range = hull(|_| true)?;
        let empty = AddrRange::default();
        let (unwind_header, frames) = self.unwind_ranges().unwrap_or((empty, empty));
        Some(Module {
            range,
            code: hull(|segment| segment.flags & PF_X != 0).unwrap_or(empty),
            bias: self.bias,
            unwind_header,
            frames,
        })
    }

    /// `.eh_frame_hdr`, and `.eh_frame` up to the end of its segment.
    fn unwind_ranges(&self) -> Option<(AddrRange, AddrRange)> {
        let header = self.segments().find(|segment| segment.kind == PT_GNU_EH_FRAME)?.range;
        // SAFETY: the segment is part of a loaded, readable one.
        let bytes =
            unsafe { core::slice::from_raw_parts(header.start().0 as *const u8, header.size().0 as usize) };
        let frames = Addr(find_frames(bytes, header.start().0)?);
        let load =
            self.segments().find(|segment| segment.kind == PT_LOAD && segment.range.contains(frames))?;
        Some((header, AddrRange::between(frames, load.range.end())?))
    }

    /// The build id, or nothing.
    fn build_id(&self) -> &'static [u8] {
        self.find_note(b"GNU\0", NT_GNU_BUILD_ID).unwrap_or_default()
    }

    /// Whether Go's linker made the module, which leaves a note with its own build id (`cmd/link`).
    fn is_go(&self) -> bool {
        self.find_note(b"Go\0\0", GO_BUILD_ID).is_some()
    }

    /// What a note of this owner and type says (gABI, "Note Section").
    fn find_note(&self, owner: &[u8], kind: u32) -> Option<&'static [u8]> {
        for note in self.segments().filter(|segment| segment.kind == PT_NOTE) {
            // SAFETY: the segment is part of a loaded, readable one.
            let mut rest: &'static [u8] = unsafe {
                core::slice::from_raw_parts(note.range.start().0 as *const u8, note.range.size().0 as usize)
            };
            // { namesz, descsz, type, name padded to 4, desc padded to 4 }
            while let Some((header, after)) = rest.split_at_checked(12) {
                let half = |at: usize| {
                    header[at..at + 4]
                        .iter()
                        .rev()
                        .fold(0usize, |value, &byte| value << 8 | usize::from(byte))
                };
                let (name_len, content_len) = (half(0), half(4));
                let Some((name, after)) = after.split_at_checked(name_len.next_multiple_of(4)) else { break };
                if half(8) as u32 == kind && name == owner {
                    return after.get(..content_len);
                }
                rest = after.get(content_len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        None
    }
}
