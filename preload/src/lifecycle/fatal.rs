//! The signals that end the process while the target has their default action: what happened is reported, the
//! last work is done, and the process dies of the same signal natively.
//!
//! A fault is made to happen again, by returning to its instruction under the default action, so that the core
//! file and the parent see the target's own fault; a signal that was sent is queued again with its `siginfo_t`.
//!
//! Runs on the thread's alternate stack (see `alt_stack`), so also when the target's stack has overflown, and
//! goes on to a stack of its own; all signals are blocked.

use memcheck_model::{Access, AccessKind, Addr, Detail, ErrorEvent, ErrorKind, Pc, Place, Size, ThreadId};
use memcheck_wire::Owner;

use super::{check_fault, end, faulting, signals, work_stack};
use crate::{
    channel,
    engine::install,
    maps,
    sys::{process, signal},
};

const SIGILL: i32 = 4;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;
const SIGTRAP: i32 = 5;
const SIGABRT: i32 = 6;
const SIGSYS: i32 = 31;

/// The signals that tell of an error of the program's; by the others it is told to end.
const TELLING: [i32; 7] = [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS];

/// `Context::register` counts so.
pub const RSP: usize = 15;
/// See `RSP`.
pub const RIP: usize = 16;

/// `SEGV_MAPERR`: nothing is mapped at the address.
const NOTHING_MAPPED: i32 = 1;
/// `SI_KERNEL`: a general protection fault, whose address the kernel does not know.
const SI_KERNEL: i32 = 0x80;
/// The kernel maps nothing below (`vm.mmap_min_addr`).
const NULL_END: u64 = 0x1_0000;

/// The parts of `ucontext_t` that are used (x86-64 psABI and `asm/sigcontext.h`), by their offsets in it.
#[derive(Clone, Copy)]
pub struct Context(*const u64);

/// The instruction and stack pointers of a context that takes steps back.
#[derive(Clone, Copy, Debug)]
pub struct StepsBack {
    found: [u64; 2],
    shown: [u64; 2],
}

impl Context {
    /// The context that the kernel handed to a handler.
    pub fn new(address: u64) -> Self {
        Self(address as *const u64)
    }

    fn word(self, index: usize) -> u64 {
        // SAFETY: the kernel handed over a whole ucontext_t, of which these are words.
        unsafe { self.0.add(index).read() }
    }

    /// The registers in the order of `asm/sigcontext.h`: r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
    pub fn register(self, index: usize) -> u64 {
        self.word(5 + index)
    }

    /// Changes a register: the thread goes on with the new value.
    pub fn set_register(self, index: usize, value: u64) {
        // SAFETY: as in `word`; the handler's own frame, which the kernel reads when the handler returns.
        unsafe { self.0.cast_mut().add(5 + index).write(value) }
    }

    /// Where a copy is about to call the shim and has moved the stack pointer for that, the context is made one of before:
    /// who looks at it, or unwinds from it, finds the target's own stack pointer.
    pub fn take_steps_back(self) -> Option<StepsBack> {
        let steps = install::find_stack_steps(self.rip())?;
        let found = [self.rip(), self.rsp()];
        let shown = [found[0] - steps.code_bytes, found[1] + steps.stack_bytes];
        self.go_on_at(shown);
        Some(StepsBack { found, shown })
    }

    /// The handler returned: unless it has the thread go on elsewhere, that goes on where it was. (With its trap flag set
    /// it would never come further.)
    pub fn redo_steps(self, steps: StepsBack) {
        if [self.rip(), self.rsp()] == steps.shown {
            self.go_on_at(steps.found);
        }
    }

    fn go_on_at(self, [rip, rsp]: [u64; 2]) {
        self.set_register(RIP, rip);
        self.set_register(RSP, rsp);
    }

    /// The interrupted thread, as it ends the process: all fifteen registers but the stack pointer.
    pub fn departure(self) -> end::Departure {
        end::Departure {
            pc: self.rip(),
            rsp: self.rsp(),
            red_zone: end::RED_ZONE,
            // SAFETY: as in `word`: the first register's address.
            registers: unsafe { self.0.add(5) } as u64,
            register_count: 15,
        }
    }

    /// The signals that the interrupted thread blocks: `uc_sigmask`, behind the 23 words of registers, a pointer
    /// and eight reserved words.
    pub fn blocked(self) -> u64 {
        self.word(37)
    }

    /// Where the floating-point and vector registers are saved, or zero.
    pub fn vector_state(self) -> u64 {
        self.word(28)
    }

    /// The stack pointer.
    pub fn rsp(self) -> u64 {
        self.register(RSP)
    }

