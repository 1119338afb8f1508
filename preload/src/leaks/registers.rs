//! The registers of a stopped thread, where the kernel saved them.
//!
//! The fifteen general registers and the instruction pointer always; vector registers only of a thread that was
//! stopped outside a system call: at a call they hold nothing that anybody may use afterwards (psABI 3.2.1), so
//! what is left there of old copies would keep lost blocks.

use memcheck_model::{Addr, AddrRange, Size};

use crate::lifecycle::fatal::Context;

/// The first vector register in the FXSAVE area, and the area's size (Intel SDM 1, 10.5.1).
const VECTORS_OFFSET: u64 = 160;
const FXSAVE_BYTES: u64 = 512;
/// Where the kernel notes the whole state's size behind a magic number (asm/sigcontext.h, `_fpx_sw_bytes`).
const NOTE_OFFSET: u64 = 464;
const NOTE_MAGIC: u32 = 0x4650_5853;
/// No state is larger: AMX tiles take 8 KiB.
const MOST_BYTES: u64 = 1 << 15;

/// The ranges that hold the registers of the thread with this `ucontext_t`.
pub fn saved(address: u64) -> impl Iterator<Item = AddrRange> {
    let context = Context::new(address);
    let departure = context.departure();
    let general = AddrRange::new(Addr(departure.registers), Size(departure.register_count * 8));
    let vectors = (!is_at_system_call(context)).then(|| vectors(context.vector_state())).flatten();
    general.into_iter().chain(vectors)
}

/// Whether the instruction before is `syscall`.
fn is_at_system_call(context: Context) -> bool {
    let before = context.rip().wrapping_sub(2);
    crate::sys::memory::try_read(before).is_some_and(|word| word & 0xffff == 0x050f)
}

fn vectors(state: u64) -> Option<AddrRange> {
    if state == 0 {
        return None;
    }
    // SAFETY: the kernel saved at least an FXSAVE area there, in the frame of a handler that has not returned.
    let note = unsafe { ((state + NOTE_OFFSET) as *const [u32; 2]).read_unaligned() };
    let bytes = match note {
        [NOTE_MAGIC, size] if u64::from(size) <= MOST_BYTES => u64::from(size).max(FXSAVE_BYTES),
        _ => NOTE_OFFSET,
    };
    AddrRange::between(Addr(state + VECTORS_OFFSET), Addr(state + bytes))
}
