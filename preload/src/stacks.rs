//! The target's call stacks: captured in a few loads a frame, kept once each in the depot.
//!
//! In: the registers at the entry of an exported function, or at an interrupted instruction. Out: frames, or a
//! [`StackId`] for them. Stack memory is read only inside the mapping that the stack pointer lies in.
//!
//! May run anywhere, also in signal handlers, in any thread; takes no lock and allocates nothing. Before `begin`
//! every stack is [`StackId::NONE`].

use core::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use memcheck_model::{Addr, AddrRange, MAX_FRAMES, Pc, StackId};
use memcheck_stack::{
    Depot, PcKind, Process, RULE_CACHE_ENTRIES, Registers, Rule, RuleCache, Trail, capture_by_rules, walk_in,
};

use crate::{engine::install, lifecycle::signals, maps, modules, sys, sys::process, thread};

static RULES: [AtomicU64; RULE_CACHE_ENTRIES] = [const { AtomicU64::new(0) }; RULE_CACHE_ENTRIES];
/// User addresses have 47 bits: the next one tells a rule for an instruction from one for a return address.
const EXACT: u64 = 1 << 47;

/// Words of the depot's index, a power of two: room for some six million stacks.
const INDEX_WORDS: usize = 1 << 23;
/// Words of its store: stacks of 30 frames for as many.
const STORE_WORDS: usize = 1 << 27;
static INDEX: AtomicPtr<AtomicU32> = AtomicPtr::new(core::ptr::null_mut());
static STORE: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// The lengths of both shrink together where address space is scarce: by this shift.
static SHRINK: AtomicUsize = AtomicUsize::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(0);

const PAGE: u64 = 4096;
/// How far below its stack an overflow can leave the stack pointer.
const OVERFLOW_REACH: u64 = 1 << 20;

/// The caller of an exported function, as its entry found it. [`crate::stacks::with_caller`] makes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The stack pointer at the entry, where the return address is.
    pub entry_sp: u64,
    /// The frame pointer.
    pub bp: u64,
}

/// Reserves the depot; stacks have at most `depth` frames from now on. Call it once, in the process' only thread.
pub fn begin(depth: u8) {
    for shrink in 0..12 {
        let (index, store) = (INDEX_WORDS >> shrink, STORE_WORDS >> shrink);
        let Some(memory) =
            sys::map_anonymous(index * size_of::<AtomicU32>() + store * size_of::<AtomicU64>())
        else {
            continue;
        };
        let memory = memory.cast::<AtomicU64>();
        SHRINK.store(shrink, Ordering::Relaxed);
        // SAFETY: inside the mapping just made.
        INDEX.store(unsafe { memory.add(store) }.cast(), Ordering::Relaxed);
        DEPTH.store(usize::from(depth).clamp(1, MAX_FRAMES), Ordering::Relaxed);
        // Release pairs with the Acquire in `depot`.
        STORE.store(memory, Ordering::Release);
        return;
    }
}

fn depot() -> Option<Depot<'static>> {
    let store = STORE.load(Ordering::Acquire);
    if store.is_null() {
        return None;
    }
    let shrink = SHRINK.load(Ordering::Relaxed);
    let index = INDEX.load(Ordering::Relaxed);
    // SAFETY: `begin` mapped as many words at each, zeroed, and they are never unmapped.
    let (index, store) = unsafe {
        (
            core::slice::from_raw_parts(index, INDEX_WORDS >> shrink),
            core::slice::from_raw_parts(store, STORE_WORDS >> shrink),
        )
    };
    Some(Depot::new(index, store))
}

/// Whether there may be a rule. Most processes have all their modules before the first, and `RULES` is fifty pages.
static IS_ANY_RULE: AtomicBool = AtomicBool::new(false);

/// Forgets the unwind rules: modules came or went.
pub fn forget_rules() {
    if IS_ANY_RULE.load(Ordering::Relaxed) {
        RuleCache::new(&RULES).clear();
    }
}

/// Where stacks end, by the page of a stack pointer on them: `[ page | pages from there to the end ]`, for threads
/// that change stacks often.
static ENDS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
const END_BITS: u32 = 28;

