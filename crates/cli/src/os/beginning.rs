//! What the launcher was started with, before the Rust runtime changed it.
//!
//! The runtime sets SIGPIPE to be ignored and opens /dev/null on standard descriptors that are closed. The
//! program must find both as they were, so they are noted by a function in `.init_array`, which runs first.

use std::{
    ffi::{CStr, CString},
    sync::atomic::{AtomicBool, Ordering},
};

static PIPE_SIGNAL_IGNORED: AtomicBool = AtomicBool::new(false);
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

extern "C" fn note_beginning() {
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: F_GETFD only asks.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Ordering::Relaxed);
    }
    // SAFETY: an all-zero sigaction is valid, and sigaction with no new action only asks.
    let ignored = unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    };
    PIPE_SIGNAL_IGNORED.store(ignored, Ordering::Relaxed);
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
    /// Whether SIGPIPE was ignored.
    pub pipe_signal_ignored: bool,
    /// Which of the standard descriptors were closed.
    pub closed: [bool; 3],
}

impl Beginning {
    /// What was noted.
    pub fn get() -> Self {
        Self {
            pipe_signal_ignored: PIPE_SIGNAL_IGNORED.load(Ordering::Relaxed),
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
