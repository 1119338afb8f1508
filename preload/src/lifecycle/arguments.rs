//! What the arguments of libc's functions lead to whose system calls the shim makes itself: looked at as copies look
//! at those of theirs, before the shim goes on.
//!
//! ```text
//!  libc's entry ─▶ entry ─▶ look
//!                    └────▶ what stands for the function, with the registers as they were
//! ```

use core::sync::atomic::{AtomicU64, Ordering};

use memcheck_stack::Registers;
use memcheck_syscalls::{LIBC_FEXECVE, LIBC_SIGACTION, Parameters, Request, find_call};

use super::{exec, libc_entries};
use crate::engine::{install, syscalls};

/// A function of libc.
pub struct Looked {
    /// The system call that it makes.
    number: u64,
    /// Its own parameters, where they are not the call's.
    parameters: Option<&'static Parameters>,
    /// Where it begins.
    start: AtomicU64,
    entry: unsafe extern "C" fn(),
}

/// What an entry keeps on the stack meanwhile.
#[repr(C)]
struct Kept {
    r8: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    return_address: u64,
}

impl Looked {
    /// Where calls of the function go, which begins at `start`.
    pub fn entry_for(&self, start: u64) -> u64 {
        self.start.store(start, Ordering::Relaxed);
        self.entry as *const () as u64
    }

    fn look(&self, kept: &Kept, bp: u64) {
        if !install::is_on() {
            return;
        }
        let own = self.parameters.or_else(|| find_call(self.number).map(|call| &call.parameters));
        let registers = Registers {
            pc: self.start.load(Ordering::Relaxed),
            sp: &raw const kept.return_address as u64,
            bp,
        };
        let arguments = [kept.rdi, kept.rsi, kept.rdx, kept.rcx, kept.r8, 0];
        if let Some(parameters) = own {
            syscalls::look_for_libc(parameters, &Request { number: self.number, arguments }, registers);
        }
    }
}

/// `NAME number parameters handler;`
macro_rules! looked {
    ($($name:ident $number:literal $parameters:expr, $handler:path;)*) => {$(
        /// The function of this name.
        pub static $name: Looked = Looked {
            number: $number,
            parameters: $parameters,
            start: AtomicU64::new(0),
            entry: {
                extern "C" fn look(kept: &Kept, bp: u64) {
                    $name.look(kept, bp);
                }
                #[unsafe(naked)]
                unsafe extern "C" fn entry() {
                    core::arch::naked_asm!(
                        "push rdi",
                        "push rsi",
                        "push rdx",
                        "push rcx",
                        "push r8",
                        "mov rdi, rsp",
                        "mov rsi, rbp",
                        "call {look}",
                        "pop r8",
                        "pop rcx",
                        "pop rdx",
                        "pop rsi",
                        "pop rdi",
                        "jmp {handler}",
                        look = sym look,
                        handler = sym $handler,
                    )
                }
                entry
            },
        };
    )*};
}

looked! {
    EXECVE 59 None, exec::execve;
    EXECVEAT 322 None, exec::execveat;
    FEXECVE 322 Some(&LIBC_FEXECVE), exec::fexecve;
    SIGACTION 13 Some(&LIBC_SIGACTION), libc_entries::sigaction;
    PUBLIC_SIGACTION 13 Some(&LIBC_SIGACTION), libc_entries::public_sigaction;
    SIGALTSTACK 131 None, libc_entries::sigaltstack;
}