/// The process, to a walk over the calling thread's stack: it reads `[low, high)`.
struct OwnStack {
    low: Cell<u64>,
    high: Cell<u64>,
}

impl OwnStack {
    /// The stack of a caller, whose return address was just pushed at `sp`.
    #[inline]
    fn at(sp: u64) -> Self {
        let [low, high] = &thread::current().stack;
        if !(low.get()..high.get()).contains(&sp) {
            Self::find(sp);
        }
        Self { low: Cell::new(sp.next_multiple_of(8)), high: Cell::new(high.get()) }
    }

    /// The stack of an instruction: `sp` lies in it, or has just overflown it.
    fn around(sp: u64) -> Self {
        if process::is_mapped(sp) {
            let stack = Self::at(sp);
            let [low, high] = &thread::current().stack;
            // A guard page is mapped too.
            if (low.get()..high.get()).contains(&sp) {
                return stack;
            }
        }
        let (low, high) = Self::range_around(sp);
        Self { low: Cell::new(low), high: Cell::new(high) }
    }

    fn range_around(sp: u64) -> (u64, u64) {
        mapping_around(sp).map_or((sp, sp), |mapping| (mapping.start, mapping.end))
    }

    #[cold]
    fn find(sp: u64) {
        let (from, end) = Self::extent(sp);
        let [low, high] = &thread::current().stack;
        low.set(from);
        high.set(end);
    }

    /// From where to where the stack can be read that `sp` lies on.
    fn extent(sp: u64) -> (u64, u64) {
        let page = sp / PAGE;
        let known = &ENDS[page as usize % ENDS.len()];
        let word = known.load(Ordering::Relaxed);
        let remembered = (page + (word & ((1 << END_BITS) - 1))) * PAGE;
        if word >> END_BITS == page && process::is_mapped(remembered.wrapping_sub(PAGE)) {
            return (page * PAGE, remembered);
        }
        let (from, end) = mapping_around(sp)
            .map_or_else(|| (sp, end_by_probing(sp)), |mapping| (mapping.may_grow_to, mapping.end));
        // A stack pointer that an overflow left below its stack is none to come by again.
        if from <= sp {
            let pages = (end / PAGE).saturating_sub(page).min((1 << END_BITS) - 1);
            known.store(page << END_BITS | pages, Ordering::Relaxed);
        }
        (from, end)
    }
}

struct StackMapping {
    start: u64,
    end: u64,
    /// Where the kernel may let it start without telling.
    may_grow_to: u64,
}

/// The mapping that a stack pointer lies in, or the next one above it in reach.
fn mapping_around(sp: u64) -> Option<StackMapping> {
    let (mut found, mut previous_end) = (None, 0);
    maps::for_each(|mapping| {
        let (start, end) = (mapping.range.start().0, mapping.range.end().0);
        if end <= sp || !mapping.permissions.any() {
            previous_end = end;
            return true;
        }
        if start <= sp.saturating_add(OVERFLOW_REACH) {
            let may_grow_to = if mapping.source == maps::Source::MainStack { previous_end } else { start };
            found = Some(StackMapping { start, end, may_grow_to });
        }
        false
    });
    found
}

/// Where the mapped pages from a stack pointer on end, when `/proc` cannot be read.
fn end_by_probing(sp: u64) -> u64 {
    /// The usual limit of a stack.
    const MOST_PAGES: u64 = 2048;
    let page = sp / PAGE;
    let pages =
        (1..MOST_PAGES).find(|pages| !process::is_mapped((page + pages) * PAGE)).unwrap_or(MOST_PAGES);
    (page + pages) * PAGE
}

impl Process for OwnStack {
    #[inline(always)]
    fn read(&self, addr: u64) -> Option<u64> {
        // One comparison: `low` is a multiple of eight, so what is left over goes to the highest bits.
        let (low, high) = (self.low.get(), self.high.get());
        if addr.wrapping_sub(low).rotate_right(3) >= high.saturating_sub(low) >> 3 {
            return None;
        }
        // SAFETY: an aligned word in the mapping of the running stack. (A thread that unmaps part of the very stack it
        // runs on, above its frames, is beyond help.)
        Some(unsafe { (addr as *const u64).read_volatile() })
    }

