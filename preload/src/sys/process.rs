//! Who we are, and how to end.

use super::{abort, file::File, syscall};

const SYS_GETPID: i64 = 39;
const SYS_GETEUID: i64 = 107;
const SYS_GETPPID: i64 = 110;
const SYS_GETTID: i64 = 186;
const SYS_EXIT_GROUP: i64 = 231;

fn id_of(number: i64) -> u32 {
    // SAFETY: the getters of ids touch no memory.
    unsafe { syscall(number, [0; 6]) }.unwrap_or(0) as u32
}

/// The process' id.
pub fn pid() -> u32 {
    id_of(SYS_GETPID)
}

/// The user with whose rights it runs.
pub fn effective_user() -> u32 {
    id_of(SYS_GETEUID)
}

/// The parent's id.
pub fn parent_pid() -> u32 {
    id_of(SYS_GETPPID)
}

/// The calling thread's id, asked of the kernel.
pub fn tid() -> u32 {
    id_of(SYS_GETTID)
}

/// Ends the process at once with this status.
pub fn exit_group(status: i32) -> ! {
    // SAFETY: nothing runs afterwards.
    let _ = unsafe { syscall(SYS_EXIT_GROUP, [status as u64, 0, 0, 0, 0, 0]) };
    abort()
}

/// Whether this process has a thread with this id.
pub fn is_thread(tid: u32) -> bool {
    const SYS_TGKILL: i64 = 234;
    // SAFETY: signal 0 is sent to nobody; only the thread's existence is checked.
    unsafe { syscall(SYS_TGKILL, [pid().into(), tid.into(), 0, 0, 0, 0]) }.is_ok()
}

/// Writes the path of the program's file to `into` and returns its length; zero when it cannot be had.
pub fn program_path_in(into: &mut [u8]) -> usize {
    link_target_in(c"/proc/self/exe", into)
}

/// Whether an emulator (QEMU) runs the program in a process of its own: it answers for some of `/proc` as if the
/// program were the process, but not for all.
pub fn is_emulated() -> bool {
    let (mut told, mut kernels) = ([0; 256], [0; 256]);
    let told_len = program_path_in(&mut told);
    let kernels_len = link_target_in(c"/proc/thread-self/exe", &mut kernels);
    kernels_len > 0 && told[..told_len] != kernels[..kernels_len]
}

fn link_target_in(path: &core::ffi::CStr, into: &mut [u8]) -> usize {
    const SYS_READLINK: i64 = 89;
    let args = [path.as_ptr() as u64, into.as_mut_ptr() as u64, into.len() as u64, 0, 0, 0];
    // SAFETY: the path ends with a zero; the kernel writes to `into` only.
    unsafe { syscall(SYS_READLINK, args) }.unwrap_or(0) as usize
}

/// Whether a debugger traces the process, or any other program by ptrace.
pub fn is_traced() -> bool {
    let mut status = [0; 1024];
    let len = File::open(b"/proc/self/status\0", false).and_then(|file| file.read(&mut status)).unwrap_or(0);
    tracer_in(&status[..len]).is_some_and(|pid| pid != 0)
}

/// The tracer's id, of /proc/PID/status.
fn tracer_in(status: &[u8]) -> Option<u32> {
    let pid = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:\t"))?;
    core::str::from_utf8(pid).ok()?.parse().ok()
}

/// Whether the page at `addr` is mapped.
pub fn is_mapped(addr: u64) -> bool {
    const SYS_MINCORE: i64 = 27;
    let mut resident = 0u8;
    let args = [addr / 4096 * 4096, 1, core::ptr::from_mut(&mut resident) as u64, 0, 0, 0];
    // SAFETY: mincore writes one byte for one page, to `resident`.
    unsafe { syscall(SYS_MINCORE, args) }.is_ok()
}

/// Lets other threads run.
pub fn yield_now() {
    const SYS_SCHED_YIELD: i64 = 24;
    // SAFETY: touches no memory.
    let _ = unsafe { syscall(SYS_SCHED_YIELD, [0; 6]) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn tracer_is_found_in_the_kernels_text() {
        let status = b"Name:\tp\nPPid:\t7\nTracerPid:\t12\nUid:\t0\t0\n";
        assert_eq!(super::tracer_in(status), Some(12));
        assert_eq!(super::tracer_in(b"Name:\tTracerPid:\t12\n"), None);
    }

    #[test]
    fn program_on_the_processor_is_not_emulated() {
        assert!(!super::is_emulated());
    }
}
