//! The allocator functions that the target calls instead of libc's and libstdc++'s.
//!
//! Each exported symbol is a few instructions that hand its caller's frame on (see [`crate::stacks`]); the bodies
//! are ordinary functions. They take raw numbers, because that is the C ABI, and nothing here touches what the
//! target's pointers point to, but for `posix_memalign`'s result and `malloc_info`'s stream.
//!
//! May run before any initialiser, in any thread and in signal handlers. `errno` is set as glibc sets it.

pub mod c;
pub mod cxx;
pub mod info;
pub(crate) mod native;

use memcheck_model::{Addr, Detail, ErrorKind, Function, Place};

use crate::{
    heap::{self, Call, Content},
    stacks::Caller,
};

/// The functions of libc's allocator with the addresses of those that stand for them. Of two names for one function
/// the later counts: `memalign` asks less of its arguments than `aligned_alloc`.
pub fn libc_allocator() -> [(&'static [u8], u64); 10] {
    let at = |function: unsafe extern "C" fn()| function as *const () as u64;
    [
        (b"malloc", at(c::malloc)),
        (b"calloc", at(c::calloc)),
        (b"realloc", at(c::realloc)),
        (b"free", at(c::free)),
        (b"aligned_alloc", at(c::aligned_alloc)),
        (b"memalign", at(c::memalign)),
        (b"posix_memalign", at(c::posix_memalign)),
        (b"valloc", at(c::valloc)),
        (b"pvalloc", at(c::pvalloc)),
        (b"malloc_usable_size", info::malloc_usable_size as *const () as u64),
    ]
}

/// What tcmalloc has beside those that works on a heap which is set up when it first allocates, with what stands for it:
/// nothing is to be prepared for a thread here.
pub fn of_tcmalloc() -> [(&'static [u8], u64); 2] {
    extern "C" fn nothing() {}
    [
        (b"_ZN22TCMallocImplementation14MarkThreadBusyEv", nothing as *const () as u64),
        (b"MallocExtension_GetAllocatedSize", info::malloc_usable_size as *const () as u64),
    ]
}

/// The address of what releases a block whatever allocator function gave it.
pub fn release_of_any() -> u64 {
    c::memcheck_release as *const () as u64
}

/// What `errno` becomes.
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
/// What every block is a multiple of anyway.
const ORDINARY_ALIGN: u64 = 16;

const fn call(function: Function, entry_sp: u64, bp: u64) -> Call {
    Call { function, caller: Caller { entry_sp, bp } }
}

/// A block of `size` bytes, or null and ENOMEM.
#[inline]
fn block(
    heap: &'static memcheck_heap::Heap<'static>,
    call: &Call,
    size: u64,
    align_shift: u32,
    content: Content,
) -> u64 {
    match heap::allocate(heap, call, size, align_shift, content) {
        Some(addr) => addr.0,
        None => {
            native::set_errno(ENOMEM);
            0
        }
    }
}

/// The shift for an alignment that is a power of two; zero when every block has it.
const fn align_shift(align: u64) -> u32 {
    if align <= ORDINARY_ALIGN { 0 } else { align.trailing_zeros() }
}

#[cold]
fn report_alignment(call: &Call, align: u64) {
    heap::report(ErrorKind::BadAlignment, call, Addr::NULL, Place::None, None, Detail::Alignment(align));
}