    #[inline(always)]
    fn read_again(&self, addr: u64) -> u64 {
        // SAFETY: above the stack pointer and below the end of the mapping that it lies in, which may be read and, as
        // in `read`, is not unmapped; words that were read are aligned.
        unsafe { (addr as *const u64).read_volatile() }
    }

    #[inline(always)]
    fn stack_end(&self) -> u64 {
        self.high.get()
    }

    #[inline]
    fn rule(&self, pc: u64, kind: PcKind) -> Rule {
        Rule::decode(self.encoded_rule(pc, kind))
    }

    #[inline(always)]
    fn encoded_rule(&self, pc: u64, kind: PcKind) -> u32 {
        let key = if kind == PcKind::Exact { pc | EXACT } else { pc };
        RuleCache::new(&RULES).get_encoded(key, || {
            IS_ANY_RULE.store(true, Ordering::Relaxed);
            resolve(pc, kind)
        })
    }

    fn is_code(&self, pc: u64) -> bool {
        let pc = original(pc, PcKind::Return);
        modules::find(pc).is_some_and(|module| module.code.contains(memcheck_model::Addr(pc)))
    }

    fn enter(&self, sp: u64) {
        if !(self.low.get()..self.high.get()).contains(&sp) {
            // Handlers on an alternate stack come here with each call: /proc is asked once for a page.
            let (from, end) = if process::is_mapped(sp) { Self::extent(sp) } else { Self::range_around(sp) };
            self.low.set(from);
            self.high.set(end);
        }
    }
}

#[cold]
fn resolve(pc: u64, kind: PcKind) -> Rule {
    if pc == signals::restorer() {
        return Rule::Signal;
    }
    let lookup =
        if kind == PcKind::Exact { original(pc, kind) } else { Pc(original(pc, kind)).call_site().0 };
    let info = modules::find(lookup).and_then(|module| module.unwind_info());
    info.map_or(Rule::Unknown, |info| info.rule_at(lookup))
}

/// What stands for `pc` in the program's own code, when `pc` lies in a copy.
fn original(pc: u64, kind: PcKind) -> u64 {
    match kind {
        PcKind::Exact => install::find_origin(pc).map_or(pc, |origin| origin.pc.0),
        // Further out than a signal's frame, an instruction may stand where return addresses do.
        PcKind::Return => {
            install::find_return(pc).or_else(|| Some(install::find_origin(pc)?.pc)).map_or(pc, |pc| pc.0)
        }
    }
}

/// The return address in the program's own code that this one stands for.
pub fn original_return(pc: u64) -> u64 {
    original(pc, PcKind::Return)
}

/// The instruction of the program's own code that this one stands for.
pub fn original_instruction(pc: u64) -> Pc {
    Pc(original(pc, PcKind::Exact))
}

/// The frames with what stands for each in the program's own code. The first is an instruction or not.
fn originals(frames: &mut [Pc], first: PcKind) {
    if !install::is_on() {
        return;
    }
    for (index, pc) in frames.iter_mut().enumerate() {
        *pc = Pc(original(pc.0, if index == 0 { first } else { PcKind::Return }));
    }
}

impl Caller {
    /// Where a walk of its stack starts, the return address to it first.
    #[inline]
    fn start(self, stack: &OwnStack) -> Option<Registers> {
        let pc = stack.read(self.entry_sp)?;
        Some(Registers { pc, sp: self.entry_sp + 8, bp: self.bp })
    }
}

/// The stack of an exported function's caller, the return address to it first.
pub fn capture_in(caller: Caller, frames: &mut [Pc; MAX_FRAMES]) -> &[Pc] {
    let len = capture_raw_in(caller, frames).len();
    originals(&mut frames[..len], PcKind::Return);
    &frames[..len]
}

