//! The descriptors of the process: where each was opened and closed, and which are left at the end (`--track-fds`).
//!
//! In: system calls that were made, as the engine's hook meets them. Out: error events. Without the engine no call is
//! seen: then only what is open at the end and was not at the start is told, without stacks.
//!
//! What is said to be wrong was refused by the kernel (EBADF), and what is said to be open is open: calls that are
//! not seen can hide an error, not make one. Children of vfork change their own descriptors: they are passed by.

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicBool, Ordering};

use memcheck_model::{Addr, Detail, ErrorEvent, ErrorKind, FileName, MAX_FRAMES, Pc, Place, StackId};
use memcheck_stack::Registers;
use memcheck_syscalls::{Effect, Request, effect_of};
use memcheck_wire::{Counter, TrackFds};

use crate::{
    account::Account,
    channel,
    engine::gate,
    stacks,
    sys::{
        file::{self, File},
        memory, process,
    },
    thread,
};

/// Something that happened to a descriptor.
#[derive(Clone, Copy)]
struct Deed {
    stack: StackId,
    pid: u32,
}

#[derive(Clone, Copy, Default)]
struct Known {
    opened: Option<Deed>,
    /// None while it is open, as far as is known.
    closed: Option<Deed>,
    /// Whether it was open when the program began.
    is_inherited: bool,
}

static KNOWN: Account<BTreeMap<i32, Known>> = Account::new(BTreeMap::new());
static IS_ON: AtomicBool = AtomicBool::new(false);
/// `sizeof(struct msghdr)` and `struct cmsghdr` up to their data (`SOL_SOCKET`, `SCM_RIGHTS`).
const RIGHTS: u64 = 1 << 32 | 1;
/// The standard ones are told only when all are wanted.
const FIRST_OTHER: i32 = 3;

/// Notes what is open when the program begins.
pub fn begin(track: TrackFds) {
    if track == TrackFds::No || !channel::is_watched() {
        return;
    }
    for_each_open(|descriptor| {
        KNOWN.with(|known| known.insert(descriptor, Known { is_inherited: true, ..Known::default() }));
    });
    IS_ON.store(true, Ordering::Relaxed);
}

/// The calling thread is about to fork.
pub fn before_fork() {
    KNOWN.lock();
}

/// It has forked, in either process.
pub fn after_fork() {
    KNOWN.unlock();
}

/// Calls `visit` with each descriptor that is open.
fn for_each_open(mut visit: impl FnMut(i32)) {
    let Ok(directory) = File::open(b"/proc/self/fd\0", false) else { return };
    let own = directory.number();
    directory.for_each_entry(|name| {
        let number = name.iter().try_fold(0i32, |sum, &digit| {
            sum.checked_mul(10)?.checked_add((digit as char).to_digit(10)? as i32)
        });
        if let Some(number) = number.filter(|&number| number != own && !name.is_empty()) {
            visit(number);
        }
    });
}

/// A call was made by the instruction before `registers.pc`, and gave this result.
pub fn call_was_made(request: &Request, result: u64, registers: Registers) {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    let effect = effect_of(request, result);
    if effect == Effect::None || channel::is_vfork_child() {
        return;
    }
    let here = || Deed { stack: stacks::capture_instruction_id(registers), pid: process::pid() };
    match effect {
        Effect::None => {}
        Effect::Opened(descriptor) => opened(&[descriptor], here()),
        Effect::OpenedPair(at) => {
            if let Some(pair) = memory::try_read(at.0) {
                opened(&[pair as i32, (pair >> 32) as i32], here());
            }
        }
        Effect::Received(message) => received(message, here()),
        Effect::Closed(descriptor) => closed(descriptor..=descriptor, here()),
        Effect::ClosedRange(first, last) => {
            let most = i32::MAX.cast_unsigned();
            closed(first.min(most) as i32..=last.min(most) as i32, here());
        }
        Effect::NotClosed(descriptor) => {
            refused(ErrorKind::FdDoubleClose, descriptor, registers);
        }
        Effect::NotOpen([first, second]) => {
            if !refused(ErrorKind::FdUseAfterClose, first, registers) && second != first {
                refused(ErrorKind::FdUseAfterClose, second, registers);
            }
        }
    }
}

fn opened(descriptors: &[i32], here: Deed) {
    KNOWN.with(|known| {
        for &descriptor in descriptors {
            known.insert(descriptor, Known { opened: Some(here), ..Known::default() });
        }
    });
}

