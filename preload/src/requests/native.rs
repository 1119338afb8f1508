//! Calls of the target's functions on behalf of a request: on its own stack, with the vector registers as it left
//! them restored afterwards, because code around a request counts on them.
//!
//! The state is saved by XSAVE (Intel SDM vol. 1, 13.7) in the standard format, components 0 to 7 without those
//! that are none of vectors; by FXSAVE where the system has no XSAVE.

use core::arch::{asm, x86_64::__cpuid};

use memcheck_model::{MAX_FRAMES, Pc};
use memcheck_wire::Record;

use super::Site;
use crate::{channel, exports::native, stacks, thread};

/// x87, SSE, AVX, and the three parts of AVX-512 (SDM vol. 1, 13.1).
const COMPONENTS: u32 = 0b1110_0111;
/// Where the last of these ends in the standard format, and more (SDM vol. 1, 13.5).
const STATE_BYTES: usize = 2752;
/// The longest text that is put out at once.
const LONGEST_TEXT: usize = 2048;

#[repr(C, align(64))]
struct VectorState([u8; STATE_BYTES]);

/// CPUID.1:ECX.OSXSAVE[27].
fn has_xsave() -> bool {
    __cpuid(1).ecx >> 27 & 1 != 0
}

fn with_vectors_kept<R>(act: impl FnOnce() -> R) -> R {
    // Zeroed: XRSTOR demands that of most of the header.
    let mut state = VectorState([0; STATE_BYTES]);
    let at = state.0.as_mut_ptr();
    let has_xsave = has_xsave();
    // SAFETY: the area is large enough and aligned; what is saved is restored below, before anybody can tell.
    unsafe {
        if has_xsave {
            asm!("xsave64 [{}]", in(reg) at, in("eax") COMPONENTS, in("edx") 0, options(nostack));
        } else {
            asm!("fxsave64 [{}]", in(reg) at, options(nostack));
        }
    }
    let result = act();
    // SAFETY: as above: the state that was saved. The compiler holds nothing in vector registers across the `asm!`s.
    unsafe {
        if has_xsave {
            asm!("xrstor64 [{}]", in(reg) at, in("eax") COMPONENTS, in("edx") 0, options(nostack),
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _);
        } else {
            asm!("fxrstor64 [{}]", in(reg) at, options(nostack),
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _);
        }
    }
    result
}

/// `VALGRIND_NON_SIMD_CALL0` to `3`: the function gets the thread's number first.
pub fn call(function: u64, arguments: [u64; 3]) -> u64 {
    if function == 0 {
        return 0;
    }
    // SAFETY: the target asked for this function to be called so.
    let function: extern "C" fn(u64, u64, u64, u64) -> u64 = unsafe { core::mem::transmute(function) };
    let [first, second, third] = arguments;
    let tid = thread::id().0.into();
    with_vectors_kept(|| function(tid, first, second, third))
}

/// `VALGRIND_PRINTF` and its like: how many characters were put out.
pub fn print(site: &Site, format: u64, arguments: u64, with_stack: bool) -> u64 {
    let mut text = [0u8; LONGEST_TEXT];
    let length =
        with_vectors_kept(|| native::with_errno_kept(|| native::format_in(&mut text, format, arguments)));
    let mut frames = [Pc(0); MAX_FRAMES];
    let stack: &[Pc] =
        if with_stack { stacks::capture_interrupted_in(site.registers, &mut frames) } else { &[] };
    let text = &text[..length.min(LONGEST_TEXT - 1)];
    channel::send_and_wait(&Record::Message { text, stack });
    length as u64
}
