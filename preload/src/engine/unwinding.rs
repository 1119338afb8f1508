//! C++ exceptions, forced unwinding (thread cancellation) and `backtrace` through copies.
//!
//! libgcc's unwinder asks `_Unwind_Find_FDE` for each frame; the one here stands before it, and where a frame's
//! return address lies in a copy it gives the unwinder the original's: frames of copies look as the originals do,
//! so the originals' unwind tables, LSDAs and regions hold. `_Unwind_SetIP`, by which a personality routine names
//! the landing pad, leads back into the copy.
//!
//! Source: libgcc's unwind-dw2.c and unwind-dw2-fde.h (`struct dwarf_eh_bases` is a member of
//! `struct _Unwind_Context`, behind `ra` and `lsda`; so since GCC 3.0).

use memcheck_model::Pc;

use super::{callers, install};
use crate::{libc_symbols::LibraryFunction, modules};

/// libgcc_s is never unloaded once it unwinds.
const fn libgcc(name: &'static [u8]) -> LibraryFunction {
    LibraryFunction::new(b"libgcc_s.so.1", name)
}

static FIND_FDE: LibraryFunction = libgcc(b"_Unwind_Find_FDE");
static SET_IP: LibraryFunction = libgcc(b"_Unwind_SetIP");
/// Others, which may be there too; see `own_unwinder` and `nongnu_unwinder`.
static LLVM_SET_IP: LibraryFunction = LibraryFunction::new(b"libunwind.so.1", b"_Unwind_SetIP");
static NONGNU_SET_IP: LibraryFunction = LibraryFunction::new(b"libunwind.so.8", b"_Unwind_SetIP");

/// What an unwinder is to look for, and its frame's return address, where both are in a copy.
pub(super) fn original(pc: u64, ra: u64) -> Option<(u64, u64)> {
    match ra {
        // An interrupted instruction.
        at if at == pc => install::find_origin(pc).map(|origin| (origin.pc.0, origin.pc.0)),
        at if at == pc.wrapping_add(1) => {
            let at = callers::find_hidden(at).unwrap_or(at);
            install::find_return(at).map(|Pc(at)| (at - 1, at))
        }
        // Not the unwinder's own call.
        _ => None,
    }
}

/// Finds the FDE of the function that holds `pc`, as libgcc's function of this name.
///
/// # Safety
/// Called by libgcc's unwinder: `bases` is that member of its context.
#[cfg_attr(not(test), unsafe(export_name = "_Unwind_Find_FDE"))]
pub unsafe extern "C" fn find_fde(pc: u64, bases: *mut u64) -> u64 {
    let Some(real) = FIND_FDE.find() else { return 0 };
    // SAFETY: libgcc's function by this name has this signature.
    let real: extern "C" fn(u64, *mut u64) -> u64 = unsafe { core::mem::transmute(real) };
    // SAFETY: by the caller's word there is a context around it; its `ra` lies two words before.
    let ra = unsafe { bases.sub(2) };
    // SAFETY: as above.
    let Some((pc_there, ra_there)) = original(pc, unsafe { ra.read() }) else { return real(pc, bases) };
    // SAFETY: as above; the unwinder reads it again when this returns.
    unsafe { ra.write(ra_there) };
    real(pc_there, bases)
}

/// Sets where the unwinder goes on, as libgcc's function of this name.
///
/// # Safety
/// Called by a personality routine with its context.
#[cfg_attr(not(test), unsafe(export_name = "_Unwind_SetIP"))]
pub unsafe extern "C" fn set_ip(context: u64, ip: u64) {
    // LLVM's context begins with a pointer into the library, nongnu.org's has one second, libgcc's has pointers to the
    // stack or none.
    // SAFETY: by the caller's word.
    let words = unsafe { [0, 1].map(|at| (context as *const u64).add(at).read()) };
    let is_in_module = |word: u64| modules::find(word).is_some();
    let (real, ip) = match words {
        [first, _] if is_in_module(first) => (LLVM_SET_IP.find(), ip),
        [_, second] if is_in_module(second) => (NONGNU_SET_IP.find(), ip),
        _ => (SET_IP.find(), install::find_copy(Pc(ip)).map_or(ip, |copy| copy.0)),
    };
    let Some(real) = real else { return };
    // SAFETY: all these libraries' functions by this name have this signature.
    let real: extern "C" fn(u64, u64) = unsafe { core::mem::transmute(real) };
    real(context, ip);
}
