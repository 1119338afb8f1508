//! One module under the engine: its functions, its arena, what is led where.
//!
//! ```text
//!  original entry   jmp stub                          5 bytes, over the function's first
//!  stub             jmp *slot(%rip)                   slot: the thunk, later the copy
//!  thunk            lea -128(%rsp),%rsp; push function; jmp tail
//!  tail             push module; jmp *gate(%rip)      one for the module
//! ```
//! Arena of a module: prelude, head, stubs with thunks, copies. Slots lie in pages of their own near it,
//! because code memory is never writable.
//!
//! A function that is refused gets its first bytes back.
//!
//! Invariants: a slot holds the address of code that stays; extents never change once stubs were made for them.
//!
//! Runs under the engine's lock (see `install`).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::{Addr, AddrRange, Pc, Size};
use memcheck_rewrite::{
    CallTarget, Callees, CodeBlob, Config, ENTRY_JUMP_BYTES, Extent, Functions, Module, Origin,
    PRELUDE_BYTES, Part, PcMap, Resolver, Segment, SkipReason, discover, entry_room, find_linkage_cell,
    is_linkage_stub, prelude,
};
use memcheck_wire::{Counter, Notice, NoticeKind, Record};

use super::{
    callers,
    code_memory::{Arena, Generation, find_room},
    count,
    fronts::{self, Fronted, Fronts},
    gate,
    image::Image,
    landings::Landings,
    native,
    own_frames::{OwnFrames, Units},
    pristine, requests, symbol_section, syscalls,
};
use crate::{
    channel,
    sys::{self, file, memory, memory::Protection},
};

const FEW_FUNCTIONS: &str = "most of its code is not checked, as nothing says where its functions begin";

/// What lies between the prelude and the stubs: the addresses of the gate and of the way back from landings, and the
/// jumps that go there.
const HEAD_BYTES: u64 = 40;
/// What a stub with its thunk takes.
const STUB_BYTES: u64 = 24;
/// Copies are four to six times their originals, with some that grow more; in large modules that evens out.
const GROWTH: u64 = 10;
const LARGE_GROWTH: u64 = 6;
const LARGE_TEXT: u64 = 8 << 20;
/// An arena for a module of a few functions.
const LEAST_CAPACITY: u64 = 1 << 20;

/// One module under the engine.
pub struct Watched {
    pub image: Image,
    pub module: Module<'static>,
    /// The pristine copies of its text, to be unmapped.
    pub pristine: Vec<pristine::Held>,
    pub arena: Arena,
    /// One for each extent, then one for each of the fronts' originals, which leads to its code.
    pub slots: &'static [AtomicU64],
    pub slot_range: AddrRange,
    jump_map: &'static [core::sync::atomic::AtomicU32],
    pub jump_map_range: AddrRange,
    text: AddrRange,
    /// The functions that have a front: what their slots lead to stays, the front knows the code.
    fronts: Fronts,
    /// The functions that are copied without checks; see `native`.
    pub unchecked: Vec<usize>,
    /// Jumps back to hidden return addresses; see `callers`.
    pub landings: Option<Landings>,
    /// What is in the arena, by address.
    copies: Vec<Copied>,
    /// Entries of the jump map that are not made yet; see `enter`.
    arrivals: Arrivals,
}

/// Where jumps may arrive. The map has a page for each KiB of text, and most modules have no jump that asks it.
enum Arrivals {
    /// No copy asks the map: what belongs there, as the original and the offset from the prelude.
    Listed(Vec<(Pc, u32)>),
    /// All are in the map.
    Mapped,
}

/// One blob in the arena.
struct Copied {
    range: AddrRange,
    map: PcMap,
}

/// The last part of a path.
pub fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// Says what of a module's code is not checked, and why.
#[cold]
pub fn tell_unwatched(name: &[u8], what: &str) {
    let name = if name.is_empty() { b"the program" } else { name };
    let text = &[&name[..name.len().min(128)], b": ", what.as_bytes()].concat();
    channel::send(&Record::Notice(Notice { kind: NoticeKind::Other, text }));
}

