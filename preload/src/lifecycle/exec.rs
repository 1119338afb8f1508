//! Becoming another program: stands for libc's `execve`, `execveat` and `fexecve`, where every exec function,
//! `posix_spawn`, `system` and `popen` arrive.
//!
//! The new program gets the preload and the channel when children are watched and the program can be, whatever
//! environment the target made for it; and neither when not, so that a program that the shim does not fit (32
//! bit, musl, built with a sanitizer) starts as it would natively.
//!
//! May run in a child of vfork, on a small stack, its thread pointer its parent's: what must outlive the call
//! lies in a buffer of that thread, which sleeps meanwhile.

use core::cell::UnsafeCell;

use memcheck_wire::{CHANNEL_VARIABLE, Notice, NoticeKind, Record};

use super::{libc_entries::answer, program_file};
use crate::{
    channel, heap, leaks,
    sys::{self, Errno, file::File, memory::Probe, target_syscall},
    thread,
};

const SYS_EXECVE: i64 = 59;
const SYS_EXECVEAT: i64 = 322;
const AT_FDCWD: i32 = -100;
const AT_EMPTY_PATH: i32 = 0x1000;

const PRELOAD: &[u8] = b"LD_PRELOAD=";
/// The longest path of a shim that is handed on.
const SHIM_MAX: usize = 1024;

/// `LD_PRELOAD`'s first word at the start: this very shim, and a zero byte.
struct ShimPath(UnsafeCell<([u8; SHIM_MAX], usize)>);
// SAFETY: written by `begin` in the only thread, before any exec is led here; read afterwards.
unsafe impl Sync for ShimPath {}
static SHIM: ShimPath = ShimPath(UnsafeCell::new(([0; SHIM_MAX], 0)));

/// Notes what new programs are handed. Call it once, before exec is led here.
pub fn begin() {
    let mut value = [0u8; SHIM_MAX];
    let Some(value) = channel::find_variable(b"LD_PRELOAD", &mut value) else { return };
    let len = value.iter().position(|byte| matches!(byte, 0 | b':' | b' ')).unwrap_or(0);
    // SAFETY: see `ShimPath`.
    let shim = unsafe { &mut *SHIM.0.get() };
    if len > 0 && len < SHIM_MAX {
        shim.0[..len].copy_from_slice(&value[..len]);
        shim.0[len] = 0;
        shim.1 = len;
    }
}

/// The shim's path without its zero byte; empty when it is not known.
fn shim_path() -> &'static [u8] {
    // SAFETY: see `ShimPath`.
    let shim = unsafe { &*SHIM.0.get() };
    &shim.0[..shim.1]
}

/// `execve`.
///
/// # Safety
/// The arguments are those of execve(2).
pub unsafe extern "C" fn execve(path: u64, arguments: u64, environment: u64) -> i32 {
    // SAFETY: the caller's word.
    let file = unsafe { File::open_at(AT_FDCWD, path) };
    // SAFETY: the caller's word.
    let environment = unsafe { environment_for(file.as_ref().ok(), path, arguments, environment) };
    drop(file);
    // SAFETY: the caller's word, and the environment is a null-terminated array of strings still.
    unsafe { become_program(SYS_EXECVE, [path, arguments, environment, 0, 0, 0]) }
}

/// `execveat`.
///
/// # Safety
/// The arguments are those of execveat(2).
pub unsafe extern "C" fn execveat(
    directory: i32,
    path: u64,
    arguments: u64,
    environment: u64,
    flags: i32,
) -> i32 {
    // SAFETY: the caller's word.
    let is_descriptor = flags & AT_EMPTY_PATH != 0 && unsafe { string(&Probe::default(), path) } == Some(&[]);
    let file = if is_descriptor {
        File::duplicate(directory)
    } else {
        // SAFETY: the caller's word.
        unsafe { File::open_at(directory, path) }
    };
    // SAFETY: the caller's word.
    let environment = unsafe { environment_for(file.as_ref().ok(), path, arguments, environment) };
    drop(file);
    let args = [directory as u64, path, arguments, environment, flags as u64, 0];
    // SAFETY: the caller's word, and the environment is a null-terminated array of strings still.
    unsafe { become_program(SYS_EXECVEAT, args) }
}

/// Makes the call, which returns only when it fails.
///
/// # Safety
/// The arguments are those of the call.
unsafe fn become_program(number: i64, args: [u64; 6]) -> i32 {
    let is_own = !channel::is_vfork_child();
    if is_own {
        leaks::before_exec();
        // What is in use now is dropped, and the report tells how much that was.
        heap::store_statistics();
    }
    // SAFETY: the caller's word.
    let result = unsafe { target_syscall(number, args) };
    if is_own {
        leaks::after_failed_exec();
    }
    answer(result) as i32
}

