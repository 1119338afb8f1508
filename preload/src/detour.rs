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

use memcheck_model::Addr;
use memcheck_rewrite::padding_len;

use crate::sys::{Errno, memory};

/// The length of the jump with its address.
const JUMP_BYTES: u64 = 14;
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

/// Whether the jump fits into a function and the padding behind it.
///
/// # Safety
/// `entry` is a function's.
pub unsafe fn has_room(entry: Entry) -> bool {
    let missing = JUMP_BYTES.saturating_sub(entry.size);
    let end = entry.start + entry.size;
    if missing == 0 {
        return true;
    }
    if !memory::is_readable(Addr((entry.start + JUMP_BYTES - 1) & !7)) {
        return false;
    }
    // SAFETY: it was just found readable, and is the function's page or the next.
    padding_len(unsafe { core::slice::from_raw_parts(end as *const u8, missing as usize) }) >= missing
}

/// Leads `entry` to `handler`.
///
/// # Safety
/// `entry` is a function's; `handler` has its signature and can stand for it.
pub unsafe fn install(entry: Entry, handler: u64) -> Result<(), DetourError> {
    // SAFETY: the caller's word.
    if !unsafe { has_room(entry) } {
        return Err(DetourError::TooShort);
    }
    // SAFETY: the caller's word, and it has room.
    unsafe { overwrite(entry, handler) }.map_err(DetourError::Protected)
}

/// Leads `entry`, which has room for the jump, or is led elsewhere already, to `handler`. An error if the kernel does
/// not let its page be changed.
///
/// # Safety
/// As for `install`.
pub unsafe fn overwrite(entry: Entry, handler: u64) -> Result<(), Errno> {
    let first = entry.start / PAGE * PAGE;
    let len = (entry.start + JUMP_BYTES).next_multiple_of(PAGE) - first;
    memory::protect(first, len, memory::Protection::ReadWrite)?;
    let mut jump = [0u8; JUMP_BYTES as usize];
    jump[..2].copy_from_slice(&[0xff, 0x25]);
    jump[6..].copy_from_slice(&handler.to_le_bytes());
    for (offset, byte) in (0..).zip(jump) {
        // SAFETY: the pages were just made writable; nobody executes them, by the caller's word.
        unsafe { ((entry.start + offset) as *mut u8).write_volatile(byte) };
    }
    memory::protect(first, len, memory::Protection::ReadExecute)
}