impl Watched {
    /// Finds the module's functions, makes its arena, leads its functions into it. `index` is its place among all.
    pub fn new(
        config: &Config,
        generation: Generation,
        index: usize,
        path: &[u8],
        image: Image,
        is_go: bool,
    ) -> Option<Self> {
        let name = file_name(path);
        let is_libc = name.starts_with(b"libc.so");
        let (text, pristine) = pristine::keep(path, &image)?;
        let hull = AddrRange::between(image.text.first()?.start(), image.text.last()?.end())?;
        let unwind = image.functions();
        let table = image.symbols();
        let mut symbols: Vec<Extent> = Vec::with_capacity(unwind.len().max(16));
        symbols.extend(image.entry.map(|at| Extent { start: at, end: at }));
        let mut units = Units::default();
        for (table, symbol) in table.iter().flat_map(|table| table.iter().map(move |symbol| (table, symbol)))
        {
            let start = image.actual(symbol);
            if let Some(name) = table.name_after(symbol, Units::PREFIX) {
                units.note(name, start);
            }
            if symbol.is_function() || symbol.is_ifunc() {
                symbols.push(Extent { start, end: Pc(start.0 + symbol.size) });
            }
        }
        let described: u64 = unwind.iter().map(|function| function.bytes()).sum();
        if !is_go && described < image.text.iter().map(|range| range.size().0).sum::<u64>() / 2 {
            symbols.extend(symbol_section::functions(path, &image));
        }
        let own_frames = OwnFrames::new(is_go, units);
        let Functions { mut extents, are_all } = discover(&text, &unwind, &symbols);
        let has_unwind_entry = |start| unwind.binary_search_by_key(&start, |function| function.start).is_ok();
        let native =
            extents.extract_if(.., |&mut function| own_frames.hold(function, &text, has_unwind_entry));
        let (functions, bytes) =
            native.fold((0, 0), |(count, sum), function| (count + 1, sum + function.bytes()));
        super::count_native(Some(SkipReason::OwnFrames), functions, bytes);
        if let Some(what) = own_frames.message().or((!are_all).then_some(FEW_FUNCTIONS)) {
            tell_unwatched(name, what);
        }
        let constants = image
            .constants()
            .filter_map(|range| Some(Segment { start: Pc(range.start().0), bytes: image.bytes(*range)? }))
            .collect();
        let module = Module { text, constants, extents, callees: Callees::default() };
        let fronts = if is_libc { fronts::find(&image, &module) } else { Fronts::default() };
        let unchecked =
            if is_libc { native::find_unchecked(&image, &module, &fronts.originals) } else { Vec::new() };

        let growth = if hull.size().0 < LARGE_TEXT { GROWTH } else { LARGE_GROWTH };
        let capacity =
            (hull.size().0 * growth + module.extents.len() as u64 * STUB_BYTES + LEAST_CAPACITY).min(1 << 30);
        let slot_count = module.extents.len() + fronts.originals.len();
        let slot_bytes = (slot_count as u64 * 8 + 8).next_multiple_of(4096);
        let (base, capacity) = find_room(image.range, Size(capacity), slot_bytes)?;
        let mut arena = Arena::new(base, capacity, generation).ok()?;
        // Behind the arena, so that its stubs reach them.
        let (slots, slot_range) = zeroed::<AtomicU64>(Some(arena.range().end()), slot_count)?;
        let (jump_map, jump_map_range) = zeroed(None, hull.size().0 as usize)?;
        let base = arena.range().start().0;
        let cells = [
            gate::report_entry().0,
            syscalls::entry().0,
            hull.start().0,
            hull.size().0,
            jump_map_range.start().0,
            base,
            requests::entry().0,
            syscalls::done_entry().0,
        ];
        let mut head = prelude(config, cells);
        head.reserve_exact(HEAD_BYTES as usize + module.extents.len() * STUB_BYTES as usize);
        head.extend_from_slice(&gate::translate_entry().0.to_le_bytes());
        head.extend_from_slice(&callers::back().0.to_le_bytes());
        let back_stub = base + head.len() as u64;
        head.extend_from_slice(&[0xff, 0x25, 0xf2, 0xff, 0xff, 0xff, 0xcc, 0xcc]); // jmp *back
        let tail = base + head.len() as u64;
        head.push(0x68);
        head.extend_from_slice(&(index as u32).to_le_bytes());
        head.extend_from_slice(&[0xff, 0x25, 0xdd, 0xff, 0xff, 0xff, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]); // jmp *gate
        for (function, slot) in slots[..module.extents.len()].iter().enumerate() {
            stub_in(&mut head, base, function, slot, tail);
        }
        if !arena.append(&head, generation) {
            return None;
        }
        let landings = Landings::find_room(&image);
        let watched = Self {
            image,
            module,
            pristine,
            arena,
            slots,
            slot_range,
            jump_map,
            jump_map_range,
            text: hull,
            fronts,
            unchecked,
            landings,
            copies: Vec::new(),
            arrivals: Arrivals::Listed(Vec::new()),
        };
        watched.lead(back_stub);
        watched.set_fronts();
        watched.pristine.iter().for_each(pristine::Held::let_rest);
        Some(watched)
    }

