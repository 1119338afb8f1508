//! The dispositions of signals: stands for libc's `__libc_sigaction`, where `sigaction`, `signal`, `sigset`,
//! `siginterrupt` and libc's own calls arrive.
//!
//! ```text
//!  the target's view        the kernel's view
//!  SIG_DFL, ending signal   fatal_entry          the last work, then the native end (see `fatal`)
//!  SIG_DFL, other signal    SIG_DFL
//!  SIG_IGN                  SIG_IGN
//!  a function               delivery_entry       saves what an interrupted check has spilled, then the function
//!  anything, for signal 33  leaks::stop          stops the thread or searches, else libc's function
//! ```
//!
//! Invariants:
//! - The kernel is asked first. An action there that is none of our entries (set by a raw system call, or reset
//!   by the kernel) is the truth, whatever the table says.
//! - The table is changed with all signals blocked and `LOCK` held; a handler reads it without the lock and may
//!   see the action before or after the change, as it may natively.
//! - In a child of vfork, which shares the table with its parent, actions go to the kernel as they are.

use core::{
    arch::global_asm,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use memcheck_wire::STOP_SIGNAL;

use super::{
    check_fault,
    fatal::{self, Context},
};
use crate::{
    channel, leaks,
    sys::{
        Errno,
        signal::{self, Action},
    },
};

/// Signal numbers go to 64.
pub const SIGNALS: usize = 64;

/// The default action.
const SIG_DFL: u64 = 0;
/// The signal is ignored.
const SIG_IGN: u64 = 1;

/// The handler takes three arguments.
const SA_SIGINFO: u64 = 4;
/// The handler runs on the alternate stack.
const SA_ONSTACK: u64 = 0x0800_0000;
/// The handler runs once.
const SA_RESETHAND: u64 = 0x8000_0000;
/// The action names a restorer.
pub const SA_RESTORER: u64 = 0x0400_0000;

/// The signals whose default action is preceded by a report or the last work, because it ends the process: SIGHUP,
/// SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM,
/// SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGSYS.
const ENDING: [i32; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 29, 31];

/// SIGILL, SIGBUS, SIGFPE, SIGSEGV: what an instruction itself raises.
const FAULTS: [i32; 4] = [4, 7, 8, 11];

/// What the target set, where the kernel has one of our entries.
struct Disposition {
    handler: AtomicU64,
    flags: AtomicU64,
    mask: AtomicU64,
    restorer: AtomicU64,
}

static TABLE: [Disposition; SIGNALS + 1] = [const {
    Disposition {
        handler: AtomicU64::new(SIG_DFL),
        flags: AtomicU64::new(0),
        mask: AtomicU64::new(0),
        restorer: AtomicU64::new(0),
    }
}; SIGNALS + 1];

/// Held while the table and the kernel are brought in line.
static LOCK: AtomicBool = AtomicBool::new(false);
/// Whether `begin` has run: before, actions go to the kernel as they are.
static WATCHING: AtomicBool = AtomicBool::new(false);

global_asm!(
    // The kernel's restorer protocol (signal(7), "sigreturn"): the very bytes by which unwinders and debuggers
    // know a signal frame, with what others go by: where in the ucontext_t, at the stack pointer, each register is
    // (DW_CFA_expression REGISTER: DW_OP_breg7 OFFSET; the CFA is what the one of the stack pointer holds).
    ".p2align 4",
    ".cfi_startproc",
    ".cfi_signal_frame",
    ".macro memcheck_saved register, offset",
    ".cfi_escape 0x10, \\register, 3, 0x77, 0x80 | (\\offset & 0x7f), \\offset >> 7",
    ".endm",
    ".cfi_escape 0x0f, 4, 0x77, 0x80 | (160 & 0x7f), 160 >> 7, 0x06",
    "memcheck_saved 0, 144", // rax
    "memcheck_saved 1, 136", // rdx
    "memcheck_saved 2, 152", // rcx
    "memcheck_saved 3, 128", // rbx
    "memcheck_saved 4, 112", // rsi
    "memcheck_saved 5, 104", // rdi
    "memcheck_saved 6, 120", // rbp
    "memcheck_saved 7, 160", // rsp
    "memcheck_saved 8, 40",  // r8 …
    "memcheck_saved 9, 48",
    "memcheck_saved 10, 56",
    "memcheck_saved 11, 64",
    "memcheck_saved 12, 72",
    "memcheck_saved 13, 80",
    "memcheck_saved 14, 88",
    "memcheck_saved 15, 96",  // … r15
    "memcheck_saved 16, 168", // rip
    "nop",                    // unwinders look up the byte before a return address
    ".globl memcheck_signal_restorer",
    ".hidden memcheck_signal_restorer",
    ".type memcheck_signal_restorer,@function",
    "memcheck_signal_restorer:",
    "mov rax, 15",
    "syscall",
    ".cfi_endproc",
    ".size memcheck_signal_restorer, .-memcheck_signal_restorer",
);

unsafe extern "C" {
    fn memcheck_signal_restorer();
}

/// Where handlers return to.
pub fn restorer() -> u64 {
    memcheck_signal_restorer as *const () as u64
}

impl Disposition {
    fn load(&self) -> Action {
        Action {
            // Acquire pairs with the Release in `store`: the rest belongs to this handler or a later one.
            handler: self.handler.load(Ordering::Acquire),
            flags: self.flags.load(Ordering::Relaxed),
            restorer: self.restorer.load(Ordering::Relaxed),
            mask: self.mask.load(Ordering::Relaxed),
        }
    }

    fn store(&self, action: &Action) {
        self.flags.store(action.flags, Ordering::Relaxed);
        self.restorer.store(action.restorer, Ordering::Relaxed);
        self.mask.store(action.mask, Ordering::Relaxed);
        self.handler.store(action.handler, Ordering::Release);
    }
}

fn fatal_entry() -> u64 {
    fatal::on_signal as *const () as u64
}

fn delivery_entry() -> u64 {
    deliver as *const () as u64
}

fn is_ending(number: i32) -> bool {
    ENDING.contains(&number)
}

/// What the kernel is told when the target wants `wanted`.
fn kernel_action(number: i32, wanted: &Action) -> Action {
    match wanted.handler {
        _ if number == STOP_SIGNAL => leaks::stop_action(),
        SIG_DFL if is_ending(number) => Action {
            handler: fatal_entry(),
            flags: SA_SIGINFO | SA_ONSTACK | SA_RESTORER,
            restorer: restorer(),
            mask: u64::MAX,
        },
        SIG_DFL | SIG_IGN => *wanted,
        _ => {
            let on_stack = if super::alt_stack::target_has_one() { SA_ONSTACK } else { 0 };
            Action {
                handler: delivery_entry(),
                // SA_RESETHAND is `deliver`'s business: the kernel's reset would take our entry away.
                flags: (wanted.flags & !(SA_ONSTACK | SA_RESETHAND) | (wanted.flags & on_stack) | SA_SIGINFO)
                    | SA_RESTORER,
                restorer: restorer(),
                mask: wanted.mask,
            }
        }
    }
}

/// What the target set, given what the kernel has.
fn target_action(number: i32, kernel: &Action) -> Action {
    let is_ours = [fatal_entry(), delivery_entry(), leaks::stop_action().handler].contains(&kernel.handler);
    if is_ours { TABLE[number as usize].load() } else { *kernel }
}

/// What the target, which for an internal signal is libc, set while the kernel has our entry.
pub fn wanted(number: i32) -> Action {
    TABLE[number as usize].load()
}

/// Takes the ending signals that have their default action, and libc's internal one. Call it once, before the
/// target's code runs.
pub fn begin() {
    if let Ok(action) = signal::action(STOP_SIGNAL, None) {
        TABLE[STOP_SIGNAL as usize].store(&action);
        let _ = signal::action(STOP_SIGNAL, Some(&leaks::stop_action()));
    }
    for number in ENDING {
        let Ok(action) = signal::action(number, None) else { continue };
        if action.handler == SIG_DFL {
            TABLE[number as usize].store(&action);
            let _ = signal::action(number, Some(&kernel_action(number, &action)));
        }
    }
    WATCHING.store(true, Ordering::Release);
}

/// rt_sigaction(2) as the target would see it without us.
pub fn set(number: i32, new: Option<&Action>) -> Result<Action, Errno> {
    let is_plain = !WATCHING.load(Ordering::Acquire) || !(1..=SIGNALS as i32).contains(&number);
    if is_plain || channel::is_vfork_child() {
        // A child of vfork that reads one of our entries would take it for the target's.
        let new = new.copied();
        return signal::action(number, new.as_ref()).map(|kernel| {
            if (1..=SIGNALS as i32).contains(&number) { target_action(number, &kernel) } else { kernel }
        });
    }
    let mask = signal::set_mask(u64::MAX);
    // Acquire and Release make the table's changes a sequence.
    while LOCK.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let result = signal::action(number, None).and_then(|kernel| {
        let old = target_action(number, &kernel);
        if let Some(new) = new {
            // SIGKILL and SIGSTOP fail here, before the table changes.
            let entry = &TABLE[number as usize];
            let saved = entry.load();
            entry.store(new);
            if let Err(errno) = signal::action(number, Some(&kernel_action(number, new))) {
                entry.store(&saved);
                return Err(errno);
            }
        }
        Ok(old)
    });
    LOCK.store(false, Ordering::Release);
    signal::set_mask(mask);
    result
}

/// The target has an alternate stack now: handlers that asked to run on it, may.
pub fn alt_stack_appeared() {
    for number in 1..=SIGNALS as i32 {
        let Ok(kernel) = signal::action(number, None) else { continue };
        let wanted = TABLE[number as usize].load();
        if kernel.handler == delivery_entry()
            && wanted.flags & SA_ONSTACK != 0
            && kernel.flags & SA_ONSTACK == 0
            && !channel::is_vfork_child()
        {
            let _ = signal::action(number, Some(&kernel_action(number, &wanted)));
        }
    }
}

/// Makes the next occurrence of the signal take its default action, ours aside.
pub fn restore_default(number: i32) {
    let _ = signal::action(number, Some(&Action::default()));
}

/// What the kernel calls for every handler of the target.
extern "C" fn deliver(number: i32, info: u64, context: u64) {
    let interrupted = Context::new(context);
    if check_fault::pass(number, fatal::code_of(info), interrupted) {
        return;
    }
    let entry = &TABLE[number as usize];
    let action = entry.load();
    if action.flags & SA_RESETHAND != 0 {
        // As the kernel does it (signal(7)): the default, flags and mask as they were.
        let reset = Action { handler: SIG_DFL, ..action };
        entry.handler.store(SIG_DFL, Ordering::Release);
        let _ = signal::action(number, Some(&kernel_action(number, &reset)));
    }
    match action.handler {
        SIG_DFL => fatal::die(number, info),
        SIG_IGN => {}
        handler => {
            let steps = if FAULTS.contains(&number) { None } else { interrupted.take_steps_back() };
            let kept = super::parts::enter_handler();
            // SAFETY: the target set this address as the handler of this signal; both kinds of handlers take
            // these arguments or ignore those they do not know (psABI 3.2.3).
            let handler: extern "C" fn(i32, u64, u64) = unsafe { core::mem::transmute(handler) };
            handler(number, info, context);
            super::parts::leave_handler(kept);
            if let Some(steps) = steps {
                interrupted.redo_steps(steps);
            }
        }
    }
}
