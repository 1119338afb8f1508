//! Stopping every other thread of the process, and where each then stands.
//!
//! ```text
//!  stopper                                  other thread
//!  list /proc/self/task
//!  slot: tid, ASKED; tgkill(STOP_SIGNAL) ─▶ on_signal: context, thread pointer; HELD
//!  until no new thread appears    ◀──────── wakes ARRIVED, sleeps on RELEASED
//!  … searches …
//!  RELEASED += 1 ─────────────────────────▶ goes on as if nothing had happened
//! ```
//!
//! The signal is 33, which libc keeps for setuid and its kin: a program cannot block it or take it through libc.
//! Its own use goes on: ours bears a note with the stop that it is for (the number of releases before it), and what
//! bears none goes to libc's handler. A thread that was adopted takes its signal later, when it wakes, perhaps after
//! the stop: then it just goes on.
//!
//! A system call that was interrupted starts again (see `restart`).
//!
//! A thread that sleeps in the kernel with all signals blocked (raw system calls, a parent in vfork) is taken as
//! /proc shows it: its stack pointer is known, its callee-saved registers are not.
//!
//! Invariants: one stopper at a time; a slot's thread alone moves it from ASKED to HELD and from there on; no thread
//! waits for the release of a stop that is over; the slots are never unmapped. `on_signal` allocates nothing and takes
//! no lock.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{restart::restart, task};
use memcheck_wire::STOP_SIGNAL;

use crate::{
    lifecycle::{
        fatal::{Context, code_of},
        signals,
    },
    sys::{
        self, Errno, futex, process,
        signal::{self, Action},
    },
    thread,
};

/// The signal as a bit of a mask.
pub const STOP_MASK: u64 = 1 << (STOP_SIGNAL - 1);

const SA_SIGINFO: u64 = 4;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_RESTART: u64 = 0x1000_0000;

/// More threads than Linux allows a process by default.
const MOST_THREADS: usize = 1 << 17;
/// After this long a thread that sleeps with the signal blocked is taken as it is.
const PATIENCE_MS: u64 = 300;
/// After this long a thread that runs and never answers ends the attempt: the machine may be busy, but not so.
const DESPAIR_MS: u64 = 20_000;
const STEP_MS: u64 = 5;

/// The `si_code` of a signal that tgkill(2) sent.
const SI_TKILL: i32 = -6;
/// There is no such thread.
const ESRCH: Errno = Errno(3);

const ASKED: u32 = 1;
const HELD: u32 = 2;
/// Ended before it stopped.
const GONE: u32 = 3;
/// Taken as /proc shows it.
const ADOPTED: u32 = 4;
const GOES_ON: u32 = 5;

/// One thread that was asked to stop.
struct Slot {
    tid: AtomicU32,
    state: AtomicU32,
    /// HELD: its `ucontext_t`.
    context: AtomicU64,
    thread_pointer: AtomicU64,
    /// ADOPTED: its stack pointer.
    rsp: AtomicU64,
}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(core::ptr::null_mut());
static USED: AtomicUsize = AtomicUsize::new(0);
/// Counts threads that stopped: the stopper sleeps on it.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// Counts releases: stopped threads sleep on it.
static RELEASED: AtomicU32 = AtomicU32::new(0);
/// What libc had for the signal, where its actions are not led to `signals`.
static CHAINED: AtomicU64 = AtomicU64::new(0);

/// Where a stopped thread stands.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// Its id.
    pub tid: u32,
    /// Where it goes on, or zero when that is not known.
    pub pc: u64,
    /// Its stack pointer.
    pub rsp: u64,
    /// Its thread pointer, or zero when it is not known.
    pub thread_pointer: u64,
    /// Its `ucontext_t`, or zero when only /proc told.
    pub context: u64,
}

/// Why the threads cannot be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// /proc/self/task cannot be read.
    NoTaskList,
    /// No memory for the slots, or more threads than they hold.
    NoMemory,
    /// This thread cannot be sent a signal.
    OutOfReach(u32),
    /// This thread does not answer.
    Deaf(u32),
}

/// The other threads, stopped until this is dropped.
pub struct Stopped {
    /// Where each stands.
    pub stands: Vec<Stand>,
    before: Action,
}

fn slots() -> &'static [Slot] {
    let first = SLOTS.load(Ordering::Acquire);
    if first.is_null() {
        return &[];
    }
    // SAFETY: `stop` mapped room for MOST_THREADS zeroed slots of atomics and never unmaps it.
    let all = unsafe { core::slice::from_raw_parts(first.cast_const(), MOST_THREADS) };
    &all[..USED.load(Ordering::Acquire).min(MOST_THREADS)]
}

