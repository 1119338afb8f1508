//! Fork: registered with libc's `__register_atfork`, so that `fork`, `forkpty`, `daemon` and `system`-like code
//! come here. Children of a raw `clone` are recognised later, by the channel's page that fork wipes.
//!
//! The handlers are registered first of all, so that `before` runs last and `after_*` run first (glibc runs the
//! former in reverse order of registration).
//!
//! Invariant: signals are blocked between them, because others wait for the locks taken here with signals blocked: a
//! leak search must not stop who holds them.

use crate::{channel, lifecycle, sys::signal, thread};

/// Called in the parent before it forks. Takes what must not be held by a thread that the child lacks.
pub extern "C" fn before() {
    thread::current().fork_mask.set(signal::set_mask(u64::MAX));
    channel::before_fork();
    super::parts::before_fork();
}

/// Called in the parent afterwards.
pub extern "C" fn after_in_parent() {
    super::parts::after_fork_in_parent();
    signal::set_mask(thread::current().fork_mask.get());
}

/// Called in the child afterwards, its only thread.
pub extern "C" fn after_in_child() {
    thread::current().tid.set(0);
    super::parts::after_fork_in_child();
    lifecycle::end::after_fork_in_child();
    lifecycle::alt_stack::after_fork_in_child();
    channel::after_fork_in_child();
    signal::set_mask(thread::current().fork_mask.get());
}
