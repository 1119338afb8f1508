//! Exceptions through copies where a module has an unwinder of its own: libgcc's linked into it (`-static-libgcc`),
//! whose functions of the same names as in `unwinding` are local, so that nothing can stand before them by name; or
//! LLVM's, linked into it or as `libunwind.so.1`, which is made differently.
//!
//! In: a module's image and its functions. Out: those of them that get a hook.
//! - What looks for the unwind information of an address is what calls `_dl_find_object` (libgcc of GCC 12 and later) or
//!   `dl_iterate_phdr`: libgcc's `_Unwind_Find_FDE(pc, bases)`, LLVM's
//!   `UnwindCursor::setInfoBasedOnIPRegister(this, is_return)`.
//! - libgcc's `_Unwind_SetIP` is known by its code, a store to the context's `ra`. LLVM's asks for the information of
//!   the new address.
//!
//! Others may look the same, so a hook changes nothing unless its arguments are an unwinder's: a context or cursor on
//! the caller's stack, an address in a copy.
//!
//! ```text
//!  LLVM's cursor   0  vtable, address space    16  rax rbx rcx rdx rdi rsi rbp rsp r8…r15 rip rflags cs fs gs
//!                184  what was found of the address before: start, end, …
//! ```
//! Source: as for `unwinding`; LLVM 14, libunwind/src/UnwindCursor.hpp, Registers.hpp.

use alloc::vec::Vec;

use memcheck_model::{Addr, Pc};
use memcheck_rewrite::{Module, find_linkage_cell};

use super::{
    image::Image,
    install,
    stands::{Stand, Standing},
    unwinding,
};
use crate::{modules, stacks};

/// Where `ra` is in `struct _Unwind_Context`: behind 18 saved registers and the CFA.
const RA_OFFSET: u64 = 0x98;
/// `mov %rsi,0x98(%rdi); ret`, behind `endbr64` or not.
const SET_IP: [u8; 8] = [0x48, 0x89, 0xb7, RA_OFFSET as u8, 0, 0, 0, 0xc3];
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// Where LLVM's cursor has its address, and what was found of the one before.
const CURSOR_IP: u64 = 16 + 16 * 8;
const CURSOR_FOUND: u64 = 16 + 21 * 8;
/// How far above its callee's frame an unwinder keeps its context.
const CONTEXT_REACH: u64 = 64 << 10;

/// The functions of an unwinder that is linked into the module.
pub fn find(image: &Image, module: &Module<'_>) -> Vec<Standing> {
    let mut hooked = Vec::new();
    for name in [b"_dl_find_object".as_slice(), b"dl_iterate_phdr"] {
        if let Some(cell) = image.find_cell_with_name(name) {
            hooked.extend(callers_through(module, cell).map(|function| (function, entry(find_hook))));
        }
    }
    if !hooked.is_empty() {
        let is_set_ip = |&function: &usize| {
            let bytes = module.find_text(module.extents[function].start).unwrap_or_default();
            bytes.strip_prefix(&ENDBR64).unwrap_or(bytes).starts_with(&SET_IP)
        };
        let functions = (0..module.extents.len()).filter(is_set_ip);
        hooked.extend(functions.map(|function| (function, entry(set_ip_hook))));
    }
    hooked
}

fn entry(hook: unsafe extern "C" fn()) -> Stand {
    Stand::Before(Addr(hook as *const () as u64))
}

/// The functions that call what the GOT cell leads to, through the PLT or not.
fn callers_through<'a>(module: &'a Module<'_>, cell: Addr) -> impl Iterator<Item = usize> + use<'a> {
    let calls = module.text.iter().flat_map(move |segment| {
        let target_at = move |at: usize| {
            let distance = segment.bytes.get(at..at + 4)?.try_into().map(i32::from_le_bytes).ok()?;
            Some((segment.start.0 + at as u64 + 4).wrapping_add_signed(distance.into()))
        };
        let is_call = move |&at: &usize| match segment.bytes[at..] {
            [0xe8, ..] => {
                target_at(at + 1).is_some_and(|to| find_linkage_cell(module, Pc(to)) == Some(cell.0))
            }
            [0xff, 0x15, ..] => target_at(at + 2) == Some(cell.0),
            _ => false,
        };
        (0..segment.bytes.len()).filter(is_call).map(|at| Pc(segment.start.0 + at as u64))
    });
    calls.filter_map(|call| module.find_extent(call))
}

hook!(find_hook => on_find);
hook!(set_ip_hook => on_set_ip);

/// Whether the place is one that the caller's frames may hold.
fn is_above(place: u64, arguments: &[u64; 2]) -> bool {
    let own = arguments.as_ptr() as u64;
    place.is_multiple_of(8) && (own..own + CONTEXT_REACH).contains(&place)
}

/// Before a function that looks for the unwind information of an address.
extern "C" fn on_find(arguments: &mut [u64; 2]) {
    let [first, second] = *arguments;
    if is_above(second, arguments) {
        on_find_fde(arguments);
    } else if is_above(first, arguments) && second as u8 <= 1 {
        on_cursor_set(first, second as u8 == 1);
    }
}

/// LLVM's cursor was set to an address, which is a return address or not: a copy's becomes the original's, and where
/// the cursor is to go on, within the function that it was in, the original's becomes the copy's.
fn on_cursor_set(cursor: u64, is_return: bool) {
    let word = |offset: u64| (cursor + offset) as *mut u64;
    // SAFETY: on the running thread's stack, above a frame of its.
    if modules::find(unsafe { word(0).read() }).is_none() {
        return;
    }
    // SAFETY: as above; what begins with a table of functions is a cursor.
    let [ip, start, end] = [CURSOR_IP, CURSOR_FOUND, CURSOR_FOUND + 8].map(|at| unsafe { word(at).read() });
    let to = match stacks::original_return(ip) {
        original if original != ip => Some(original),
        _ if is_return || !(start..end).contains(&ip) => None,
        _ => install::find_copy(Pc(ip)).map(|copy| copy.0),
    };
    if let Some(to) = to {
        // SAFETY: as above.
        unsafe { word(CURSOR_IP).write(to) };
    }
}

/// Before `_Unwind_Find_FDE(pc, bases)`.
fn on_find_fde(arguments: &mut [u64; 2]) {
    let [pc, bases] = *arguments;
    // Two words before the bases, as in `unwinding::find_fde`.
    let ra = (bases - 16) as *mut u64;
    // SAFETY: on the running thread's stack, above a frame of its.
    if let Some((pc_there, ra_there)) = unwinding::original(pc, unsafe { ra.read() }) {
        // SAFETY: as above; the unwinder reads it again when it has its FDE.
        unsafe { ra.write(ra_there) };
        arguments[0] = pc_there;
    }
}

/// Before `_Unwind_SetIP(context, ip)`.
extern "C" fn on_set_ip(arguments: &mut [u64; 2]) {
    let [context, ip] = *arguments;
    if !is_above(context, arguments) {
        return;
    }
    // SAFETY: on the running thread's stack, above a frame of its.
    let ra = Pc(unsafe { ((context + RA_OFFSET) as *const u64).read() });
    let is_landing_pad = install::ask_module(ra, |image, _| image.range.contains(Addr(ip)).then_some(()));
    if is_landing_pad.is_some()
        && let Some(copy) = install::find_copy(Pc(ip))
    {
        arguments[1] = copy.0;
    }
}
