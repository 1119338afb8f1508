//! Starting the program: fork, undo what the launcher and the Rust runtime changed, exec.

use std::{
    ffi::{CStr, CString},
    fmt,
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, pipe2, read, write},
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

/// Starts `path` with these arguments and environment; `mask` is the signal mask it begins with. Call it while
/// the launcher has one thread.
pub fn spawn(
    path: &CStr,
    arguments: &[CString],
    environment: &[CString],
    mask: &SigSet,
) -> Result<Pid, SpawnError> {
    let beginning = Beginning::get();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(SpawnError::Fork)?;
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the process has one thread, so the child may go on as a copy; it only makes system calls.
    match unsafe { fork() }.map_err(SpawnError::Fork)? {
        ForkResult::Parent { child } => {
            drop(writer);
            let mut failure = [0; 4];
            match read(&reader, &mut failure) {
                Ok(4) => {
                    let _ = waitpid(child, None);
                    Err(SpawnError::Exec(Errno::from_raw(i32::from_ne_bytes(failure))))
                }
                _ => Ok(child),
            }
        }
        ForkResult::Child => {
            for (signal, action) in beginning.dispositions {
                // SAFETY: neither disposition runs code of ours.
                unsafe { libc::signal(signal, action) };
            }
            for (fd, closed) in (0..).zip(beginning.closed) {
                if closed && writer.as_raw_fd() != fd {
                    // SAFETY: the descriptor is the runtime's /dev/null; nobody in this process uses it.
                    unsafe { libc::close(fd) };
                }
            }
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
            // SAFETY: a path and two null-terminated arrays of strings, alive until exec replaces everything.
            unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
            let errno = Errno::last_raw();
            let _ = write(&writer, &errno.to_ne_bytes());
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(126) }
        }
    }
}