/// The same, as deep as there is room. How many frames those are.
pub fn walk_caller_in(caller: Caller, frames: &mut [Pc]) -> usize {
    let stack = OwnStack::at(caller.entry_sp);
    let Some(start) = caller.start(&stack) else { return 0 };
    let len = walk_in(start, PcKind::Return, &stack, frames);
    originals(&mut frames[..len], PcKind::Return);
    len
}

/// The same as it stands on the stack: return addresses may lie in copies.
#[inline]
fn capture_raw_in(caller: Caller, frames: &mut [Pc; MAX_FRAMES]) -> &[Pc] {
    let stack = OwnStack::at(caller.entry_sp);
    let Some(start) = caller.start(&stack) else { return &[] };
    let depth = DEPTH.load(Ordering::Relaxed);
    let len = walk_in(start, PcKind::Return, &stack, &mut frames[..depth]);
    &frames[..len]
}

/// The id of that stack.
#[inline]
pub fn capture_id(caller: Caller) -> StackId {
    let here = thread::current();
    let [low, high] = &here.stack;
    if let Some(own) = here.heap.get()
        && let stack = (OwnStack { low: low.clone(), high: high.clone() })
        && let Some(start) = caller.start(&stack)
        && let depth = DEPTH.load(Ordering::Relaxed)
        && let Some(id) = own
            .trail
            .find(start, modules::changes(), depth, &stack)
            .or_else(|| climb(&own.trail, start.pc, start.sp, start.bp, high.get()))
    {
        return id;
    }
    capture_slowly(caller)
}

/// The id of a stack that ends there and leads to a known one. The registers come as words, which a call leaves in
/// registers.
#[inline(never)]
fn climb(trail: &Trail, pc: u64, sp: u64, bp: u64, high: u64) -> Option<StackId> {
    let start = Registers { pc, sp, bp };
    let depot = ready_depot()?;
    let stack = OwnStack { low: Cell::new((start.sp - 8).next_multiple_of(8)), high: Cell::new(high) };
    trail.climb(start, modules::changes(), DEPTH.load(Ordering::Relaxed), &stack, &depot)
}

#[cold]
#[inline(never)]
fn capture_slowly(caller: Caller) -> StackId {
    let Some(depot) = ready_depot() else { return StackId::NONE };
    let stack = OwnStack::at(caller.entry_sp);
    let Some(start) = caller.start(&stack) else { return StackId::NONE };
    let depth = DEPTH.load(Ordering::Relaxed);
    match thread::current().heap.get() {
        Some(own) => own.trail.capture(start, modules::changes(), depth, &stack, &depot),
        None => capture_by_rules(start, depth, &stack, &depot),
    }
}

/// The depot, with room for the next stack.
#[inline]
fn ready_depot() -> Option<Depot<'static>> {
    let depot = depot()?;
    let ready = READY.load(Ordering::Relaxed);
    if depot.next().0 >= ready {
        prepare(ready, depot.ends_in_branch());
    }
    Some(depot)
}

/// The words of the depot's store that were made ready, once there are as many.
static READY: AtomicU32 = AtomicU32::new(1 << 17);

/// When there are many stacks, the depot's next pages are made ready some at a time, instead of by a fault for each. Those
/// of the index too when stacks are branches: these are looked for first, and a page that is read before it is written
/// faults twice.
#[cold]
fn prepare(ready: u32, are_branches: bool) {
    const STEP_WORDS: u32 = 1 << 14;
    let is_within = |words: usize| ((ready + STEP_WORDS) as usize) <= words >> SHRINK.load(Ordering::Relaxed);
    let step = |from: u64, word_bytes: usize| {
        let word_bytes = word_bytes as u64;
        sys::memory::prepare_to_write(
            from + u64::from(ready) * word_bytes,
            u64::from(STEP_WORDS) * word_bytes,
        );
    };
    if is_within(STORE_WORDS) {
        READY.store(ready + STEP_WORDS, Ordering::Relaxed);
        step(STORE.load(Ordering::Relaxed) as u64, size_of::<AtomicU64>());
        if are_branches && is_within(INDEX_WORDS) {
            step(INDEX.load(Ordering::Relaxed) as u64, size_of::<AtomicU32>());
        }
    }
}

