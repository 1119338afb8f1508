//! The end of the process: stands for libc's `_exit` and `_Exit`, where `exit`, `quick_exit` and the return of
//! main arrive too.
//!
//! Invariant: the last work is done by one thread, once; others that want to end the process meanwhile sleep
//! until it is gone. A thread that comes back here from its own last work (a fault in it) goes straight on.

use core::{
    arch::naked_asm,
    sync::atomic::{AtomicU32, Ordering},
};

use memcheck_wire::Owner;

use crate::{
    channel,
    leaks::STOP_MASK,
    sys::{futex, process, signal},
};

/// The thread that does the last work; zero before anyone does.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// What a leaf function may use below the stack pointer (psABI 3.2.2).
pub const RED_ZONE: u64 = 128;

/// Where the thread that ends the process stood when it came here: what lies below is not the target's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// Where it goes on, or zero for the caller of a function.
    pub pc: u64,
    /// Its stack pointer.
    pub rsp: u64,
    /// How many bytes below that it may use: as many as a leaf function, or none for the caller of a function.
    pub red_zone: u64,
    /// Where its other registers are saved.
    pub registers: u64,
    /// How many words those are.
    pub register_count: u64,
}

/// Stands for `_exit`: keeps the registers that the caller may expect to be kept.
///
/// # Safety
/// Called as `_exit` is, by C code on a stack with room for some pages.
#[unsafe(naked)]
pub unsafe extern "C" fn exit_entry(status: i32) -> ! {
    naked_asm!(
        "mov rax, rsp",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push rbp",
        "push rbx",
        "mov rcx, rsp",
        "push 6",
        "push rcx",
        "push 0",
        "push rax",
        "push 0",
        "mov rsi, rsp",
        "and rsp, -16",
        "call {exit_process}",
        "ud2",
        exit_process = sym exit_process,
    )
}

/// Ends the process with this status, after its last work.
unsafe extern "C" fn exit_process(status: i32, departure: *const Departure) -> ! {
    if !channel::is_vfork_child() {
        // SAFETY: `exit_entry` made it on the stack just now.
        let departure = unsafe { departure.read() };
        last_work(Owner::Exiting(process::pid(), status as u8), &departure);
    }
    process::exit_group(status)
}

/// Does what is to be done while the target's memory is still as the target left it, and announces the end.
pub fn last_work(end: Owner, departure: &Departure) {
    let tid = process::tid();
    // Relaxed is enough: only the winner does anything.
    match ENDING.compare_exchange(0, tid, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {}
        Err(ending) if ending == tid => return,
        Err(ending) => loop {
            signal::set_mask(!STOP_MASK);
            futex::wait(&ENDING, ending, 1000);
        },
    }
    // No handler of the target may start work anew; faults of our own still come.
    let mask = signal::set_mask(!fault_signals());
    super::parts::at_end(departure);
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
