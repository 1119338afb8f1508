//! Programs that confine themselves by a filter of system calls (seccomp(2)): the engine translates and reports
//! afterwards as before, so the filter is made to let the shim's own calls pass.
//!
//! ```text
//!  0  ld [instruction pointer, high]
//!  1  jeq high half of START, 2, 8
//!  2  ld [instruction pointer, low]
//!  3  jge START, 4, 8
//!  4  jge END, 8, 5
//!  5  jge FIRST, 6, 7
//!  6  jge LAST, 7, 8
//!  7  ret ALLOW
//!  8  ld #0          as the accumulator is when a filter begins
//!     the program's own filter
//! ```
//! Only calls made by the shim's text, `START .. END`, are let pass, and not those that it makes for the program,
//! `FIRST .. LAST`; those and the program's own, also in copies, meet its filter. What cannot be prepended to (a filter
//! of the greatest length, strict mode) is installed as it is: the process then ends when the shim next makes a call
//! that it forbids.
//!
//! A program that wants its calls handed to itself but for those from one range (PR_SET_SYSCALL_USER_DISPATCH, for
//! emulators) is answered as by a kernel before 5.11: there is no second range for the shim and for copies.
//!
//! Source: seccomp(2), bpf(4) of FreeBSD for the instructions; the kernel's `linux/filter.h`, `linux/seccomp.h`.

use memcheck_model::{Addr, AddrRange};
use memcheck_syscalls::{Memory, Request};

use crate::{
    modules,
    sys::{self, Errno, memory},
};

const SYS_PRCTL: u64 = 157;
const SYS_SECCOMP: u64 = 317;
const PR_SET_SECCOMP: u64 = 22;
const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;
const PR_SYS_DISPATCH_ON: u64 = 1;
const EINVAL: Errno = Errno(22);
const SECCOMP_MODE_FILTER: u64 = 2;
const SECCOMP_SET_MODE_FILTER: u64 = 1;
const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;

const BPF_LD_WORD_ABSOLUTE: u16 = 0x20;
const BPF_LD_IMMEDIATE: u16 = 0;
const BPF_JUMP_EQUAL: u16 = 0x15;
const BPF_JUMP_GREATER_EQUAL: u16 = 0x35;
const BPF_RETURN: u16 = 6;
/// `offsetof(struct seccomp_data, instruction_pointer)`.
const INSTRUCTION_POINTER: u32 = 8;
/// `BPF_MAXINSNS`.
const MOST_INSTRUCTIONS: usize = 4096;
const PREFIX: usize = 9;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    instructions: u64,
}

/// Whether the call has the program's calls handed to itself.
fn is_dispatch(request: &Request) -> bool {
    let [first, second, ..] = request.arguments;
    request.number == SYS_PRCTL
        && first as u32 == PR_SET_SYSCALL_USER_DISPATCH
        && second == PR_SYS_DISPATCH_ON
}

/// Whether the call installs a filter, whose program the third argument points to, or is one that does as much.
pub fn is_filter(request: &Request) -> bool {
    let [first, second, ..] = request.arguments;
    match request.number {
        SYS_PRCTL if is_dispatch(request) => true,
        SYS_PRCTL => first as u32 == PR_SET_SECCOMP as u32 && second == SECCOMP_MODE_FILTER,
        SYS_SECCOMP => first as u32 == SECCOMP_SET_MODE_FILTER as u32,
        _ => false,
    }
}

/// Makes the call with a filter that lets the shim's calls pass, and gives what the kernel returned. `None` when the
/// call is to be made as it is.
pub fn install(request: &Request, target: &impl Memory) -> Option<Result<u64, Errno>> {
    if is_dispatch(request) {
        return Some(Err(EINVAL));
    }
    let at = Addr(request.arguments[2]);
    let len = target.find_int(at)? as u16;
    let instructions = target.find_word(Addr(at.0.checked_add(8)?))?;
    let prefix = prefix(modules::find(is_filter as *const () as u64)?.code, sys::target_calls())?;
    let total = usize::from(len) + PREFIX;
    if len == 0 || total > MOST_INSTRUCTIONS {
        return None;
    }
    let bytes = total * size_of::<Instruction>();
    let copy = sys::map_anonymous(bytes)?;
    let words = copy.cast::<u64>();
    let mut is_complete = true;
    for (index, instruction) in prefix.into_iter().enumerate() {
        // SAFETY: inside the mapping just made; an instruction has eight bytes.
        unsafe { words.add(index).cast::<Instruction>().write(instruction) };
    }
    for index in 0..usize::from(len) {
        let place = instructions.checked_add(8 * index as u64).map(Addr);
        match place.and_then(|place| target.find_word(place)) {
            // SAFETY: as above: `total` words were mapped.
            Some(word) => unsafe { words.add(PREFIX + index).write(word) },
            None => is_complete = false,
        }
    }
    let result = is_complete.then(|| {
        let program = Program { len: total as u16, instructions: copy as u64 };
        let mut arguments = request.arguments;
        arguments[2] = core::ptr::from_ref(&program) as u64;
        // SAFETY: the target's own call, with a program of ours that does what its own would and is as long as it
        // says; the kernel only reads it.
        unsafe { sys::target_syscall(request.number.cast_signed(), arguments) }
    });
    memory::unmap(Addr(copy as u64), bytes as u64);
    result
}

