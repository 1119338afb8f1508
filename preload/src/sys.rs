//! The only place that enters the kernel. Each function is one system call, named as its manual page is.
//!
//! May run anywhere: before libc is initialised, in signal handlers, in a child of vfork. `errno` is never
//! touched: results are the kernel's own, negative errno values as `Err`.

pub mod file;
pub mod futex;
pub mod memory;
pub mod owned;
pub mod process;
pub mod signal;

use core::{
    arch::{asm, global_asm},
    sync::atomic::{AtomicU64, Ordering},
};

use memcheck_model::{Addr, AddrRange};

/// A positive errno value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Any system call.
///
/// # Safety
/// The arguments must be what the kernel expects of `number`, and what it does to memory must be what the
/// caller allows.
#[inline]
pub unsafe fn syscall(number: i64, args: [u64; 6]) -> Result<u64, Errno> {
    let result: i64;
    // SAFETY: the x86-64 psABI, A.2.1: number in rax, arguments in rdi rsi rdx r10 r8 r9, rcx and r11
    // clobbered; the caller answers for the effect.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // Errors are -4095..=-1 (syscall(2)).
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as u64) }
}

// The calls that are made for the target: as libc makes them, at addresses of their own.
global_asm!(
    ".text",
    ".p2align 4",
    ".globl memcheck_target_calls",
    ".hidden memcheck_target_calls",
    "memcheck_target_calls:",
    // The stack pointer stays at the return address.
    ".cfi_startproc",
    ".globl memcheck_target_call",
    ".hidden memcheck_target_call",
    ".type memcheck_target_call,@function",
    "memcheck_target_call:",
    ".irp tail, 0, 1",
    ".if \\tail",
    // libc's function of this name. What the call does may come back on another stack.
    ".globl memcheck_libc_syscall",
    ".hidden memcheck_libc_syscall",
    ".type memcheck_libc_syscall,@function",
    "memcheck_libc_syscall:",
    "mov rax, [rip + memcheck_thread_block@GOTTPOFF]",
    "mov fs:[rax + {last_call}], rdi",
    ".endif",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "syscall",
    ".if \\tail",
    "cmp rax, -4095",
    "jae 2f",
    ".endif",
    "ret",
    ".endr",
    "2: mov rdi, rax",
    "jmp {failed}",
    ".cfi_endproc",
    ".globl memcheck_target_calls_end",
    ".hidden memcheck_target_calls_end",
    "memcheck_target_calls_end:",
    failed = sym crate::lifecycle::libc_entries::failed,
    last_call = const core::mem::offset_of!(crate::thread::ThreadBlock, last_call),
);

unsafe extern "C" {
    fn memcheck_target_calls();
    fn memcheck_target_calls_end();
    fn memcheck_target_call(number: i64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64;
    /// libc's `syscall`, with the error put into `errno`.
    pub fn memcheck_libc_syscall();
}

/// As `syscall`, for a call that is the target's own: a filter of system calls that the target set, applies to it.
///
/// # Safety
/// As of `syscall`.
pub unsafe fn target_syscall(number: i64, args: [u64; 6]) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: a function of this signature; the caller answers for the effect.
    let result = unsafe { memcheck_target_call(number, a, b, c, d, e, f) };
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as u64) }
}

/// The code that makes the target's own calls.
pub fn target_calls() -> AddrRange {
    let [start, end] =
        [memcheck_target_calls, memcheck_target_calls_end].map(|label| Addr(label as *const () as u64));
    AddrRange::between(start, end).unwrap_or_default()
}

const SYS_MMAP: i64 = 9;
const SYS_MUNMAP: i64 = 11;
const SYS_MADVISE: i64 = 28;
const SYS_GETPID: i64 = 39;
const SYS_GETTID: i64 = 186;
const SYS_TGKILL: i64 = 234;

const PROT_READ_WRITE: u64 = 3;
const MAP_PRIVATE_ANONYMOUS: u64 = 0x22;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MADV_NOHUGEPAGE: u64 = 15;
const MADV_DONTDUMP: u64 = 16;
/// What is smaller has no huge page.
const HUGE_PAGE: u64 = 2 << 20;

/// Something is there already.
pub const EEXIST: Errno = Errno(17);

