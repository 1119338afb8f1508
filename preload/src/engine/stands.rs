//! What stands where a function's copy would, so that the function's callers meet it first: the function's slot leads there.
//!
//! ```text
//!  Before    call hook; jmp copy     (unwinders, which are given originals for copies)
//!  Around    a front of `callers`, which goes on to the copy
//!  Instead   another function
//! ```
//! libc's string functions have fronts of their own kind, which change as their copies are made (see `fronts`).

use alloc::vec::Vec;

use memcheck_model::Addr;
use memcheck_rewrite::Module;

use super::{callers, image::Image, nongnu_unwinder, own_unwinder};

/// A function, by the index of its extent, and what stands there.
pub type Standing = (usize, Stand);

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stand {
    /// A hook that is called before the copy.
    Before(Addr),
    /// A front, by its place in `callers::NAMES`.
    Around(usize),
    /// Another function.
    Instead(Addr),
}

/// What stands in a module whose file has this name.
pub fn find(name: &[u8], image: &Image, module: &Module<'_>) -> Vec<Standing> {
    if name.starts_with(b"libc.so") || name.starts_with(b"libdl.so") {
        return callers::find(image, module);
    }
    // What stands before libgcc's own is found by name (see `unwinding`).
    if name.starts_with(b"libgcc_s.so") {
        return Vec::new();
    }
    let mut found = own_unwinder::find(image, module);
    found.extend(nongnu_unwinder::find(image, module));
    found.sort_unstable();
    found.dedup_by_key(|standing| standing.0);
    found
}

/// Code that calls a hook with the place of the function's first two arguments, and goes on to the function at `code`.
pub fn thunk(at: Addr, hook: Addr, code: Addr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend([0x49, 0xbb]); // mov $hook,%r11
    bytes.extend(hook.0.to_le_bytes());
    bytes.extend([0x41, 0xff, 0xd3, 0xe9]); // call *%r11; jmp code
    let after = at.0 + bytes.len() as u64 + 4;
    bytes.extend((code.0.wrapping_sub(after) as i32).to_le_bytes());
    bytes
}
