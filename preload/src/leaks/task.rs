//! The threads of this process as the kernel lists them (proc(5), /proc/self/task). A process may always look at
//! its own threads there, whatever forbids it to trace.
//!
//! Allocates nothing; may run anywhere.

use crate::sys::file::File;

const DIRECTORY: &[u8] = b"/proc/self/task/";

/// Shows the id of every thread; false when the list cannot be read.
pub fn for_each_thread(mut visit: impl FnMut(u32)) -> bool {
    let Ok(directory) = File::open(b"/proc/self/task\0", false) else { return false };
    directory.for_each_entry(|name| {
        if let Some(tid) = decimal(name) {
            visit(tid);
        }
    })
}

/// Whether the thread is gone, or only its body is left (a main thread that called pthread_exit).
pub fn has_ended(tid: u32) -> bool {
    let mut buffer = [0u8; 512];
    match read(tid, b"/stat\0", &mut buffer) {
        // The name in parentheses may hold anything; the state follows the last parenthesis.
        Some(text) => {
            let after = text.iter().rposition(|&byte| byte == b')').unwrap_or(0);
            matches!(text.get(after + 2), Some(b'Z' | b'X' | b'x'))
        }
        None => true,
    }
}

/// The stack pointer of a thread that sleeps in the kernel with one of these signals blocked, or where no signal
/// wakes it.
pub fn find_sleeping(tid: u32, mask: u64) -> Option<u64> {
    let mut buffer = [0u8; 2048];
    let status = read(tid, b"/status\0", &mut buffer)?;
    let field = |name: &[u8]| {
        let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_ascii())
    };
    let sleeps_deeply = field(b"State:")?.first() == Some(&b'D');
    if !sleeps_deeply && hexadecimal(field(b"SigBlk:")?)? & mask == 0 {
        return None;
    }
    let mut buffer = [0u8; 256];
    // `number arguments… sp pc`, `-1 sp pc`, or `running`.
    let words = read(tid, b"/syscall\0", &mut buffer)?.trim_ascii();
    let mut from_end = words.rsplit(|&byte| byte == b' ');
    from_end.next()?;
    hexadecimal(from_end.next()?.strip_prefix(b"0x")?)
}

/// What a file of a thread holds, cut to the buffer.
fn read<'a>(tid: u32, file: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = [0u8; 64];
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        path[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    put(DIRECTORY);
    let mut digits = [0u8; 10];
    let mut rest = tid;
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put(&digits[first..]);
    put(file);
    let read = File::open(&path[..len], false).ok()?.read(buffer).ok()?;
    Some(&buffer[..read])
}

fn decimal(digits: &[u8]) -> Option<u32> {
    (!digits.is_empty()).then_some(())?;
    digits
        .iter()
        .try_fold(0u32, |value, &digit| value.checked_mul(10)?.checked_add((digit as char).to_digit(10)?))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    (!digits.is_empty()).then_some(())?;
    digits.iter().try_fold(0u64, |value, &digit| {
        Some(value.checked_mul(16)? | u64::from((digit as char).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;

    #[test]
    fn a_thread_finds_itself_awake() {
        let own = process::tid();
        let mut found = 0;
        assert!(for_each_thread(|tid| found += u32::from(tid == own)));
        assert_eq!(found, 1);
        assert!(!has_ended(own));
        assert!(has_ended(0));
        assert_eq!(find_sleeping(own, u64::MAX), None);
    }
}
