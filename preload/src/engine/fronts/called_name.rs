//! Whether a call was of `memcpy` or of `memmove`, where libc has one function for both: by the symbol that the
//! caller's GOT cell, which the call goes through, is relocated to.
//!
//! Runs on the report gate's stack, but for `is_known_to_allow`, which runs anywhere.
//!
//! What was found is kept by return address, in the caller's own code or its copy: overlapping calls of `memmove` are
//! as common as they are allowed. A cell of the table is one word, so readers see one entry whole.

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_model::{Addr, Function, Pc};
use memcheck_rewrite::{Module, find_linkage_cell};

use super::super::install;
use crate::stacks::Caller;

/// Calls of `memmove` that return to some address, which is kept.
static ALLOWED: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

fn slot(return_address: u64) -> &'static AtomicU64 {
    // Fibonacci hashing: the top ten bits of the product.
    &ALLOWED[(return_address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize]
}

fn return_address(caller: Caller) -> u64 {
    // SAFETY: a front's entry found the stack pointer at the return address.
    unsafe { (caller.entry_sp as *const u64).read() }
}

/// Whether the call is known to be one that may have overlapping arguments.
pub fn is_known_to_allow(caller: Caller) -> bool {
    let address = return_address(caller);
    slot(address).load(Ordering::Relaxed) == address
}

/// The name that was called, when it can be told.
pub fn find(caller: Caller) -> Option<Function> {
    let address = return_address(caller);
    let original = install::find_return(address).unwrap_or(Pc(address));
    let name = install::ask_module(original, |image, module| {
        called_cells(module, original).into_iter().flatten().find_map(|cell| image.find_name_in_cell(cell))
    });
    let function = match name {
        Some(b"memcpy" | b"__memcpy_chk") => Some(Function::Memcpy),
        Some(b"memmove" | b"__memmove_chk") => Some(Function::Memmove),
        _ => None,
    };
    if function != Some(Function::Memcpy) {
        slot(address).store(address, Ordering::Relaxed);
    }
    function
}

/// Modules went: the addresses may become others'.
pub fn forget() {
    for cell in &ALLOWED {
        cell.store(0, Ordering::Relaxed);
    }
}

/// The GOT cells that the call before `after` may have gone through: `call *cell(%rip)`, or `call` of a PLT entry.
fn called_cells(module: &Module<'_>, after: Pc) -> [Option<Addr>; 2] {
    let code = |back: u64| module.find_text(Pc(after.0.wrapping_sub(back)));
    let target = |code: &[u8]| {
        let distance = code.get(..4)?.try_into().map(i32::from_le_bytes).ok()?;
        Some(after.0.wrapping_add_signed(distance.into()))
    };
    let through_cell = code(6).and_then(|code| target(code.strip_prefix(&[0xff, 0x15])?));
    let through_stub = code(5)
        .and_then(|code| target(code.strip_prefix(&[0xe8])?))
        .and_then(|stub| find_linkage_cell(module, Pc(stub)));
    [through_cell.map(Addr), through_stub.map(Addr)]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use memcheck_rewrite::{Callees, Segment};
    use std::{vec, vec::Vec};

    fn module(bytes: &'static [u8]) -> Module<'static> {
        Module {
            text: vec![Segment { start: Pc(0x1000), bytes }],
            constants: Vec::new(),
            extents: Vec::new(),
            callees: Callees::default(),
        }
    }

    #[test]
    fn the_cell_of_a_call_is_found_through_the_plt_and_without() {
        // 1000: call 1010; 1006: call *0x20(%rip); 1010: endbr64; jmp *0x100(%rip)
        let code = module(&[
            0xe8, 0x0b, 0, 0, 0, 0x90, 0xff, 0x15, 0x20, 0, 0, 0, 0x90, 0x90, 0x90, 0x90, 0xf3, 0x0f, 0x1e,
            0xfa, 0xff, 0x25, 0, 1, 0, 0,
        ]);
        assert_eq!(called_cells(&code, Pc(0x1005)), [None, Some(Addr(0x111a))]);
        assert_eq!(called_cells(&code, Pc(0x100c)), [Some(Addr(0x102c)), None]);
        assert_eq!(called_cells(&code, Pc(0x1001)), [None, None]);
    }

    #[test]
    fn what_is_known_of_a_call_is_forgotten_with_the_modules() {
        let word = 0x1234u64;
        let caller = Caller { entry_sp: &raw const word as u64, bp: 0 };
        assert!(!is_known_to_allow(caller));
        assert_eq!(find(caller), None);
        assert!(is_known_to_allow(caller));
        forget();
        assert!(!is_known_to_allow(caller));
    }
}