/// The stack at an interrupted instruction, that instruction first.
pub fn capture_interrupted_in(at: Registers, frames: &mut [Pc; MAX_FRAMES]) -> &[Pc] {
    let stack = OwnStack::around(at.sp);
    let depth = DEPTH.load(Ordering::Relaxed);
    // A call of something that is no code has only pushed its return address.
    let called_from =
        if stack.is_code(at.pc) { None } else { stack.read(at.sp).filter(|&pc| stack.is_code(pc)) };
    let len = match called_from {
        Some(pc) if depth > 1 => {
            frames[0] = Pc(at.pc);
            let caller = Registers { pc, sp: at.sp + 8, bp: at.bp };
            1 + walk_in(caller, PcKind::Return, &stack, &mut frames[1..depth])
        }
        _ => walk_in(at, PcKind::Exact, &stack, &mut frames[..depth]),
    };
    originals(&mut frames[..len], PcKind::Exact);
    &frames[..len]
}

/// The id of the calling thread's stack at an instruction of a copy, as if that were a call.
pub fn capture_instruction_id(at: Registers) -> StackId {
    let Some(depot) = depot() else { return StackId::NONE };
    let mut frames = [Pc(0); MAX_FRAMES];
    let depth = DEPTH.load(Ordering::Relaxed);
    let len = walk_in(at, PcKind::Exact, &OwnStack::at(at.sp), &mut frames[..depth]);
    // Any address behind the instruction's first byte leads to it, and this one is looked up as a return address.
    frames[..len.min(1)].iter_mut().for_each(|pc| pc.0 += 1);
    depot.intern(&frames[..len])
}

/// Whether any of `range` lies on the stack of the calling thread, whose stack pointer is `sp`.
pub fn is_own(range: AddrRange, sp: u64) -> bool {
    let _ = OwnStack::at(sp);
    let [low, high] = &thread::current().stack;
    AddrRange::between(Addr(low.get()), Addr(high.get())).is_some_and(|stack| stack.overlaps(range))
}

/// The frames of an interned stack.
pub fn frames_in(id: StackId, frames: &mut [Pc; MAX_FRAMES]) -> &[Pc] {
    let len = depot().map_or(0, |depot| depot.get_in(id, frames).len());
    originals(&mut frames[..len], PcKind::Return);
    &frames[..len]
}

/// The id that the next new stack gets.
pub fn next_id() -> StackId {
    depot().map_or(StackId::NONE, |depot| depot.next())
}

/// Names the unloaded module in the stacks that lead through it, all of them of ids from `since` on, so that what is
/// mapped there next is not taken for it. Before the engine forgets it.
pub fn settle(module: AddrRange, since: StackId, number: u16) {
    let Some(depot) = depot().filter(|_| since != StackId::NONE) else { return };
    install::with_origins_of(module.start(), |origin| {
        depot.settle(since, |pc| {
            let original = origin(pc).unwrap_or(pc);
            // A return address may stand behind the last instruction.
            module.contains(original.call_site().addr()).then(|| original.in_unloaded(number))
        });
    });
}

/// How many stacks found no room in the depot.
pub fn refused() -> u64 {
    depot().map_or(0, |depot| depot.refused())
}

