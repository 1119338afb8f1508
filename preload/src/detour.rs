//! Leading a function of libc somewhere else: its entry is overwritten with a jump to a handler that never needs
//! the original.
//!
//! ```text
//!  entry:  ff 25 00 00 00 00   jmp *0(%rip)
//!          <handler, 8 bytes>
//! ```
//!
//! Runs while the process has one thread, which is not in the function; a page is never writable and executable
//! at once.

use crate::sys::{Errno, memory};

/// The length of the jump with its address.
const JUMP_BYTES: u64 = 14;
/// Compilers align functions to this, so the rest of the last such unit is padding.
const FUNCTION_ALIGN: u64 = 16;
const PAGE: u64 = 4096;

/// A function that is to be led elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its first instruction.
    pub start: u64,
    /// How many bytes it has.
    pub size: u64,
}

/// Why an entry stays as it is.
#[derive(Clone, Copy, Debug)]
pub enum DetourError {
    /// The function is shorter than the jump.
    TooShort,
    /// The kernel does not let its page be changed.
    Protected(Errno),
}

/// Leads `entry` to `handler`.
///
/// # Safety
/// `entry` is a function's; `handler` has its signature and can stand for it.
pub unsafe fn install(entry: Entry, handler: u64) -> Result<(), DetourError> {
    let end = entry.start + entry.size;
    if end.next_multiple_of(FUNCTION_ALIGN) - entry.start < JUMP_BYTES {
        return Err(DetourError::TooShort);
    }
    let first = entry.start / PAGE * PAGE;
    let len = (entry.start + JUMP_BYTES).next_multiple_of(PAGE) - first;
    memory::protect(first, len, memory::Protection::ReadWrite).map_err(DetourError::Protected)?;
    let mut jump = [0u8; JUMP_BYTES as usize];
    jump[..2].copy_from_slice(&[0xff, 0x25]);
    jump[6..].copy_from_slice(&handler.to_le_bytes());
    for (offset, byte) in (0..).zip(jump) {
        // SAFETY: the pages were just made writable; nobody executes them, by the caller's word.
        unsafe { ((entry.start + offset) as *mut u8).write_volatile(byte) };
    }
    memory::protect(first, len, memory::Protection::ReadExecute).map_err(DetourError::Protected)
}
