//! What the other parts of the shim do at the turns of the process' life. Each function names the parts in the
//! order in which they must act; a part adds its line here.
//!
//! Lock order, which `before_fork` takes and the `after_fork_…` give back in reverse: the heap's (see
//! `memcheck_heap`'s `lock`). No other part holds a lock across a call of libc.

use memcheck_model::{Addr, MAX_FRAMES, Pc, Place};

use super::end::Departure;
use crate::{engine, heap, leaks, maps, stacks};
use memcheck_stack::Registers;

/// What an address is, with where its block came from and went.
pub struct Described {
    /// What it is.
    pub place: Place,
    allocated: ([Pc; MAX_FRAMES], usize),
    freed: ([Pc; MAX_FRAMES], usize),
}

impl Described {
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
    engine::report_coverage();
    leaks::search_at_end(departure);
}

/// The calling thread is about to fork.
pub fn before_fork() {
    heap::before_fork();
    engine::install::before_fork();
}

/// The calling thread has forked.
pub fn after_fork_in_parent() {
    engine::install::after_fork();
    heap::after_fork_in_parent();
}

/// The calling thread is a forked child's only one.
pub fn after_fork_in_child() {
    engine::install::after_fork();
    engine::after_fork_in_child();
    leaks::after_fork_in_child();
    heap::after_fork_in_child();
}

/// Describes an address of the target, also a wild one, for a thread with this stack pointer.
pub fn describe(addr: Addr, rsp: Addr) -> Described {
    let mut described = Described {
        place: Place::None,
        allocated: ([Pc(0); MAX_FRAMES], 0),
        freed: ([Pc(0); MAX_FRAMES], 0),
    };
    described.place = match heap::describe(addr) {
        None => maps::describe(addr, rsp),
        Some(None) => Place::HeapUnused,
        Some(Some(chunk)) => {
            described.allocated.1 = stacks::frames_in(chunk.alloc_stack, &mut described.allocated.0).len();
            described.freed.1 = stacks::frames_in(chunk.free_stack, &mut described.freed.0).len();
            Place::Block(chunk.block())
        }
    };
    described
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
