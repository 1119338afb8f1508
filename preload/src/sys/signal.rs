//! Signals as the kernel knows them: masks of 64 bits, `struct sigaction` in the kernel's own order.

use super::{Errno, syscall};

const SYS_RT_SIGACTION: i64 = 13;
const SYS_RT_SIGPROCMASK: i64 = 14;
const SYS_SIGALTSTACK: i64 = 131;
const SYS_RT_TGSIGQUEUEINFO: i64 = 297;
const SIG_BLOCK: u64 = 0;
const SIG_UNBLOCK: u64 = 1;
const SIG_SETMASK: u64 = 2;
const MASK_BYTES: u64 = 8;

/// The kernel's `struct sigaction` on x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// SIG_DFL, SIG_IGN or a function.
    pub handler: u64,
    /// `SA_…`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// The signals that are blocked while it runs.
    pub mask: u64,
}

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// The lowest address.
    pub start: u64,
    /// `SS_…`.
    pub flags: i32,
    /// How many bytes.
    pub size: u64,
}

/// Sets the action of `signal` and returns the old one; only asks when `new` is none.
pub fn action(signal: i32, new: Option<&Action>) -> Result<Action, Errno> {
    let mut old = Action::default();
    let new = new.map_or(0, |action| core::ptr::from_ref(action) as u64);
    let args = [signal as u64, new, core::ptr::from_mut(&mut old) as u64, MASK_BYTES, 0, 0];
    // SAFETY: the kernel reads `new` and writes `old`; that handlers are sound is up to who wrote them.
    unsafe { syscall(SYS_RT_SIGACTION, args) }?;
    Ok(old)
}

/// Replaces the calling thread's mask and returns the old one.
pub fn set_mask(mask: u64) -> u64 {
    change_mask(SIG_SETMASK, mask)
}

/// Adds to the calling thread's mask and returns the old one.
pub fn block(mask: u64) -> u64 {
    change_mask(SIG_BLOCK, mask)
}

/// Takes from the calling thread's mask and returns the old one.
pub fn unblock(mask: u64) -> u64 {
    change_mask(SIG_UNBLOCK, mask)
}

fn change_mask(how: u64, mask: u64) -> u64 {
    let mut old = 0u64;
    let args =
        [how, core::ptr::from_ref(&mask) as u64, core::ptr::from_mut(&mut old) as u64, MASK_BYTES, 0, 0];
    // SAFETY: the kernel reads `mask` and writes `old`.
    let _ = unsafe { syscall(SYS_RT_SIGPROCMASK, args) };
    old
}

/// Takes the signal as soon as it comes, if it does within this time.
pub fn await_one(number: i32, most_ms: u64) {
    const SYS_RT_SIGTIMEDWAIT: i64 = 128;
    let set = 1u64 << (number - 1);
    let timeout = [most_ms / 1000, most_ms % 1000 * 1_000_000];
    let mask = block(set);
    let args = [core::ptr::from_ref(&set) as u64, 0, timeout.as_ptr() as u64, MASK_BYTES, 0, 0];
    // SAFETY: the kernel reads `set` and `timeout`.
    let _ = unsafe { syscall(SYS_RT_SIGTIMEDWAIT, args) };
    set_mask(mask);
}

/// The signals that wait for the calling thread until it unblocks them.
pub fn pending() -> u64 {
    const SYS_RT_SIGPENDING: i64 = 127;
    let mut set = 0u64;
    // SAFETY: the kernel writes `set`.
    let _ =
        unsafe { syscall(SYS_RT_SIGPENDING, [core::ptr::from_mut(&mut set) as u64, MASK_BYTES, 0, 0, 0, 0]) };
    set
}

/// Sets the calling thread's alternate stack and returns the old one; only asks when `new` is none.
pub fn alt_stack(new: Option<&AltStack>) -> Result<AltStack, Errno> {
    let mut old = AltStack { start: 0, flags: 0, size: 0 };
    let new = new.map_or(0, |stack| core::ptr::from_ref(stack) as u64);
    let args = [new, core::ptr::from_mut(&mut old) as u64, 0, 0, 0, 0];
    // SAFETY: the kernel reads `new` and writes `old`; that the memory may serve as a stack is the caller's word.
    unsafe { syscall(SYS_SIGALTSTACK, args) }?;
    Ok(old)
}

/// Sends `signal` to the thread `tid` of this process with the `siginfo_t` at `info`.
///
/// # Safety
/// `info` points to a whole `siginfo_t`.
pub unsafe fn queue_to_thread(pid: u32, tid: u32, signal: i32, info: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads a `siginfo_t`, which the caller vouches for.
    unsafe {
        syscall(SYS_RT_TGSIGQUEUEINFO, [pid.into(), tid.into(), signal as u64, info, 0, 0])?;
    }
    Ok(())
}
