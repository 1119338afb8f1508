//! Mappings: code memory, protections, what is free.

use memcheck_model::Addr;

use super::{Errno, syscall};

const SYS_CLOSE: i64 = 3;
const SYS_MMAP: i64 = 9;
const SYS_MPROTECT: i64 = 10;
const SYS_MUNMAP: i64 = 11;
const SYS_FTRUNCATE: i64 = 77;
const SYS_MEMFD_CREATE: i64 = 319;
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MFD_CLOEXEC: u64 = 1;
const MFD_EXEC: u64 = 0x10;
const EINVAL: Errno = Errno(22);

/// What may be done with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Read and written.
    ReadWrite,
    /// Read and run.
    ReadExecute,
}

/// A file without a name whose pages can be mapped twice. The descriptor is closed when dropped; mappings stay.
pub struct SharedPages(u64);

impl SharedPages {
    /// `len` bytes of zeros.
    pub fn new(len: u64) -> Result<Self, Errno> {
        let create = |flags: u64| {
            // SAFETY: the kernel reads the name, a zero-terminated string.
            unsafe { syscall(SYS_MEMFD_CREATE, [c"memcheck-code".as_ptr() as u64, flags, 0, 0, 0, 0]) }
        };
        // MFD_EXEC came with Linux 6.3, along with a way to forbid executable files without it.
        let file = match create(MFD_CLOEXEC | MFD_EXEC) {
            Err(EINVAL) => create(MFD_CLOEXEC)?,
            other => other?,
        };
        let pages = Self(file);
        // SAFETY: a file of ours grows.
        unsafe { syscall(SYS_FTRUNCATE, [file, len, 0, 0, 0, 0]) }?;
        Ok(pages)
    }

    /// Maps them writable where the kernel likes.
    pub fn map_writable(&self, len: u64) -> Result<Addr, Errno> {
        let args = [0, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, self.0, 0];
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        unsafe { syscall(SYS_MMAP, args) }.map(Addr)
    }

    /// Maps them executable at `at`, where nothing is, or instead of what is there.
    pub fn map_executable(&self, at: Addr, len: u64, replace: bool) -> Result<(), Errno> {
        let fixed = if replace { MAP_FIXED } else { MAP_FIXED_NOREPLACE };
        let args = [at.0, len, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_NORESERVE | fixed, self.0, 0];
        // SAFETY: what is replaced is the caller's own mapping of the same bytes.
        unsafe { syscall(SYS_MMAP, args) }.map(|_| ())
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours and is not used again.
        let _ = unsafe { syscall(SYS_CLOSE, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// Fresh zeroed pages at exactly `at`, where nothing is.
pub fn map_at(at: Addr, len: u64) -> Result<(), Errno> {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE touches no existing mapping.
    unsafe { syscall(SYS_MMAP, [at.0, len, PROT_READ | PROT_WRITE, flags, u64::MAX, 0]) }.map(|_| ())
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
