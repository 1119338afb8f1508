//! The end of the process: stands for libc's `_exit` and `_Exit`, where `exit`, `quick_exit` and the return of
//! main arrive too.
//!
//! Invariant: the last work is done by one thread, once; others that want to end the process meanwhile sleep
//! until it is gone. A thread that comes back here from its own last work (a fault in it) goes straight on.

use core::sync::atomic::{AtomicU32, Ordering};

use memcheck_wire::Owner;

use crate::{
    channel,
    sys::{futex, process, signal},
};

/// The thread that does the last work; zero before anyone does.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// Ends the process with this status, after its last work. Has the signature of `_exit`.
pub extern "C" fn exit_process(status: i32) -> ! {
    if !channel::is_vfork_child() {
        last_work(Owner::Exiting(process::pid(), status as u8));
    }
    process::exit_group(status)
}

/// Does what is to be done while the target's memory is still as the target left it, and announces the end.
pub fn last_work(end: Owner) {
    let tid = process::tid();
    // Relaxed is enough: only the winner does anything.
    match ENDING.compare_exchange(0, tid, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {}
        Err(ending) if ending == tid => return,
        Err(ending) => loop {
            signal::set_mask(u64::MAX);
            futex::wait(&ENDING, ending, 1000);
        },
    }
    // No handler of the target may start work anew; faults of our own still come.
    let mask = signal::set_mask(!fault_signals());
    super::parts::at_end();
    signal::set_mask(mask);
    channel::announce_end(end);
}

/// SIGILL, SIGTRAP, SIGBUS, SIGFPE and SIGSEGV as a mask.
const fn fault_signals() -> u64 {
    1 << (4 - 1) | 1 << (5 - 1) | 1 << (7 - 1) | 1 << (8 - 1) | 1 << (11 - 1)
}

/// A forked child has its own end before it.
pub fn after_fork_in_child() {
    ENDING.store(0, Ordering::Relaxed);
}
