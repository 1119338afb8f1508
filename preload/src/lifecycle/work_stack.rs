//! A stack for the shim's longer work in handlers of signals: an alternate stack is small, the target's may be too.
//!
//! May run anywhere; all signals are blocked.

use core::arch::naked_asm;

use crate::sys;

/// The work takes records of some kilobytes and the leak search's bookkeeping.
const BYTES: usize = 1 << 20;

/// Calls `work(argument)` on a stack of its own, or on this one when there is no memory.
pub fn run<T>(work: extern "C" fn(&T), argument: &T) {
    let Some(stack) = sys::map_anonymous(BYTES) else { return work(argument) };
    let top = stack as u64 + BYTES as u64;
    // SAFETY: a fresh mapping, 16-byte aligned at its end; `work` takes this argument and returns.
    unsafe { call_on_stack(top, work as *const () as u64, core::ptr::from_ref(argument) as u64) }
    sys::unmap(stack, BYTES);
}

/// Calls `function(argument)` on the stack that ends at `top`.
#[unsafe(naked)]
unsafe extern "C" fn call_on_stack(top: u64, function: u64, argument: u64) {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rdi",
        "mov rdi, rdx",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}
