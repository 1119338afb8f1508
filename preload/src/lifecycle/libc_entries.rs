//! libc's calling conventions: C structures in, `errno` and −1 out. Each function here has the signature of the
//! entry that it replaces.

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_syscalls::Request;

use super::{alt_stack, signals};
use crate::{
    engine::{confinement, syscalls},
    sys::{
        self, Errno,
        signal::{Action, AltStack},
    },
};

const EINVAL: Errno = Errno(22);

/// libc's `__errno_location`, or zero when it was not found.
static ERRNO_LOCATION: AtomicU64 = AtomicU64::new(0);

/// libc's `struct sigaction` on x86-64 (bits/sigaction.h).
#[repr(C)]
pub struct LibcAction {
    handler: u64,
    mask: [u64; 16],
    flags: i32,
    restorer: u64,
}

/// Tells where libc keeps `errno`.
pub fn set_errno_location(function: u64) {
    ERRNO_LOCATION.store(function, Ordering::Release);
}

/// What a libc function returns for this result.
pub fn answer(result: Result<u64, Errno>) -> i64 {
    match result {
        Ok(value) => value.cast_signed(),
        Err(Errno(errno)) => {
            let function = ERRNO_LOCATION.load(Ordering::Acquire);
            if function != 0 {
                // SAFETY: `begin` found the function by this name in libc; it returns the address of the thread's errno.
                let location: extern "C" fn() -> *mut i32 = unsafe { core::mem::transmute(function) };
                // SAFETY: as above: a valid int of this thread.
                unsafe { location().write(errno) };
            }
            -1
        }
    }
}

/// `__libc_sigaction`.
///
/// # Safety
/// The arguments are those of sigaction(3).
pub unsafe extern "C" fn sigaction(number: i32, new: *const LibcAction, old: *mut LibcAction) -> i32 {
    // SAFETY: null or valid, as sigaction(3) demands.
    let new = unsafe { new.as_ref() }.map(|new| Action {
        handler: new.handler,
        // libc names its restorer in every action.
        flags: u64::from(new.flags.cast_unsigned()) | signals::SA_RESTORER,
        restorer: signals::restorer(),
        mask: new.mask[0],
    });
    let result = signals::set(number, new.as_ref());
    if let (Ok(action), false) = (result, old.is_null()) {
        // libc writes the kernel's part of the mask only.
        // SAFETY: valid when not null, as sigaction(3) demands.
        unsafe {
            (&raw mut (*old).handler).write(action.handler);
            (&raw mut (*old).mask[0]).write(action.mask);
            (&raw mut (*old).flags).write(action.flags as i32);
            (&raw mut (*old).restorer).write(action.restorer);
        }
    }
    answer(result.map(|_| 0)) as i32
}

/// `sigaction`, where `__libc_sigaction` is not exported: refuses what libc keeps for itself.
///
/// # Safety
/// The arguments are those of sigaction(3).
pub unsafe extern "C" fn public_sigaction(number: i32, new: *const LibcAction, old: *mut LibcAction) -> i32 {
    // SIGCANCEL and SIGSETXID (nptl internals).
    if !(1..=64).contains(&number) || number == 32 || number == 33 {
        return answer(Err(EINVAL)) as i32;
    }
    // SAFETY: the caller's word.
    unsafe { sigaction(number, new, old) }
}

/// `sigaltstack`.
///
/// # Safety
/// The arguments are those of sigaltstack(2).
pub unsafe extern "C" fn sigaltstack(new: *const AltStack, old: *mut AltStack) -> i32 {
    // SAFETY: the caller's word.
    let result = unsafe { alt_stack::set(new, old) };
    answer(result.map(|()| 0)) as i32
}

const SYS_PRCTL: u64 = 157;
const SYS_SECCOMP: u64 = 317;

/// `prctl`.
///
/// # Safety
/// The arguments are those of prctl(2).
pub unsafe extern "C" fn prctl(option: u64, second: u64, third: u64, fourth: u64, fifth: u64) -> i32 {
    // The option is an int.
    let arguments = [u64::from(option as u32), second, third, fourth, fifth, 0];
    // SAFETY: the caller's word.
    unsafe { call_confining(SYS_PRCTL, arguments) as i32 }
}

/// The call of `syscall` that may install a filter of system calls; a function of seven arguments, as it is called.
unsafe extern "C" fn seccomp(_: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64 {
    // SAFETY: the caller's word.
    unsafe { call_confining(SYS_SECCOMP, [a, b, c, d, e, f]) }
}

/// Makes the call, with a filter that lets the shim's own calls pass if it installs one.
unsafe fn call_confining(number: u64, arguments: [u64; 6]) -> i64 {
    let request = Request { number, arguments };
    let installed = if confinement::is_filter(&request) { syscalls::confine(&request) } else { None };
    let result = match installed {
        Some(result) => result,
        // SAFETY: the caller's word.
        None => unsafe { sys::target_syscall(number.cast_signed(), arguments) },
    };
    answer(result)
}

/// `syscall`: as libc's, but for seccomp(2). Naked, because what the call does may come back on another stack.
///
/// # Safety
/// The arguments are those of syscall(2).
#[unsafe(naked)]
pub unsafe extern "C" fn syscall() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "cmp rdi, {seccomp}",
        "je {handler}",
        "jmp {others}",
        ".cfi_endproc",
        seccomp = const SYS_SECCOMP,
        handler = sym seccomp,
        others = sym sys::memcheck_libc_syscall,
    )
}

/// What `syscall` returns when the kernel returned this negative number.
pub extern "C" fn failed(result: i64) -> i64 {
    answer(Err(Errno(-result as i32)))
}