/// Fresh zeroed memory of `len` bytes anywhere, readable and writable, or `None` when the kernel has none.
pub fn map_anonymous(len: usize) -> Option<*mut u8> {
    let at = far_place(len as u64);
    let args = [at, len as u64, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS | MAP_NORESERVE, u64::MAX, 0];
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let addr = unsafe { syscall(SYS_MMAP, args) }.ok()?;
    owned::note(addr, len as u64);
    refuse_huge_pages(addr, len as u64);
    Some(addr as *mut u8)
}

/// Has the kernel use pages of the usual size, where it is set to use huge ones whenever it can: of what is reserved
/// little is touched here and there.
pub fn refuse_huge_pages(addr: u64, len: u64) {
    if len >= HUGE_PAGE {
        // SAFETY: changes no content. Fails where there are no huge pages.
        let _ = unsafe { syscall(SYS_MADVISE, [addr, len, MADV_NOHUGEPAGE, 0, 0, 0]) };
    }
}

/// Where to ask for a mapping of the shim's own: a large one lies far from the libraries, near which there must be room
/// for code; where a small one lies does not matter. The kernel chooses another place where this one is taken.
pub fn far_place(len: u64) -> u64 {
    const LARGE: u64 = 1 << 20;
    /// Behind the shadow, before the heap.
    static NEXT: AtomicU64 = AtomicU64::new(0x1200_0000_0000);
    // Relaxed: any place will do.
    if len < LARGE { 0 } else { NEXT.fetch_add(len.next_multiple_of(2 * LARGE), Ordering::Relaxed) }
}

/// Reserves exactly `len` zeroed bytes at `addr`, readable and writable, without committing memory or entering
/// core dumps. Fails where anything is mapped there already.
pub fn reserve_fixed(addr: memcheck_model::Addr, len: u64) -> Result<(), Errno> {
    let flags = MAP_PRIVATE_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE touches no existing mapping.
    let mapped = unsafe { syscall(SYS_MMAP, [addr.0, len, PROT_READ_WRITE, flags, u64::MAX, 0]) }?;
    if mapped != addr.0 {
        // A kernel before 4.17 takes the address as a hint only.
        // SAFETY: unmaps what was mapped just now.
        let _ = unsafe { syscall(SYS_MUNMAP, [mapped, len, 0, 0, 0, 0]) };
        return Err(EEXIST);
    }
    owned::note(addr.0, len);
    // SAFETY: advises on the mapping made just now; without it core dumps merely take longer.
    let _ = unsafe { syscall(SYS_MADVISE, [addr.0, len, MADV_DONTDUMP, 0, 0, 0]) };
    refuse_huge_pages(addr.0, len);
    Ok(())
}

/// Reserves exactly `len` bytes of address space at `addr`, which fault until they are made accessible.
pub fn reserve_inaccessible(addr: memcheck_model::Addr, len: u64) -> Result<(), Errno> {
    let flags = MAP_PRIVATE_ANONYMOUS | MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE touches no existing mapping.
    let mapped = unsafe { syscall(SYS_MMAP, [addr.0, len, 0, flags, u64::MAX, 0]) }?;
    if mapped != addr.0 {
        unmap(mapped as *mut u8, len as usize);
        return Err(EEXIST);
    }
    owned::note(addr.0, len);
    Ok(())
}

/// Unmaps what the caller alone knew of.
pub fn unmap(start: *mut u8, len: usize) {
    owned::forget(start as u64);
    // SAFETY: the caller mapped it and no longer uses it.
    let _ = unsafe { syscall(SYS_MUNMAP, [start as u64, len as u64, 0, 0, 0, 0]) };
}

/// Ends the process by SIGABRT, whatever its disposition.
pub fn abort() -> ! {
    loop {
        // SAFETY: getpid, gettid and tgkill touch no memory.
        unsafe {
            let pid = syscall(SYS_GETPID, [0; 6]).unwrap_or(0);
            let tid = syscall(SYS_GETTID, [0; 6]).unwrap_or(0);
            let _ = syscall(SYS_TGKILL, [pid, tid, 6, 0, 0, 0]);
        }
        // SAFETY: ud2 raises SIGILL, which ends what SIGABRT did not.
        unsafe { asm!("ud2", options(nomem, nostack)) }
    }
}
