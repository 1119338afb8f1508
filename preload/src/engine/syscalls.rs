//! The look at each system call that a copy is about to make: memory that the kernel would read or write, and must
//! not, is reported. Then the call is made as it was.
//!
//! ```text
//!  rsp      return address: the `syscall` instruction in the copy
//!  rsp+8    one word
//!  rsp+16   128 bytes   the red zone
//!  rsp+144              the target's own stack pointer
//! ```
//! The quick way out: a call without parameters that lead to memory, or with none that points into the heap. Only
//! rcx and r11 are changed there, which the `syscall` instruction changes anyway (Intel SDM, SYSCALL).
//!
//! Runs on the target's stack, also in handlers of signals and in children of vfork: no locks, no allocation, no
//! system calls but where memory outside the heap and the stack must be read, or an error is told. `clone`, `vfork`,
//! `rt_sigreturn` and the rest are made by the instruction itself, with the stack pointer as it was. Only a filter of
//! system calls is installed from here instead (see `confinement`).
//!
//! Vector state: the code called here is compiled for baseline x86-64 (see `gate`); it has no use for the x87.

use core::{
    arch::global_asm,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use memcheck_model::{
    Access, AccessKind, Addr, AddrRange, Detail, ErrorEvent, ErrorKind, MAX_FRAMES, Pc, Size, ThreadId,
};
use memcheck_rewrite::{CALL_SLOT, SYSCALL_SKIP};
use memcheck_shadow::USER_END;
use memcheck_stack::Registers;
use memcheck_syscalls::{
    Attention, CALLS, Finding, Granule, Known, Memory, Parameters, Request, attention_of, check, check_as,
};

use super::{confinement, count_unknown_call, gate, shadow_map};
use crate::{
    channel, descriptors, heap,
    lifecycle::parts,
    requests, stacks,
    sys::{self, Errno, memory::Probe, process},
    thread,
};

/// For how many numbers there is a class.
const CLASSES: usize = 512;
const SYS_MMAP: u64 = 9;
const SYS_MPROTECT: u64 = 10;
const SYS_MUNMAP: u64 = 11;
const SYS_MREMAP: u64 = 25;
const SYS_SEMCTL: i64 = 66;
const IPC_STAT: u64 = 2;
/// `mmap`: the address is more than a wish.
const MAP_FIXED: u64 = 0x10;
const SYS_PRCTL: usize = 157;

/// What each call needs, as [`Attention`].
static CLASS: [u8; CLASSES] = {
    let mut class = [Attention::Full as u8; CLASSES];
    let mut index = 0;
    while index < CALLS.len() {
        class[CALLS[index].number as usize] = attention_of(&CALLS[index].parameters) as u8;
        index += 1;
    }
    class[SYS_MPROTECT as usize] = Attention::Direct as u8;
    class[SYS_PRCTL] = Attention::Full as u8;
    // Looked at once anything outside the heap is forbidden, when all addresses count as the heap's.
    class[SYS_MMAP as usize] = Attention::Direct as u8;
    class[SYS_MUNMAP as usize] = Attention::Direct as u8;
    class[SYS_MREMAP as usize] = Attention::Direct as u8;
    class
};

/// The heap's first address and its size.
static HEAP: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Whether the target changed the protection of some of the heap: then not all that is addressable can be read.
static HEAP_IS_PROTECTED: AtomicBool = AtomicBool::new(false);

/// The heap's addresses are known. Before any copy runs.
pub fn begin(heap: AddrRange) {
    HEAP[0].store(heap.start().0, Ordering::Relaxed);
    HEAP[1].store(heap.size().0, Ordering::Relaxed);
}

/// All memory is to be looked at from now on: some outside the heap must not be touched.
pub fn watch_everything() {
    // What is addressable need not be mapped out there. Before the rest, so that nobody takes it for the heap.
    HEAP_IS_PROTECTED.store(true, Ordering::Relaxed);
    HEAP[0].store(0, Ordering::Release);
    HEAP[1].store(USER_END, Ordering::Release);
}

/// Where copies go before each system call.
pub fn entry() -> Addr {
    Addr(memcheck_syscall_hook as *const () as u64)
}

/// Where copies go after each system call, if they do.
pub fn done_entry() -> Addr {
    Addr(memcheck_syscall_done_hook as *const () as u64)
}

unsafe extern "C" {
    fn memcheck_syscall_hook();
    fn memcheck_syscall_done_hook();
}

/// What the hook put on the stack.
#[repr(C)]
struct Frame {
    request: Request,
    flags: u64,
    /// The `syscall` instruction in the copy.
    at: u64,
    word: u64,
    red_zone: [u64; 16],
}

impl Frame {
    /// The target's stack pointer.
    fn rsp(&self) -> u64 {
        core::ptr::from_ref(self) as u64 + size_of::<Self>() as u64
    }
}

/// How far behind the return address to go on.
extern "C" fn on_call(frame: &mut Frame, bp: u64) -> u64 {
    let request = &frame.request;
    if request.number == SYS_MPROTECT {
        HEAP_IS_PROTECTED.store(true, Ordering::Relaxed);
        return 0;
    }
    note_new_memory(request);
    let target = Target { rsp: frame.rsp(), probe: Probe::default() };
    if confinement::is_filter(request) {
        return match confinement::install(request, &target) {
            Some(result) => {
                frame.request.number = result.unwrap_or_else(|errno| i64::from(-errno.0).cast_unsigned());
                SYSCALL_SKIP
            }
            None => 0,
        };
    }
    let site = Site { number: request.number, registers: Registers { pc: frame.at, sp: frame.rsp(), bp } };
    if check(request, &target, &mut |finding| report(&site, finding)) == Known::No {
        count_unknown_call(request.number);
    }
    0
}

/// Looks at the arguments of a call that the shim makes for a function of libc's, at whose entry the registers are.
pub fn look_for_libc(parameters: &Parameters, request: &Request, registers: Registers) {
    let target = Target { rsp: registers.sp, probe: Probe::default() };
    let site = Site { number: request.number, registers };
    check_as(parameters, request, &target, &mut |finding| report(&site, finding));
}

/// A call was made; the frame has its result in place of its number, and the address behind it.
extern "C" fn on_done(frame: &mut Frame, bp: u64) {
    let result = frame.request.number;
    let number = thread::current().spill[CALL_SLOT].get();
    let registers = Registers { pc: frame.at, sp: frame.rsp(), bp };
    descriptors::call_was_made(&Request { number, ..frame.request }, result, registers);
}

/// Memory is about to go, or to be replaced: what the target said of it is void.
fn note_new_memory(request: &Request) {
    let [start, size, _, flags, ..] = request.arguments;
    match request.number {
        SYS_MUNMAP | SYS_MREMAP => requests::memory_is_new(start, size),
        SYS_MMAP if flags & MAP_FIXED != 0 => requests::memory_is_new(start, size),
        _ => {}
    }
}

/// Makes a call that installs a filter, outside a copy.
pub fn confine(request: &Request) -> Option<Result<u64, Errno>> {
    confinement::install(request, &Target { rsp: u64::MAX, probe: Probe::default() })
}

/// The target's memory, as a call on this stack sees it.
struct Target {
    rsp: u64,
    probe: Probe,
}

impl Target {
    /// Whether the aligned word at `at` can be read.
    fn is_readable(&self, at: u64) -> bool {
        let [low, high] = &thread::current().stack;
        if (low.get()..high.get()).contains(&self.rsp) && (self.rsp..high.get()).contains(&at) {
            return true;
        }
        self.probe.is_readable(at)
    }

    /// `N` bytes that can be read and may be.
    fn find<const N: usize>(&self, at: Addr) -> Option<[u8; N]> {
        let last = at.0.checked_add(N as u64 - 1)?;
        if self.is_watched(at) {
            if shadow_map::find_bad(AddrRange::new(at, Size(N as u64))?).is_some() {
                return None;
            }
            if HEAP_IS_PROTECTED.load(Ordering::Relaxed)
                && !(self.is_readable(at.0 & !7) && self.is_readable(last & !7))
            {
                return None;
            }
        } else if !(self.is_readable(at.0 & !7) && self.is_readable(last & !7)) {
            return None;
        }
        // SAFETY: the bytes were found readable just now: they are addressable memory of the heap, or the kernel read
        // them. Volatile, and of any alignment: the target's other threads may change them.
        Some(unsafe { (at.0 as *const [u8; N]).read_volatile() })
    }
}

impl Memory for Target {
    fn is_watched(&self, addr: Addr) -> bool {
        addr.0.wrapping_sub(HEAP[0].load(Ordering::Relaxed)) < HEAP[1].load(Ordering::Relaxed)
    }

    fn find_bad(&self, range: AddrRange) -> Option<Addr> {
        shadow_map::find_bad(range)
    }

    fn granule(&self, start: Addr) -> Granule {
        let leading = shadow_map::state_of(start).leading() as u8;
        let can_be_read =
            leading > 0 && (!HEAP_IS_PROTECTED.load(Ordering::Relaxed) || self.is_readable(start.0));
        if !can_be_read {
            // Where a string cannot be read, the kernel says so: it ends here.
            return Granule { leading, bytes: [0; 8] };
        }
        // SAFETY: some of the granule is addressable, so its page is the heap's and mapped; the protection is as the heap
        // left it, or was looked at.
        let bytes = unsafe { (start.0 as *const [u8; 8]).read_volatile() };
        Granule { leading, bytes }
    }

    fn find_word(&self, at: Addr) -> Option<u64> {
        self.find(at).map(u64::from_le_bytes)
    }

    fn find_int(&self, at: Addr) -> Option<u32> {
        self.find(at).map(u32::from_le_bytes)
    }

    fn count_semaphores(&self, id: u32) -> u64 {
        // `struct semid64_ds` (asm/sembuf.h) is 104 bytes; `sem_nsems` lies at 80.
        let mut set = [0u64; 13];
        let args = [id.into(), 0, IPC_STAT, set.as_mut_ptr() as u64, 0, 0];
        // SAFETY: semctl(2) with IPC_STAT writes the structure.
        if unsafe { sys::syscall(SYS_SEMCTL, args) }.is_ok() { set[10] } else { 0 }
    }
}

/// Where a call is made.
struct Site {
    number: u64,
    registers: Registers,
}

#[cold]
fn report(site: &Site, finding: &Finding) {
    // The target's stack may be small.
    gate::REPORT.run(tell, &(site, finding));
}

extern "C" fn tell(&(site, finding): &(&Site, &Finding)) {
    if finding.kind == AccessKind::Write {
        heap::damage_is_known(finding.bad, finding.range.end());
    }
    let described = parts::describe(finding.bad, Addr(site.registers.sp));
    let mut frames = [Pc(0); MAX_FRAMES];
    channel::report(&ErrorEvent {
        kind: ErrorKind::SyscallParam,
        tid: ThreadId(process::tid()),
        function: None,
        access: Some(Access { kind: finding.kind, addr: finding.range.start(), size: finding.range.size() }),
        address: finding.bad,
        place: described.place,
        detail: Detail::Syscall {
            number: site.number as u32,
            parameter: finding.parameter,
            offset: finding.bad.0 - finding.range.start().0,
        },
        exact_top: true,
        stack: stacks::capture_interrupted_in(site.registers, &mut frames),
        allocated: described.allocated(),
        freed: described.freed(),
    });
}

global_asm!(
    ".text",
    ".p2align 4",
    ".globl memcheck_syscall_hook",
    ".hidden memcheck_syscall_hook",
    ".type memcheck_syscall_hook,@function",
    "memcheck_syscall_hook:",
    // For who unwinds from a signal in the quick way out: the target's stack pointer is the frame's end.
    ".cfi_startproc",
    ".cfi_def_cfa rsp, 144",
    ".cfi_offset rip, -144",
    "pushfq",
    ".cfi_adjust_cfa_offset 8",
    "mov rcx, [rip + memcheck_thread_block@GOTTPOFF]",
    "mov fs:[rcx + {last_call}], rax",
    "cmp rax, {classes}",
    "jae 5f",
    "lea rcx, [rip + {class}]",
    "movzx ecx, byte ptr [rcx + rax]",
    "cmp ecx, {direct}",
    "jb 9f",
    "ja 5f",
    "mov rcx, [rip + {heap}]",
    ".irp argument, rdi, rsi, rdx, r10, r8, r9",
    "mov r11, \\argument",
    "sub r11, rcx",
    "cmp r11, [rip + {heap} + 8]",
    "jb 5f",
    ".endr",
    // Go back: to the return address, with the word and the red zone taken off the stack.
    "9: popfq",
    ".cfi_adjust_cfa_offset -8",
    "pop rcx",
    // What was popped stays below the stack pointer: handlers keep off the red zone.
    ".cfi_adjust_cfa_offset -8",
    "mov [rsp], rcx",
    "ret 128",
    // What is left is for `on_call`.
    ".cfi_undefined rip",
    "5: cld",
    ".irp register, r9, r8, r10, rdx, rsi, rdi, rax, rbx",
    "push \\register",
    ".endr",
    save_vectors!(),
    "lea rdi, [rbx + 8]",
    "mov rsi, rbp",
    "call {on_call}",
    "mov r11, rax",
    restore_vectors!(),
    ".irp register, rbx, rax, rdi, rsi, rdx, r10, r8, r9",
    "pop \\register",
    ".endr",
    "popfq",
    "pop rcx",
    "lea rcx, [rcx + r11]",
    "mov [rsp], rcx",
    "ret 128",
    ".cfi_endproc",
    ".size memcheck_syscall_hook, .-memcheck_syscall_hook",
    ".p2align 4",
    ".globl memcheck_syscall_done_hook",
    ".hidden memcheck_syscall_done_hook",
    ".type memcheck_syscall_done_hook,@function",
    "memcheck_syscall_done_hook:",
    "pushfq",
    "cld",
    ".irp register, r9, r8, r10, rdx, rsi, rdi, rax, rbx",
    "push \\register",
    ".endr",
    save_vectors!(),
    "lea rdi, [rbx + 8]",
    "mov rsi, rbp",
    "call {on_done}",
    restore_vectors!(),
    ".irp register, rbx, rax, rdi, rsi, rdx, r10, r8, r9",
    "pop \\register",
    ".endr",
    "popfq",
    "pop rcx",
    "mov [rsp], rcx",
    "ret 128",
    ".size memcheck_syscall_done_hook, .-memcheck_syscall_done_hook",
    classes = const CLASSES,
    direct = const Attention::Direct as u8,
    class = sym CLASS,
    heap = sym HEAP,
    last_call = const core::mem::offset_of!(thread::ThreadBlock, last_call),
    on_call = sym on_call,
    on_done = sym on_done,
);
