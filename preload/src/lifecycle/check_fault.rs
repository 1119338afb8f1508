//! Faults of the checks themselves: an address that is not canonical has no shadow byte, and the processor refuses
//! the look at it. Such a check passes, so that the instruction behind it faults, with the program's own registers.
//!
//! In: the kernel's word about a fault. Out: whether a check made it, and then a context that goes on behind the
//! comparison. Runs in the handler of a fault in a copy; takes the engine's lock, which no copy holds.
//!
//! ```text
//!  inline   [66] [REX] 80|83 /7 disp32 00     cmp [shadow], 0: passes as equal
//!  settle   rsp → rdx, rcx, rax, return address  (see memcheck_rewrite's prelude): returns
//! ```
//! Source: Intel SDM 2.1 (encoding), 3A 6.15 (#GP and #SS).

use memcheck_rewrite::Part;

use super::fatal::Context;
use crate::{engine::install, sys::memory};

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;
/// `SI_KERNEL`: the kernel knows no address for the fault.
const SI_KERNEL: i32 = 0x80;

/// `Context::register` counts so.
const RDX: usize = 12;
const RAX: usize = 13;
const RCX: usize = 14;
const RSP: usize = 15;
const RIP: usize = 16;
const FLAGS: usize = 17;
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
    let Some(len) = memory::try_read(rip).filter(|_| is_check).and_then(comparison_len) else { return false };
    context.set_register(FLAGS, context.register(FLAGS) & !COMPARED | EQUAL);
    context.set_register(RIP, rip + len);
    true
}

/// The length of the comparison of memory with zero that `code` begins with.
fn comparison_len(code: u64) -> Option<u64> {
    let bytes = code.to_le_bytes();
    let prefixes = bytes.iter().take_while(|&&byte| byte == 0x66 || byte & 0xf0 == 0x40).count();
    let [opcode, modrm, ..] = *bytes.get(prefixes..)? else { return None };
    // mod = 2, a displacement of 32 bits; reg = 7, cmp.
    let is_comparison = matches!(opcode, 0x80 | 0x83) && modrm & 0xf8 == 0xb8;
    let scaled = u64::from(modrm & 7 == 4);
    is_comparison.then_some(prefixes as u64 + 2 + scaled + 4 + 1)
}

#[cfg(test)]
mod tests {
    use super::comparison_len;

    #[test]
    fn comparisons_of_each_size_are_measured() {
        // cmp byte [rcx+0x7fff8000],0; cmp word [r9+…],0; cmp dword [r12+…],0; cmp qword [rax+…],0
        assert_eq!(comparison_len(u64::from_le_bytes([0x80, 0xb9, 0, 0x80, 0xff, 0x7f, 0, 0x90])), Some(7));
        assert_eq!(
            comparison_len(u64::from_le_bytes([0x66, 0x41, 0x83, 0xb9, 0, 0x80, 0xff, 0x7f])),
            Some(9)
        );
        assert_eq!(
            comparison_len(u64::from_le_bytes([0x41, 0x83, 0xbc, 0x24, 0, 0x80, 0xff, 0x7f])),
            Some(9)
        );
        assert_eq!(comparison_len(u64::from_le_bytes([0x48, 0x83, 0xb8, 0, 0x80, 0xff, 0x7f, 0])), Some(8));
        // mov eax, [rcx+disp32]
        assert_eq!(comparison_len(u64::from_le_bytes([0x8b, 0x81, 0, 0, 0, 0, 0, 0])), None);
    }
}
