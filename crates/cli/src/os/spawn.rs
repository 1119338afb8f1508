//! Starting the program: a child, as of vfork, undoes what the launcher and the Rust runtime changed, and executes it.

use std::{
    ffi::{CStr, CString},
    fmt,
    sync::atomic::{AtomicI32, Ordering},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, clone},
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        wait::waitpid,
    },
    unistd::Pid,
};

use super::Beginning;

/// Why the program did not start.
#[derive(Debug)]
pub enum SpawnError {
    /// There is no child process.
    Fork(Errno),
    /// The kernel refused to execute the program.
    Exec(Errno),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fork(errno) => write!(f, "cannot make a process: {}", errno.desc()),
            Self::Exec(errno) => write!(f, "cannot execute it: {}", errno.desc()),
        }
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fork(errno) | Self::Exec(errno) => Some(errno),
        }
    }
}

/// What the child needs of stack until it is another program.
const STACK_BYTES: usize = 64 << 10;

/// Starts `path` with these arguments and environment; `mask` is the signal mask it begins with.
pub fn spawn(
    path: &CStr,
    arguments: &[CString],
    environment: &[CString],
    mask: &SigSet,
) -> Result<Pid, SpawnError> {
    let beginning = Beginning::get();
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let failure = AtomicI32::new(0);
    let child = || {
        for (signal, action) in beginning.dispositions {
            // SAFETY: neither disposition runs code of ours.
            unsafe { libc::signal(signal, action) };
        }
        for (fd, closed) in (0..).zip(beginning.closed) {
            if closed {
                // SAFETY: the descriptor is the runtime's /dev/null; nobody in this process uses it.
                unsafe { libc::close(fd) };
            }
        }
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
        // SAFETY: a path and two null-terminated arrays of strings, alive until exec replaces everything.
        unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        failure.store(Errno::last_raw(), Ordering::Relaxed);
        126
    };
    let mut stack = vec![0; STACK_BYTES];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the child has a stack of its own, and this thread waits until it is another program or has ended; it only
    // makes system calls, and runs no handler: the launcher has none but for its own faults.
    let pid = unsafe { clone(Box::new(child), &mut stack, flags, Some(libc::SIGCHLD)) };
    let pid = pid.map_err(SpawnError::Fork)?;
    match failure.into_inner() {
        0 => Ok(pid),
        errno => {
            let _ = waitpid(pid, None);
            Err(SpawnError::Exec(Errno::from_raw(errno)))
        }
    }
}
