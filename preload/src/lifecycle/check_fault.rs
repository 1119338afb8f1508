//! Faults of the checks themselves: an address that is not canonical has no shadow byte, and the processor refuses
//! the look at it. Such a check passes, so that the instruction behind it faults, with the program's own registers.
//!
//! In: the kernel's word about a fault. Out: whether a check made it, and then a context that goes on behind the
//! look. Runs in the handler of a fault in a copy; takes the engine's lock, which no copy holds.
//!
//! ```text
//!  inline   a look (see memcheck_rewrite's `find_look`): a comparison passes as equal, a load as zero
//!  settle   rsp → rdx, rcx, rax, return address  (see memcheck_rewrite's prelude): returns
//! ```
//! Source: Intel SDM 3A 6.15 (#GP and #SS).

use memcheck_rewrite::{Look, Part, find_look};

use super::fatal::{Context, RIP, RSP};
use crate::{engine::install, sys::memory};

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;
/// `SI_KERNEL`: the kernel knows no address for the fault.
const SI_KERNEL: i32 = 0x80;

/// `Context::register` counts so, as `RSP` and `RIP`.
const RDX: usize = 12;
const RAX: usize = 13;
const RCX: usize = 14;
const FLAGS: usize = 17;
/// Where the general registers are, by their numbers in encodings.
const GENERAL: [usize; 16] = [RAX, RCX, RDX, 11, RSP, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
/// The flags that a comparison sets (CF, PF, AF, ZF, SF, OF), and those of equality (PF, ZF).
const COMPARED: u64 = 0x8d5;
const EQUAL: u64 = 0x44;

/// Lets the check that made this fault pass, if one did: the thread then goes on with the context as it is.
pub fn pass(number: i32, code: i32, context: Context) -> bool {
    if !matches!(number, SIGSEGV | SIGBUS) || code != SI_KERNEL {
        return false;
    }
    let rip = context.rip();
    if install::is_settling(rip) {
        let rsp = context.rsp();
        let saved = [RDX, RCX, RAX, RIP].into_iter().zip((rsp..).step_by(8));
        for (register, at) in saved {
            let Some(word) = memory::try_read(at) else { return false };
            context.set_register(register, word);
        }
        context.set_register(RSP, rsp + 32);
        return true;
    }
    let is_check = install::find_origin(rip).is_some_and(|origin| origin.part == Part::Check);
    let code = memory::try_read(rip).filter(|_| is_check).map(u64::to_le_bytes);
    let Some((look, len)) = code.and_then(|code| find_look(&code)) else { return false };
    match look {
        Look::Compare => context.set_register(FLAGS, context.register(FLAGS) & !COMPARED | EQUAL),
        Look::Load(register) => context.set_register(GENERAL[usize::from(register)], 0),
    }
    context.set_register(RIP, rip + len);
    true
}
