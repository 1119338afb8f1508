//! The way from a client request in emitted code into the shim, and back.
//!
//! ```text
//!  rsp      return address: the last instruction of the request in the copy
//!  rsp+8    one word
//!  rsp+16   128 bytes   the red zone
//!  rsp+144              the target's own stack pointer
//! ```
//! Every register and flag is as it was afterwards, but for rdx, which takes the result. rax leads to the six words
//! of the request (`valgrind.h`).
//!
//! Vector state: as in `syscalls`; what calls the target's functions saves more (see `requests::native`).

use core::arch::global_asm;

use memcheck_model::Addr;
use memcheck_requests::Request;
use memcheck_stack::Registers;

use crate::{
    lifecycle::end::{Departure, RED_ZONE},
    requests::{self, Site},
};

/// Where copies go at each client request.
pub fn entry() -> Addr {
    Addr(memcheck_request_hook as *const () as u64)
}

unsafe extern "C" {
    fn memcheck_request_hook();
}

/// What the hook put on the stack.
#[repr(C)]
struct Frame {
    rbx: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi_to_r11: [u64; 6],
    rbp: u64,
    r12_to_r15: [u64; 4],
    flags: u64,
    /// The last instruction of the request in the copy.
    at: u64,
    /// Where to go on, when the rest is off the stack.
    word: u64,
    red_zone: [u64; 16],
}

extern "C" fn on_request(frame: &mut Frame) {
    frame.word = frame.at;
    // SAFETY: rax leads to the words of the request, which the target has just written there.
    let words = unsafe { (frame.rax as *const [u64; 6]).read_unaligned() };
    let Some(request) = Request::find_in(words) else { return };
    let sp = core::ptr::from_ref(frame) as u64 + size_of::<Frame>() as u64;
    let registers = Registers { pc: frame.at, sp, bp: frame.rbp };
    let departure = Departure {
        pc: frame.at,
        rsp: sp,
        red_zone: RED_ZONE,
        registers: core::ptr::from_ref(frame) as u64,
        register_count: core::mem::offset_of!(Frame, flags) as u64 / 8,
    };
    let site = Site { registers, departure };
    if let Some(result) = requests::act(&site, request) {
        frame.rdx = result;
    }
}

global_asm!(
    ".text",
    ".p2align 4",
    ".globl memcheck_request_hook",
    ".hidden memcheck_request_hook",
    ".type memcheck_request_hook,@function",
    "memcheck_request_hook:",
    "pushfq",
    "cld",
    ".irp register, r15, r14, r13, r12, rbp, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax, rbx",
    "push \\register",
    ".endr",
    save_vectors!(),
    "mov rdi, rbx",
    "call {on_request}",
    restore_vectors!(),
    ".irp register, rbx, rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11, rbp, r12, r13, r14, r15",
    "pop \\register",
    ".endr",
    "popfq",
    "lea rsp, [rsp + 8]",
    "ret 128",
    ".size memcheck_request_hook, .-memcheck_request_hook",
    on_request = sym on_request,
);
