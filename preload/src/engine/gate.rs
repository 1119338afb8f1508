//! The two ways from emitted code into the shim, and back: to have a function translated, and to report an
//! access.
//!
//! Both are reached with the same stack, whatever the registers and flags hold:
//! ```text
//!  rsp      first word        translate: the module's index      report: return address in emitted code
//!  rsp+8    second word       translate: the function's index    report: the address that was accessed
//!                             from a front, both to report: the request, and where to go on
//!  rsp+16   128 bytes         the red zone, which may be in use
//!  rsp+144                    the target's own stack pointer
//! ```
//! The handler runs on a stack of the engine's, under its gate's lock, with signals blocked; it puts into the
//! second word where to go on. The gate then restores every register and flag, takes both words and the step
//! over the red zone off the stack, and goes there.
//!
//! Vector state: the shim is compiled for baseline x86-64 and names no vector register beyond xmm0 to xmm15;
//! legacy SSE instructions leave the upper parts of ymm and zmm alone (Intel SDM vol. 1, 14.1.1), and neither
//! k0-k7 nor zmm16-zmm31 are touched. So fxsave's 512 bytes are all there is to save.

use core::{
    arch::{asm, global_asm},
    sync::atomic::{AtomicU64, Ordering},
};

use memcheck_model::Addr;

use crate::{
    forked_page,
    sys::{self, signal},
    thread,
};

/// The target's registers as the gate found them, lowest address first.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// r15 down to r8.
    pub r15_to_r8: [u64; 8],
    /// rdi.
    pub rdi: u64,
    /// rsi.
    pub rsi: u64,
    /// rbp.
    pub rbp: u64,
    /// rbx.
    pub rbx: u64,
    /// rdx.
    pub rdx: u64,
    /// rcx.
    pub rcx: u64,
    /// rax.
    pub rax: u64,
    /// The flags.
    pub rflags: u64,
    /// See the module's head.
    pub first: u64,
    /// See the module's head; the handler leaves the address to go on at here.
    pub second: u64,
}

impl Frame {
    /// The target's stack pointer.
    pub fn rsp(&self) -> u64 {
        core::ptr::from_ref(self) as u64 + size_of::<Self>() as u64 + 128
    }
}

/// How large each of the two stacks is. The translator recurses nowhere deeply; error events are some KiB.
const STACK_BYTES: usize = 256 << 10;

/// One gate's lock and stack. Fork keeps the lock while libc forks, in code that may have to be translated: the lock
/// then holds the thread pointer, and who has the same may pass. Otherwise it holds `BUSY`, as a child of a raw
/// clone may run with its parent's thread pointer at the same time.
///
/// No handler of fork runs for a raw clone: its child may find the lock held by a thread that it lacks. Whoever comes to
/// the gate first in a process that was forked knows that nobody else can hold it there.
#[repr(C)]
pub struct Gate {
    lock: AtomicU64,
    stack_top: AtomicU64,
    /// The address of a word that fork wipes; otherwise not zero.
    settled: AtomicU64,
    /// Not zero if the lock was such a thread's: what it guards may be half done.
    orphaned: AtomicU64,
}

/// The lock's value while work is done under it; no thread pointer.
const BUSY: u64 = 1;

/// Whether `Gate::lock` took the lock or the thread had it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is to be given back.
    Now,
    /// Whoever took it gives it back.
    Before,
}

impl Gate {
    const fn new() -> Self {
        let [lock, stack_top, settled, orphaned] = [const { AtomicU64::new(0) }; 4];
        Self { lock, stack_top, settled, orphaned }
    }

    /// Takes the gate's lock from the shim's own code. The caller has signals blocked.
    pub fn lock(&self) -> Taken {
        self.take(BUSY)
    }

    /// The same for the time of a fork: the thread may pass again.
    pub fn lock_for_fork(&self) {
        self.take(thread::pointer());
    }

    fn take(&self, value: u64) -> Taken {
        let own = thread::pointer();
        if forked_page::is_first(self.settled.load(Ordering::Relaxed))
            && self.lock.load(Ordering::Relaxed) == BUSY
        {
            self.orphaned.store(1, Ordering::Relaxed);
            self.lock.store(0, Ordering::Relaxed);
        }
        loop {
            // Acquire pairs with the Release of `unlock`, and with the plain store of the gate (x86 stores release).
            match self.lock.compare_exchange(0, value, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Taken::Now,
                Err(owner) if owner == own => return Taken::Before,
                Err(_) => sys::process::yield_now(),
            }
        }
    }

    /// Calls `act` on the gate's stack, under its lock, with signals blocked. Not from there.
    pub fn run<T>(&self, act: extern "C" fn(&T), argument: &T) {
        let mask = signal::set_mask(u64::MAX);
        let taken = self.lock();
        let top = self.stack_top.load(Ordering::Acquire);
        // SAFETY: `prepare` mapped the stack below `top`, and whoever has the lock has the stack. The callee keeps r12
        // (psABI 3.2.1); `act` takes the argument in rdi.
        unsafe {
            asm!("xchg rsp, r12", "call {act}", "mov rsp, r12", act = in(reg) act,
                inout("r12") top => _, in("rdi") argument, clobber_abi("C"));
        }
        self.unlock(taken);
        signal::set_mask(mask);
    }

