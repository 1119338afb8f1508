//! futex(2) on words that processes share.

use core::sync::atomic::AtomicU32;

use super::syscall;

const SYS_FUTEX: i64 = 202;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;

/// Sleeps while `word` holds `expected`, at most `most_ms` milliseconds; may return early.
pub fn wait(word: &AtomicU32, expected: u32, most_ms: u64) {
    let timeout = [most_ms / 1000, most_ms % 1000 * 1_000_000];
    let args = [word.as_ptr() as u64, FUTEX_WAIT, expected.into(), timeout.as_ptr() as u64, 0, 0];
    // SAFETY: the kernel reads the word and the timeout, both alive here.
    let _ = unsafe { syscall(SYS_FUTEX, args) };
}

/// Wakes whoever sleeps on `word`.
pub fn wake_all(word: &AtomicU32) {
    let args = [word.as_ptr() as u64, FUTEX_WAKE, i32::MAX as u64, 0, 0, 0];
    // SAFETY: waking touches no memory of ours.
    let _ = unsafe { syscall(SYS_FUTEX, args) };
}
