//! libc's and libstdc++'s own functions, found in their symbol tables when they are needed: the shim does not
//! import them.
//!
//! Invariant: what is found once stays: neither library is ever unloaded from a process that uses it.

use crate::{
    libc_symbols::{self, LibraryFunction},
    thread,
};

const fn libc(name: &'static [u8]) -> LibraryFunction {
    LibraryFunction::new(b"libc.so.6", name)
}

static ERRNO_LOCATION: LibraryFunction = libc(b"__errno_location");
static MALLOC: LibraryFunction = libc(b"__libc_malloc");
static CALLOC: LibraryFunction = libc(b"__libc_calloc");
static REALLOC: LibraryFunction = libc(b"__libc_realloc");
static FREE: LibraryFunction = libc(b"__libc_free");
static MEMALIGN: LibraryFunction = libc(b"__libc_memalign");
static USABLE_SIZE: LibraryFunction = libc(b"malloc_usable_size");
static FPUTS: LibraryFunction = libc(b"fputs");
static VSNPRINTF: LibraryFunction = libc(b"vsnprintf");

/// Calls a function of three words at most that gives one.
fn call(function: &LibraryFunction, arguments: [u64; 3]) -> Option<u64> {
    let address = function.find()?;
    // SAFETY: the address of libc's function of that name. More arguments than it takes do no harm in the x86-64
    // calling convention, and a void function's result is not used.
    let function: extern "C" fn(u64, u64, u64) -> u64 = unsafe { core::mem::transmute(address) };
    Some(function(arguments[0], arguments[1], arguments[2]))
}

/// Where the calling thread's `errno` is; null without libc.
fn errno() -> *mut i32 {
    // Kept in the thread's block: where a thread's errno is does not change.
    let kept = &thread::current().errno;
    if kept.get() == 0 {
        kept.set(call(&ERRNO_LOCATION, [0; 3]).unwrap_or(0));
    }
    kept.get() as *mut i32
}

/// Sets the calling thread's `errno`.
#[cold]
pub fn set_errno(value: i32) {
    let at = errno();
    if !at.is_null() {
        // SAFETY: `__errno_location` of this thread gave it.
        unsafe { at.write(value) };
    }
}

/// Runs `act`, and leaves `errno` as it was.
pub fn with_errno_kept<R>(act: impl FnOnce() -> R) -> R {
    let at = errno();
    if at.is_null() {
        return act();
    }
    // SAFETY: as in `set_errno`.
    let value = unsafe { at.read() };
    let result = act();
    // SAFETY: as above.
    unsafe { at.write(value) };
    result
}

/// For a process without a heap of ours.
pub fn malloc(size: u64) -> u64 {
    call(&MALLOC, [size, 0, 0]).unwrap_or(0)
}

/// For a process without a heap of ours.
pub fn calloc(count: u64, size: u64) -> u64 {
    call(&CALLOC, [count, size, 0]).unwrap_or(0)
}

/// For a process without a heap of ours.
pub fn realloc(block: u64, size: u64) -> u64 {
    call(&REALLOC, [block, size, 0]).unwrap_or(0)
}

/// For a process without a heap of ours.
pub fn memalign(align: u64, size: u64) -> u64 {
    call(&MEMALIGN, [align, size, 0]).unwrap_or(0)
}

/// For a process without a heap of ours.
pub fn free(block: u64) {
    call(&FREE, [block, 0, 0]);
}

/// For a process without a heap of ours.
pub fn usable_size(block: u64) -> u64 {
    call(&USABLE_SIZE, [block, 0, 0]).unwrap_or(0)
}

/// Writes a zero-terminated text to a `FILE`.
pub fn put_text(text: &[u8], stream: u64) -> bool {
    debug_assert_eq!(text.last(), Some(&0));
    call(&FPUTS, [text.as_ptr() as u64, stream, 0]).is_some()
}

/// `operator new` as libstdc++ has it, or zero.
pub fn find_operator_new() -> u64 {
    let library = libc_symbols::find_loader().and_then(|loader| loader.symbols_of(b"libstdc++.so.6"));
    library.and_then(|symbols| symbols.find(b"_Znwm")).map_or(0, |entry| entry.start)
}

/// `vsnprintf` with the target's own `va_list`: how long the whole text is.
pub fn format_in(text: &mut [u8], format: u64, arguments: u64) -> usize {
    let Some(address) = VSNPRINTF.find() else { return 0 };
    // SAFETY: libc's function of this name. Whether the arguments are what the format says is up to the target.
    let function: extern "C" fn(*mut u8, usize, u64, u64) -> i32 = unsafe { core::mem::transmute(address) };
    function(text.as_mut_ptr(), text.len(), format, arguments).max(0) as usize
}