    /// Asks the map of the copy that `pc` lies in.
    pub fn find<R>(&self, pc: u64, ask: impl FnOnce(&PcMap, u32) -> Option<R>) -> Option<R> {
        let after = self.copies.partition_point(|copied| copied.range.start().0 <= pc);
        let copied = &self.copies[after.checked_sub(1)?];
        let offset = u32::try_from(pc - copied.range.start().0).ok()?;
        copied.range.contains(Addr(pc)).then(|| ask(&copied.map, offset))?
    }

    /// The original return address for one in its arena, or for one of its landings.
    pub fn find_return(&self, pc: u64) -> Option<Pc> {
        // The call may be the copy's last instruction: look from its last byte.
        let last = pc.wrapping_sub(1);
        if self.arena.range().contains(Addr(last)) {
            self.find(last, |map, offset| map.find_return(offset + 1))
        } else {
            self.landings.as_ref()?.find_return(Addr(pc))
        }
    }

    /// The entry of the function whose stub begins at `pc`.
    pub fn find_led(&self, pc: u64) -> Option<Origin> {
        let distance = pc.checked_sub(self.stub(0)).filter(|distance| distance.is_multiple_of(STUB_BYTES))?;
        let extent = self.module.extents.get((distance / STUB_BYTES) as usize)?;
        Some(Origin { pc: extent.start, len: 0, part: Part::Instruction })
    }

    fn thunk(&self, function: usize) -> u64 {
        self.stub(function) + 6
    }

    fn stub(&self, function: usize) -> u64 {
        self.arena.range().start().0 + PRELUDE_BYTES as u64 + HEAD_BYTES + function as u64 * STUB_BYTES
    }

    pub fn find_copy(&mut self, pc: Pc) -> Option<Addr> {
        self.map_arrivals();
        let entry = self.jump_map.get(pc.0.checked_sub(self.text.start().0)? as usize)?;
        match entry.load(Ordering::Relaxed) {
            0 => None,
            offset => Some(Addr(self.arena.range().start().0 + u64::from(offset))),
        }
    }

    /// Makes the entries of the jump map. Before a copy that asks it can run, and from then on.
    fn map_arrivals(&mut self) {
        if let Arrivals::Listed(listed) = core::mem::replace(&mut self.arrivals, Arrivals::Mapped) {
            listed.into_iter().for_each(|(original, offset)| self.enter(original, offset));
        }
    }

    /// Lets jumps to `original` go on in the copy, `offset` bytes behind the prelude.
    fn enter(&mut self, original: Pc, offset: u32) {
        match &mut self.arrivals {
            Arrivals::Listed(listed) => listed.push((original, offset)),
            Arrivals::Mapped => {
                if let Some(entry) = self.jump_map.get((original.0 - self.text.start().0) as usize) {
                    entry.store(offset, Ordering::Relaxed);
                }
            }
        }
    }