    /// The frame pointer, or what the code uses that register for.
    pub fn rbp(self) -> u64 {
        self.register(10)
    }

    /// The instruction pointer, which may lie in a copy.
    pub fn rip(self) -> u64 {
        self.register(RIP)
    }

    /// The page fault's error code.
    fn fault_code(self) -> u64 {
        self.register(19)
    }
}

struct Signal {
    number: i32,
    info: u64,
    context: u64,
}

/// The kernel calls this.
pub extern "C" fn on_signal(number: i32, info: u64, context: u64) {
    let signal = Signal { number, info, context };
    work_stack::run(act, &signal);
}

extern "C" fn act(signal: &Signal) {
    if check_fault::pass(signal.number, code_of(signal.info), Context::new(signal.context)) {
        return;
    }
    if !channel::is_vfork_child() {
        if TELLING.contains(&signal.number) {
            report(signal);
        }
        let departure = Context::new(signal.context).departure();
        end::last_work(Owner::Dying(process::pid(), signal.number as u8), &departure);
    }
    die(signal.number, signal.info);
}

/// Arranges that the process dies of this signal as soon as the handler returns.
pub fn die(number: i32, info: u64) {
    signals::restore_default(number);
    let happens_again = matches!(number, SIGSEGV | SIGBUS | SIGFPE | SIGILL) && code_of(info) > 0;
    if !happens_again {
        // SAFETY: the kernel handed over a whole siginfo_t.
        let _ = unsafe { signal::queue_to_thread(process::pid(), process::tid(), number, info) };
    }
}

/// `si_code`.
pub fn code_of(info: u64) -> i32 {
    // SAFETY: the third int of the siginfo_t that the kernel handed over.
    unsafe { (info as *const i32).add(2).read() }
}

/// `si_addr`.
fn address_of(info: u64) -> u64 {
    // SAFETY: the third word of the siginfo_t that the kernel handed over.
    unsafe { (info as *const u64).add(2).read() }
}

fn report(signal: &Signal) {
    let context = Context::new(signal.context);
    let (number, code) = (signal.number, code_of(signal.info));
    let is_access = matches!(number, SIGSEGV | SIGBUS) && code > 0;
    let is_told = is_access && code != SI_KERNEL;
    let told = is_told.then(|| address_of(signal.info));
    // Bit 4 of the page fault's error code: an instruction fetch (Intel SDM 3A, 4.7).
    let is_fetch = is_access && is_told && (context.fault_code() & 0x10 != 0 || told == Some(context.rip()));
    let decoded = (is_access && !is_fetch).then(|| {
        // SAFETY: it was the data that could not be accessed, so the instruction was fetched.
        unsafe { faulting::find_access(context, told) }
    });
    let decoded = decoded.flatten();
    let address = told.or(decoded.map(|access| access.addr.0)).unwrap_or(0);
    let tid = ThreadId(process::tid());
    let rsp = Addr(context.rsp());
    let is_overflow = number == SIGSEGV && is_told && maps::is_stack_overflow(Addr(address), rsp);
    let described = super::parts::describe(Addr(address), rsp);
    let (kind, place) = match described.place {
        _ if is_overflow => (ErrorKind::FatalSignal, Place::Stack(tid)),
        _ if !is_access => (ErrorKind::FatalSignal, Place::None),
        _ if !is_told => {
            (ErrorKind::WildAccess, if decoded.is_some() { Place::Unmapped } else { Place::None })
        }
        _ if address < NULL_END => (ErrorKind::NullDereference, Place::NullPage),
        Place::Unmapped | Place::HeapUnused if number == SIGSEGV && code == NOTHING_MAPPED => {
            (ErrorKind::WildAccess, described.place)
        }
        place => (ErrorKind::FatalSignal, place),
    };
    // Bit 1 of the error code: a write.
    let kind_told = if context.fault_code() & 2 != 0 { AccessKind::Write } else { AccessKind::Read };
    let access = (is_access && !is_fetch && (is_told || decoded.is_some())).then(|| Access {
        kind: if is_told { kind_told } else { decoded.map_or(kind_told, |access| access.kind) },
        addr: Addr(address),
        size: decoded.map_or(Size::ZERO, |access| access.size),
    });
    let mut frames = [Pc(0); memcheck_model::MAX_FRAMES];
    let stack = super::parts::capture_context_in(&mut frames, signal.context);
    channel::report(&ErrorEvent {
        kind,
        tid,
        function: None,
        access,
        address: Addr(address),
        place,
        detail: Detail::Signal { number, code },
        exact_top: true,
        stack,
        allocated: described.allocated(),
        freed: described.freed(),
    });
}
