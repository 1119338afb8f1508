//! Mismatches that are none: a module that carries C++'s `operator new` and `operator delete` with it (a C++ library
//! linked into it, operators of its own) has them call libc's malloc and free, and another module's operators, which are
//! the shim's, meet its blocks.
//!
//! In: an event. Out: whether it is such a case. A module's own `operator delete` may end in a jump to free and so be
//! on no stack; its `operator new` is, and where functions have names it must be what called malloc.

use memcheck_model::{ErrorEvent, ErrorKind, Function, Pc, Place};

use crate::{
    names::{Names, Top},
    tree::Watched,
};

/// Whether the event tells of nothing but operators of two modules.
pub fn explain(names: &mut Names, process: &Watched, event: &ErrorEvent<'_>) -> bool {
    let (ErrorKind::AllocDeallocMismatch, Place::Block(block), Some(release)) =
        (event.kind, event.place, event.function)
    else {
        return false;
    };
    match (block.allocated_by.is_operator(), release) {
        (false, release) if release.is_operator() => event.allocated.first().is_some_and(|&allocation| {
            names.has_own_operators(process, allocation) && may_be_operator_new(names, process, allocation)
        }),
        (true, Function::Free) => {
            event.stack.first().is_some_and(|&free| names.has_own_operators(process, free))
        }
        _ => false,
    }
}

/// Whether the call was made by a function named `operator new`, or by one without a name.
fn may_be_operator_new(names: &mut Names, process: &Watched, call: Pc) -> bool {
    let frames = names.frames(process, &[call], Top::Return);
    let mut named = frames.iter().filter_map(|frame| frame.frame.function.as_deref()).peekable();
    named.peek().is_none() || named.any(|name| name.starts_with("operator new"))
}