/// What lets calls from `text` pass, but for those of the program's `own`.
fn prefix(text: AddrRange, own: AddrRange) -> Option<[Instruction; PREFIX]> {
    let (start, end) = (text.start().0, text.end().0);
    if start >> 32 != end >> 32 {
        return None;
    }
    let instruction = |code, if_true, if_false, operand| Instruction { code, if_true, if_false, operand };
    // The instruction pointer of a call is behind its instruction.
    Some([
        instruction(BPF_LD_WORD_ABSOLUTE, 0, 0, INSTRUCTION_POINTER + 4),
        instruction(BPF_JUMP_EQUAL, 0, 6, (start >> 32) as u32),
        instruction(BPF_LD_WORD_ABSOLUTE, 0, 0, INSTRUCTION_POINTER),
        instruction(BPF_JUMP_GREATER_EQUAL, 0, 4, start as u32),
        instruction(BPF_JUMP_GREATER_EQUAL, 3, 0, end as u32),
        instruction(BPF_JUMP_GREATER_EQUAL, 0, 1, own.start().0 as u32),
        instruction(BPF_JUMP_GREATER_EQUAL, 0, 1, own.end().0 as u32),
        instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        instruction(BPF_LD_IMMEDIATE, 0, 0, 0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::Size;

    /// Runs the prefix; whether it lets the call pass.
    fn passes(prefix: &[Instruction; PREFIX], instruction_pointer: u64) -> bool {
        let (mut at, mut accumulator) = (0, 0);
        while at < PREFIX {
            let instruction = prefix[at];
            let jump =
                |taken: bool| usize::from(if taken { instruction.if_true } else { instruction.if_false });
            at += 1 + match instruction.code {
                BPF_LD_WORD_ABSOLUTE => {
                    accumulator =
                        (instruction_pointer >> (8 * (instruction.operand - INSTRUCTION_POINTER))) as u32;
                    0
                }
                BPF_LD_IMMEDIATE => {
                    accumulator = instruction.operand;
                    0
                }
                BPF_JUMP_EQUAL => jump(accumulator == instruction.operand),
                BPF_JUMP_GREATER_EQUAL => jump(accumulator >= instruction.operand),
                _ => return true,
            };
        }
        assert_eq!(accumulator, 0, "the filter begins as it would alone");
        false
    }

    #[test]
    fn only_the_shims_own_calls_pass() {
        let own = AddrRange::new(Addr(0x7f12_3456_8010), Size(0x20)).unwrap();
        let prefix = prefix(AddrRange::new(Addr(0x7f12_3456_7000), Size(0x5000)).unwrap(), own).unwrap();
        for inside in
            [0x7f12_3456_7000, 0x7f12_3456_7002, 0x7f12_3456_800f, 0x7f12_3456_8030, 0x7f12_3456_bfff]
        {
            assert!(passes(&prefix, inside), "{inside:#x}");
        }
        let outside = [0, 0x7f12_3456_6fff, 0x7f12_3456_c000, 0x7f13_3456_8000, 0x7f11_3456_8000, u64::MAX];
        for outside in outside.into_iter().chain([0x7f12_3456_8010, 0x7f12_3456_802f]) {
            assert!(!passes(&prefix, outside), "{outside:#x}");
        }
    }

    #[test]
    fn text_across_a_boundary_of_four_gigabytes_has_no_prefix() {
        let text = AddrRange::new(Addr(0x7f12_ffff_f000), Size(0x2000)).unwrap();
        assert_eq!(prefix(text, AddrRange::default()), None);
    }
}
