//! Leading every function of a module into the engine, and each to its copy once it is called.
//!
//! What is done to one module is in `watched`; this is the engine with its lock, and what the rest of the shim asks it.
//!
//! Invariant: `ENGINE` is touched under `gate::TRANSLATE`'s lock with signals blocked.

use alloc::vec::Vec;
use core::{
    arch::x86_64::{__cpuid, __cpuid_count},
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use memcheck_model::{Addr, Pc};
use memcheck_rewrite::{
    Checks, Config, MOST_STEP_BYTES, Module, Origin, PRELUDE_BYTES, PcMap, Place, Processor, Resolver,
    StackSteps, Stress, Syscalls, Translation, translate,
};
use memcheck_wire::{Counter, Options, TrackFds};

use super::{
    callers, code_filter,
    code_memory::Generation,
    count, fronts, gate,
    image::{Image, ProgramHeader},
    landings::Landings,
    pristine, shadow_map,
    stands::{self, Stand},
    syscalls,
    watched::{PastFronts, Watched, file_name, tell_unwatched},
};
use crate::{
    forked_page, heap,
    sys::{self, memory, process, signal},
    thread, tool_heap,
};

/// Everything the engine knows.
struct Engine {
    config: Config,
    /// Counts the forks that led here.
    generation: u64,
    /// Whether a debugger traced the process when it began.
    is_traced: bool,
    /// A word that fork wipes: zero tells a child that it is one, before any handler of fork runs.
    is_own: &'static AtomicU64,
    /// By index, which thunks push; none where a module was unloaded.
    modules: Vec<Option<Watched>>,
}

struct EngineCell(UnsafeCell<Option<Engine>>);
// SAFETY: touched only under the lock of `gate::TRANSLATE`.
unsafe impl Sync for EngineCell {}
static ENGINE: EngineCell = EngineCell(UnsafeCell::new(None));
/// Whether the engine runs: set once, at init.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// Whether functions are led into the engine.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Acquire)
}

/// Calls `act` with the engine, under its lock. Not from within the engine.
fn with_engine<R>(act: impl FnOnce(&mut Engine) -> R) -> Option<R> {
    if !is_on() {
        return None;
    }
    let mask = signal::set_mask(u64::MAX);
    let taken = gate::TRANSLATE.lock();
    // SAFETY: the lock is held.
    let result = unsafe { &mut *ENGINE.0.get() }.as_mut().map(act);
    gate::TRANSLATE.unlock(taken);
    signal::set_mask(mask);
    result
}

/// Prepares the engine, if the shadow is there and accesses are to be checked. Before modules are announced; in the
/// process' only thread.
pub fn begin(options: &Options) {
    if !options.access_checks || !shadow_map::is_active() {
        return;
    }
    let Some([is_own, translate, report, pieces]) = forked_page::map() else { return };
    if !gate::prepare([translate, report]) {
        return;
    }
    forked_page::settle(is_own);
    tool_heap::begin(forked_page::settle(pieces));
    let spill_offset = thread::block_offset() + core::mem::offset_of!(thread::ThreadBlock, spill) as isize;
    let config = Config {
        shadow_base: memcheck_shadow::SHADOW_BASE as u32,
        spill_offset: spill_offset as i32,
        checks: Checks::On,
        stress: if options.stress { Stress::On } else { Stress::Off },
        syscalls: if options.track_fds == TrackFds::No { Syscalls::Hooked } else { Syscalls::Followed },
        processor: processor(),
    };
    if let Some(heap) = heap::find() {
        syscalls::begin(heap.layout().range());
    }
    let engine =
        Engine { config, generation: 0, is_traced: process::is_traced(), is_own, modules: Vec::new() };
    // SAFETY: the process' only thread.
    unsafe { *ENGINE.0.get() = Some(engine) };
    IS_ON.store(true, Ordering::Release);
    count(Counter::AccessChecks, 1);
}

/// CPUID.7.0:EBX[8] is BMI2 (SDM vol. 2, CPUID).
fn processor() -> Processor {
    let has_leaf = __cpuid(0).eax >= 7;
    if has_leaf && __cpuid_count(7, 0).ebx >> 8 & 1 != 0 { Processor::Bmi2 } else { Processor::Baseline }
}

/// A module was mapped: `path`, its program headers, and whether Go's linker made it. None of its code runs yet.
pub fn module_loaded(path: &[u8], bias: u64, headers: &[ProgramHeader], is_go: bool, eager: bool) {
    let name = file_name(path);
    if name.starts_with(b"ld-linux")
        || name.starts_with(b"libmemcheck_preload")
        || name.starts_with(b"linux-vdso")
    {
        return;
    }
    with_engine(|engine| {
        let Some(image) = Image::new(bias, headers).filter(|_| !gate::TRANSLATE.is_orphaned()) else {
            return;
        };
        if engine.is_traced && pristine::has_breakpoints(path, &image) {
            return tell_unwatched(
                name,
                "its accesses are not checked, as a debugger has set breakpoints in it",
            );
        }
        let index = engine.modules.len();
        let generation = engine.current_generation();
        let Some(watched) = Watched::new(&engine.config, generation, index, path, image, is_go) else {
            return tell_unwatched(
                name,
                "its accesses are not checked, as there is no room for code near it",
            );
        };
        engine.modules.push(Some(watched));
        engine.put_stands(index, name);
        if eager {
            let count = engine.modules[index].as_ref().map_or(0, |watched| watched.module.extents.len());
            for function in 0..count {
                let is_new =
                    engine.modules[index].as_ref().is_some_and(|watched| watched.is_at_thunk(function));
                if is_new {
                    engine.translate(index, function);
                }
            }
        }
    });
}

