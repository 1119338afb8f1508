//! The rewriting engine's hold on the running target: shadow memory, code memory, translation on first call,
//! and what emitted code calls when a check fails.

/// Assembly that moves `rsp` to an aligned place below, keeps it in `rbx`, and saves there the vector registers that a
/// call may change (psABI 3.2.1).
macro_rules! save_vectors {
    () => {
        concat!(
            "mov rbx, rsp\n",
            "and rsp, -16\n",
            "sub rsp, 256\n",
            ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
            "movaps [rsp + 16*\\number], xmm\\number\n",
            ".endr",
        )
    };
}

/// Assembly that undoes `save_vectors`.
macro_rules! restore_vectors {
    () => {
        concat!(
            ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
            "movaps xmm\\number, [rsp + 16*\\number]\n",
            ".endr\n",
            "mov rsp, rbx",
        )
    };
}

/// Hands the first two arguments of a function that is about to be entered to `$body`, to be changed; all else stays.
macro_rules! hook {
    ($name:ident => $body:path) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                concat!(
                    ".irp register, rax, rcx, rdx, r8, r9, r10, rbx, rsi, rdi\n",
                    "push \\register\n",
                    ".endr\n",
                    "mov rdi, rsp\n",
                    save_vectors!(),
                    "\ncall {body}\n",
                    restore_vectors!(),
                    "\n.irp register, rdi, rsi, rbx, r10, r9, r8, rdx, rcx, rax\n",
                    "pop \\register\n",
                    ".endr\n",
                    "ret",
                ),
                body = sym $body,
            )
        }
    };
}

pub mod callers;
mod code_filter;
pub mod code_memory;
pub mod confinement;
pub mod fronts;
pub mod gate;
pub mod image;
pub mod install;
mod landings;
pub mod native;
mod nongnu_unwinder;
mod own_frames;
mod own_unwinder;
pub mod pristine;
pub mod requests;
pub mod shadow_map;
pub mod slow_path;
mod stands;
mod symbol_section;
pub mod syscalls;
pub mod unwinding;
mod watched;

use core::{
    cell::Cell,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memcheck_rewrite::{SPILL_SLOTS, SkipReason};
use memcheck_syscalls::find_call;
use memcheck_wire::{Counter, Notice, NoticeKind, Record};

use crate::{channel, thread};

const REASONS: [SkipReason; 8] = [
    SkipReason::Undecodable,
    SkipReason::JumpIntoInstruction,
    SkipReason::CallNext,
    SkipReason::Transaction,
    SkipReason::OutOfReach,
    SkipReason::Unsuitable,
    SkipReason::JumpIntoPatch,
    SkipReason::OwnFrames,
];
/// How many functions stayed native for each reason, and last for want of code memory.
static NATIVE: [AtomicU64; REASONS.len() + 1] = [const { AtomicU64::new(0) }; REASONS.len() + 1];

/// What the engine counted in this process and, before it was forked, in its parents.
static COVERAGE: [AtomicU64; Counter::ALL.len()] = [const { AtomicU64::new(0) }; Counter::ALL.len()];

fn count(counter: Counter, amount: u64) {
    COVERAGE[counter as usize].fetch_add(amount, Ordering::Relaxed);
    channel::counter(counter).fetch_add(amount, Ordering::Relaxed);
}

/// A forked child has the copies of its parent: they count for its coverage too.
pub fn after_fork_in_child() {
    for (&counter, count) in Counter::ALL.iter().zip(&COVERAGE) {
        let count = count.load(Ordering::Relaxed);
        if count != 0 {
            channel::counter(counter).store(count, Ordering::Relaxed);
        }
    }
}

/// System calls that passed without a look, by number; the last is for all beyond.
static UNKNOWN_CALLS: [AtomicU32; 513] = [const { AtomicU32::new(0) }; 513];

/// A system call passes without a look at its arguments.
fn count_unknown_call(number: u64) {
    let place = UNKNOWN_CALLS.get(number as usize).unwrap_or(&UNKNOWN_CALLS[UNKNOWN_CALLS.len() - 1]);
    place.fetch_add(1, Ordering::Relaxed);
    count(Counter::SyscallsUnknown, 1);
}

fn count_native(reason: Option<SkipReason>, functions: u64, bytes: u64) {
    let place = reason.and_then(|reason| REASONS.iter().position(|&known| known == reason));
    NATIVE[place.unwrap_or(REASONS.len())].fetch_add(functions, Ordering::Relaxed);
    count(Counter::FunctionsNative, functions);
    count(Counter::TextBytesNative, bytes);
}

/// Tells the launcher why functions stayed native, and which system calls passed without a look.
pub fn report_coverage() {
    for (place, count) in NATIVE.iter().enumerate() {
        let count = count.load(Ordering::Relaxed);
        if count == 0 {
            continue;
        }
        match REASONS.get(place) {
            Some(reason) => tell(NoticeKind::Coverage, format_args!("{count} {reason}")),
            None => tell(NoticeKind::Coverage, format_args!("{count} no room for code")),
        }
    }
    for (number, count) in UNKNOWN_CALLS.iter().enumerate() {
        let count = count.load(Ordering::Relaxed);
        if count == 0 {
            continue;
        }
        match find_call(number as u64) {
            Some(call) => tell(NoticeKind::UnknownCall, format_args!("{count} {}", call.name)),
            None if number + 1 == UNKNOWN_CALLS.len() => {
                tell(NoticeKind::UnknownCall, format_args!("{count} syscalls from {number} on"));
            }
            None => tell(NoticeKind::UnknownCall, format_args!("{count} syscall {number}")),
        }
    }
}

fn tell(kind: NoticeKind, what: core::fmt::Arguments<'_>) {
    let mut text = TextBuffer::default();
    let _ = core::fmt::write(&mut text, what);
    channel::send(&Record::Notice(Notice { kind, text: &text.bytes[..text.len] }));
}

/// A short text, cut when it does not fit.
struct TextBuffer {
    bytes: [u8; 128],
    len: usize,
}

impl Default for TextBuffer {
    fn default() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }
}

impl core::fmt::Write for TextBuffer {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for (to, &byte) in self.bytes[self.len..].iter_mut().zip(text.as_bytes()) {
            *to = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// What a check may have put aside when a signal came; a handler that runs checks of its own must not change it.
pub struct Spilled([u64; SPILL_SLOTS]);

/// No check is at work in this thread: what earlier ones put aside is of no use any more.
pub fn forget_spill() {
    restore_spill(&Spilled([0; SPILL_SLOTS]));
}

/// A handler of the target is about to run.
pub fn save_spill() -> Spilled {
    Spilled(thread::current().spill.each_ref().map(Cell::get))
}

/// It returned.
pub fn restore_spill(spilled: &Spilled) {
    for (slot, &word) in thread::current().spill.iter().zip(&spilled.0) {
        slot.set(word);
    }
}
