//! `dlsym`, `dlvsym`, `dlopen` and `dlmopen` look at their return address to learn which module called them
//! (RTLD_NEXT, RUNPATH, namespaces). A return address in a copy tells them nothing, so for the time of the call it
//! is replaced by a landing: a jump in the unused end of the calling module's last page of text (see `landings`).
//!
//! ```text
//!  copy: call dlsym ── slot ── front: hides the return address, jumps on to the copy of dlsym
//!  landing (in the caller's module) ── stub in its arena ── back: finds the hidden address, goes there
//! ```
//! `dladdr` and `dladdr1` are asked about return addresses: they get the original for one in a copy.
//!
//! Each thread keeps what it hid with the place on the stack, innermost last, so that one left by longjmp is
//! recognised by the stack having grown over it.

use alloc::vec::Vec;
use core::{
    arch::global_asm,
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

use memcheck_model::Addr;
use memcheck_rewrite::Module;

use super::{
    image::Image,
    install,
    stands::{Stand, Standing},
};
use crate::thread;

/// How many such calls may be within each other: a library's constructor may load the next.
const DEPTH: usize = 16;

/// The functions by their names.
pub const NAMES: [&[u8]; 6] = [b"dlsym", b"dlvsym", b"dlopen", b"dlmopen", b"dladdr", b"dladdr1"];

/// The return addresses that a thread has hidden.
#[derive(Debug)]
pub struct Hidden {
    len: Cell<usize>,
    /// Where on the stack, and what was there.
    calls: [Cell<(u64, u64)>; DEPTH],
}

/// The copies of the functions, in the order of `NAMES`.
static COPIES: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// Those of a libc.
pub fn find(image: &Image, module: &Module<'_>) -> Vec<Standing> {
    let Some(symbols) = image.symbols() else { return Vec::new() };
    let standing = |(place, &name): (usize, &&[u8])| {
        let symbol = symbols.find(name).filter(|symbol| symbol.is_function()).last()?;
        Some((module.find_function(image.actual(symbol))?, Stand::Around(place)))
    };
    NAMES.iter().enumerate().filter_map(standing).collect()
}

/// Remembers the copy of a function, and gives what stands before it.
pub fn front(function: usize, copy: Addr) -> Addr {
    COPIES[function].store(copy.0, Ordering::Release);
    let fronts: [unsafe extern "C" fn(); NAMES.len()] = [
        memcheck_front_dlsym,
        memcheck_front_dlvsym,
        memcheck_front_dlopen,
        memcheck_front_dlmopen,
        memcheck_front_dladdr,
        memcheck_front_dladdr1,
    ];
    Addr(fronts[function] as *const () as u64)
}

/// Where landings go.
pub fn back() -> Addr {
    Addr(memcheck_front_back as *const () as u64)
}

/// What a landing's return address stands for: the one that the calling thread hid last.
pub fn find_hidden(at: u64) -> Option<u64> {
    let hidden = &thread::current().hidden;
    let last = hidden.len.get().checked_sub(1)?;
    install::is_landing(Addr(at)).then(|| hidden.calls[last].get().1)
}

/// The original of an address that may lie in a copy.
pub(super) extern "C" fn original(at: u64) -> u64 {
    let interrupted = || install::find_origin(at).map(|origin| origin.pc);
    install::find_return(at).or_else(interrupted).map_or(at, |original| original.0)
}

/// Hides the return address at `place`, if it lies in a copy.
unsafe extern "C" fn on_call(place: *mut u64) {
    // SAFETY: the front gives the place of its return address.
    let to = unsafe { place.read() };
    let Some(landing) = install::find_return(to).and_then(install::find_landing) else { return };
    let hidden = &thread::current().hidden;
    let mut len = hidden.len.get();
    while len > 0 && hidden.calls[len - 1].get().0 <= place as u64 {
        len -= 1;
    }
    if len == DEPTH {
        return;
    }
    hidden.calls[len].set((place as u64, to));
    hidden.len.set(len + 1);
    // SAFETY: as above.
    unsafe { place.write(landing.0) };
}

/// Puts the hidden return address back.
unsafe extern "C" fn on_return(place: *mut u64) {
    let hidden = &thread::current().hidden;
    while let Some(last) = hidden.len.get().checked_sub(1) {
        hidden.len.set(last);
        let (kept, to) = hidden.calls[last].get();
        if kept == place as u64 {
            // SAFETY: the return left a free word there, where the landing was.
            unsafe { place.write(to) };
            return;
        }
    }
    // Only what `on_call` hid returns here.
    crate::sys::abort();
}

unsafe extern "C" {
    fn memcheck_front_dlsym();
    fn memcheck_front_dlvsym();
    fn memcheck_front_dlopen();
    fn memcheck_front_dlmopen();
    fn memcheck_front_dladdr();
    fn memcheck_front_dladdr1();
    fn memcheck_front_back();
}

global_asm!(
    ".macro memcheck_front name, index",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name,@function",
    "\\name:",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "lea rdi, [rsp + 32]",
    "sub rsp, 8",
    "call {on_call}",
    "add rsp, 8",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "jmp qword ptr [rip + {copies} + 8 * \\index]",
    ".endm",
    ".macro memcheck_address_front name, index",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name,@function",
    "\\name:",
    "push rsi",
    "push rdx",
    "push rcx",
    "call {original}",
    "mov rdi, rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "jmp qword ptr [rip + {copies} + 8 * \\index]",
    ".endm",
    ".text",
    ".p2align 4",
    "memcheck_front memcheck_front_dlsym, 0",
    "memcheck_front memcheck_front_dlvsym, 1",
    "memcheck_front memcheck_front_dlopen, 2",
    "memcheck_front memcheck_front_dlmopen, 3",
    "memcheck_address_front memcheck_front_dladdr, 4",
    "memcheck_address_front memcheck_front_dladdr1, 5",
    ".globl memcheck_front_back",
    ".hidden memcheck_front_back",
    ".type memcheck_front_back,@function",
    "memcheck_front_back:",
    "sub rsp, 8",
    "push rax",
    "lea rdi, [rsp + 8]",
    "call {on_return}",
    "pop rax",
    "ret",
    copies = sym COPIES,
    original = sym original,
    on_call = sym on_call,
    on_return = sym on_return,
);