/// The kernel's action for the signal, always where the target's actions are led to `signals`, else while threads
/// are stopped.
pub fn action() -> Action {
    Action {
        handler: on_signal as *const () as u64,
        flags: SA_SIGINFO | SA_ONSTACK | SA_RESTART | signals::SA_RESTORER,
        restorer: signals::restorer(),
        mask: u64::MAX,
    }
}

/// Stops every other thread.
pub fn stop() -> Result<Stopped, Trouble> {
    if SLOTS.load(Ordering::Relaxed).is_null() {
        let memory = sys::map_anonymous(MOST_THREADS * size_of::<Slot>()).ok_or(Trouble::NoMemory)?;
        SLOTS.store(memory.cast(), Ordering::Release);
    }
    USED.store(0, Ordering::Release);
    let before = signal::action(STOP_SIGNAL, None).unwrap_or_default();
    if before.handler != action().handler {
        CHAINED.store(before.handler, Ordering::Release);
    }
    let _ = signal::action(STOP_SIGNAL, Some(&action()));
    // From here on dropping lets go of whoever stopped.
    let mut stopped = Stopped { stands: Vec::new(), before };
    ask_all()?;
    for slot in slots() {
        let context = slot.context.load(Ordering::Relaxed);
        let (pc, rsp) = match slot.state.load(Ordering::Acquire) {
            HELD => (Context::new(context).rip(), Context::new(context).rsp()),
            ADOPTED => (0, slot.rsp.load(Ordering::Relaxed)),
            _ => continue,
        };
        stopped.stands.push(Stand {
            tid: slot.tid.load(Ordering::Relaxed),
            pc,
            rsp,
            thread_pointer: slot.thread_pointer.load(Ordering::Relaxed),
            context,
        });
    }
    Ok(stopped)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `on_signal`: it may go on to what the search left.
        RELEASED.fetch_add(1, Ordering::Release);
        futex::wake_all(&RELEASED);
        for _ in 0..DESPAIR_MS / STEP_MS {
            if !slots().iter().any(|slot| slot.state.load(Ordering::Acquire) == HELD) {
                break;
            }
            futex::wait(&ARRIVED, ARRIVED.load(Ordering::Relaxed), STEP_MS);
        }
        let _ = signal::action(STOP_SIGNAL, Some(&self.before));
    }
}

/// Asks threads to stop until a look at the list shows no new one.
fn ask_all() -> Result<(), Trouble> {
    let (pid, own) = (process::pid(), process::tid());
    loop {
        let mut asked_any = false;
        let mut crowded = false;
        let mut out_of_reach = None;
        let listed = task::for_each_thread(|tid| {
            let known = |slot: &Slot| slot.tid.load(Ordering::Relaxed) == tid;
            if tid == own || slots().iter().any(known) {
                return;
            }
            let used = USED.load(Ordering::Relaxed);
            if used >= MOST_THREADS {
                crowded = true;
                return;
            }
            USED.store(used + 1, Ordering::Release);
            let slot = &slots()[used];
            slot.tid.store(tid, Ordering::Relaxed);
            slot.context.store(0, Ordering::Relaxed);
            slot.thread_pointer.store(0, Ordering::Relaxed);
            slot.state.store(ASKED, Ordering::Release);
            match Note::send(pid, tid) {
                Ok(()) => {}
                Err(ESRCH) => slot.state.store(GONE, Ordering::Relaxed),
                Err(_) => out_of_reach = Some(tid),
            }
            asked_any = true;
        });
        if !listed {
            return Err(Trouble::NoTaskList);
        }
        if let Some(tid) = out_of_reach {
            return Err(Trouble::OutOfReach(tid));
        }
        if crowded {
            return Err(Trouble::NoMemory);
        }
        await_all()?;
        if !asked_any {
            return Ok(());
        }
    }
}

/// Waits until every thread that was asked stands still.
fn await_all() -> Result<(), Trouble> {
    let mut waited_ms = 0;
    loop {
        let arrived = ARRIVED.load(Ordering::Acquire);
        let mut missing = None;
        for slot in slots().iter().filter(|slot| slot.state.load(Ordering::Acquire) == ASKED) {
            let tid = slot.tid.load(Ordering::Relaxed);
            if waited_ms > 0 && task::has_ended(tid) {
                slot.state.store(GONE, Ordering::Relaxed);
            } else if waited_ms >= PATIENCE_MS
                && let Some(rsp) = task::find_sleeping(tid, STOP_MASK)
            {
                slot.rsp.store(rsp, Ordering::Relaxed);
                // The signal may come after all: only one of both takes the slot.
                let _ = slot.state.compare_exchange(ASKED, ADOPTED, Ordering::AcqRel, Ordering::Relaxed);
            } else {
                missing = Some(tid);
            }
        }
        match missing {
            None => return Ok(()),
            Some(tid) if waited_ms >= DESPAIR_MS => return Err(Trouble::Deaf(tid)),
            Some(_) => futex::wait(&ARRIVED, arrived, STEP_MS),
        }
        waited_ms += STEP_MS;
    }
}

