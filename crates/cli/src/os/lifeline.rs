//! How the targets learn that the launcher died: a robust futex (set_robust_list(2)) in shared memory, which
//! the kernel marks when the thread that holds it ends for whatever reason, SIGKILL included.
//!
//! Only the futex word is shared. The list that the kernel walks lies in private memory, so that a target that
//! tramples the channel cannot lead the kernel astray.

use std::sync::atomic::{AtomicU32, Ordering};

/// `struct robust_list_head` with its only entry.
#[repr(C)]
struct RobustList {
    /// Head: the first entry.
    first: *const RobustEntry,
    futex_offset: libc::c_long,
    pending: *const RobustEntry,
    entry: RobustEntry,
}

/// `struct robust_list`: the next entry, or the head at the end.
#[repr(C)]
struct RobustEntry {
    next: *const RobustEntry,
}

/// Makes the calling thread hold `word` until it dies. Call it once, on the main thread.
pub fn hold_lifeline(word: &'static AtomicU32) {
    let list = Box::leak(Box::new(RobustList {
        first: std::ptr::null(),
        futex_offset: 0,
        pending: std::ptr::null(),
        entry: RobustEntry { next: std::ptr::null() },
    }));
    let entry = &raw const list.entry;
    list.first = entry;
    list.futex_offset = (word.as_ptr() as libc::c_long).wrapping_sub(entry as libc::c_long);
    // The head's first field is where a list ends.
    list.entry.next = (&raw const list.first).cast();
    // SAFETY: gettid only asks.
    let tid = unsafe { libc::gettid() };
    word.store(tid.cast_unsigned(), Ordering::Release);
    // SAFETY: the list is leaked and well-formed; it replaces libc's list of this thread, which is empty
    // because the launcher has no robust mutexes.
    unsafe { libc::syscall(libc::SYS_set_robust_list, &raw const *list, 3 * size_of::<usize>()) };
}