/// `fexecve`.
///
/// # Safety
/// The arguments are those of fexecve(3).
pub unsafe extern "C" fn fexecve(descriptor: i32, arguments: u64, environment: u64) -> i32 {
    if descriptor < 0 || arguments == 0 || environment == 0 {
        return answer(Err(Errno(22))) as i32;
    }
    // SAFETY: the caller's word; the path is empty, so the descriptor is the program (execveat(2)).
    unsafe { execveat(descriptor, c"".as_ptr() as u64, arguments, environment, AT_EMPTY_PATH) }
}

/// The environment for the program in `file`: the one given, or one made from it.
///
/// # Safety
/// `path` is a zero-terminated string; `arguments` and `environment` are null or null-terminated arrays of such
/// strings; or they cannot be read, and the kernel will say so.
unsafe fn environment_for(file: Option<&File>, path: u64, arguments: u64, environment: u64) -> u64 {
    if !channel::is_watched() || shim_path().is_empty() {
        return environment;
    }
    // SAFETY: the caller's word.
    let traces = channel::connect().trace_children && !unsafe { is_skipped(path, arguments) };
    // A program that cannot be opened cannot be judged; most often it does not exist and exec will say so.
    let fits = file.map_or(Ok(()), program_file::fits);
    let can_be_watched = fits.and_then(|()| {
        if shim_can_be_read() && channel::can_be_found() {
            return Ok(());
        }
        Err("a program from where memcheck's files are out of reach")
    });
    if let (true, Some(_), Err(why)) = (traces, file, can_be_watched) {
        channel::send(&Record::Notice(Notice { kind: NoticeKind::ExecUnwatched, text: why.as_bytes() }));
    }
    // SAFETY: the caller's word.
    unsafe { rebuild(environment, traces && can_be_watched.is_ok()) }.unwrap_or(environment)
}

/// Whether the user does not want such a program watched.
///
/// # Safety
/// As for `environment_for`.
unsafe fn is_skipped(path: u64, arguments: u64) -> bool {
    let probe = Probe::default();
    // SAFETY: the caller's word.
    let path = unsafe { string(&probe, path) }.unwrap_or_default();
    // SAFETY: the caller's word; never read past a null pointer.
    let argument = |index| unsafe { string(&probe, entry(&probe, arguments, index)?) };
    channel::skips(path, (0..).map_while(argument))
}

/// Whether the process may still read the shim: one that gave up its rights may not.
fn shim_can_be_read() -> bool {
    // SAFETY: see `ShimPath`.
    let shim = unsafe { &*SHIM.0.get() };
    File::open(&shim.0[..=shim.1], false).is_ok()
}

/// The string at `address`, without its zero byte, if it can be read.
///
/// # Safety
/// What can be read there is not changed meanwhile.
unsafe fn string<'a>(probe: &Probe, address: u64) -> Option<&'a [u8]> {
    let mut len = 0;
    loop {
        let at = address.checked_add(len)?;
        if !probe.is_readable(at) {
            return None;
        }
        // SAFETY: readable.
        if unsafe { (at as *const u8).read() } == 0 {
            break;
        }
        len += 1;
    }
    // SAFETY: these bytes were just read.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, len as usize) })
}

/// An entry of a null-terminated array of pointers, none of a null array, if it can be read. Zero ends the array.
///
/// # Safety
/// As for `string`; the entries before are not null.
unsafe fn entry(probe: &Probe, array: u64, index: usize) -> Option<u64> {
    if array == 0 {
        return Some(0);
    }
    let at = array.checked_add(index as u64 * 8)?;
    // An entry that is not aligned may reach into the next page.
    let is_readable = probe.is_readable(at) && probe.is_readable(at.checked_add(7)?);
    // SAFETY: readable.
    is_readable.then(|| unsafe { (at as *const u64).read_unaligned() })
}