/// The module that began at `start` was unmapped.
pub fn module_unloaded(start: Addr) {
    fronts::called_name::forget();
    with_engine(|engine| {
        let known = if gate::TRANSLATE.is_orphaned() { &mut [] } else { &mut engine.modules[..] };
        for place in known {
            if place.as_ref().is_some_and(|watched| watched.image.range.start() == start)
                && let Some(watched) = place.take()
            {
                let pristine = watched.pristine.iter().map(|held| &held.range);
                for range in pristine.chain([&watched.slot_range, &watched.jump_map_range]) {
                    memory::unmap(range.start(), range.size().0);
                }
            }
        }
    });
}

/// Leads the function that begins at `entry` to `handler` instead of its copy, if a jump to its stub stands there.
pub fn redirect(entry: Pc, handler: Addr) -> bool {
    with_engine(|engine| {
        let watched = engine.find_module(entry)?;
        let function = watched.module.find_function(entry).filter(|&function| watched.is_led(function))?;
        watched.slots[function].store(handler.0, Ordering::Release);
        Some(())
    })
    .flatten()
    .is_some()
}

/// The gates' locks, for fork: a child must not find another thread's work half done.
pub fn before_fork() {
    if is_on() {
        gate::REPORT.lock_for_fork();
        gate::TRANSLATE.lock_for_fork();
    }
}

/// Gives back what `before_fork` took.
pub fn after_fork() {
    if is_on() {
        gate::TRANSLATE.unlock(gate::Taken::Now);
        gate::REPORT.unlock(gate::Taken::Now);
    }
}

/// The gate calls this, under its lock: translates a function and says where to go on.
pub fn translate_for(module: u64, function: u64) -> Addr {
    // SAFETY: the gate holds the lock.
    match unsafe { &mut *ENGINE.0.get() } {
        Some(engine) if gate::TRANSLATE.is_orphaned() => {
            engine.leave_native(module as usize, function as usize)
        }
        Some(engine) => engine.translate(module as usize, function as usize),
        // No thunk exists without the engine.
        None => sys::abort(),
    }
}

/// The copy of what stands at `pc`, when something may jump to it there.
pub fn find_copy(pc: Pc) -> Option<Addr> {
    with_engine(|engine| engine.find_module_mut(pc)?.find_copy(pc))?
}

/// What may stand for the original return address `pc`, in its module; see `callers`.
pub fn find_landing(pc: Pc) -> Option<Addr> {
    with_engine(|engine| {
        let landings = engine.find_module_mut(pc)?.landings.as_mut();
        landings.map(|landings| landings.find_or_take(pc))
    })?
}

/// Whether `at` is such a place.
pub fn is_landing(at: Addr) -> bool {
    let contains = |landings: &Landings| landings.contains(at);
    with_engine(|engine| engine.find_module(Pc(at.0))?.landings.as_ref().map(contains))
        .flatten()
        .unwrap_or(false)
}

/// Where an address of a copy, or of a way to one, came from.
pub fn find_origin(pc: u64) -> Option<Origin> {
    if !code_filter::may_hold(pc) {
        return None;
    }
    with_engine(|engine| {
        let watched = engine.find_arena(pc)?;
        watched.find(pc, |map, offset| map.find_origin(offset)).or_else(|| watched.find_led(pc))
    })?
}

/// The steps to a call of the shim that a copy had done before `pc`.
pub fn find_stack_steps(pc: u64) -> Option<StackSteps> {
    with_engine(|engine| {
        engine.find(pc, |_, offset| {
            let len = (offset as usize).min(MOST_STEP_BYTES);
            // SAFETY: the copy holds `offset` bytes before `pc`, which can be read and, under the engine's lock, stay.
            let before = unsafe { core::slice::from_raw_parts((pc - len as u64) as *const u8, len) };
            memcheck_rewrite::find_stack_steps(before)
        })
    })?
}

/// Whether `pc` lies in the routines that settle what a check's filter could not.
pub fn is_settling(pc: u64) -> bool {
    with_engine(|engine| {
        let mut preludes = engine.modules.iter().flatten().map(|watched| watched.arena.range().start().0);
        preludes.any(|start| pc.checked_sub(start).is_some_and(|at| at < PRELUDE_BYTES as u64))
    })
    .unwrap_or(false)
}

