//! The calling thread's own storage, at a fixed offset from the thread pointer (initial-exec TLS, "ELF
//! Handling For Thread-Local Storage", 4.4.6): reachable in two instructions from Rust and in one from
//! emitted code, before libc is initialised and in signal handlers, without allocation.
//!
//! Invariant: every thread's block starts zeroed (it is .tbss), so zero must mean "not yet set" in each field.

use core::{
    arch::{asm, global_asm},
    cell::Cell,
};

use memcheck_model::ThreadId;

use crate::{heap::ThreadHeap, sys::process};

global_asm!(
    ".section .tbss,\"awT\",@nobits",
    ".p2align 6",
    ".globl memcheck_thread_block",
    ".hidden memcheck_thread_block",
    ".type memcheck_thread_block,@object",
    ".size memcheck_thread_block, {size}",
    "memcheck_thread_block:",
    ".zero {size}",
    ".text",
    size = const size_of::<ThreadBlock>(),
);

/// What each thread owns. Reached only by its thread and by signal handlers on it.
#[repr(C, align(64))]
pub struct ThreadBlock {
    /// The kernel's id of this thread, or zero before it was asked.
    pub tid: Cell<u32>,
    /// Memory for the environment of a program that this thread, or its child of vfork, executes; or zero.
    pub exec_buffer: Cell<u64>,
    /// The size of that.
    pub exec_buffer_bytes: Cell<usize>,
    /// The mapping that the stack pointer was last seen in: its first byte and its end.
    pub stack: [Cell<u64>; 2],
    /// The thread's part of the heap, once it has allocated.
    pub heap: Cell<Option<&'static ThreadHeap>>,
    /// Where libc keeps the thread's errno, or zero before that was asked.
    pub errno: Cell<u64>,
    /// How often the target said that errors of this thread are not to be told, less how often it took that back.
    pub errors_disabled: Cell<u32>,
    /// Return addresses that stand elsewhere for the time of a call; see `engine::callers`.
    pub hidden: crate::engine::callers::Hidden,
    /// The signals that the thread had blocked before it began to fork.
    pub fork_mask: Cell<u64>,
    /// The number of the last system call that a copy, or libc's `syscall`, made in this thread.
    pub last_call: Cell<u64>,
    /// Where emitted checks keep registers; see `engine`.
    pub spill: [Cell<u64>; memcheck_rewrite::SPILL_SLOTS],
}

/// The thread block's offset from the thread pointer (`fs:0`), in bytes; negative. The same in every thread.
pub fn block_offset() -> isize {
    let offset: isize;
    // SAFETY: reads the GOT entry that the linker made for the symbol.
    unsafe {
        asm!("mov {}, [rip + memcheck_thread_block@GOTTPOFF]", out(reg) offset,
            options(nostack, preserves_flags, readonly, pure));
    }
    offset
}

/// The thread pointer, which tells threads apart (psABI 3.4.2).
pub fn pointer() -> u64 {
    let pointer: u64;
    // SAFETY: `fs:0` holds the thread pointer itself.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly, pure)) };
    pointer
}

/// The calling thread's block.
pub fn current() -> &'static ThreadBlock {
    let block: *const ThreadBlock;
    // SAFETY: `fs:0` holds the thread pointer (psABI 3.4.2); the GOT entry is the block's offset from it.
    unsafe {
        asm!("mov {0}, [rip + memcheck_thread_block@GOTTPOFF]", "add {0}, fs:0", out(reg) block,
            options(nostack, readonly, pure));
    }
    // SAFETY: the block lives as long as its thread, and only that thread asks for it here.
    unsafe { &*block }
}

/// The calling thread's kernel id, asked once.
pub fn id() -> ThreadId {
    let tid = &current().tid;
    if tid.get() == 0 {
        tid.set(process::tid());
    }
    ThreadId(tid.get())
}
