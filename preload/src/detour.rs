//! Leading a function somewhere else: its entry is overwritten with a jump to a handler that never needs the original.
//!
//! ```text
//!  entry:  ff 25 00 00 00 00   jmp *0(%rip)          or, with the same on an island:
//!          <handler, 8 bytes>                         entry:  e9 <island − end of the jump, 4 bytes>
//! ```
//!
//! Runs while the process has one thread, which is not in the function; a page is never writable and executable
//! at once.

use memcheck_model::{Addr, AddrRange, Size};
use memcheck_rewrite::padding_len;

use crate::{
    engine::code_memory,
    sys::{Errno, memory},
};

/// The length of the jump with its address.
const JUMP_BYTES: u64 = 14;
/// The length of the jump to an island.
pub const NEAR_JUMP_BYTES: u64 = 5;
const PAGE: u64 = 4096;
/// In bytes (Intel SDM 2.3.11).
const LONGEST_INSTRUCTION: u64 = 15;

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

/// How much may be overwritten at an entry: the function and the padding behind it; of that, no more than a jump takes.
///
/// # Safety
/// `entry` is a function's.
pub unsafe fn room(entry: Entry) -> u64 {
    const NEAR_JUMP: u8 = 0xe9;
    // SAFETY: a function has a first byte.
    let first = unsafe { (entry.start as *const u8).read() };
    if first == NEAR_JUMP && entry.size < NEAR_JUMP_BYTES {
        // The engine's, for which there was room.
        return NEAR_JUMP_BYTES;
    }
    let end = entry.start + entry.size;
    let missing = JUMP_BYTES.saturating_sub(entry.size);
    // The last instruction of what is missing may end behind it.
    let looked_at = missing + LONGEST_INSTRUCTION - 1;
    if missing == 0 || !memory::is_readable(Addr((end + looked_at - 1) & !7)) {
        return entry.size.min(JUMP_BYTES);
    }
    // SAFETY: its last byte was just found readable, so all are: they lie in the function's page and that one's.
    let behind = unsafe { core::slice::from_raw_parts(end as *const u8, looked_at as usize) };
    entry.size + padding_len(behind).min(missing)
}

/// Leads `entry` to `handler`.
///
/// # Safety
/// `entry` is a function's; `handler` has its signature and can stand for it.
pub unsafe fn install(entry: Entry, handler: u64) -> Result<(), DetourError> {
    // SAFETY: the caller's word.
    if unsafe { room(entry) } < JUMP_BYTES {
        return Err(DetourError::TooShort);
    }
    // SAFETY: the caller's word, and there is room.
    unsafe { overwrite(entry.start, &jump_to(handler)) }.map_err(DetourError::Protected)
}

/// `jmp *0(%rip)` and the address it takes.
fn jump_to(handler: u64) -> [u8; JUMP_BYTES as usize] {
    let mut jump = [0u8; JUMP_BYTES as usize];
    jump[..2].copy_from_slice(&[0xff, 0x25]);
    jump[6..].copy_from_slice(&handler.to_le_bytes());
    jump
}

/// # Safety
/// What is overwritten is code that nobody executes.
unsafe fn overwrite(start: u64, code: &[u8]) -> Result<(), Errno> {
    let first = start / PAGE * PAGE;
    let len = (start + code.len() as u64).next_multiple_of(PAGE) - first;
    memory::protect(first, len, memory::Protection::ReadWrite)?;
    for (offset, &byte) in (0..).zip(code) {
        // SAFETY: the pages were just made writable; nobody executes them, by the caller's word.
        unsafe { ((start + offset) as *mut u8).write_volatile(byte) };
    }
    memory::protect(first, len, memory::Protection::ReadExecute)
}

/// A page of jumps within reach of a module.
pub struct Island {
    next: u64,
    end: u64,
}

impl Island {
    /// One within reach of all of `module`, if there is room for it. It stays.
    pub fn near(module: AddrRange) -> Option<Self> {
        let (at, _) = code_memory::find_room(module, Size(PAGE), 0)?;
        memory::map_at(at, PAGE).ok()?;
        Some(Self { next: at.0, end: at.0 + PAGE })
    }

    /// Leads `entry` to `handler` by way of the island.
    ///
    /// # Safety
    /// As for `install`; the entry has room for the shorter jump, or is led here already.
    pub unsafe fn install(&mut self, entry: Entry, handler: u64) -> Result<(), DetourError> {
        let distance = i32::try_from(self.next.wrapping_sub(entry.start + NEAR_JUMP_BYTES).cast_signed());
        let (Ok(distance), true) = (distance, self.next + JUMP_BYTES <= self.end) else {
            return Err(DetourError::TooShort);
        };
        let mut jump = [0xe9; NEAR_JUMP_BYTES as usize];
        jump[1..].copy_from_slice(&distance.to_le_bytes());
        // SAFETY: the page is ours, and nobody knows of this place yet.
        unsafe { overwrite(self.next, &jump_to(handler)) }.map_err(DetourError::Protected)?;
        // SAFETY: the caller's word.
        unsafe { overwrite(entry.start, &jump) }.map_err(DetourError::Protected)?;
        self.next += 16;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room_of(code: &[u8], size: u64) -> u64 {
        let mut page = [0xcc_u8; 64];
        page[..code.len()].copy_from_slice(code);
        let entry = Entry { start: page.as_ptr() as u64, size };
        // SAFETY: the function only reads what lies there.
        unsafe { room(entry) }
    }

    #[test]
    fn padding_counts_also_where_an_instruction_of_it_ends_behind_the_jump() {
        // `_dl_debug_state` of glibc 2.36: ret, a nop of eleven bytes, one of four.
        let state = [0xc3, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x0f, 0x1f, 0x40, 0];
        assert_eq!(room_of(&state, 1), JUMP_BYTES);
        // ret, a nop of three bytes, the next function.
        assert_eq!(room_of(&[0xc3, 0x0f, 0x1f, 0, 0x55, 0x48, 0x89, 0xe5], 1), 4);
        assert_eq!(room_of(&[0xc3], 40), JUMP_BYTES);
    }
}
