//! Processes that are not our children: whether they live, and signals to them and to ourselves.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, setrlimit},
        signal::{SigHandler, SigSet, SigmaskHow, Signal, raise, sigprocmask},
    },
};

/// Tells whether a process has ended.
#[derive(Debug)]
pub enum PidWatch {
    /// A descriptor that becomes readable then.
    Told(OwnedFd),
    /// There is no descriptor left for this process: it is asked for again and again.
    Asked(u32),
}

impl PidWatch {
    /// Watches the process, or says that there is none (any more).
    pub fn open(pid: u32) -> Option<Self> {
        // SAFETY: pidfd_open(2) touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match RawFd::try_from(fd).ok().filter(|&fd| fd >= 0) {
            // SAFETY: the kernel just made this descriptor for us.
            Some(fd) => Some(Self::Told(unsafe { OwnedFd::from_raw_fd(fd) })),
            None => exists(pid).then_some(Self::Asked(pid)),
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Told(fd) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            }
            Self::Asked(pid) => !exists(*pid),
        }
    }

    /// The descriptor, if there is one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Told(fd) => Some(fd.as_fd()),
            Self::Asked(_) => None,
        }
    }
}

/// Whether there is such a process, be it one that nobody has waited for yet.
fn exists(pid: u32) -> bool {
    // SAFETY: kill(2) touches no memory; signal 0 is not sent.
    let answer = unsafe { libc::kill(pid.cast_signed(), 0) };
    answer == 0 || Errno::last() == Errno::EPERM
}

/// The session of a process, or of ourselves with zero.
pub fn session_of(pid: u32) -> Option<i32> {
    // SAFETY: getsid only asks.
    let session = unsafe { libc::getsid(pid.cast_signed()) };
    (session >= 0).then_some(session)
}

/// How long a process' first thread, or the calling thread with zero, has waited for a processor (proc(5), schedstat).
pub fn time_in_queue(pid: u32) -> Duration {
    let task = if pid == 0 { "thread-self".to_owned() } else { pid.to_string() };
    let text = std::fs::read_to_string(format!("/proc/{task}/schedstat")).unwrap_or_default();
    let ns = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(ns.unwrap_or_default())
}

/// Sends a signal by number, also real-time ones, which nix has no names for.
pub fn forward(pid: i32, signal: i32) {
    // SAFETY: kill(2) touches no memory. The pid is our child's, not yet reaped.
    unsafe { libc::kill(pid, signal) };
}

/// Dies by this signal, as the program did, without a core of our own.
pub fn die_by(signal: i32) {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    if let Ok(signal) = Signal::try_from(signal) {
        // SAFETY: SIG_DFL runs no code of ours.
        let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        let _ = raise(signal);
    } else {
        // SAFETY: as above; real-time signals have no name in nix.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        // SAFETY: raise touches no memory.
        unsafe { libc::raise(signal) };
    }
}

/// Whether the file has file capabilities.
pub fn capabilities_of(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: a zero-terminated path and name; with no buffer only the value's size is asked.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}
