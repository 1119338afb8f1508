//! A lock for a few instructions, held with signals kept away, so that a handler on the same thread cannot wait
//! for what it interrupted.
//!
//! Lock order, which fork takes: the classes in ascending order, then the quarantines. A thread holds one lock at
//! a time, except the one that forks: it holds all, is known by its id, and passes through each (its own fork
//! handlers may allocate). Fork copies memory page by page while other threads write, so without the locks the
//! child could see half a change.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use memcheck_model::ThreadId;

use crate::Backend;

#[derive(Debug, Default)]
pub(crate) struct Lock(AtomicBool);

/// The thread that holds every lock because it forks, or zero.
#[derive(Debug, Default)]
pub(crate) struct Forker(AtomicU32);

impl Forker {
    pub fn set(&self, tid: ThreadId) {
        self.0.store(tid.0, Ordering::Relaxed);
    }

    fn is(&self, tid: ThreadId) -> bool {
        // Only this thread itself can have stored its own id, so no ordering is needed.
        tid.0 != 0 && self.0.load(Ordering::Relaxed) == tid.0
    }
}

impl Lock {
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Runs `action` holding the lock.
    pub fn hold<T>(
        &self,
        backend: &impl Backend,
        forker: &Forker,
        tid: ThreadId,
        action: impl FnOnce() -> T,
    ) -> T {
        let before = backend.enter_critical();
        let passes = forker.is(tid);
        if !passes {
            self.acquire(backend);
        }
        let result = action();
        if !passes {
            self.release();
        }
        backend.leave_critical(before);
        result
    }

    pub fn acquire(&self, backend: &impl Backend) {
        // Acquire pairs with the Release below: what the last holder wrote is seen.
        while self.0.swap(true, Ordering::Acquire) {
            backend.relax();
        }
    }

    pub fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
}
