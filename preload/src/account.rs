//! An account that any thread may change: what it holds, behind a lock.
//!
//! Invariants: signals are blocked while the lock is held, and nobody else's code is called; so fork takes the lock,
//! and a child finds the account whole. The tool's heap may be used under it.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::sys::{process, signal};

/// The account.
pub struct Account<T> {
    is_locked: AtomicBool,
    content: UnsafeCell<T>,
}

// SAFETY: the content is touched only under the lock (see `with`).
unsafe impl<T: Send> Sync for Account<T> {}

impl<T> Account<T> {
    /// With this content at first.
    pub const fn new(content: T) -> Self {
        Self { is_locked: AtomicBool::new(false), content: UnsafeCell::new(content) }
    }

    /// Runs `act` on the content. `act` does not come back here.
    pub fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        let mask = signal::set_mask(u64::MAX);
        self.lock();
        // SAFETY: the lock is held.
        let result = act(unsafe { &mut *self.content.get() });
        self.unlock();
        signal::set_mask(mask);
        result
    }

    /// The calling thread is about to fork.
    pub fn lock(&self) {
        // Acquire pairs with the Release of `unlock`.
        while self.is_locked.swap(true, Ordering::Acquire) {
            process::yield_now();
        }
    }

    /// It has forked, in either process.
    pub fn unlock(&self) {
        self.is_locked.store(false, Ordering::Release);
    }
}
