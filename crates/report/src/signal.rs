//! Fatal signals in words (sigaction(2), Linux on x86-64).

/// `si_code` of a fault for which the kernel knows no address.
pub(crate) const SI_KERNEL: i32 = 0x80;

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;

/// The signal's name.
#[must_use]
pub(crate) fn name(number: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// Whether the signal reports a faulting address of data.
#[must_use]
pub(crate) fn has_address(number: i32, code: i32) -> bool {
    matches!(number, SIGSEGV | SIGBUS) && code > 0
}

/// Why the signal was raised.
#[must_use]
pub(crate) fn reason(number: i32, code: i32) -> &'static str {
    match (number, code) {
        (SIGABRT, _) => "the program gave up by calling abort, perhaps through a failed assertion",
        (_, ..=0) => "sent by the program itself or by another process",
        (SIGSEGV, 1) => "nothing is mapped there",
        (SIGSEGV, 2) => "the memory does not permit it",
        (SIGSEGV, SI_KERNEL) => "the address is not canonical",
        (SIGSEGV, 3) => "a bound was exceeded",
        (SIGSEGV, 4) => "a protection key forbids it",
        (SIGBUS, 1) => "misaligned address",
        (SIGBUS, 2) => "past the end of a mapped file",
        (SIGBUS, 3..=5) => "the hardware failed",
        (SIGFPE, 1) => "integer division by zero, or a quotient too large",
        (SIGFPE, 2) => "integer overflow",
        (SIGFPE, 3) => "floating-point division by zero",
        (SIGFPE, 4) => "floating-point overflow",
        (SIGFPE, 5) => "floating-point underflow",
        (SIGFPE, 6) => "inexact floating-point result",
        (SIGFPE, 7) => "invalid floating-point operation",
        (SIGILL, _) => "the processor does not know this instruction, or the compiler put a trap here",
        (SIGTRAP, _) => "a breakpoint or trap instruction was reached",
        _ => "the program was ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_linux_names() {
        assert_eq!(name(SIGSEGV), Some("SIGSEGV"));
        assert_eq!(name(31), Some("SIGSYS"));
        assert_eq!((name(0), name(32), name(-1)), (None, None, None));
    }

    #[test]
    fn a_signal_that_was_sent_has_no_address() {
        assert!(has_address(SIGSEGV, 1));
        assert!(!has_address(SIGSEGV, 0));
        assert!(!has_address(SIGABRT, 1));
    }
}