/// The original return address for one in a copy, or for a landing.
pub fn find_return(pc: u64) -> Option<Pc> {
    if !code_filter::may_hold(pc) {
        return None;
    }
    with_engine(|engine| engine.modules.iter().flatten().find_map(|watched| watched.find_return(pc)))?
}

/// Calls `act` with what finds the original return address for one in a copy of the module that begins at `start`.
pub fn with_origins_of(start: Addr, act: impl FnOnce(&dyn Fn(Pc) -> Option<Pc>)) {
    let mut act = Some(act);
    with_engine(|engine| {
        let is_it = |watched: &&Watched| watched.image.range.start() == start;
        if let Some(watched) = engine.modules.iter().flatten().find(is_it)
            && let Some(act) = act.take()
        {
            act(&|pc| watched.find_return(pc.0));
        }
    });
    if let Some(act) = act {
        act(&|_| None);
    }
}

/// Calls `ask` with the module whose original code holds `pc`.
pub fn ask_module<R>(pc: Pc, ask: impl FnOnce(&Image, &Module<'_>) -> Option<R>) -> Option<R> {
    with_engine(|engine| {
        let watched = engine.find_module(pc)?;
        ask(&watched.image, &watched.module)
    })?
}

/// Whether the function whose original code holds `pc` calls none, as far as is known.
pub fn is_leaf(pc: Pc) -> bool {
    ask_module(pc, |_, module| Some(memcheck_rewrite::is_leaf(module, pc))).unwrap_or(true)
}

impl Engine {
    /// Leads the slots of functions to what is to stand there.
    fn put_stands(&mut self, index: usize, name: &[u8]) {
        let Some(watched) = &self.modules[index] else { return };
        for (function, stand) in stands::find(name, &watched.image, &watched.module) {
            let copy = self.translate(index, function);
            let generation = self.current_generation();
            let Some(watched) = &mut self.modules[index] else { return };
            if !watched.arena.range().contains(copy) {
                continue;
            }
            let at = match stand {
                Stand::Around(place) => callers::front(place, copy),
                Stand::Instead(at) => at,
                Stand::Before(hook) => {
                    let at = watched.arena.cursor();
                    if !watched.arena.append(&stands::thunk(at, hook, copy), generation) {
                        continue;
                    }
                    at
                }
            };
            watched.slots[function].store(at.0, Ordering::Release);
        }
    }

    /// Translates a function with its group, and says where it is from now on.
    fn translate(&mut self, module: usize, function: usize) -> Addr {
        let generation = self.current_generation();
        let Some(Some(watched)) = self.modules.get_mut(module) else { sys::abort() };
        if !watched.is_at_thunk(function) {
            // Another thread was faster.
            return watched.code(function);
        }
        let is_unchecked = watched.unchecked.binary_search(&function).is_ok();
        let config =
            Config { checks: if is_unchecked { Checks::Off } else { self.config.checks }, ..self.config };
        let place = Place { code: watched.arena.cursor(), prelude: watched.arena.range().start() };
        let resolver: &dyn Resolver = if is_unchecked { &PastFronts(watched) } else { &*watched };
        let Translation { functions, copy } = translate(&config, &watched.module, function, resolver, place);
        let blob = match copy {
            Ok(blob) if watched.arena.append(&blob.bytes, generation) => blob,
            Ok(_) => return watched.leave_native(&functions, function, None),
            Err(skip) => return watched.leave_native(&functions, function, Some(skip.reason)),
        };
        watched.publish(&functions, place.code, blob);
        watched.code(function)
    }

    /// Lets a function run as it is, in a process that was forked while another thread changed what the engine knows:
    /// only what never changes is looked at.
    fn leave_native(&self, module: usize, function: usize) -> Addr {
        let Some(Some(watched)) = self.modules.get(module) else { sys::abort() };
        watched.leave_native(&[function], function, None)
    }

    /// The number of this address space: what was written under another one is shared with the parent.
    fn current_generation(&mut self) -> Generation {
        if self.is_own.swap(1, Ordering::Relaxed) == 0 {
            self.generation += 1;
        }
        Generation(self.generation)
    }

    /// The module whose original code, or the rest of its last page, holds `pc`.
    fn find_module(&self, pc: Pc) -> Option<&Watched> {
        self.modules.iter().flatten().find(|watched| watched.image.range.contains(Addr(pc.0)))
    }

    /// The same, to change it.
    fn find_module_mut(&mut self, pc: Pc) -> Option<&mut Watched> {
        self.modules.iter_mut().flatten().find(|watched| watched.image.range.contains(Addr(pc.0)))
    }

    fn find<R>(&self, pc: u64, ask: impl FnOnce(&PcMap, u32) -> Option<R>) -> Option<R> {
        self.find_arena(pc)?.find(pc, ask)
    }

    fn find_arena(&self, pc: u64) -> Option<&Watched> {
        self.modules.iter().flatten().find(|watched| watched.arena.range().contains(Addr(pc)))
    }
}
