//! Words that tell a process that it was forked, also by a raw clone, for which no handler of fork runs: they lie in a
//! page that fork wipes.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::sys::file;

/// How many words there are.
const WORDS: usize = 4;

/// Zeroed words of such a page, or `None` where the kernel has none.
pub fn map() -> Option<&'static [AtomicU64; WORDS]> {
    let page = file::map_page_wiped_on_fork()?;
    // SAFETY: a fresh zeroed page that is never unmapped.
    Some(unsafe { &*page.cast::<[AtomicU64; WORDS]>() })
}

/// Sets a word, for the process that mapped it, and gives its address.
pub fn settle(word: &'static AtomicU64) -> u64 {
    word.store(1, Ordering::Relaxed);
    core::ptr::from_ref(word) as u64
}

/// Whether nobody asked this in the process since it was forked. `word` is what `settle` gave, or zero.
#[inline]
pub fn is_first(word: u64) -> bool {
    if word == 0 {
        return false;
    }
    // SAFETY: `settle` gave the address of a word that stays.
    let word = unsafe { &*(word as *const AtomicU64) };
    word.load(Ordering::Relaxed) == 0 && word.swap(1, Ordering::Relaxed) == 0
}