/// The `siginfo_t` of our signals (sigaction(2)).
#[repr(C)]
struct Note {
    number: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: u32,
    uid: u32,
    mark: u32,
    /// `RELEASED` when it was sent.
    releases: u32,
    rest: [u64; 12],
}

impl Note {
    /// `SI_QUEUE`, which libc does not take for its own.
    const CODE: i32 = -1;
    const MARK: u32 = 0x6d63_7374;

    /// Asks a thread to stop.
    fn send(pid: u32, tid: u32) -> Result<(), Errno> {
        let note = Self {
            number: STOP_SIGNAL,
            errno: 0,
            code: Self::CODE,
            padding: 0,
            pid,
            uid: 0,
            mark: Self::MARK,
            releases: RELEASED.load(Ordering::Relaxed),
            rest: [0; 12],
        };
        // SAFETY: a whole siginfo_t of 128 bytes.
        unsafe { signal::queue_to_thread(pid, tid, STOP_SIGNAL, core::ptr::from_ref(&note) as u64) }
    }

    /// What the note of a signal says, if it is ours.
    fn read(info: u64) -> Option<u32> {
        // SAFETY: the kernel handed over a whole siginfo_t.
        let note = unsafe { &*(info as *const Self) };
        (note.code == Self::CODE && note.mark == Self::MARK && note.pid == process::pid())
            .then_some(note.releases)
    }
}

/// The kernel calls this in the thread that is to stop.
extern "C" fn on_signal(number: i32, info: u64, context: u64) {
    let Some(releases) = Note::read(info) else {
        // libc sends to threads, the launcher to the process: neither may take the other's.
        if code_of(info) == SI_TKILL || !super::asked::serve(context) {
            chain(number, info, context);
        }
        return;
    };
    // Acquire pairs with the Release of `Stopped`'s end: a slot of a later stop is not taken for one of this.
    if RELEASED.load(Ordering::Acquire) == releases {
        stand_still(releases, context);
    }
    restart(Context::new(context));
    let tid = process::tid();
    let own = |slot: &&Slot| slot.tid.load(Ordering::Relaxed) == tid;
    if let Some(slot) = slots().iter().find(own) {
        let _ = slot.state.compare_exchange(HELD, GOES_ON, Ordering::AcqRel, Ordering::Relaxed);
        ARRIVED.fetch_add(1, Ordering::Release);
        futex::wake_all(&ARRIVED);
    }
}

/// Waits for the end of this stop.
fn stand_still(releases: u32, context: u64) {
    let tid = process::tid();
    // What was taken of a thread that was adopted stays true only if it stands still when it wakes up after all.
    let own = slots().iter().find(|slot| {
        let state = slot.state.load(Ordering::Acquire);
        slot.tid.load(Ordering::Relaxed) == tid && (state == ASKED || state == ADOPTED)
    });
    let Some(slot) = own else { return };
    slot.context.store(context, Ordering::Relaxed);
    slot.thread_pointer.store(thread::pointer(), Ordering::Relaxed);
    // Release pairs with the stopper's Acquire: context and thread pointer are there.
    let _ = slot.state.compare_exchange(ASKED, HELD, Ordering::AcqRel, Ordering::Relaxed);
    ARRIVED.fetch_add(1, Ordering::Release);
    futex::wake_all(&ARRIVED);
    while RELEASED.load(Ordering::Acquire) == releases {
        futex::wait(&RELEASED, releases, 1000);
    }
}

/// Gives a signal that was not ours to libc's handler.
fn chain(number: i32, info: u64, context: u64) {
    let led = signals::wanted(STOP_SIGNAL).handler;
    let handler = if led > 1 { led } else { CHAINED.load(Ordering::Acquire) };
    if handler > 1 {
        // SAFETY: libc set this address as the handler of this signal, with SA_SIGINFO.
        let handler: extern "C" fn(i32, u64, u64) = unsafe { core::mem::transmute(handler) };
        handler(number, info, context);
    }
}
