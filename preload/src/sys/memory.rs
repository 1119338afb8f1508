//! Mappings: code memory, protections, what is free.

use core::cell::Cell;

use memcheck_model::Addr;

use super::{Errno, far_place, owned, syscall};

const SYS_MMAP: i64 = 9;
const SYS_MPROTECT: i64 = 10;
const SYS_MUNMAP: i64 = 11;
const SYS_BRK: i64 = 12;
const SYS_MREMAP: i64 = 25;
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;

/// What may be done with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Read and written.
    ReadWrite,
    /// Read and run.
    ReadExecute,
}

/// Fresh zeroed pages that can be mapped a second time: a shared mapping of no file, which unlike a memfd needs no
/// descriptor and no room under RLIMIT_FSIZE.
pub fn map_shared(len: u64) -> Result<Addr, Errno> {
    let flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let pages =
        unsafe { syscall(SYS_MMAP, [far_place(len), len, PROT_READ | PROT_WRITE, flags, u64::MAX, 0]) }?;
    owned::note(pages, len);
    Ok(Addr(pages))
}

/// Maps `shared` a second time, executable at `at`, instead of what the caller has there: other threads that run
/// the same bytes there do not notice. (An old size of zero makes mremap(2) double a shared mapping.)
pub fn map_executable(shared: Addr, at: Addr, len: u64) -> Result<(), Errno> {
    // SAFETY: a new mapping of the same pages at an address of the kernel's choice.
    let double = unsafe { syscall(SYS_MREMAP, [shared.0, 0, len, MREMAP_MAYMOVE, 0, 0]) }?;
    let flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    protect(double, len, Protection::ReadExecute)
        // SAFETY: what is replaced is the caller's own.
        .and_then(|()| unsafe { syscall(SYS_MREMAP, [double, len, len, flags, at.0, 0]) })
        .inspect_err(|_| unmap(Addr(double), len))
        .map(|_| ())
}

/// Fresh zeroed pages at exactly `at`, where nothing is.
pub fn map_at(at: Addr, len: u64) -> Result<(), Errno> {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE touches no existing mapping.
    unsafe { syscall(SYS_MMAP, [at.0, len, PROT_READ | PROT_WRITE, flags, u64::MAX, 0]) }?;
    owned::note(at.0, len);
    Ok(())
}

/// Where the program's break is, brk(2).
pub fn program_break() -> u64 {
    // SAFETY: zero asks and changes nothing.
    unsafe { syscall(SYS_BRK, [0; 6]) }.unwrap_or_default()
}

/// Whether nothing is mapped in a range. Another thread may change that right after.
pub fn is_free(at: Addr, len: u64) -> bool {
    let free = map_at(at, len).is_ok();
    if free {
        unmap(at, len);
    }
    free
}

/// Gives pages back, which are the caller's and are not used again.
pub fn unmap(at: Addr, len: u64) {
    owned::forget(at.0);
    // SAFETY: as the caller says.
    let _ = unsafe { syscall(SYS_MUNMAP, [at.0, len, 0, 0, 0, 0]) };
}

/// mprotect(2) on whole pages.
pub fn protect(start: u64, len: u64, protection: Protection) -> Result<(), Errno> {
    let bits = match protection {
        Protection::ReadWrite => PROT_READ | PROT_WRITE,
        Protection::ReadExecute => PROT_READ | PROT_EXEC,
    };
    // SAFETY: the caller owns the pages or answers for their code; the kernel refuses what is not mapped.
    unsafe { syscall(SYS_MPROTECT, [start, len, bits, 0, 0, 0]) }.map(|_| ())
}

/// Writes to code that other threads may run, through pages that take the place of those it is in: they see the bytes
/// before or after. For a process that the kernel keeps from its own `/proc/self/mem`, as it gave up privileges.
pub fn replace_code(at: Addr, bytes: &[u8]) -> Result<(), Errno> {
    const PAGE: u64 = 4096;
    let start = at.0 & !(PAGE - 1);
    let len = (at.0 + bytes.len() as u64).next_multiple_of(PAGE) - start;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let copy = unsafe { syscall(SYS_MMAP, [0, len, PROT_READ | PROT_WRITE, flags, u64::MAX, 0]) }?;
    // SAFETY: whole pages of code, which are mapped readable, and the fresh pages, as many.
    unsafe { core::ptr::copy_nonoverlapping(start as *const u8, copy as *mut u8, len as usize) };
    let to = (copy + (at.0 - start)) as *mut u8;
    // SAFETY: inside the fresh pages.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    protect(copy, len, Protection::ReadExecute)
        // SAFETY: what takes the pages' place holds the same but for `bytes`, which are up to the caller.
        .and_then(|()| unsafe {
            syscall(SYS_MREMAP, [copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, start, 0])
        })
        .inspect_err(|_| unmap(Addr(copy), len))
        .map(|_| ())
}

/// Makes pages of a private mapping the process' own at once, which it will write to nearly all of. Before Linux 5.14
/// nothing happens, and each is made its own when it is written.
pub fn prepare_to_write(start: u64, len: u64) {
    const SYS_MADVISE: i64 = 28;
    const MADV_POPULATE_WRITE: u64 = 23;
    // SAFETY: no page's content changes.
    let _ = unsafe { syscall(SYS_MADVISE, [start, len, MADV_POPULATE_WRITE, 0, 0, 0]) };
}

/// Gives back whole pages of the shim's own mappings. Those of a file that is only read come again as they were, others
/// as zeros. Whether that was done.
pub fn give_back(start: Addr, len: u64) -> bool {
    const SYS_MADVISE: i64 = 28;
    const MADV_DONTNEED: u64 = 4;
    // SAFETY: who has the pages needs nothing more of what they hold, or it is the file's.
    unsafe { syscall(SYS_MADVISE, [start.0, len, MADV_DONTNEED, 0, 0, 0]) }.is_ok()
}

/// Whether the kernel can read the aligned word at `at`. Asked with `rt_sigprocmask`, which reads its set before it
/// refuses the request, because next to no filter of system calls forbids it.
pub fn is_readable(at: Addr) -> bool {
    const SYS_RT_SIGPROCMASK: i64 = 14;
    const NO_SUCH_REQUEST: u64 = 0xff;
    const EFAULT: Errno = Errno(14);
    if at.0 == 0 {
        // For the kernel no set at all.
        return false;
    }
    // SAFETY: the kernel reads eight bytes, or fails; it changes nothing (sigprocmask(2), EINVAL).
    let result = unsafe { syscall(SYS_RT_SIGPROCMASK, [NO_SUCH_REQUEST, at.0, 0, 8, 0, 0]) };
    result != Err(EFAULT)
}

/// Tells where memory can be read, and remembers the page of the last yes.
pub struct Probe {
    readable_page: Cell<u64>,
}

impl Default for Probe {
    fn default() -> Self {
        // No page has this number.
        Self { readable_page: Cell::new(u64::MAX) }
    }
}

impl Probe {
    /// Whether the byte at `at` can be read.
    pub fn is_readable(&self, at: u64) -> bool {
        let page = at / 4096;
        let is_readable = self.readable_page.get() == page || is_readable(Addr(at & !7));
        if is_readable {
            self.readable_page.set(page);
        }
        is_readable
    }
}

/// The word at `addr`, or `None` where none can be read.
pub fn try_read(addr: u64) -> Option<u64> {
    if !is_readable(Addr(addr)) {
        return None;
    }
    // SAFETY: the kernel could read it just now.
    Some(unsafe { (addr as *const u64).read_unaligned() })
}