    /// The fronts of a function, mostly none: places in `fronts.originals`.
    fn fronts_of(&self, function: usize) -> core::ops::Range<usize> {
        let originals = &self.fronts.originals;
        let first = originals.partition_point(|fronted| fronted.function < function);
        first..first + originals[first..].partition_point(|fronted| fronted.function == function)
    }

    /// The cell that leads to a function's own code, not to a front.
    fn code_slot(&self, function: usize) -> &AtomicU64 {
        let fronts = self.fronts_of(function);
        let place = if fronts.is_empty() { function } else { self.module.extents.len() + fronts.start };
        &self.slots[place]
    }

    /// Where the function's code is: its thunk at first; zero when its entry was left alone.
    pub fn code(&self, function: usize) -> Addr {
        Addr(self.code_slot(function).load(Ordering::Acquire))
    }

    /// Release: whoever goes there finds the code and its map entries.
    fn set_code(&self, function: usize, code: Addr) {
        self.code_slot(function).store(code.0, Ordering::Release);
        for fronted in &self.fronts.originals[self.fronts_of(function)] {
            fronted.front.original().store(code.0, Ordering::Release);
        }
    }

    /// Leads the slots of functions to their fronts, the first of each. After `lead`, before any of the code runs.
    fn set_fronts(&self) {
        for Fronted { function, .. } in &self.fronts.originals {
            let is_led = self.slots[*function].load(Ordering::Relaxed) != 0;
            let code = if is_led { self.thunk(*function) } else { self.module.extents[*function].start.0 };
            self.set_code(*function, Addr(code));
        }
        for Fronted { function, front } in self.fronts.originals.iter().rev().chain(&self.fronts.versions) {
            if self.slots[*function].load(Ordering::Relaxed) != 0 {
                self.slots[*function].store(front.entry().0, Ordering::Release);
            }
        }
    }

    pub fn is_at_thunk(&self, function: usize) -> bool {
        self.code(function).0 == self.thunk(function)
    }

    /// Whether the function's entry has room for the jump to its stub, and so has the jump.
    fn has_jump(&self, function: usize) -> bool {
        let extent = self.module.extents[function];
        // Few functions are so short that what lies behind them must be decoded.
        extent.end.0 - extent.start.0 >= ENTRY_JUMP_BYTES
            || entry_room(&self.module, function) >= ENTRY_JUMP_BYTES
    }

    /// Whether the jump to its stub stands at the function's entry.
    pub fn is_led(&self, function: usize) -> bool {
        let entry = Addr(self.module.extents[function].start.0);
        self.has_jump(function)
            && self
                .image
                .bytes_from(entry)
                .is_some_and(|bytes| bytes.starts_with(&jump(entry, self.stub(function))))
    }

    /// The function's first bytes as the file has them.
    fn pristine_entry(&self, function: usize) -> Option<[u8; ENTRY_JUMP_BYTES as usize]> {
        let entry = self.module.extents[function].start;
        self.module.find_text(entry)?.get(..ENTRY_JUMP_BYTES as usize)?.try_into().ok()
    }
}

impl Resolver for Watched {
    fn call_target(&self, entry: Pc) -> CallTarget {
        match self.module.find_function(entry) {
            Some(function) if self.slots[function].load(Ordering::Relaxed) != 0 => {
                CallTarget::Slot(Addr(self.slots[function].as_ptr() as u64))
            }
            _ => CallTarget::Original,
        }
    }

    fn landing_pads(&self, function: Extent) -> Option<Vec<Pc>> {
        let Some(unwind) = self.image.unwind_info() else { return Some(Vec::new()) };
        let mut pads = Vec::new();
        unwind.for_each_landing_pad(
            function.start.0,
            |at| self.image.bytes_from(Addr(at)),
            |pad| pads.push(Pc(pad)),
        )?;
        Some(pads)
    }

