//! The alternate signal stacks on which a stack overflow can be told: stands for libc's `sigaltstack`, so that
//! the target sees no stack but its own.
//!
//! Invariants:
//! - What the kernel says is the truth: a thread whose alternate stack lies in the pool has none of its own.
//! - A pool entry belongs to the thread whose id it holds; it is taken over when that thread is gone.
//! - SA_ONSTACK is asked of the kernel for the target's handlers only after the target gave some thread an
//!   alternate stack (see `signals`): without, they run where they would run natively.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::sys::{
    self, Errno, process,
    signal::{self, AltStack},
};

/// `SS_ONSTACK`.
const ON_STACK: i32 = 1;
/// `SS_DISABLE`.
const DISABLE: i32 = 2;

/// A frame with the AVX-512 state takes 3.5 KiB, one with AMX tiles 11 KiB; the rest is for the handler, which
/// goes on to a larger stack at once.
const STACK_BYTES: u64 = 32 << 10;
/// How many threads can have one at a time; those beyond die of a stack overflow without a report.
const STACKS: usize = 512;
/// How many entries a new thread looks at for one whose thread is gone.
const TRIES: usize = 8;

struct PoolEntry {
    tid: AtomicU32,
    start: AtomicU64,
}

static POOL: [PoolEntry; STACKS] =
    [const { PoolEntry { tid: AtomicU32::new(0), start: AtomicU64::new(0) } }; STACKS];
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Whether the target ever set an alternate stack.
static TARGET_HAS_ONE: AtomicBool = AtomicBool::new(false);
/// Whether the target asks the kernel for its stacks itself, and must find none of the pool.
static ARE_TARGETS: AtomicBool = AtomicBool::new(false);

const NONE: AltStack = AltStack { start: 0, flags: DISABLE, size: 0 };

/// Alternate stacks are the target's business alone from now on: Go's runtime calls the kernel past libc, and ends the
/// program when a handler runs on another stack. For the process' only thread.
pub fn leave_to_target() {
    ARE_TARGETS.store(true, Ordering::Relaxed);
    TARGET_HAS_ONE.store(true, Ordering::Relaxed);
    if signal::alt_stack(None).is_ok_and(|stack| is_ours(&stack)) {
        let _ = signal::alt_stack(Some(&NONE));
    }
}

/// Whether the target's handlers may be on an alternate stack of the target's.
pub fn target_has_one() -> bool {
    TARGET_HAS_ONE.load(Ordering::Relaxed)
}

/// Gives the calling thread an alternate stack, unless it has one. For each thread once, early.
pub fn prepare_thread() {
    if !ARE_TARGETS.load(Ordering::Relaxed)
        && signal::alt_stack(None).is_ok_and(|stack| stack.flags & DISABLE != 0)
        && let Some(stack) = take(process::tid())
    {
        let _ = signal::alt_stack(Some(&stack));
    }
}

/// The child's only thread goes on with its stack under another id; the other threads are not there.
pub fn after_fork_in_child() {
    let own = signal::alt_stack(None).map_or(0, |stack| stack.start);
    for entry in &POOL {
        let is_own = own != 0 && entry.start.load(Ordering::Relaxed) == own;
        entry.tid.store(if is_own { process::tid() } else { 0 }, Ordering::Relaxed);
    }
}

/// A stack of the pool for the thread `tid`.
fn take(tid: u32) -> Option<AltStack> {
    let found = POOL.iter().find(|entry| entry.tid.load(Ordering::Relaxed) == tid).or_else(|| {
        let first = NEXT.fetch_add(1, Ordering::Relaxed);
        (0..TRIES.max(STACKS * usize::from(first < STACKS))).map(|step| &POOL[(first + step) % STACKS]).find(
            |entry| {
                let owner = entry.tid.load(Ordering::Relaxed);
                (owner == 0 || !process::is_thread(owner))
                    && entry.tid.compare_exchange(owner, tid, Ordering::Acquire, Ordering::Relaxed).is_ok()
            },
        )
    })?;
    let mut start = found.start.load(Ordering::Relaxed);
    if start == 0 {
        start = sys::map_anonymous(STACK_BYTES as usize)? as u64;
        found.start.store(start, Ordering::Relaxed);
    }
    Some(AltStack { start, flags: 0, size: STACK_BYTES })
}

fn is_ours(stack: &AltStack) -> bool {
    stack.flags & DISABLE == 0 && POOL.iter().any(|entry| entry.start.load(Ordering::Relaxed) == stack.start)
}

/// sigaltstack(2) as the target would see it without us.
///
/// # Safety
/// `new` and `old` are null or what sigaltstack(2) takes: the target's arguments.
pub unsafe fn set(new: *const AltStack, old: *mut AltStack) -> Result<(), Errno> {
    let before = signal::alt_stack(None)?;
    // SAFETY: null or valid, by the caller's word.
    if let Some(new) = unsafe { new.as_ref() } {
        let is_given_up = new.flags & DISABLE != 0 && before.flags & ON_STACK == 0;
        if is_given_up && !ARE_TARGETS.load(Ordering::Relaxed) {
            match take(process::tid()) {
                Some(ours) => signal::alt_stack(Some(&ours))?,
                None => signal::alt_stack(Some(new))?,
            };
        } else {
            signal::alt_stack(Some(new))?;
            TARGET_HAS_ONE.store(true, Ordering::Relaxed);
            super::signals::alt_stack_appeared();
        }
    }
    // SAFETY: null or valid, by the caller's word.
    if let Some(old) = unsafe { old.as_mut() } {
        *old = if is_ours(&before) { NONE } else { before };
    }
    Ok(())
}
