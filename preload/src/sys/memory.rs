//! Changing what may be done with mapped memory.

use super::{Errno, syscall};

const SYS_MPROTECT: i64 = 10;

/// What may be done with pages. Never writing and executing at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// PROT_READ | PROT_WRITE.
    ReadWrite = 3,
    /// PROT_READ | PROT_EXEC.
    ReadExecute = 5,
}

/// mprotect(2) on whole pages.
pub fn protect(start: u64, len: u64, protection: Protection) -> Result<(), Errno> {
    // SAFETY: the caller owns the pages or answers for their code; the kernel refuses what is not mapped.
    unsafe { syscall(SYS_MPROTECT, [start, len, protection as u64, 0, 0, 0]) }.map(|_| ())
}