    /// Whether the process was forked while another thread was at work under the lock.
    pub fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Relaxed) != 0
    }

    /// Gives it back.
    pub fn unlock(&self, taken: Taken) {
        if taken == Taken::Now {
            self.lock.store(0, Ordering::Release);
        }
    }
}

/// For translating; its lock is the engine's lock.
pub static TRANSLATE: Gate = Gate::new();
/// For reporting.
pub static REPORT: Gate = Gate::new();

/// Maps the gates' stacks; `words` are wiped by fork. Once, before any emitted code runs.
pub fn prepare(words: [&'static AtomicU64; 2]) -> bool {
    [&TRANSLATE, &REPORT].into_iter().zip(words).all(|(gate, word)| {
        gate.settled.store(forked_page::settle(word), Ordering::Relaxed);
        let Some(stack) = sys::map_anonymous(STACK_BYTES) else { return false };
        gate.stack_top.store(stack as u64 + STACK_BYTES as u64, Ordering::Release);
        true
    })
}

/// Where stubs go to have their function translated.
pub fn translate_entry() -> Addr {
    Addr(memcheck_translate_gate as *const () as u64)
}

/// Where emitted checks go that failed.
pub fn report_entry() -> Addr {
    Addr(memcheck_report_gate as *const () as u64)
}

/// Enters the report gate from the shim's own code, for [`super::fronts::serve`] with `request`.
pub fn report_front(request: u64) {
    // SAFETY: the routine lays out the stack as the gate takes it, and comes back with it as it was.
    unsafe { memcheck_report_front(request) };
}

unsafe extern "C" {
    fn memcheck_translate_gate();
    fn memcheck_report_gate();
    fn memcheck_report_front(request: u64);
}

extern "C" fn on_translate(frame: &mut Frame) {
    frame.second = super::install::translate_for(frame.first, frame.second).0;
}

extern "C" fn on_report(frame: &mut Frame) {
    super::slow_path::report(frame);
}

extern "C" fn on_front(frame: &mut Frame) {
    super::fronts::serve(frame.first);
}

global_asm!(
    ".macro memcheck_gate name, gate, handler",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name,@function",
    "\\name:",
    "pushfq",
    "push rax",
    "push rcx",
    "push rdx",
    "push rbx",
    "push rbp",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rbx, rsp",
    // rt_sigprocmask(SIG_SETMASK, all, old, 8)
    "push 0",
    "mov rdx, rsp",
    "push -1",
    "mov rsi, rsp",
    "mov edi, 2",
    "mov r10d, 8",
    "mov eax, 14",
    "syscall",
    "lea r12, [rip + \\gate]",
    "mov r14, fs:[0]",
    // As in `Gate::take`.
    "mov rax, [r12 + 16]",
    "cmp qword ptr [rax], 0",
    "jne 2f",
    "mov ecx, 1",
    "xchg [rax], rcx",
    "test rcx, rcx",
    "jnz 2f",
    "cmp qword ptr [r12], {busy}",
    "jne 2f",
    "mov qword ptr [r12 + 24], 1",
    "mov qword ptr [r12], 0",
    "2: xor eax, eax",
    "xor r15d, r15d", // nothing to keep
    "mov ecx, {busy}",
    "lock cmpxchg [r12], rcx",
    "jz 3f",
    "mov r15d, 1",
    "cmp rax, r14",
    "je 3f",
    "mov eax, 24", // sched_yield
    "syscall",
    "jmp 2b",
    "3: mov r13, rsp",
    "mov rsp, [r12 + 8]",
    "sub rsp, 512",
    "fxsave64 [rsp]",
    "mov rdi, rbx",
    "call \\handler",
    "fxrstor64 [rsp]",
    "mov rsp, r13",
    "test r15d, r15d",
    "jnz 4f",
    "mov qword ptr [r12], 0",
    "4:",
    // rt_sigprocmask(SIG_SETMASK, old, none, 8)
    "lea rsi, [rsp + 8]",
    "xor edx, edx",
    "mov edi, 2",
    "mov r10d, 8",
    "mov eax, 14",
    "syscall",
    "mov rsp, rbx",
    // What is left on the target's stack would hold blocks in the leak search.
    ".irp register, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax",
    "pop \\register",
    "mov qword ptr [rsp - 8], 0",
    ".endr",
    "popfq",
    "lea rsp, [rsp + 8]",
    "ret 128",
    ".endm",
    ".text",
    ".p2align 4",
    "memcheck_gate memcheck_translate_gate, {translate}, {on_translate}",
    ".p2align 4",
    "memcheck_gate memcheck_report_gate, {report}, {on_report}",
    ".p2align 4",
    "memcheck_gate memcheck_front_gate, {report}, {on_front}",
    ".p2align 4",
    ".globl memcheck_report_front",
    ".hidden memcheck_report_front",
    ".type memcheck_report_front,@function",
    "memcheck_report_front:",
    "lea rsp, [rsp - 128]",
    "lea rax, [rip + 5f]",
    "push rax",
    "push rdi",
    "jmp memcheck_front_gate",
    "5: ret",
    busy = const BUSY,
    translate = sym TRANSLATE,
    report = sym REPORT,
    on_translate = sym on_translate,
    on_report = sym on_report,
    on_front = sym on_front,
);