    fn variable(&self, at: Pc) -> Option<u64> {
        self.image.variable(Addr(at.0))
    }
}

/// What copies without checks call: the functions themselves, not their fronts.
pub struct PastFronts<'a>(pub &'a Watched);

impl Resolver for PastFronts<'_> {
    fn call_target(&self, entry: Pc) -> CallTarget {
        let Self(watched) = self;
        let linked = || {
            let cell = watched.image.bytes_from(Addr(find_linkage_cell(&watched.module, entry)?))?;
            watched.module.find_function(Pc(u64::from_le_bytes(cell.get(..8)?.try_into().ok()?)))
        };
        match watched
            .module
            .find_function(entry)
            .filter(|&function| watched.code(function).0 != 0)
            .or_else(linked)
        {
            Some(function) if watched.code(function).0 != 0 => {
                CallTarget::Slot(Addr(watched.code_slot(function).as_ptr() as u64))
            }
            _ => CallTarget::Original,
        }
    }

    fn landing_pads(&self, function: Extent) -> Option<Vec<Pc>> {
        self.0.landing_pads(function)
    }

    fn variable(&self, at: Pc) -> Option<u64> {
        self.0.variable(at)
    }
}

/// Fresh pages near or anywhere, as words of type `T`.
fn zeroed<T>(at: Option<Addr>, count: usize) -> Option<(&'static [T], AddrRange)> {
    let bytes = (count * size_of::<T>()).max(1).next_multiple_of(4096);
    let start = match at {
        Some(at) => memory::map_at(at, bytes as u64).ok().map(|()| at)?,
        None => Addr(sys::map_anonymous(bytes)? as u64),
    };
    // SAFETY: fresh zeroed pages, as many as are needed; `T` is an atomic integer, for which zero is valid. They are
    // unmapped only with their module, when no code of it runs.
    let words = unsafe { core::slice::from_raw_parts(start.0 as *const T, count) };
    Some((words, AddrRange::new(start, Size(bytes as u64))?))
}

/// `jmp to`, for `at`.
fn jump(at: Addr, to: u64) -> [u8; ENTRY_JUMP_BYTES as usize] {
    let mut jump = [0xe9; ENTRY_JUMP_BYTES as usize];
    jump[1..].copy_from_slice(&(to.wrapping_sub(at.0 + ENTRY_JUMP_BYTES) as i32).to_le_bytes());
    jump
}

/// Writes a jump into text that was made writable and that nothing runs.
fn write_jump(at: Addr, to: u64) {
    let jump = jump(at, to);
    // SAFETY: by the callers, who know that the function, or the rest of the page, has as many bytes.
    unsafe { core::ptr::copy_nonoverlapping(jump.as_ptr(), at.0 as *mut u8, jump.len()) };
}

/// Appends a stub and its thunk, and lets the slot lead to the thunk.
fn stub_in(head: &mut Vec<u8>, base: u64, function: usize, slot: &AtomicU64, tail: u64) {
    let stub = base + head.len() as u64;
    let relative = |to: u64, after: u64| (to.wrapping_sub(after) as i32).to_le_bytes();
    head.extend_from_slice(&[0xff, 0x25]);
    head.extend_from_slice(&relative(slot.as_ptr() as u64, stub + 6));
    slot.store(stub + 6, Ordering::Release);
    head.extend_from_slice(&[0x48, 0x8d, 0x64, 0x24, 0x80]);
    head.push(0x68);
    head.extend_from_slice(&(function as u32).to_le_bytes());
    head.push(0xe9);
    head.extend_from_slice(&relative(tail, stub + 21));
    head.extend_from_slice(&[0xcc; 3]);
}