/// Copies the environment with our two variables set or taken out; `None` when it is right as it is, cannot be read, or
/// there is no memory.
///
/// # Safety
/// As for `environment_for`.
unsafe fn rebuild(environment: u64, is_handed_on: bool) -> Option<u64> {
    let probe = Probe::default();
    // SAFETY: the caller's word; never read past a null pointer.
    let entry = |index| unsafe { entry(&probe, environment, index) };
    // SAFETY: the caller's word.
    let text = |address| unsafe { string(&probe, address) };
    let (shim, channel_path) = (shim_path(), channel::path());
    let (mut count, mut preload, mut channel_is_right) = (0, None, false);
    loop {
        let address = entry(count)?;
        if address == 0 {
            break;
        }
        let text = text(address)?;
        if let Some(value) = text.strip_prefix(PRELOAD) {
            preload.get_or_insert(value);
        } else if let Some(value) = channel_value(text) {
            channel_is_right = value == channel_path;
        }
        count += 1;
    }
    let has_shim = preload.is_some_and(|value| strip_shim(value, shim).is_some());
    if is_handed_on && has_shim && channel_is_right || !is_handed_on && !has_shim && !channel_is_right {
        return None;
    }
    let rest = preload.map(|value| strip_shim(value, shim).unwrap_or(value)).filter(|rest| !rest.is_empty());
    let strings = PRELOAD.len() + shim.len() + 1 + rest.map_or(0, <[u8]>::len) + 1;
    let channel_bytes = CHANNEL_VARIABLE.len() + 1 + channel_path.len() + 1;
    let buffer = thread_buffer((count + 3) * 8 + strings + channel_bytes)?;
    let mut text_at = buffer + (count as u64 + 3) * 8;
    let mut put_text = |parts: &[&[u8]]| {
        let start = text_at;
        for &byte in parts.iter().copied().flatten().chain(&[0]) {
            // SAFETY: within the buffer: the sizes of all parts were added up above.
            unsafe { (text_at as *mut u8).write(byte) };
            text_at += 1;
        }
        start
    };
    let mut used = 0;
    let mut put = |value: u64| {
        // SAFETY: at most count + 3 entries are put.
        unsafe { (buffer as *mut u64).add(used).write(value) };
        used += 1;
    };
    let (mut preload_is_put, separator): (bool, &[u8]) = (false, if rest.is_some() { b":" } else { b"" });
    for index in 0..count {
        let address = entry(index)?;
        let text = text(address)?;
        if channel_value(text).is_some() {
            continue;
        }
        if !text.starts_with(PRELOAD) {
            put(address);
        } else if !preload_is_put {
            preload_is_put = true;
            match (is_handed_on, rest) {
                (true, rest) => put(put_text(&[PRELOAD, shim, separator, rest.unwrap_or_default()])),
                (false, Some(rest)) => put(put_text(&[PRELOAD, rest])),
                (false, None) => {}
            }
        }
    }
    if is_handed_on {
        if !preload_is_put {
            put(put_text(&[PRELOAD, shim]));
        }
        put(put_text(&[CHANNEL_VARIABLE.as_bytes(), b"=", channel_path]));
    }
    put(0);
    Some(buffer)
}

fn channel_value(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(CHANNEL_VARIABLE.as_bytes())?.strip_prefix(b"=")
}

/// What follows the shim in a value of LD_PRELOAD that begins with it.
fn strip_shim<'a>(value: &'a [u8], shim: &[u8]) -> Option<&'a [u8]> {
    let rest = value.strip_prefix(shim)?;
    match rest.first() {
        None => Some(rest),
        Some(b':' | b' ') => Some(&rest[1..]),
        Some(_) => None,
    }
}

/// At least `bytes` that stay the thread's.
fn thread_buffer(bytes: usize) -> Option<u64> {
    let block = thread::current();
    if block.exec_buffer_bytes.get() < bytes {
        let rounded = bytes.checked_next_multiple_of(1 << 16)?;
        let fresh = sys::map_anonymous(rounded)?;
        sys::file::unmap(block.exec_buffer.get(), block.exec_buffer_bytes.get());
        block.exec_buffer.set(fresh as u64);
        block.exec_buffer_bytes.set(rounded);
    }
    Some(block.exec_buffer.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shim_is_taken_from_the_front_of_a_preload_only() {
        assert_eq!(strip_shim(b"/s.so", b"/s.so"), Some(&b""[..]));
        assert_eq!(strip_shim(b"/s.so:/b.so", b"/s.so"), Some(&b"/b.so"[..]));
        assert_eq!(strip_shim(b"/s.so2:/b.so", b"/s.so"), None);
        assert_eq!(strip_shim(b"/b.so:/s.so", b"/s.so"), None);
    }

    #[test]
    fn only_the_channels_own_variable_is_its() {
        assert_eq!(channel_value(b"MEMCHECK_CHANNEL=x"), Some(&b"x"[..]));
        assert_eq!(channel_value(b"MEMCHECK_CHANNELS=x"), None);
        assert_eq!(channel_value(b"A=MEMCHECK_CHANNEL=x"), None);
    }
}