/// Defines an exported function that hands its caller's frame on to `$body` in two further arguments, which make a
/// [`Caller`]: `with_caller! { malloc => body(rsi, rdx) }` for a function of one argument.
#[macro_export]
macro_rules! with_caller {
    ($($name:ident => $body:path, $sp:literal, $bp:literal;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`, with its caller's frame handed on.")]
        ///
        /// # Safety
        /// To be called as the function of that name is declared.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                concat!("mov ", $sp, ", rsp"),
                concat!("mov ", $bp, ", rbp"),
                "jmp {body}",
                body = sym $body,
            )
        }
    )*};
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    with_caller! { probe => probe_body, "rdi", "rsi"; }

    extern "C" fn probe_body(entry_sp: u64, bp: u64) -> u32 {
        capture_id(Caller { entry_sp, bp }).0
    }

    #[inline(never)]
    fn nested(depth: u32) -> u32 {
        if depth > 0 {
            return std::hint::black_box(nested(depth - 1));
        }
        // SAFETY: `probe` hands its caller's frame to `probe_body`, which has this signature.
        let probe: extern "C" fn() -> u32 = unsafe { core::mem::transmute(probe as *const ()) };
        std::hint::black_box(probe())
    }

    #[test]
    fn a_stack_is_the_same_each_time_and_leads_through_its_callers() {
        begin_once();
        let ids: Vec<_> = (0..std::hint::black_box(2)).map(|_| nested(5)).collect();
        assert_ne!(ids[0], 0);
        assert_eq!(ids[0], ids[1]);
        let mut frames = [Pc(0); MAX_FRAMES];
        let frames = frames_in(StackId(ids[0]), &mut frames);
        let own = modules::find(nested as *const () as u64).unwrap();
        assert!(frames.len() > 8, "{frames:?}");
        assert!(frames[..8].iter().all(|pc| own.code.contains(memcheck_model::Addr(pc.0))), "{frames:?}");
        assert!(frames[1..6].iter().all(|pc| *pc == frames[1]), "five times the same call: {frames:?}");
    }

    fn begin_once() {
        static BEGUN: std::sync::Once = std::sync::Once::new();
        BEGUN.call_once(|| {
            begin(MAX_FRAMES as u8);
            modules::begin();
        });
    }

    fn probe_id() -> StackId {
        // SAFETY: `probe` hands its caller's frame to `probe_body`, which has this signature.
        let probe: extern "C" fn() -> u32 = unsafe { core::mem::transmute(probe as *const ()) };
        StackId(std::hint::black_box(probe()))
    }

    static IN_HANDLER: AtomicU64 = AtomicU64::new(0);

    extern "C" fn on_signal(_: i32) {
        IN_HANDLER.store(probe_id().0.into(), Ordering::Relaxed);
    }

    #[inline(never)]
    fn raise_nested(depth: u32) -> i32 {
        unsafe extern "C" {
            fn raise(number: i32) -> i32;
        }
        if depth > 0 {
            return std::hint::black_box(raise_nested(depth - 1));
        }
        // SAFETY: the signal has a handler.
        std::hint::black_box(unsafe { raise(12) })
    }

    #[test]
    fn a_handler_on_its_own_stack_leads_to_what_it_interrupted() {
        unsafe extern "C" {
            fn sigaltstack(new: *const [u64; 3], old: *mut [u64; 3]) -> i32;
            fn sigaction(number: i32, new: *const [u64; 19], old: *mut [u64; 19]) -> i32;
        }
        const SA_ONSTACK: u64 = 0x0800_0000;
        let mut memory = std::vec![0u64; 8192];
        let alternate = [memory.as_mut_ptr() as u64, 0, 8192 * 8];
        let mut action = [0u64; 19];
        action[0] = on_signal as *const () as u64;
        // After the handler and the mask of 128 bytes.
        action[17] = SA_ONSTACK;
        begin_once();
        // SAFETY: a stack_t and a struct sigaction, laid out as glibc does; the memory outlives the signal.
        let results = unsafe {
            [
                sigaltstack(&raw const alternate, core::ptr::null_mut()),
                sigaction(12, &raw const action, core::ptr::null_mut()),
            ]
        };
        assert_eq!(results, [0, 0]);
        raise_nested(5);
        let off = [0, 2, 0];
        // SAFETY: as above; SS_DISABLE.
        unsafe { sigaltstack(&raw const off, core::ptr::null_mut()) };
        let mut frames = [Pc(0); MAX_FRAMES];
        let frames = frames_in(StackId(IN_HANDLER.load(Ordering::Relaxed) as u32), &mut frames);
        let repeated = frames.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(repeated >= 4, "five times the same call: {frames:?}");
        assert!(frames.len() > 12, "{frames:?}");
    }
}
