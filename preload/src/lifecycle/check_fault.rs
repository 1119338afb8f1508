//! Faults of the checks themselves: an address that is not canonical has no shadow byte, and the processor refuses
//! the look at it. Such a check passes, so that the instruction behind it faults, with the program's own registers.
//!
//! In: the kernel's word about a fault. Out: whether a check made it, and then a context that goes on behind the
//! look. Runs in the handler of a fault in a copy; takes the engine's lock, which no copy holds.
//!
//! ```text
//!  inline   [66] [REX] 80|83 /7 disp32 00     cmp [shadow], 0: passes as equal
//!           [REX] 8b|0f b6|0f b7 /r disp32    mov or movzx register, [shadow], then a test: passes as zero
//!  settle   rsp → rdx, rcx, rax, return address  (see memcheck_rewrite's prelude): returns
//! ```
//! Source: Intel SDM 2.1 (encoding), 3A 6.15 (#GP and #SS).

use memcheck_rewrite::Part;

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
    let Some((look, len)) = memory::try_read(rip).filter(|_| is_check).and_then(decode) else { return false };
    match look {
        Look::Compare => context.set_register(FLAGS, context.register(FLAGS) & !COMPARED | EQUAL),
        Look::Load(register) => context.set_register(GENERAL[register], 0),
    }
    context.set_register(RIP, rip + len);
    true
}

/// How a check looks at the shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It compares it with zero.
    Compare,
    /// It loads it into this register, by its number in encodings.
    Load(usize),
}

/// The look that `code` begins with, and its length.
fn decode(code: u64) -> Option<(Look, u64)> {
    let bytes = code.to_le_bytes();
    let prefixes = bytes.iter().take_while(|&&byte| byte == 0x66 || byte & 0xf0 == 0x40).count();
    let (is_load, opcode_len) = match bytes.get(prefixes..)? {
        [0x80 | 0x83, ..] => (false, 1),
        [0x8b, ..] => (true, 1),
        [0x0f, 0xb6 | 0xb7, ..] => (true, 2),
        _ => return None,
    };
    let modrm = *bytes.get(prefixes + opcode_len)?;
    let field = usize::from(modrm >> 3 & 7);
    // mod = 2, a displacement of 32 bits; the field of a comparison is 7, cmp.
    if modrm >> 6 != 2 || !is_load && field != 7 {
        return None;
    }
    let is_extended = bytes[..prefixes].last().is_some_and(|&rex| rex & 0xf4 == 0x44);
    let look = if is_load { Look::Load(field | usize::from(is_extended) << 3) } else { Look::Compare };
    let scaled = usize::from(modrm & 7 == 4);
    let immediate = usize::from(!is_load);
    Some((look, (prefixes + opcode_len + 1 + scaled + 4 + immediate) as u64))
}

#[cfg(test)]
mod tests {
    use super::{Look, decode};

    #[test]
    fn looks_of_each_size_are_measured() {
        for (code, expected) in [
            // cmp byte [rcx+0x7fff8000],0; cmp word [r9+…],0; cmp dword [r12+…],0; cmp qword [rax+…],0
            ([0x80, 0xb9, 0, 0x80, 0xff, 0x7f, 0, 0x90], Some((Look::Compare, 7))),
            ([0x66, 0x41, 0x83, 0xb9, 0, 0x80, 0xff, 0x7f], Some((Look::Compare, 9))),
            ([0x41, 0x83, 0xbc, 0x24, 0, 0x80, 0xff, 0x7f], Some((Look::Compare, 9))),
            ([0x48, 0x83, 0xb8, 0, 0x80, 0xff, 0x7f, 0], Some((Look::Compare, 8))),
            // movzx eax, byte [rax+…]; movzx r12d, word [r12+…]; mov ecx, [rcx+…]; mov r9, [r9+…]
            ([0x0f, 0xb6, 0x80, 0, 0x80, 0xff, 0x7f, 0x90], Some((Look::Load(0), 7))),
            ([0x45, 0x0f, 0xb7, 0xa4, 0x24, 0, 0x80, 0xff], Some((Look::Load(12), 9))),
            ([0x8b, 0x89, 0, 0x80, 0xff, 0x7f, 0x90, 0x90], Some((Look::Load(1), 6))),
            ([0x4d, 0x8b, 0x89, 0, 0x80, 0xff, 0x7f, 0x90], Some((Look::Load(9), 7))),
            // mov eax, [rcx]; add [rax+disp32], 1
            ([0x8b, 0x01, 0, 0, 0, 0, 0, 0], None),
            ([0x83, 0x80, 0, 0x80, 0xff, 0x7f, 1, 0], None),
        ] {
            assert_eq!(decode(u64::from_le_bytes(code)), expected, "{code:02x?}");
        }
    }
}