fn closed(range: core::ops::RangeInclusive<i32>, here: Deed) {
    KNOWN.with(|known| {
        if range.start() == range.end() {
            known.entry(*range.start()).or_default();
        }
        for (_, entry) in known.range_mut(range) {
            entry.closed.get_or_insert(here);
        }
    });
}

/// The descriptors in the ancillary data of a message that was received (cmsg(3)).
fn received(message: Addr, here: Deed) {
    let word = |at: u64| memory::try_read(at);
    let (Some(control), Some(size)) = (word(message.0 + 32), word(message.0 + 40)) else { return };
    let mut at = control;
    while let (Some(length), Some(kind)) = (word(at), word(at + 8)) {
        if length < 16 || at + length > control + size {
            return;
        }
        if kind == RIGHTS {
            for index in 0..(length - 16) / 4 {
                if let Some(descriptor) = word(at + 16 + 4 * index) {
                    opened(&[descriptor as i32], here);
                }
            }
        }
        at += length.next_multiple_of(8);
        if at + 16 > control + size {
            return;
        }
    }
}

struct Refused {
    kind: ErrorKind,
    descriptor: i32,
    known: Known,
    registers: Registers,
}

/// Tells of a descriptor that the kernel refused, if it was closed before.
fn refused(kind: ErrorKind, descriptor: i32, registers: Registers) -> bool {
    let known = KNOWN.with(|known| known.get(&descriptor).copied());
    let Some(known) = known.filter(|known| known.closed.is_some()) else { return false };
    gate::REPORT.run(tell, &Refused { kind, descriptor, known, registers });
    true
}

extern "C" fn tell(refused: &Refused) {
    let mut frames = [Pc(0); MAX_FRAMES];
    let stack = stacks::capture_interrupted_in(refused.registers, &mut frames);
    report(refused.kind, refused.descriptor, Detail::None, (stack, true), refused.known);
}

fn report(kind: ErrorKind, descriptor: i32, detail: Detail, (stack, exact_top): (&[Pc], bool), known: Known) {
    let (mut opened, mut closed) = ([Pc(0); MAX_FRAMES], [Pc(0); MAX_FRAMES]);
    let id = |deed: Option<Deed>| deed.map_or(StackId::NONE, |deed| deed.stack);
    let opened = stacks::frames_in(id(known.opened), &mut opened);
    let (stack, opened) = if stack.is_empty() { (opened, stack) } else { (stack, opened) };
    channel::report(&ErrorEvent {
        kind,
        tid: thread::id(),
        function: None,
        access: None,
        address: Addr(descriptor as u64),
        place: Place::None,
        detail,
        exact_top,
        stack,
        allocated: opened,
        freed: stacks::frames_in(id(known.closed), &mut closed),
    });
}

/// The process ends: tells what is open still.
pub fn at_end() {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    let tells_all = channel::connect().track_fds == TrackFds::All;
    let (mut count, mut standard) = (0, 0);
    let pid = process::pid();
    for_each_open(|descriptor| {
        count += 1;
        let is_standard = descriptor < FIRST_OTHER;
        standard += u64::from(is_standard);
        let known = KNOWN.with(|known| known.get(&descriptor).copied()).unwrap_or_default();
        // One that was closed and is open all the same was opened unseen.
        let opened = known.opened.filter(|_| known.closed.is_none());
        let is_inherited =
            known.closed.is_none() && (known.is_inherited || opened.is_some_and(|deed| deed.pid != pid));
        if is_standard && !tells_all {
            return;
        }
        let kind = if is_inherited { ErrorKind::FdInherited } else { ErrorKind::FdLeak };
        let mut name = [0u8; 1024];
        let detail = Detail::File(FileName::new(name_in(descriptor, &mut name)));
        report(kind, descriptor, detail, (&[], false), Known { opened, closed: None, is_inherited });
    });
    channel::counter(Counter::OpenDescriptors).store(count, Ordering::Relaxed);
    channel::counter(Counter::StandardDescriptors).store(standard, Ordering::Relaxed);
    channel::counter(Counter::DescriptorsTracked).store(1, Ordering::Relaxed);
}

/// What the descriptor leads to (proc(5), `/proc/pid/fd`).
fn name_in(descriptor: i32, name: &mut [u8]) -> &[u8] {
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0";
    let mut digits = [0u8; 10];
    let (mut rest, mut first) = (descriptor.unsigned_abs(), digits.len());
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = &digits[first..];
    path[14..14 + digits.len()].copy_from_slice(digits);
    let len = file::read_link(&path, name);
    &name[..len]
}
