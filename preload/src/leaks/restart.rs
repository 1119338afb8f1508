//! A system call that our signal interrupted starts again, as if nothing had happened: the kernel sees to most
//! (SA_RESTART), and those that never restart (signal(7)) are made anew here, with their full time-out.
//!
//! The context does not say which call it was. Where it was made, does:
//!
//! ```text
//!  b8 NUMBER                          0f 05   libc: mov eax, NUMBER; syscall
//!  b8 NUMBER  8b 7c 24 ..             0f 05         mov edi, [rsp + ..]  between
//!  b8 NUMBER  48 8b 74 24 ..          0f 05         mov rsi, [rsp + ..]  between
//!  ff 15 ...  (in a copy)             0f 05   call hook; syscall: the hook noted the number
//!  …          (libc's syscall, ours)  0f 05   so did it
//! ```
//!
//! Runs in the handler, on the thread that was interrupted.

use memcheck_model::Addr;

use crate::{
    lifecycle::fatal::Context,
    sys::{self, memory, owned, signal},
    thread,
};

/// `rax` and `rip` in a context, as `Context::register` counts.
const RAX: usize = 13;
const RIP: usize = 16;
const EINTR: i64 = -4;

/// The system calls that give EINTR whatever SA_RESTART says (signal(7)): poll, select, semop, msgsnd, msgrcv,
/// nanosleep, pause, rt_sigsuspend, rt_sigtimedwait, futex, semtimedop, io_getevents, clock_nanosleep,
/// epoll_wait, pselect6, ppoll, epoll_pwait, io_pgetevents, epoll_pwait2; and, with a time-out on the socket,
/// read, write, recvfrom, sendto, accept, accept4, recvmsg, sendmsg. Not connect, which goes on by itself.
const NEVER_RESTARTED: [u64; 27] = [
    7, 23, 65, 69, 70, 35, 34, 130, 128, 202, 220, 208, 230, 232, 270, 271, 281, 333, 441, 0, 1, 45, 44, 43,
    288, 47, 46,
];

/// Makes a system call anew that our signal alone has interrupted.
pub fn restart(context: Context) {
    if context.register(RAX).cast_signed() != EINTR || signal::pending() & !context.blocked() != 0 {
        return;
    }
    let rip = context.rip();
    if let Some(number) = find_number(rip).filter(|number| NEVER_RESTARTED.contains(number)) {
        context.set_register(RAX, number);
        context.set_register(RIP, rip - 2);
    }
}

/// The number of the call whose `syscall` instruction ends at `rip`.
fn find_number(rip: u64) -> Option<u64> {
    // The sixteen bytes before, as far as they can be read.
    let mut code = [0u8; 16];
    for (half, at) in code.chunks_exact_mut(8).zip([rip - 16, rip - 8]) {
        half.copy_from_slice(&memory::try_read(at).unwrap_or(0).to_le_bytes());
    }
    let before = code.strip_suffix(&[0x0f, 0x05])?;
    let is_noted = sys::target_calls().contains(Addr(rip - 2))
        || (owned::contains(Addr(rip - 2)) && before[8..10] == [0xff, 0x15]);
    if is_noted {
        return Some(thread::current().last_call.get());
    }
    let gap = match *before {
        [.., 0x48, 0x8b, 0x74, 0x24, _] => 5,
        [.., 0x8b, 0x7c, 0x24, _] => 4,
        _ => 0,
    };
    match before[..before.len() - gap] {
        [.., 0xb8, a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d]).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_known_by_the_code_before_it() {
        let number = |code: &[u8]| {
            let mut bytes = [0x90u8; 32];
            bytes[24 - code.len()..24].copy_from_slice(code);
            find_number(bytes.as_ptr() as u64 + 24)
        };
        assert_eq!(number(&[0xb8, 7, 0, 0, 0, 0x0f, 0x05]), Some(7));
        assert_eq!(number(&[0xb8, 14, 1, 0, 0, 0x8b, 0x7c, 0x24, 0x1c, 0x0f, 0x05]), Some(270));
        assert_eq!(number(&[0xb8, 45, 0, 0, 0, 0x48, 0x8b, 0x74, 0x24, 8, 0x0f, 0x05]), Some(45));
        assert_eq!(number(&[0x44, 0x89, 0xc0, 0x0f, 0x05]), None);
        assert_eq!(number(&[0xb8, 7, 0, 0, 0, 0x90, 0x90]), None);
    }
}
