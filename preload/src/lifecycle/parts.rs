//! What the other parts of the shim do at the turns of the process' life. Each function names the parts in the
//! order in which they must act; a part adds its line here.
//!
//! Lock order, which `before_fork` takes and the `after_fork_…` give back in reverse: the heap's (see
//! `memcheck_heap`'s `lock`), those of the accounts (see `account`), the engine's, the
//! tool heap's. No other part holds a lock across a call of libc.

use memcheck_heap::Chunk;
use memcheck_model::{Addr, AddrRange, MAX_FRAMES, Pc, Place, StackId};
use memcheck_requests::ClientBlock;
use memcheck_stack::Registers;

use super::end::Departure;
use crate::{
    descriptors,
    engine::{self, shadow_map},
    heap, leaks, maps, requests, stacks, tool_heap,
};

/// What an address is, with where its block came from and went.
pub struct Described {
    /// What it is.
    pub place: Place,
    allocated: ([Pc; MAX_FRAMES], usize),
    freed: ([Pc; MAX_FRAMES], usize),
}

impl Described {
    fn new(place: Place) -> Self {
        Self { place, allocated: ([Pc(0); MAX_FRAMES], 0), freed: ([Pc(0); MAX_FRAMES], 0) }
    }

    fn with_stacks(mut self, allocated: StackId, freed: StackId) -> Self {
        self.allocated.1 = stacks::frames_in(allocated, &mut self.allocated.0).len();
        self.freed.1 = stacks::frames_in(freed, &mut self.freed.0).len();
        self
    }

    /// A block of the target's own allocators.
    pub fn client(client: &ClientBlock) -> Self {
        let [allocated, freed] = requests::stacks_of(client);
        Self::new(Place::Block(requests::block(client))).with_stacks(allocated, freed)
    }

    /// Where its block was allocated.
    pub fn allocated(&self) -> &[Pc] {
        &self.allocated.0[..self.allocated.1]
    }

    /// Where its block was freed.
    pub fn freed(&self) -> &[Pc] {
        &self.freed.0[..self.freed.1]
    }
}

/// The process is about to end, its memory still as the target left it.
pub fn at_end(departure: &Departure) {
    heap::at_end();
    descriptors::at_end();
    engine::report_coverage();
    leaks::search_at_end(departure);
}

/// The calling thread is about to fork.
pub fn before_fork() {
    heap::before_fork();
    requests::before_fork();
    descriptors::before_fork();
    engine::install::before_fork();
    tool_heap::before_fork();
}

/// The calling thread has forked.
pub fn after_fork_in_parent() {
    tool_heap::after_fork();
    engine::install::after_fork();
    descriptors::after_fork();
    requests::after_fork();
    heap::after_fork_in_parent();
}

/// The calling thread is a forked child's only one.
pub fn after_fork_in_child() {
    tool_heap::after_fork();
    engine::install::after_fork();
    engine::after_fork_in_child();
    descriptors::after_fork();
    requests::after_fork();
    leaks::after_fork_in_child();
    heap::after_fork_in_child();
}

/// Describes an address of the target, also a wild one, for a thread with this stack pointer.
pub fn describe(addr: Addr, rsp: Addr) -> Described {
    let in_heap = heap::describe(addr);
    // The end of a block of the heap may share its granule with forbidden bytes.
    let is_beyond =
        |chunk: Chunk| AddrRange::new(chunk.start, chunk.size).is_some_and(|own| !own.contains(addr));
    let is_end = shadow_map::state_of(addr).leading() > 0 && in_heap.flatten().is_some_and(is_beyond);
    if shadow_map::is_forbidden(addr)
        && !is_end
        && let Some(client) = requests::find(addr)
    {
        return Described::client(&client);
    }
    match in_heap {
        None => Described::new(maps::describe(addr, rsp)),
        Some(None) => Described::new(Place::HeapUnused),
        Some(Some(chunk)) => {
            Described::new(Place::Block(chunk.block())).with_stacks(chunk.alloc_stack, chunk.free_stack)
        }
    }
}

/// The stack at a signal's `ucontext_t`, the interrupted instruction first.
pub fn capture_context_in(frames: &mut [Pc; MAX_FRAMES], context: u64) -> &[Pc] {
    let context = super::fatal::Context::new(context);
    let at = Registers { pc: context.rip(), sp: context.rsp(), bp: context.rbp() };
    stacks::capture_interrupted_in(at, frames)
}

/// What a handler of the target must find unchanged when it returns to a check.
pub struct Kept(engine::Spilled);

/// A handler of the target is about to run.
pub fn enter_handler() -> Kept {
    Kept(engine::save_spill())
}

/// It returned.
pub fn leave_handler(kept: Kept) {
    engine::restore_spill(&kept.0);
}
