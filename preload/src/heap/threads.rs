//! Which cache a thread works on, and what becomes of it.
//!
//! Every thread that allocates has a [`ThreadHeap`], in a list that only grows. One whose thread is dead (its tid
//! names no thread of this process) is taken over, with all that is in it, by a new thread. A fork leaves a
//! child with the caches of threads that it does not have, perhaps half copied: those are never used again.
//!
//! A signal handler may interrupt its thread while that is busy with its cache; it then works on a fresh cache for
//! one call. The same does who gets no memory for a cache.

use core::{
    cell::{Cell, UnsafeCell},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering, compiler_fence},
};

use memcheck_heap::{Heap, Late, Statistics, ThreadCache};
use memcheck_model::ThreadId;
use memcheck_stack::Trail;

use super::memory::Memory;
use crate::{
    sys::{self, process, signal},
    thread,
};

/// The owner of a cache that is never used again.
const ABANDONED: u32 = u32::MAX;
/// How many old caches a new thread looks at before it makes a new one.
const LOOKS: usize = 64;

/// One thread's part of the heap.
pub struct ThreadHeap {
    next: Cell<Option<&'static ThreadHeap>>,
    /// The thread that it belongs to.
    owner: AtomicU32,
    /// The process that thread is of.
    pid: AtomicU32,
    /// Whether the thread is in the middle of something.
    busy: Cell<bool>,
    cache: UnsafeCell<ThreadCache>,
    /// What the last walk of the thread's stack saw.
    pub trail: Trail,
}

/// Whether this process was forked from one with other threads: chunks that those were busy with may be half
/// changed, and will stay so.
static MAY_HOLD_HALVES: AtomicBool = AtomicBool::new(false);

/// The thread that attached itself first.
static FIRST: AtomicU32 = AtomicU32::new(0);

static ALL: AtomicPtr<ThreadHeap> = AtomicPtr::new(core::ptr::null_mut());

fn all() -> impl Iterator<Item = &'static ThreadHeap> {
    // SAFETY: null, or a `ThreadHeap` that `attach` published with Release and nobody unmaps; `next` does not
    // change after that.
    let mut at = unsafe { ALL.load(Ordering::Acquire).as_ref() };
    core::iter::from_fn(move || {
        let here = at?;
        at = here.next.get();
        Some(here)
    })
}

/// The calling thread's cache, for the time of one call.
pub struct HeldCache(&'static ThreadHeap);

impl HeldCache {
    /// Takes it. A thread that is busy with its own, or gets none, works [`with_passing_cache`].
    #[inline]
    pub fn take(heap: &Heap<'_>) -> Option<Self> {
        let own = thread::current().heap.get().or_else(|| attach(heap)).filter(|own| !own.busy.get())?;
        own.busy.set(true);
        // A handler on this thread sees `busy` before anything of the cache changes, and after.
        compiler_fence(Ordering::SeqCst);
        Some(Self(own))
    }

    #[inline]
    pub fn get(&mut self) -> &mut ThreadCache {
        // SAFETY: only its thread gets here, and `busy` keeps that thread's handlers out.
        unsafe { &mut *self.0.cache.get() }
    }
}

impl Drop for HeldCache {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.0.busy.set(false);
    }
}

/// Works on a cache that is made for one call.
#[cold]
#[inline(never)]
pub fn with_passing_cache<T>(heap: &'static Heap<'static>, action: impl FnOnce(&mut ThreadCache) -> T) -> T {
    // It may be a second thread, too, that got none of its own.
    heap.share();
    let mut cache = ThreadCache::new(thread::id());
    let result = action(&mut cache);
    // What comes to light here has no call to be told with.
    heap.retire(&mut cache, &Memory, &mut |_: &Late| {});
    result
}

