//! What the launcher was started with, before the Rust runtime changed it.
//!
//! The runtime sets SIGPIPE to be ignored and opens /dev/null on standard descriptors that are closed; the launcher
//! itself ignores SIGXFSZ, so that a limit on file sizes (`ulimit -f`) is an error and not its end. The program must
//! find all of it as it was, so it is noted by a function in `.init_array`, which runs first.

use std::{
    ffi::{CStr, CString},
    sync::atomic::{AtomicBool, Ordering},
};

/// The signals that are handled differently here than in the program.
const CHANGED: [i32; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

static IGNORED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

extern "C" fn note_beginning() {
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: F_GETFD only asks.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Ordering::Relaxed);
    }
    for (signal, is_ignored) in CHANGED.into_iter().zip(&IGNORED) {
        // SAFETY: an all-zero sigaction is valid, and sigaction with no new action only asks.
        let ignored = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
        };
        is_ignored.store(ignored, Ordering::Relaxed);
    }
    // SAFETY: the disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_BEGINNING: extern "C" fn() = note_beginning;

unsafe extern "C" {
    static environ: *const *const libc::c_char;
}

/// What the program should find as the launcher found it.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// The dispositions of the signals that were changed since: ignored, or the default.
    pub dispositions: [(i32, libc::sighandler_t); 2],
    /// Which of the standard descriptors were closed.
    pub closed: [bool; 3],
}

impl Beginning {
    /// What was noted.
    pub fn get() -> Self {
        Self {
            dispositions: [0, 1].map(|index: usize| {
                let is_ignored = IGNORED[index].load(Ordering::Relaxed);
                (CHANGED[index], if is_ignored { libc::SIG_IGN } else { libc::SIG_DFL })
            }),
            closed: [0, 1, 2].map(|fd: usize| CLOSED[fd].load(Ordering::Relaxed)),
        }
    }

    /// The environment, entry by entry in its order, also entries that are no `NAME=value`.
    pub fn environment() -> Vec<CString> {
        let mut entries = Vec::new();
        // SAFETY: the launcher never changes its environment, so `environ` is what libc set up.
        let mut at = unsafe { environ };
        // SAFETY: a null-terminated array of zero-terminated strings (environ(7)); null when there is none.
        while let Some(&entry) = unsafe { at.as_ref() } {
            if entry.is_null() {
                break;
            }
            // SAFETY: as above.
            entries.push(unsafe { CStr::from_ptr(entry) }.to_owned());
            at = at.wrapping_add(1);
        }
        entries
    }
}
