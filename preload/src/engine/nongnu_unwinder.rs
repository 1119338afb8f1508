//! Walks and exceptions through copies by nongnu.org's libunwind (`libunwind.so.8`), which programs look at their own
//! stack with.
//!
//! In: a module's image and its functions. Out: those of them that get a hook or another function.
//! - It reads the stack through an accessor that it has a pointer to. The one here stands before that and gives the
//!   original for an address of a copy, so that the library only ever sees originals. It is set when the library has
//!   begun, before the first walk.
//! - `unw_backtrace` reads by itself where it can: the shim's own walk does its work.
//! - Where the program is to go on, the original's address becomes the copy's.
//!
//! ```text
//!  unw_accessors_t   find_proc_info, put_unwind_info, get_dyn_info_list_addr, access_mem, …
//! ```
//! Source: libunwind 1.6, include/libunwind-common.h.in and src/x86_64/Gresume.c.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memcheck_model::{Addr, Pc};
use memcheck_rewrite::Module;

use super::{
    callers,
    image::{Image, Symbol},
    install,
    stands::{Stand, Standing},
};
use crate::{
    lifecycle::fatal::Context,
    stacks::{self, Caller},
    sys::owned,
};

/// `unw_accessors_t *unw_get_accessors(unw_addr_space_t)`, which has the library begin if it did not, and
/// `unw_addr_space_t unw_local_addr_space`.
const NEEDED: [&[u8]; 2] = [b"_Ux86_64_get_accessors", b"_ULx86_64_local_addr_space"];
/// Where they are, of the library that was loaded last.
static PLACES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Where `access_mem` is among the accessors.
const ACCESS_MEM: usize = 3;
/// `Context::register` counts so.
const RIP: usize = 16;

/// The accessor of the library that walked first; no other is served.
static ACCESS: AtomicU64 = AtomicU64::new(0);
/// Whether `access` stands before it.
static IS_SET: AtomicBool = AtomicBool::new(false);
type Access = extern "C" fn(space: u64, addr: u64, value: *mut u64, is_write: i32, argument: u64) -> i32;

/// What stands where the function of this name would.
fn find_stand(name: &[u8]) -> Option<Stand> {
    let address = |function: unsafe extern "C" fn()| Addr(function as *const () as u64);
    match name {
        b"_ULx86_64_init_local" | b"_ULx86_64_init_local2" => Some(Stand::Before(address(init_hook))),
        b"_Ux86_64_setcontext" => Some(Stand::Before(address(set_context_hook))),
        b"unw_backtrace" | b"backtrace" => Some(Stand::Instead(address(backtrace))),
        _ => None,
    }
}

/// The functions of the library, if the module is it or has it in itself.
pub fn find(image: &Image, module: &Module<'_>) -> Vec<Standing> {
    let Some(symbols) = image.symbols() else { return Vec::new() };
    let places = NEEDED.map(|needed| symbols.find(needed).last().map_or(0, |symbol| image.actual(symbol).0));
    if places.contains(&0) {
        return Vec::new();
    }
    let standing = |symbol: &Symbol| {
        Some((module.find_function(image.actual(symbol))?, find_stand(symbols.name(symbol)?)?))
    };
    let found = symbols.iter().filter_map(standing).collect();
    // Relaxed: whoever runs code of the library came to it by way of the loader's lock.
    for (place, at) in PLACES.iter().zip(places) {
        place.store(at, Ordering::Relaxed);
    }
    found
}

hook!(init_hook => on_init);
hook!(set_context_hook => on_set_context);

/// Before a walk begins.
extern "C" fn on_init(_: &mut [u64; 2]) {
    if IS_SET.load(Ordering::Acquire) {
        return;
    }
    let [get, local] = PLACES.each_ref().map(|place| place.load(Ordering::Relaxed));
    // SAFETY: the library's function of this name has this signature, and its variable of that name is a pointer.
    let accessors = unsafe {
        let get: extern "C" fn(u64) -> *const AtomicU64 = core::mem::transmute(get);
        get((local as *const u64).read())
    };
    // SAFETY: a structure of pointers to functions, which the library has filled and keeps.
    let place = unsafe { &*accessors.add(ACCESS_MEM) };
    let own = place.load(Ordering::Acquire);
    // Release: who comes to `access` finds the library's own. Threads that begin at once do the same.
    let _ = ACCESS.compare_exchange(0, own, Ordering::Release, Ordering::Relaxed);
    if ACCESS.load(Ordering::Relaxed) == own {
        place.store(access as *const () as u64, Ordering::Release);
    }
    IS_SET.store(true, Ordering::Release);
}

/// Reads or writes a word of the target for the library.
extern "C" fn access(space: u64, addr: u64, value: *mut u64, is_write: i32, argument: u64) -> i32 {
    // SAFETY: the library's own accessor, which `on_init` found before this one was there.
    let own: Access = unsafe { core::mem::transmute(ACCESS.load(Ordering::Acquire)) };
    let result = own(space, addr, value, is_write, argument);
    if result == 0 && is_write == 0 {
        // SAFETY: the library's variable for the word, which has just been written.
        unsafe {
            let word = value.read();
            if owned::contains(Addr(word)) {
                value.write(callers::original(word));
            }
        }
    }
    result
}

/// Before `_Ux86_64_setcontext(context)`: goes on in the copy.
extern "C" fn on_set_context(arguments: &mut [u64; 2]) {
    let context = Context::new(arguments[0]);
    if let Some(copy) = install::find_copy(Pc(context.rip())) {
        context.set_register(RIP, copy.0);
    }
}

/// `int unw_backtrace(void **, int)`, with its caller's frame handed on.
#[unsafe(naked)]
unsafe extern "C" fn backtrace() {
    core::arch::naked_asm!("mov rdx, rsp", "mov rcx, rbp", "jmp {body}", body = sym backtrace_for)
}

extern "C" fn backtrace_for(buffer: *mut Pc, size: i32, entry_sp: u64, bp: u64) -> i32 {
    let len = usize::try_from(size).unwrap_or(0);
    if len == 0 {
        return 0;
    }
    // SAFETY: room for as many addresses, by the caller's word; `Pc` is one.
    let frames = unsafe { core::slice::from_raw_parts_mut(buffer, len) };
    stacks::walk_caller_in(Caller { entry_sp, bp }, frames) as i32
}