/// Finds the calling thread a cache, and makes it its own.
#[cold]
fn attach(heap: &Heap<'_>) -> Option<&'static ThreadHeap> {
    let mask = signal::set_mask(u64::MAX);
    let (tid, pid) = (thread::id().0, process::pid());
    let adopted = all().take(LOOKS).find(|old| old.try_adopt(tid, pid));
    let own = adopted.or_else(|| create(tid, pid));
    thread::current().heap.set(own);
    if FIRST.compare_exchange(0, tid, Ordering::Relaxed, Ordering::Relaxed).is_err_and(|first| first != tid) {
        heap.share();
    }
    signal::set_mask(mask);
    own
}

impl ThreadHeap {
    /// Makes the cache of a thread that is dead this thread's.
    fn try_adopt(&self, tid: u32, pid: u32) -> bool {
        let owner = self.owner.load(Ordering::Acquire);
        if owner == ABANDONED || self.pid.load(Ordering::Relaxed) != pid || self.busy.get() {
            return false;
        }
        // A tid that is this thread's own was another's, which is dead.
        if (owner != tid && process::is_thread(owner))
            || self.owner.compare_exchange(owner, tid, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return false;
        }
        // SAFETY: the owner is dead, and the exchange made this thread the next.
        unsafe { &mut *self.cache.get() }.set_tid(ThreadId(tid));
        true
    }
}

fn create(tid: u32, pid: u32) -> Option<&'static ThreadHeap> {
    let memory = sys::map_anonymous(size_of::<ThreadHeap>())?.cast::<ThreadHeap>();
    // SAFETY: fresh zeroed memory, page-aligned and large enough: zeros are a `ThreadHeap` but for these fields, as they
    // are an empty trail. Made where it stays, because the thread's stack may have little room.
    let made = unsafe {
        (&raw mut (*memory).owner).write(AtomicU32::new(tid));
        (&raw mut (*memory).pid).write(AtomicU32::new(pid));
        (&raw mut (*memory).cache).write(UnsafeCell::new(ThreadCache::new(ThreadId(tid))));
        &*memory
    };
    let mut first = ALL.load(Ordering::Acquire);
    loop {
        // SAFETY: as in `all`.
        made.next.set(unsafe { first.as_ref() });
        match ALL.compare_exchange_weak(first, memory, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(made),
            Err(other) => first = other,
        }
    }
}

/// What all threads did. Counts of threads that run are read as they are.
pub fn statistics(heap: &Heap<'_>) -> Statistics {
    let mut sums = heap.retired_statistics();
    for each in all() {
        // SAFETY: only the statistics are looked at, which are atomics.
        sums.add(unsafe { &(*each.cache.get()).statistics });
    }
    sums
}

/// Whether everything in the heap is as some thread meant to leave it.
pub fn is_sound() -> bool {
    !MAY_HOLD_HALVES.load(Ordering::Relaxed)
}

/// The calling thread is about to fork, with signals blocked: nobody shall be in the middle of something that is shared.
pub fn before_fork(heap: &'static Heap<'static>) {
    heap.lock_for_fork(&Memory, thread::id());
}

/// It has forked.
pub fn after_fork_in_parent(heap: &'static Heap<'static>) {
    heap.unlock_after_fork();
}

/// It is the only thread of a new process.
pub fn after_fork_in_child(heap: &'static Heap<'static>) {
    heap.unlock_after_fork();
    heap.forget_sweep();
    let (tid, pid) = (thread::id().0, process::pid());
    let own = thread::current().heap.get();
    for each in all() {
        if own.is_some_and(|own| core::ptr::eq(own, each)) {
            each.owner.store(tid, Ordering::Relaxed);
            each.pid.store(pid, Ordering::Relaxed);
            // SAFETY: this thread's own cache; it is forking, not allocating.
            unsafe { &mut *each.cache.get() }.set_tid(ThreadId(tid));
        } else if each.owner.swap(ABANDONED, Ordering::Relaxed) != ABANDONED {
            MAY_HOLD_HALVES.store(true, Ordering::Relaxed);
        }
    }
}