impl Watched {
    /// Overwrites the entries of all functions that have room for the jump. None of the code runs yet.
    fn lead(&self, back_stub: u64) {
        let (mut led, mut short) = (0u64, 0);
        for text in &self.image.text {
            let first = text.start().0 & !4095;
            let len = text.end().0.next_multiple_of(4096) - first;
            if memory::protect(first, len, Protection::ReadWrite).is_err() {
                continue;
            }
            if self.module.extents.len() as u64 > len / 4096 {
                memory::prepare_to_write(first, len);
            }
            for (function, extent) in self.module.extents.iter().enumerate() {
                if !text.contains(Addr(extent.start.0)) {
                    continue;
                }
                if is_linkage_stub(&self.module, extent.start) {
                    // Its slot is empty: calls go to the original.
                    self.slots[function].store(0, Ordering::Release);
                    continue;
                }
                led += 1;
                // Where there is no room, direct calls from copies still go through the slot.
                if self.has_jump(function) {
                    write_jump(Addr(extent.start.0), self.stub(function));
                } else {
                    short += 1;
                }
            }
            let landings = self.landings.iter().flat_map(Landings::places);
            for landing in landings.filter(|landing| (first..first + len).contains(&landing.0)) {
                write_jump(landing, back_stub);
            }
            // When the pages cannot be made executable again, the process cannot go on either way.
            let _ = memory::protect(first, len, Protection::ReadExecute);
        }
        count(Counter::Modules, 1);
        count(Counter::Functions, led);
        count(Counter::FunctionsShort, short);
        count(Counter::TextBytes, self.text.size().0);
    }

    /// Enters the blob, whose bytes stand at `code`, everywhere.
    pub fn publish(&mut self, group: &[usize], code: Addr, blob: CodeBlob) {
        let prelude = self.arena.range().start().0;
        if blob.asks_map {
            self.map_arrivals();
        }
        for &(original, offset) in &blob.jump_targets {
            self.enter(original, (code.0 + u64::from(offset) - prelude) as u32);
        }
        if let Some(range) = AddrRange::new(code, Size(blob.bytes.len() as u64)) {
            // Arenas only grow: the list stays sorted.
            self.copies.push(Copied { range, map: blob.pc_map });
        }
        let fresh = self.untouched(group);
        for (entry, offset) in blob.entries {
            if let Some(function) = self.module.find_function(entry)
                && self.arena.range().contains(self.code(function))
            {
                self.set_code(function, Addr(code.0 + u64::from(offset)));
            }
        }
        count(Counter::FunctionsTranslated, fresh.len() as u64);
        count(Counter::TextBytesTranslated, self.bytes_of(&fresh));
        count(Counter::CodeBytes, blob.bytes.len() as u64);
        count(Counter::CheckSites, blob.stats.checked.into());
        count(Counter::SitesUnchecked, blob.stats.unsupported.into());
        count(Counter::ChecksSaved, u64::from(blob.stats.checked.saturating_sub(blob.stats.checks)));
    }

    /// Those of a group that no other group had in it: parts that several functions share have a copy with each.
    fn untouched(&self, group: &[usize]) -> Vec<usize> {
        group.iter().copied().filter(|&index| self.is_at_thunk(index)).collect()
    }

    fn bytes_of(&self, group: &[usize]) -> u64 {
        group.iter().map(|&index| self.module.extents[index].bytes()).sum()
    }

    /// Gives the functions of a group their first bytes back; they run as they are from now on.
    pub fn leave_native(&self, group: &[usize], function: usize, reason: Option<SkipReason>) -> Addr {
        let fresh = self.untouched(group);
        for &index in group {
            let entry = self.module.extents[index].start;
            if !self.arena.range().contains(self.code(index)) {
                continue;
            }
            let is_restored = !self.has_jump(index)
                || self.pristine_entry(index).is_some_and(|bytes| {
                    file::write_own_memory(entry.0, &bytes).is_ok()
                        || memory::replace_code(Addr(entry.0), &bytes).is_ok()
                });
            if !is_restored && index == function {
                // Nothing can run it: the kernel keeps us from our own text, and the jump leads back here.
                sys::abort();
            }
            if is_restored {
                self.set_code(index, Addr(entry.0));
            }
        }
        super::count_native(reason, fresh.len() as u64, self.bytes_of(&fresh));
        Addr(self.module.extents[function].start.0)
    }
}
